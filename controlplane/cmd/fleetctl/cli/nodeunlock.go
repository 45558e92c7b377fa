package cli

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) nodeUnlock() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unlock NODE", Short: "End a node's lock, once the other machine is stopped", Args: exact("NODE"), ValidArgsFunction: first(a.completeNodes),
		Long: "End a node's lock. A node is locked when its identity is used by two machines, say after a disk was copied: both serve on\n" +
			"with what they have, and get nothing new. Stop the machine that is too many first, and remove its data directory: if both\n" +
			"go on, the node is locked again. The machine that renewed last goes on; if that was the wrong one, revoke the node and\n" +
			"enrol the right one anew.",
		Example: "  fleetctl node unlock n1 --reason 'the copy in rack 7 is off and wiped'",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := a.session()
		if err != nil {
			return err
		}
		raw, err := s.Raw(cmd.Context(), http.MethodPost, apiPath("nodes", args[0], "unlock"), nil, nil)
		if err != nil {
			return err
		}
		return answer(a, raw, func(n fleet.Node) error {
			return a.say("node %s is not locked any more: it is answered again at its next attempt", n.ID)
		})
	}
	return cmd
}
