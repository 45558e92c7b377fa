package controlplane

import (
	"context"
	"io"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
)

func (b Backup) place() backup.Place {
	return backup.Place{To: b.To, Region: b.Region, CredentialsFile: b.CredentialsFile, CAFile: b.CAFile}
}

func (b Backup) validate() error {
	if b.Every < time.Minute || b.Every > 7*24*time.Hour {
		return fleet.Invalid("backup.every", "%s is not between 1m and 168h", b.Every)
	}
	if b.Keep < 1 || b.Keep > 10000 {
		return fleet.Invalid("backup.keep", "%d is not between 1 and 10000", b.Keep)
	}
	if b.To == "" {
		return nil
	}
	return b.place().Validate()
}

// snapshot writes a snapshot of this member's state to a file below its data directory.
func (m *member) snapshot(w io.Writer) (snapshot.Envelope, error) {
	return backup.Write(&frugal{w: w, dir: m.c.DataDir}, m.source())
}

// scheduledSnapshot is snapshot while nobody waits.
func (m *member) scheduledSnapshot(ctx context.Context, w io.Writer) (snapshot.Envelope, error) {
	return backup.WriteGently(ctx, &frugal{w: w, dir: m.c.DataDir}, m.source())
}

func (m *member) source() backup.Source {
	return backup.Source{View: m.state.Read(), Term: m.node.Stats().Term, Member: m.c.Member, Keys: m.keys, Now: time.Now()}
}

// frugal writes only while the log keeps the room that it needs: a backup must not be what fills the disk.
type frugal struct {
	w   io.Writer
	dir string
	// left may be written before it looks again.
	left int
}

// frugalStep is how much is written between two looks.
const frugalStep = 4 << 20

// Write implements io.Writer.
func (f *frugal) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		if err := room(f.dir, uint64(frugalStep+len(p))); err != nil {
			return 0, err
		}
		f.left = frugalStep
	}
	return f.w.Write(p)
}

// room refuses to write n bytes where the log would not have enough left.
func room(dir string, n uint64) error {
	left, err := free(dir)
	if err == nil && left < noFree+n {
		err = fleet.NewError(fleet.ErrUnavailable, "data_dir", "only %d MiB are free at %s, and %d MiB are needed beside the %d MiB that the log keeps: free some", left>>20, dir, (n+1<<20-1)>>20, noFree>>20)
	}
	return err
}

// openBackups makes the leader's loop of scheduled backups; there is none without a schedule or a KEK.
func (m *member) openBackups(context.Context) error {
	if m.c.Backup.To == "" || m.keys == nil {
		return nil
	}
	target, err := m.c.Backup.place().Open()
	if err != nil {
		return err
	}
	m.backups = backup.NewLoop(backup.LoopOptions{
		Target: target, To: m.c.Backup.To, Cluster: m.trust.Cluster, Member: m.c.Member, Every: m.c.Backup.Every, Keep: m.c.Backup.Keep,
		Take: m.scheduledSnapshot, Scratch: m.c.DataDir, Telemetry: m.tel, Now: utcNow,
	})
	return nil
}

// backupStatus is how scheduled backups stand on this member.
func (m *member) backupStatus() fleet.BackupStatus {
	switch {
	case m.backups != nil:
		return m.backups.Status()
	case m.c.Backup.To == "":
		return fleet.BackupStatus{Member: m.c.Member, Kept: []fleet.Backup{}}
	}
	return fleet.BackupStatus{Member: m.c.Member, To: m.c.Backup.To, Kept: []fleet.Backup{}, Error: "member " + string(m.c.Member) + " leads and makes no backups: it has no key-encryption key; copy it from another member out of band and set kek_file"}
}
