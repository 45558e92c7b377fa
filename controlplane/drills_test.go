package controlplane_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// rehearse runs a restore drill to its end.
func (c *cluster) rehearse() fleet.Drill {
	c.t.Helper()
	d := c.rehearsal()
	c.await("the drill ended", func() bool {
		d = c.drill(d.ID)
		return d.State != fleet.DrillRunning
	})
	return d
}

// rehearsal begins a restore drill.
func (c *cluster) rehearsal() fleet.Drill {
	c.t.Helper()
	d, err := client.Post[fleet.Drill](c.t.Context(), c.client(), "/v1/drills", client.DrillCreate{Kind: fleet.DrillRestore})
	if err != nil {
		c.t.Fatal(err)
	}
	return d
}

// drill is how a drill stands.
func (c *cluster) drill(id string) fleet.Drill {
	c.t.Helper()
	var d fleet.Drill
	c.await("the drill is shown", func() bool {
		var err error
		d, err = client.Get[fleet.Drill](c.t.Context(), c.client(), "/v1/drills/"+id, nil)
		return err == nil
	})
	return d
}

func TestARestoreDrillBringsTheNewestBackupBackOnTheSide(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two members")
	}
	t.Parallel()
	c := start(t, 1)
	c.addTenant("acme")
	d := c.rehearse()
	if d.State != fleet.DrillPassed || !strings.Contains(d.Target, "no backups are scheduled") || !strings.Contains(d.Detail, "state hash") || d.EndedAt.IsZero() {
		t.Errorf("without a schedule: %+v", d)
	}
	c.members[0].stop(t)
	first, dir := c.members[0].config, filepath.Join(t.TempDir(), "backups")
	first.Backup = controlplane.Backup{To: "file://" + dir, Every: time.Hour, Keep: 3}
	left := filepath.Join(first.DataDir, "drill-left") // by a leader that was killed
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	c.members = nil
	c.run(first)
	s := c.backups("a backup is made", func(s fleet.BackupStatus) bool { return s.Last != nil })
	c.addTenant("late")
	before := c.lead()
	d = c.rehearse()
	if d.State != fleet.DrillPassed || d.Target != s.Last.Name || d.RTO <= 0 || d.Lost != 0 {
		t.Errorf("%+v", d)
	}
	after := c.lead()
	if !c.has("late") || after.Incarnation != before.Incarnation || len(after.Members) != 1 || after.Leader != "m1" {
		t.Errorf("the drill touched the cluster: %+v", after)
	}
	file := filepath.Join(dir, s.Last.Name)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if d = c.rehearse(); d.State != fleet.DrillFailed || d.Target != s.Last.Name || d.Detail == "" || strings.Contains(d.Detail, "as in the backup") {
		t.Errorf("with a damaged backup: %+v", d)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if d = c.rehearse(); d.State != fleet.DrillFailed || !strings.Contains(d.Detail, "there is no backup") {
		t.Errorf("without a backup: %+v", d)
	}
	if err := syscall.Mkfifo(file, 0o600); err != nil { // from which nobody ever reads anything
		t.Fatal(err)
	}
	broken := c.rehearsal()
	c.await("the drill was taken up", func() bool { return c.drill(broken.ID).Detail != "" })
	c.members[0].stop(t) // as one would end whose memory the drill used up
	if err := os.WriteFile(file+".whole", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".whole", file); err != nil {
		t.Fatal(err)
	}
	c.members = nil
	c.run(first)
	c.await("a drill that ended its leader is not begun anew", func() bool { return c.drill(broken.ID).State == fleet.DrillFailed })
	if d = c.drill(broken.ID); !strings.Contains(d.Detail, "m1") || !strings.Contains(d.Detail, "run it again") || d.EndedAt.IsZero() {
		t.Errorf("a drill that was broken off: %+v", d)
	}
	if rest, err := filepath.Glob(filepath.Join(first.DataDir, "drill-*")); err != nil || len(rest) != 0 {
		t.Errorf("drills left %v, %v", rest, err)
	}
}
