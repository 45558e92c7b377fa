package cli

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) groupCommand() *cobra.Command {
	return group("group", "Node groups", "", a.groupAdd(), a.groupList(), a.groupShow(), a.groupKeys(), a.groupRekey())
}

func (a *app) groupAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a node group", Args: exact("NAME"), Example: "  fleetctl group add eu --form hybrid",
	}
	var spec fleet.GroupSpec
	cmd.Flags().StringVar((*string)(&spec.Form), "form", string(fleet.SecurityEdge), "who owns its nodes: security_edge, hybrid or on_premise")
	completeFlag(cmd, "form", words(fleet.Forms...))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		g := fleet.Group{Name: fleet.GroupName(args[0]), Spec: spec}
		if err := g.Validate(); err != nil {
			return err
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		raw, err := s.Raw(cmd.Context(), http.MethodPut, apiPath("groups", args[0]), nil, spec, client.IfNoneMatch())
		if err != nil {
			return err
		}
		return answer(a, raw, func(g fleet.Group) error {
			return a.say("group %s is made; a token for its first node: fleetctl node join-token --group %[1]s", g.Name)
		})
	}
	return cmd
}

func (a *app) groupList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the node groups", Example: "  fleetctl group list", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return show(cmd.Context(), a, s, listing{path: apiPath("groups")}, []string{"GROUP", "FORM", "AGE"}, func(g fleet.Group) []any {
				return []any{g.Name, g.Spec.Form, a.age(g.CreatedAt)}
			})
		},
	}
}

func (a *app) groupShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a node group", Example: "  fleetctl group show default", Args: exact("NAME"),
		ValidArgsFunction: first(a.completeGroups),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, apiPath("groups", args[0]), func(g fleet.Group) error {
				t := newTable(a.Out)
				t.row("group", g.Name)
				t.row("form", g.Spec.Form)
				t.row("made", a.age(g.CreatedAt))
				t.row("revision", g.Revision)
				return t.flush()
			})
		},
	}
}
