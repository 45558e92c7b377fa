package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) nodeCommand() *cobra.Command {
	return group("node", "Edge nodes", "", a.nodeList(), a.nodeShow(), a.nodeCordon(true), a.nodeCordon(false), a.nodeWeight(), a.nodeUnlock(), a.nodeRevoke(), a.nodeJoinToken())
}

func (a *app) nodeList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the nodes", Example: "  fleetctl node list", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			header := []string{"NODE", "GROUP", "REGION", "STATE", "SINCE", "SERVING", "SOFTWARE", "ADDRESSES"}
			return show(cmd.Context(), a, s, listing{path: apiPath("nodes"), cursor: "cursor"}, header, func(n fleet.Node) []any {
				o := n.Observed
				return []any{n.ID, n.Spec.Group, n.Spec.Region, nodeState(n), a.age(o.Since), yesNo(o.Serving), o.Software, addresses(n)}
			})
		},
	}
}

func nodeState(n fleet.Node) string {
	state := string(n.Observed.State)
	if n.Lock != nil {
		state = "locked"
	}
	if !n.Identity.RevokedAt.IsZero() {
		return "revoked"
	}
	if n.Spec.Cordoned {
		state += ", cordoned"
	}
	return state
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func addresses(n fleet.Node) string {
	texts := make([]string, len(n.Spec.Addresses))
	for i, addr := range n.Spec.Addresses {
		texts[i] = addr.String()
	}
	return list(texts)
}

func (a *app) nodeShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show NODE", Short: "Show a node and what it runs", Example: "  fleetctl node show n1\n  fleetctl node show n1 --watch", Args: exact("NODE"),
		ValidArgsFunction: first(a.completeNodes),
	}
	watch := watchFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := a.session()
		if err != nil {
			return err
		}
		if *watch {
			return watchObject(cmd.Context(), a, s, apiPath("nodes", args[0]), a.showNode)
		}
		return get(cmd.Context(), a, s, apiPath("nodes", args[0]), a.showNode)
	}
	return cmd
}

func (a *app) showNode(n fleet.Node) error {
	o := n.Observed
	t := newTable(a.Out)
	t.row("node", n.ID)
	t.row("group", n.Spec.Group)
	t.row("region", n.Spec.Region)
	t.row("state", nodeState(n))
	if n.Lock != nil {
		t.row("locked", a.age(n.Lock.At)+": "+n.Lock.Reason)
	}
	t.row("since", a.age(o.Since))
	t.row("serving", yesNo(o.Serving))
	t.row("software", o.Software)
	t.row("addresses", addresses(n))
	if n.Spec.Weight != 0 {
		t.row("weight in DNS", n.Spec.Weight)
	}
	t.row("certificate ends", a.age(n.Identity.NotAfter))
	if o.ClockSkew != "" {
		t.row("clock is off by", o.ClockSkew)
	}
	t.row("enrolled", a.age(n.CreatedAt))
	if err := t.flush(); err != nil || len(o.Heads) == 0 {
		return err
	}
	if err := a.say(""); err != nil {
		return err
	}
	t = newTable(a.Out, "KIND", "GENERATION", "STATE", "SINCE", "REASON")
	for _, h := range o.Heads {
		state := "applied"
		if h.Reason != "" {
			state = "refused"
		}
		t.row(h.Kind, h.Version.Generation, state, a.age(h.AppliedAt), h.Reason)
	}
	return t.flush()
}

// nodeCordon is the command cordon, or uncordon.
func (a *app) nodeCordon(cordon bool) *cobra.Command {
	name, short, done := "cordon", "Take a node out of DNS and give it no new work", "node %s is cordoned: it leaves DNS, and goes on serving who still comes"
	if !cordon {
		name, short, done = "uncordon", "Bring a cordoned node back", "node %s is not cordoned any more"
	}
	return &cobra.Command{
		Use: name + " NODE", Short: short, Example: "  fleetctl node " + name + " n1", Args: exact("NODE"), ValidArgsFunction: first(a.completeNodes),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			edit := func(fleet.Node) any { return client.NodeUpdate{Cordoned: &cordon} }
			return change(cmd.Context(), a, s, apiPath("nodes", args[0]), edit, func(n fleet.Node) error {
				return a.say(done, n.ID)
			})
		},
	}
}

func (a *app) nodeRevoke() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke NODE", Short: "End a node's identity for ever", Args: exact("NODE"), ValidArgsFunction: first(a.completeNodes),
		Long:    "End a node's identity for ever: it leaves DNS, gets nothing any more, and never comes back under this name.",
		Example: "  fleetctl node revoke n1 --yes",
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.confirm(cmd, *yes, "revoking node", args[0]); err != nil {
			return err
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		return a.remove(cmd.Context(), s, apiPath("nodes", args[0]), nil, fmt.Sprintf("node %s is revoked", args[0]))
	}
	return cmd
}

func (a *app) nodeJoinToken() *cobra.Command {
	cmd := &cobra.Command{
		Use: "join-token", Short: "Make a one-time token that admits one node", Args: exact(),
		Long:    "Make a one-time token that admits one node. It is printed this one time, alone on the standard output.",
		Example: "  fleetctl node join-token --group default --region eu --ttl 5m > join-token",
	}
	var groupName, region string
	cmd.Flags().StringVar(&groupName, "group", "", "node group (default \"default\")")
	cmd.Flags().StringVar(&region, "region", "", "region (default \"default\")")
	ttl := ttlFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		in := client.JoinTokenCreate{Kind: fleet.JoinNode, Group: fleet.GroupName(groupName), Region: fleet.RegionName(region)}
		return a.joinToken(cmd, in, *ttl, "give it to the new node's supervisor")
	}
	return cmd
}
