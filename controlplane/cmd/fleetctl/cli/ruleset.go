package cli

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) rulesetCommand() *cobra.Command {
	return group("ruleset", "All rules of a tenant as its nodes run them", "", a.rulesetStatus())
}

func (a *app) rulesetStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show which nodes run what was committed last; exit 0 when all do", Args: exact(),
		Long:    "Show which nodes run what was committed last, and how long it took from the commit to their swap. Exit 0 when all nodes run it, else 1; with --wait 5 when the time is over.",
		Example: "  fleetctl ruleset status --wait\n  fleetctl ruleset status --kind config",
	}
	kind := cmd.Flags().String("kind", string(fleet.HeadRuleset), "config, ruleset or certs")
	waitFlag := cmd.Flags().Bool("wait", false, "wait until every node runs it")
	timeout := cmd.Flags().Duration("timeout", time.Minute, "how long to wait")
	completeFlag(cmd, "kind", words(fleet.HeadKinds...))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		var raw []byte
		var r client.RulesetStatus
		look := func(ctx context.Context) (bool, string, error) {
			r = client.RulesetStatus{} // a field that an answer leaves out must not be that of the one before
			err := s.read(ctx, s.path("ruleset", "status"), url.Values{"kind": {*kind}}, &raw, &r)
			return err == nil && live(r), receipt(r), err
		}
		if *waitFlag {
			err = a.wait(cmd.Context(), *timeout, "not live on every node", look)
		} else {
			_, _, err = look(cmd.Context())
		}
		if err != nil {
			return err
		}
		if err := answer(a, raw, a.showReceipt); err != nil {
			return err
		}
		if !live(r) {
			return exitCode(fleet.ExitFailure)
		}
		return nil
	}
	return cmd
}

// live reports whether every node runs it; nothing is live without nodes.
func live(r client.RulesetStatus) bool { return r.Nodes > 0 && r.Live == r.Nodes }

// receipt is the convergence receipt in one line.
func receipt(r client.RulesetStatus) string {
	line := fmt.Sprintf("generation %d live on %d/%d nodes", r.Version.Generation, r.Live, r.Nodes)
	if r.Live > 0 {
		line += fmt.Sprintf(", p50 %.1f s, p99 %.1f s", r.P50, r.P99)
	}
	return line
}

func (a *app) showReceipt(r client.RulesetStatus) error {
	if err := a.say("%s", receipt(r)); err != nil || len(r.Waiting) == 0 {
		return err
	}
	t := newTable(a.Out, "WAITING", "STATE", "REASON")
	for _, w := range r.Waiting {
		t.row(w.Node, w.State, w.Reason)
	}
	return t.flush()
}
