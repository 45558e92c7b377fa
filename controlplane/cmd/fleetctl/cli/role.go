package cli

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) roleCommand() *cobra.Command {
	return group("role", "Built-in and custom roles", "", a.roleList(), a.roleShow(), a.roleCreate(), a.roleDelete())
}

func (a *app) roleList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the roles with their permissions", Example: "  fleetctl role list", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, s, err := a.scoped(cmd, "roles")
			if err != nil {
				return err
			}
			return show(cmd.Context(), a, s, listing{path: path}, []string{"ROLE", "BUILT-IN", "PERMISSIONS", "COMMENT"}, func(r client.Role) []any {
				return []any{r.Name, yesNo(r.Builtin), join(r.Permissions), r.Comment}
			})
		},
	}
}

func (a *app) roleShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a role", Example: "  fleetctl role show analyst", Args: exact("NAME"),
		ValidArgsFunction: first(a.completeRoles),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, s, err := a.scoped(cmd, "roles")
			if err != nil {
				return err
			}
			var raw []byte
			var page client.Page[client.Role]
			if err := s.read(cmd.Context(), path, nil, &raw, &page); err != nil {
				return err
			}
			i := slices.IndexFunc(page.Items, func(r client.Role) bool { return string(r.Name) == args[0] })
			if i < 0 {
				return fleet.NewError(fleet.ErrNotFound, "role", "there is no role %s: 'fleetctl role list' shows those that there are", args[0])
			}
			if r := page.Items[i]; !a.json() {
				t := newTable(a.Out)
				t.row("role", r.Name)
				t.row("built-in", yesNo(r.Builtin))
				t.row("comment", r.Comment)
				t.row("permissions", join(r.Permissions))
				return t.flush()
			}
			return a.printValue(page.Items[i])
		},
	}
}

func (a *app) roleCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a role of the tenant, or without --tenant of the vendor", Args: exact("NAME"),
		Example: "  fleetctl role create responder --permission events:read --permission rules:write",
	}
	var in client.RoleCreate
	permissions := permissionsFlag(cmd, "permission", "permission that the role gives; may be repeated")
	cmd.Flags().StringVar(&in.Comment, "comment", "", "what the role is for")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in.Name, in.Permissions = fleet.RoleName(args[0]), permissions()
		if len(in.Permissions) == 0 {
			return usagef(cmd, "--permission is missing")
		}
		path, s, err := a.scoped(cmd, "roles")
		if err != nil {
			return err
		}
		raw, err := s.Raw(cmd.Context(), http.MethodPost, path, nil, in)
		if err != nil {
			return err
		}
		return answer(a, raw, func(r client.Role) error { return a.say("role %s is made", r.Name) })
	}
	return cmd
}

func permissionsFlag(cmd *cobra.Command, name, usage string) func() []fleet.Permission {
	given := cmd.Flags().StringSlice(name, nil, usage)
	completeFlag(cmd, name, words(fleet.Permissions()...))
	return func() (out []fleet.Permission) {
		for _, p := range *given {
			out = append(out, fleet.Permission(p))
		}
		return out
	}
}

func (a *app) roleDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a custom role that nobody has", Example: "  fleetctl role delete responder", Args: exact("NAME"),
		ValidArgsFunction: first(a.completeRoles),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, s, err := a.scoped(cmd, "roles", args[0])
			if err != nil {
				return err
			}
			return a.remove(cmd.Context(), s, path, nil, "role "+args[0]+" is deleted")
		},
	}
}

func (a *app) accessCommand() *cobra.Command {
	return group("access", "What holds for everybody's access", "", a.accessShow(), a.accessSet())
}

func (a *app) showAccess(p fleet.AccessPolicy) error {
	t := newTable(a.Out)
	t.row("four eyes", yesNo(p.FourEyes))
	t.row("longest life of a person's token", strconv.Itoa(p.MaxTokenDays)+"d")
	return t.flush()
}

func (a *app) accessShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the access policy", Example: "  fleetctl access show", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, apiPath("access"), a.showAccess)
		},
	}
}

func (a *app) accessSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set", Short: "Change the access policy", Args: exact(),
		Long: `Change the access policy. With --four-eyes, acts that can harm the whole fleet (removing a member, giving
administrators' permissions, changing this policy) wait until another person approves them. It needs two
administrators, and takes two to switch off again.`,
		Example: "  fleetctl access set --four-eyes --reason 'two administrators from today'\n  fleetctl access set --max-token-days 30",
	}
	four := cmd.Flags().Bool("four-eyes", false, "risky acts wait for a second person; --four-eyes=false ends it")
	days := cmd.Flags().Int("max-token-days", 0, "longest life of a person's token, in days")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var in client.AccessUpdate
		if cmd.Flags().Changed("four-eyes") {
			in.FourEyes = four
		}
		if cmd.Flags().Changed("max-token-days") {
			in.MaxTokenDays = days
		}
		if in.FourEyes == nil && in.MaxTokenDays == nil {
			return usagef(cmd, "nothing to change: give --four-eyes or --max-token-days")
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		raw, err := s.Raw(cmd.Context(), http.MethodPatch, apiPath("access"), nil, in, client.IfMatchAny())
		if err != nil {
			return err
		}
		return answer(a, raw, a.showAccess)
	}
	return cmd
}
