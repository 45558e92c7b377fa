package cli

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) groupKeys() *cobra.Command {
	return &cobra.Command{
		Use: "keys NAME", Short: "Show which epoch a group's keys are in, and what waits for a new key", Example: "  fleetctl group keys default", Args: exact("NAME"),
		Long: "Show which epoch a group's keys are in. A new one begins every 24 hours, and at once when a node is revoked: what a node\n" +
			"was given before opens nothing that is delivered later. After 'group rekey' it also shows how many certificates still\n" +
			"have the private key of before.",
		ValidArgsFunction: first(a.completeGroups),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, apiPath("groups", args[0], "keys"), a.showGroupKeys)
		},
	}
}

func (a *app) groupRekey() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rekey NAME", Short: "Replace a group's keys and its tenants' private keys, after a node was stolen", Args: exact("NAME"),
		Long: "Begin a new epoch of a group's keys, and renew every certificate of its tenants with a new private key, as fast as the\n" +
			"certificate authority's limits allow; the old certificates serve until then. Each old one is revoked at its authority\n" +
			"(key compromise) as soon as its successor is served: 'fleetctl cert show HOST' has how that stands. Uploaded ones are\n" +
			"neither renewed nor revoked: their owners are told to upload others. Revoke the node first: 'fleetctl node revoke'.\n" +
			"With --epoch-only certificates keep their private keys: that is what happens every day anyway.",
		Example:           "  fleetctl group rekey default --yes --reason 'node n7 was stolen from rack 3'",
		ValidArgsFunction: first(a.completeGroups),
	}
	yes := yesFlag(cmd)
	var in client.GroupRekey
	cmd.Flags().BoolVar(&in.EpochOnly, "epoch-only", false, "leave the private keys of certificates as they are")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !in.EpochOnly {
			if err := a.confirm(cmd, *yes, "replacing all private keys of group", args[0]); err != nil {
				return err
			}
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, apiPath("groups", args[0], "rekey"), in, func(e fleet.GroupEpoch) error {
			next := "certificates keep their private keys"
			if !in.EpochOnly {
				next = "its certificates are renewed with new private keys; see how many wait with 'fleetctl group keys " + string(e.Group) + "'"
			}
			return a.say("the keys of group %s are in epoch %d; %s", e.Group, e.Number, next)
		})
	}
	return cmd
}

func (a *app) showGroupKeys(k client.GroupKeys) error {
	t := newTable(a.Out)
	t.row("group", k.Group)
	t.row("epoch", k.Number)
	cause := string(k.Cause)
	if k.Node != "" {
		cause += " (node " + string(k.Node) + ")"
	}
	t.row("cause", cause)
	t.row("since", a.age(k.Since))
	t.row("next", a.age(k.Next))
	if !k.RekeyedAt.IsZero() {
		t.row("rekeyed", a.age(k.RekeyedAt))
		t.row("certificates with an old key", k.Waiting)
	}
	return t.flush()
}
