package cli

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) tenantCommand() *cobra.Command {
	return group("tenant", "Customers", "", a.tenantAdd(), a.tenantList(), a.tenantShow(), a.tenantUpdate(), a.tenantDelete())
}

func (a *app) tenantAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add ID", Short: "Make a tenant", Args: exact("ID"),
		Example: "  fleetctl tenant add acme --name 'Acme Ltd'\n  fleetctl tenant add lab --allow-origin 10.1.0.0/16",
	}
	var in client.TenantCreate
	f := cmd.Flags()
	f.StringVar(&in.Name, "name", "", "name for people")
	f.StringVar((*string)(&in.Form), "form", "", "security_edge (default), hybrid or on_premise")
	f.StringVar((*string)(&in.Group), "group", "", "node group that serves the tenant (default \"default\")")
	allow := f.StringSlice("allow-origin", nil, "private address range that the tenant's origins may have; repeatable")
	completeFlag(cmd, "form", words(fleet.Forms...))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in.ID = fleet.TenantID(args[0])
		if err := fleet.ValidateID("tenant", in.ID); err != nil {
			return err
		}
		var err error
		if in.AllowedOrigins, err = prefixes(*allow); err != nil {
			return err
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, apiPath("tenants"), in, func(t fleet.Tenant) error {
			return a.say("tenant %s is made; a token for it: fleetctl token create --tenant %s", t.ID, t.ID)
		})
	}
	return cmd
}

// completeFlag registers a completion; it fails for a flag that does not exist only.
func completeFlag(cmd *cobra.Command, flag string, fn cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, fn); err != nil {
		panic(err)
	}
}

func prefixes(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fleet.Invalid("allow-origin", "%q is not an address range such as 10.0.0.0/8", text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func (a *app) tenantList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the tenants", Example: "  fleetctl tenant list", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			l := listing{path: apiPath("tenants"), cursor: "cursor"}
			return show(cmd.Context(), a, s, l, []string{"TENANT", "NAME", "FORM", "GROUP", "AGE"}, func(t fleet.Tenant) []any {
				return []any{t.ID, t.Spec.Name, t.Spec.Form, t.Spec.Group, a.age(t.CreatedAt)}
			})
		},
	}
}

func (a *app) tenantShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [ID]", Short: "Show a tenant, by default the token's own", Example: "  fleetctl tenant show acme", Args: atMost("ID"),
		ValidArgsFunction: first(a.completeTenants),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				a.flags.tenant = args[0]
			}
			s, err := a.tenantSession(cmd)
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, s.path(), a.showTenant)
		},
	}
}

func (a *app) showTenant(t fleet.Tenant) error {
	out := newTable(a.Out)
	out.row("tenant", t.ID)
	out.row("name", t.Spec.Name)
	out.row("form", t.Spec.Form)
	out.row("group", t.Spec.Group)
	for _, p := range t.Spec.AllowedOrigins {
		out.row("allowed origin", p)
	}
	out.row("made", a.age(t.CreatedAt))
	out.row("changed", a.age(t.UpdatedAt))
	out.row("revision", t.Revision)
	return out.flush()
}

func (a *app) tenantUpdate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "update ID", Short: "Change a tenant", Args: exact("ID"), ValidArgsFunction: first(a.completeTenants),
		Example: "  fleetctl tenant update acme --allow-origin 10.1.0.0/16\n  fleetctl tenant update acme --clear-allowed-origins",
	}
	f := cmd.Flags()
	name := f.String("name", "", "name for people")
	allow := f.StringSlice("allow-origin", nil, "private address range to allow as well; repeatable")
	forget := f.Bool("clear-allowed-origins", false, "forget the ranges that are allowed now")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		add, err := prefixes(*allow)
		if err != nil {
			return err
		}
		var in client.TenantUpdate
		if cmd.Flags().Changed("name") {
			in.Name = name
		}
		if in.Name == nil && len(add) == 0 && !*forget {
			return usagef(cmd, "nothing to change: give --name, --allow-origin or --clear-allowed-origins")
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		path := apiPath("tenants", args[0])
		edit := func(t fleet.Tenant) any {
			if len(add) > 0 || *forget {
				in.AllowedOrigins = allowed(t.Spec.AllowedOrigins, add, *forget)
			}
			return in
		}
		return change(cmd.Context(), a, s, path, edit, func(t fleet.Tenant) error {
			return a.say("tenant %s is changed", t.ID)
		})
	}
	return cmd
}

// allowed adds ranges to those that are there, or to none.
func allowed(there, add []netip.Prefix, forget bool) *[]netip.Prefix {
	ranges := []netip.Prefix{}
	if !forget {
		ranges = append(ranges, there...)
	}
	for _, p := range add {
		if !slices.Contains(ranges, p) {
			ranges = append(ranges, p)
		}
	}
	return &ranges
}

func (a *app) tenantDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete ID", Short: "Delete a tenant that has no hosts", Args: exact("ID"), ValidArgsFunction: first(a.completeTenants),
		Example: "  fleetctl tenant delete acme --yes",
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := a.session()
		if err != nil {
			return err
		}
		path := apiPath("tenants", args[0])
		// Read before the question: what is deleted is what was there when it was asked.
		before, err := s.Raw(cmd.Context(), http.MethodGet, path, nil, nil)
		if err != nil {
			return err
		}
		if err := a.confirm(cmd, *yes, "deleting tenant", args[0]); err != nil {
			return err
		}
		return a.removeRead(cmd.Context(), s, path, nil, before, fmt.Sprintf("tenant %s is deleted", args[0]))
	}
	return cmd
}
