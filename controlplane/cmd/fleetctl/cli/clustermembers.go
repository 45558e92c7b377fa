package cli

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

func (a *app) clusterTransferLeader() *cobra.Command {
	cmd := &cobra.Command{
		Use: "transfer-leader", Short: "Hand leadership to another voter", Args: exact(),
		Long: "Hand leadership to another voter, before work on the host of the leader say. Requests that arrive meanwhile wait for\n" +
			"the new leader, some ten milliseconds; none fails. A member that is stopped hands over by itself.",
		Example: "  fleetctl cluster transfer-leader --reason 'kernel upgrade'\n  fleetctl cluster transfer-leader --to m2",
	}
	in := client.LeaderTransfer{}
	cmd.Flags().StringVar((*string)(&in.To), "to", "", "the voter that is to lead; default: the one that is furthest")
	reasonFlag(cmd, &in.Reason)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.session()
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, apiPath("cluster", "transfer-leader"), in, func(t client.LeaderTransferred) error {
			if t.From == t.Leader {
				return a.say("member %s leads already", t.Leader)
			}
			return a.say("member %s handed over, member %s leads", t.From, t.Leader)
		}, client.Unrepeatable())
	}
	return cmd
}

// reasonFlag adds --reason, which the audit log keeps.
func reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "why, for the audit log")
}
