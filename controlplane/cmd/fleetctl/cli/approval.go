package cli

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) approvalCommand() *cobra.Command {
	return group("approval", "Risky acts that wait for a second person", "", a.approvalList(), a.approvalShow(),
		a.approvalDecide("approve", "Approve what another person asked for, and have it carried out"),
		a.approvalDecide("deny", "Deny what another person asked for, or take back your own request"))
}

// state is the state of an approval as it is now: one that nobody decided in time is expired.
func (a *app) state(ap fleet.Approval) string {
	if ap.State == fleet.ApprovalPending && !ap.Open(a.Now()) {
		return "expired"
	}
	return string(ap.State)
}

func (a *app) approvalList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List what waits for a second person, or did", Example: "  fleetctl approval list", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return show(cmd.Context(), a, s, listing{path: apiPath("approvals")}, []string{"APPROVAL", "STATE", "OPERATION", "REQUESTER", "APPROVER", "REASON", "AGE"}, func(ap fleet.Approval) []any {
				return []any{ap.ID, a.state(ap), ap.Operation, ap.Requester, ap.Approver, ap.Reason, a.age(ap.CreatedAt)}
			})
		},
	}
}

func (a *app) showApproval(ap fleet.Approval) error {
	t := newTable(a.Out)
	t.row("approval", ap.ID)
	t.row("state", a.state(ap))
	t.row("request", ap.Method+" "+ap.Path)
	t.row("body", ap.Body)
	t.row("requester", ap.Requester)
	t.row("reason", ap.Reason)
	t.row("ends", a.age(ap.ExpiresAt))
	t.row("approver", ap.Approver)
	t.row("detail", ap.Detail)
	return t.flush()
}

func (a *app) approvalShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a request with its body, as it will be carried out", Example: "  fleetctl approval show ap-0123456789abcdef", Args: exact("ID"),
		ValidArgsFunction: first(a.completeApprovals),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, apiPath("approvals", args[0]), a.showApproval)
		},
	}
}

func (a *app) approvalDecide(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID", Short: short, Example: "  fleetctl approval " + verb + " ap-0123456789abcdef", Args: exact("ID"),
		ValidArgsFunction: first(a.completeApprovals),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			var opts []client.Option
			if verb == "approve" { // which carries out a request that no key of this one stands for
				opts = append(opts, client.Unrepeatable())
			}
			return call(cmd.Context(), a, s, http.MethodPost, apiPath("approvals", args[0], verb), nil, func(ap fleet.Approval) error {
				if ap.State == fleet.ApprovalFailed {
					a.note("it was approved and failed: %s", ap.Detail)
					if err := a.showApproval(ap); err != nil {
						return err
					}
					return exitCode(fleet.ExitFailure)
				}
				if ap.State == fleet.ApprovalApproved {
					return a.say("approval %s is approved; %s runs the command again with the same file, which carries it out", ap.ID, ap.Requester)
				}
				return a.say("approval %s is %s", ap.ID, ap.State)
			}, opts...)
		},
	}
}
