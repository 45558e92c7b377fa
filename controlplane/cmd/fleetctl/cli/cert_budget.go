package cli

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) certBudget() *cobra.Command {
	return &cobra.Command{
		Use: "budget", Short: "Show what may still be asked of the certificate authorities", Args: exact(),
		Long: "Show each certificate authority, whether it answers, and how much of its limits is used: orders of the account within three\n" +
			"hours, certificates of a registered domain within a week, failed validations of a name within an hour. An order that would go\n" +
			"beyond waits; renewals come first.",
		Example: "  fleetctl cert budget\n  fleetctl cert budget -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, apiPath("certs", "budget"), a.showBudget)
		},
	}
}

func (a *app) showBudget(b client.CertBudget) error {
	t := newTable(a.Out, "AUTHORITY", "STATE", "BUDGET", "OF", "USED", "LIMIT", "FREE")
	for _, ca := range b.Authorities {
		name := fleet.AuthorityName(ca.Directory)
		t.row(name, ca.State, "orders, 3 h", "the account", ca.Orders.Used, budgetLimit(ca.Orders), instant(ca.Orders.Free))
		for _, d := range ca.Domains {
			t.row(name, ca.State, "certificates, 7 d", d.Name, d.Used, budgetLimit(d.Budget), instant(d.Free))
		}
		for _, n := range ca.Names {
			t.row(name, ca.State, "failures, 1 h", n.Name, n.Used, budgetLimit(n.Budget), instant(n.Free))
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, ca := range b.Authorities {
		if ca.State == "ok" {
			continue
		}
		if err := a.say("%s is %s, asked next at %s: %s", fleet.AuthorityName(ca.Directory), ca.State, instant(ca.Until), ca.Problem); err != nil {
			return err
		}
	}
	return a.say("%d orders wait for a budget or a limit", b.Waiting)
}

func budgetLimit(b client.Budget) string {
	if b.Limit == 0 {
		return "none"
	}
	return strconv.Itoa(b.Limit)
}

// instant is a time for people, and a dash where there is none.
func instant(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
