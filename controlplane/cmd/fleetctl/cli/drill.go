package cli

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

const drillLong = `A drill rehearses a disaster on the running fleet and measures it. RTO is the longest time without an acknowledged write
from the loss on, or how long the restore took; RPO is what was lost of what had been acknowledged.

  leader-loss   the leader's process is killed with SIGKILL. Members need drills: true, and a service manager that starts
                them again.
  region-loss   the processes of all members of --region, or of --members, are killed at one time.
  restore       the leader brings the newest backup back as a cluster of one on the side, compares the state's hash, has it
                acknowledge a write, and throws it away. Nothing else is touched.

A loss is refused unless a majority of the voters that answers remains. --lose-majority says that the loss of the quorum is
what is rehearsed: then no write is acknowledged until members that were killed are back, and the RTO is how long that takes.

Each result is recorded: see 'fleetctl drill list'. Exit 1 if the drill failed.`

func (a *app) drillCommand() *cobra.Command {
	return group("drill", "Rehearse disasters and measure RTO and RPO", drillLong, a.drillRun(), a.drillList())
}

func (a *app) drillRun() *cobra.Command {
	cmd := &cobra.Command{
		Use: "run KIND", Short: "Run a drill: leader-loss, region-loss or restore", Long: drillLong, Args: exact("KIND"),
		Example:           "  fleetctl drill run restore\n  fleetctl drill run leader-loss\n  fleetctl drill run region-loss --region eu-west\n  fleetctl drill run region-loss --members m2,m3",
		ValidArgsFunction: first(words(fleet.DrillKinds...)),
	}
	var t toll
	cmd.Flags().StringVar((*string)(&t.region), "region", "", "the region that is lost, with all its members")
	cmd.Flags().StringSliceVar(&t.named, "members", nil, "the members that are lost, where they name no region in their configuration")
	cmd.Flags().BoolVar(&t.majority, "lose-majority", false, "the loss of the quorum is the point of the drill")
	completeFlag(cmd, "region", a.completeRegions)
	completeFlag(cmd, "members", a.completeMembers)
	timeout := cmd.Flags().Duration("timeout", 2*time.Minute, "how long the fleet may take to come back, or the restore to end; at most 10m")
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		kind := fleet.DrillKind(args[0])
		switch {
		case !slices.Contains(fleet.DrillKinds, kind):
			return usagef(cmd, "%q is not a drill: use one of %s", args[0], list(fleet.DrillKinds))
		case t.region != "" && len(t.named) > 0:
			return usagef(cmd, "give --region or --members, not both")
		case (kind == fleet.DrillRegionLoss) != (t.region != "" || len(t.named) > 0):
			return usagef(cmd, "--region or --members says what is lost: region-loss needs one of them, other drills take neither")
		case t.majority && kind == fleet.DrillRestore:
			return usagef(cmd, "a restore loses no members: leave out --lose-majority")
		case *timeout <= 0 || *timeout > maxDrill:
			return usagef(cmd, "--timeout %s: give 1s to %s", *timeout, maxDrill)
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		var d fleet.Drill
		if kind == fleet.DrillRestore {
			d, err = restoreDrill(ctx, s, *timeout)
		} else {
			d, err = a.loseMembers(ctx, cmd, s, kind, t, *yes)
		}
		if err != nil {
			return err
		}
		if err := a.showDrill(d); err != nil {
			return err
		}
		if d.State != fleet.DrillPassed {
			return exitCode(fleet.ExitFailure)
		}
		return nil
	}
	return cmd
}

// maxDrill is the longest time that members let a drill kill them.
const maxDrill = 10 * time.Minute

func (a *app) showDrill(d fleet.Drill) error {
	if a.json() {
		return a.printValue(d)
	}
	t := newTable(a.Out)
	t.row("drill", d.ID)
	t.row("kind", d.Kind)
	t.row("target", d.Target)
	t.row("result", d.State)
	t.row("RTO", time.Duration(d.RTO)*time.Millisecond)
	t.row("RPO", time.Duration(d.RPO)*time.Millisecond)
	if d.Kind != fleet.DrillRestore {
		t.row("acknowledged writes", d.Acknowledged)
		t.row("of which lost", d.Lost)
	}
	t.row("detail", d.Detail)
	return t.flush()
}

// restoreDrill has the leader restore the newest backup on the side, and waits for what it measured.
func restoreDrill(ctx context.Context, s *session, timeout time.Duration) (fleet.Drill, error) {
	d, err := client.Post[fleet.Drill](ctx, s.Client, apiPath("drills"), client.DrillCreate{Kind: fleet.DrillRestore})
	for err == nil && d.State == fleet.DrillRunning {
		if !pause(ctx, 250*time.Millisecond) {
			return d, fleet.NewError(fleet.ErrTimeout, "timeout", "drill %s did not end within %s: the leader goes on with it, see 'fleetctl drill list'", d.ID, timeout)
		}
		var now fleet.Drill
		if now, err = client.Get[fleet.Drill](ctx, s.Client, apiPath("drills", d.ID), nil); errors.Is(err, fleet.ErrUnavailable) || ctx.Err() != nil {
			now, err = d, nil // the next leader says what became of it
		}
		d = now
	}
	return d, err
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (a *app) drillList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the drills and what they measured, the oldest first", Example: "  fleetctl drill list", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return show(cmd.Context(), a, s, listing{path: apiPath("drills")}, []string{"DRILL", "KIND", "TARGET", "RESULT", "RTO", "RPO", "WRITES", "LOST", "BEGAN"}, func(d fleet.Drill) []any {
				return []any{d.ID, d.Kind, d.Target, d.State, time.Duration(d.RTO) * time.Millisecond, time.Duration(d.RPO) * time.Millisecond, d.Acknowledged, d.Lost, a.age(d.CreatedAt)}
			})
		},
	}
}
