package cli

import (
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) regionCommand() *cobra.Command {
	return group("region", "Regions, and whether their nodes are in DNS", "", a.regionList(), a.regionShow(), a.regionWithdraw(), a.regionRestore())
}

func (a *app) regionList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the regions", Example: "  fleetctl region list", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return show(cmd.Context(), a, s, listing{path: apiPath("regions")}, []string{"REGION", "NODES", "HEALTHY", "IN DNS", "STATE", "SINCE", "REASON"}, func(r client.RegionStatus) []any {
				if r.Withdrawn == nil {
					return []any{r.Name, r.Nodes, r.Healthy, r.InDNS, "in dns", "", ""}
				}
				return []any{r.Name, r.Nodes, r.Healthy, r.InDNS, regionState(r.Region), a.age(r.Withdrawn.At), r.Withdrawn.Reason}
			})
		},
	}
}

func regionState(r fleet.Region) string {
	switch {
	case r.Withdrawn == nil:
		return "in dns"
	case r.Withdrawn.Forced:
		return "withdrawn by force"
	}
	return "withdrawn"
}

func (a *app) regionShow() *cobra.Command {
	return &cobra.Command{
		Use: "show REGION", Short: "Show a region", Example: "  fleetctl region show eu", Args: exact("REGION"), ValidArgsFunction: first(a.completeEdgeRegions),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, apiPath("regions", args[0]), func(r client.RegionStatus) error {
				t := newTable(a.Out)
				t.row("region", r.Name)
				t.row("state", regionState(r.Region))
				if r.Withdrawn != nil {
					t.row("since", a.age(r.Withdrawn.At))
					t.row("reason", r.Withdrawn.Reason)
				}
				t.row("nodes", r.Nodes)
				t.row("healthy", r.Healthy)
				t.row("in dns", r.InDNS)
				return t.flush()
			})
		},
	}
}

func (a *app) regionWithdraw() *cobra.Command {
	cmd := &cobra.Command{
		Use: "withdraw REGION", Short: "Take a region's nodes out of DNS", Args: exact("REGION"), ValidArgsFunction: first(a.completeEdgeRegions),
		Long: "Take a region's nodes out of DNS: new visitors go to other regions, those who are there finish. Resolvers remember the old\n" +
			"addresses for the zone's TTL, 20 s. It is refused where no healthy node would be left for a group, or for hosts that are bound\n" +
			"to regions; --force does it all the same, and these hosts have no address until the region is restored.",
		Example: "  fleetctl region withdraw eu --reason 'their data centre has no power'\n  fleetctl region withdraw eu --force --reason 'seized'",
	}
	force := cmd.Flags().Bool("force", false, "also where nothing else is left: such hosts go dark")
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *force {
			if err := a.confirm(cmd, *yes, "taking hosts off the net with region", args[0]); err != nil {
				return err
			}
		}
		return a.changeRegion(cmd, args[0], "withdraw", client.RegionWithdraw{Force: *force}, "region %s is withdrawn: its nodes are out of DNS, and resolvers forget them within 20 s; back with: fleetctl region restore %[1]s")
	}
	return cmd
}

func (a *app) regionRestore() *cobra.Command {
	return &cobra.Command{
		Use: "restore REGION", Short: "Let a region's nodes back into DNS", Args: exact("REGION"), ValidArgsFunction: first(a.completeEdgeRegions),
		Long:    "Let a region's nodes back into DNS. Each must have been healthy for the bake time (dns.bake) first.",
		Example: "  fleetctl region restore eu --reason 'power is back'",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeRegion(cmd, args[0], "restore", nil, "region %s is restored: its healthy nodes are back in DNS after their bake")
		},
	}
}

func (a *app) changeRegion(cmd *cobra.Command, name, verb string, body any, done string) error {
	s, err := a.session()
	if err != nil {
		return err
	}
	raw, err := s.Raw(cmd.Context(), http.MethodPost, apiPath("regions", name, verb), nil, body)
	if err != nil {
		return err
	}
	return answer(a, raw, func(r fleet.Region) error { return a.say(done, r.Name) })
}

// nodeWeight is the command node weight.
func (a *app) nodeWeight() *cobra.Command {
	return &cobra.Command{
		Use: "weight NODE WEIGHT", Short: "Set a node's share of DNS answers", Args: exact("NODE", "WEIGHT"), ValidArgsFunction: first(a.completeNodes),
		Long:    "Set a node's share of DNS answers, from 1 to 100; 0 is the usual 10. A node of weight 5 beside nodes of 10 is in every second answer.",
		Example: "  fleetctl node weight n1 5 --reason 'half the size'",
		RunE: func(cmd *cobra.Command, args []string) error {
			weight, err := strconv.Atoi(args[1])
			if err != nil || weight < 0 || weight > fleet.MaxNodeWeight {
				return usagef(cmd, "%q is not a weight from 0 to %d", args[1], fleet.MaxNodeWeight)
			}
			s, err := a.session()
			if err != nil {
				return err
			}
			edit := func(fleet.Node) any { return client.NodeUpdate{Weight: &weight} }
			return change(cmd.Context(), a, s, apiPath("nodes", args[0]), edit, func(n fleet.Node) error {
				return a.say("node %s has the weight %d in DNS", n.ID, n.Spec.Share())
			})
		},
	}
}
