package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) clusterBackups() *cobra.Command {
	cmd := &cobra.Command{
		Use: "backups", Short: "Show how scheduled backups stand; exit 1 if they need attention", Args: exact(),
		Long: `Show where the leader keeps backups, when it made the last one, why the latest attempt failed, and what is kept.
Exit 1 if the last one is older than two intervals, or if there is none and the attempt failed.

Backups are made where the configuration of the members has backup.to. Each needs the key-encryption key to be of use.`,
		Example: "  fleetctl cluster backups\n  fleetctl cluster backups -o json",
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.session()
		if err != nil {
			return err
		}
		var raw []byte
		var b fleet.BackupStatus
		if err := s.read(cmd.Context(), apiPath("cluster", "backups"), nil, &raw, &b); err != nil {
			return err
		}
		if err := answer(a, raw, a.showBackups); err != nil {
			return err
		}
		if b.Stale() != "" {
			return exitCode(fleet.ExitFailure)
		}
		return nil
	}
	return cmd
}

func (a *app) showBackups(b fleet.BackupStatus) error {
	if b.To == "" {
		return a.say("no backups are scheduled: set backup.to in the configuration of every member")
	}
	t := newTable(a.Out)
	t.row("kept at", b.To)
	t.row("made by", b.Member)
	t.row("every", time.Duration(b.EverySeconds)*time.Second)
	t.row("kept", fmt.Sprintf("%d of at most %d", len(b.Kept), b.Keep))
	if b.Last == nil {
		t.row("last", "none")
	} else {
		t.row("last", b.Last.Name)
		t.row("age", time.Duration(b.AgeSeconds)*time.Second)
	}
	if b.Error != "" {
		t.row("error", b.Error)
	}
	return t.flush()
}
