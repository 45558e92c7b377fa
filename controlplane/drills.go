package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// crash ends this process as a power cut would: nothing is handed over, closed or flushed.
func crash() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // it does not return
}

// crasher is what the API may call; nil unless this member takes part in drills.
func (m *member) crasher() func() {
	if !m.c.Drills {
		return nil
	}
	return crash
}

const (
	// rehearsalTimeout bounds one restore drill.
	rehearsalTimeout = 30 * time.Minute
	rehearsalPrefix  = "drill-"
	scratchPrefix    = "backup-"
	uploadPrefix     = "upload-" // of package api
	// nowhere is the address of a cluster of one, which nobody connects to.
	nowhere = "127.0.0.1:1"
)

// tidy removes what was under way when this member was killed: copies of the state, the keys of a drill.
func (c Config) tidy() error {
	for _, prefix := range []string{rehearsalPrefix, scratchPrefix, uploadPrefix} {
		left, _ := filepath.Glob(c.path(prefix + "*")) // the only error is a bad pattern
		for _, path := range left {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("remove what was left behind: %w", err)
			}
		}
	}
	return nil
}

// drillLoop carries out restore drills on the leader: the others are carried out by whoever asked for them. One that a
// leader did not finish has failed: were it begun anew, a drill that uses up memory or disk would end one leader after
// the other.
func (m *member) drillLoop(ctx context.Context) error {
	for _, d := range m.restoreDrills() {
		if d.Detail == "" {
			continue // it was not begun
		}
		d.Detail += "; it was broken off: that member ended, or leads no more. Look at its log and memory, then run it again"
		d.State, d.EndedAt = fleet.DrillFailed, utcNow()
		if _, err := m.record(ctx, d); err != nil {
			return err
		}
	}
	for {
		ws := m.state.Watch(state.Drills)
		for _, d := range m.restoreDrills() {
			if err := m.restoreDrill(ctx, d); err != nil {
				return err
			}
		}
		if err := ws.WatchCtx(ctx); err != nil {
			return nil //nolint:nilerr // leadership ended
		}
	}
}

// restoreDrills are those that have not ended.
func (m *member) restoreDrills() []fleet.Drill {
	return slices.DeleteFunc(m.state.Read().Drills(), func(d fleet.Drill) bool {
		return d.Kind != fleet.DrillRestore || d.State != fleet.DrillRunning
	})
}

// record writes how a drill stands, unless somebody else changed it.
func (m *member) record(ctx context.Context, d fleet.Drill) (fleet.Drill, error) {
	answer, err := m.raft.Propose(ctx, leader.Header("drill", utcNow()), command.DrillPut{Put: command.Put{IfRevision: d.Revision}, Drill: d})
	if now, ok := answer.(fleet.Drill); ok {
		d = now
	}
	return d, err
}

// restoreDrill says that it begins, rehearses, and records what was measured.
func (m *member) restoreDrill(ctx context.Context, d fleet.Drill) error {
	began := time.Now()
	d.Detail = fmt.Sprintf("member %s restores the newest backup", m.c.Member)
	d, err := m.record(ctx, d)
	if err != nil {
		return changed(err)
	}
	limited, cancel := context.WithTimeout(ctx, rehearsalTimeout)
	defer cancel()
	result, err := m.rehearse(limited, began)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the next leader says that it was broken off
	}
	d.RTO, d.EndedAt = time.Since(began).Milliseconds(), utcNow()
	if d.Target, d.RPO, d.Detail, d.State = result.from, result.rpo.Milliseconds(), result.detail, fleet.DrillPassed; err != nil {
		text := err.Error()
		d.State, d.Detail = fleet.DrillFailed, text[:min(len(text), 500)]
	}
	m.tel.Logger.InfoContext(ctx, "restore drill ended", "drill", d.ID, "state", d.State, "rto_ms", d.RTO, "rpo_ms", d.RPO)
	_, err = m.record(ctx, d)
	return changed(err)
}

// changed is err, but for somebody else having changed the drill.
func changed(err error) error {
	if errors.Is(err, fleet.ErrConflict) || errors.Is(err, fleet.ErrChanged) {
		return nil
	}
	return err
}

type rehearsal struct {
	// from names the backup, rpo is how old it was when the drill began: what would be lost.
	from   string
	rpo    time.Duration
	detail string
}

// rehearse brings the newest backup back as a cluster of one, in a directory of its own that is thrown away, and makes
// it acknowledge a write. Every byte of the backup is verified on the way, and the state has to be the same before and
// after the new cluster read it from its own disk. The state is in memory twice meanwhile.
func (m *member) rehearse(ctx context.Context, began time.Time) (out rehearsal, err error) {
	if err := m.keys.Check(); err != nil {
		return out, err
	}
	out.from = "no backup"
	file, err := m.openNewest(ctx, &out)
	if err != nil {
		return out, err
	}
	loaded, err := backup.Load(file, m.keys.Sealer)
	if err = errors.Join(err, file.Close()); err != nil {
		return out, err
	}
	out.rpo = max(0, began.Sub(loaded.Envelope.Time))
	if err := room(m.c.DataDir, noFree+2*uint64(loaded.Envelope.Bytes)); err != nil { //nolint:gosec // not negative: its log, and the state twice
		return out, err
	}
	dir, err := os.MkdirTemp(m.c.DataDir, rehearsalPrefix+"*")
	if err != nil {
		return out, fmt.Errorf("make a directory for the drill: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c := m.c
	c.DataDir, c.Advertise, c.RaftListen = filepath.Join(dir, "data"), "127.0.0.1", nowhere
	if _, err := c.requireEmpty("drill"); err != nil { // which makes it
		return out, err
	}
	var made FromSnapshot
	if err := c.rebuild(&made, loaded, Rebirth{Now: time.Now()}); err != nil {
		return out, fmt.Errorf("restore %s: %w", out.from, err)
	}
	want, err := loaded.State.Read().Hash()
	if err != nil {
		return out, err
	}
	loaded.State = nil
	out.detail = fmt.Sprintf("index %d; state hash %s, as in the backup and after the restored member started", made.Envelope.Index, made.Envelope.StateHash)
	return out, c.comesUp(ctx, want)
}

// openNewest opens the newest backup, or a snapshot made now where none are scheduled.
func (m *member) openNewest(ctx context.Context, out *rehearsal) (io.ReadCloser, error) {
	if m.backups != nil {
		b, r, err := m.backups.Newest(ctx)
		if err == nil {
			out.from = b.Name
		}
		return r, err
	}
	out.from = "a snapshot made for the drill: no backups are scheduled"
	f, err := os.CreateTemp(m.c.DataDir, scratchPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("make snapshot: %w", err)
	}
	err = os.Remove(f.Name()) // it goes with its last user
	if err == nil {
		_, err = m.snapshot(f)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make snapshot: %w", err), f.Close())
	}
	return f, nil
}

// comesUp starts the restored member of c from its disk, compares its state, and makes it acknowledge a write.
func (c Config) comesUp(ctx context.Context, want string) (err error) {
	ms, err := c.membership()
	if err != nil {
		return err
	}
	t, err := c.trust(ms)
	if err != nil {
		return err
	}
	store, allow := state.New(), mtls.MembersOnly(t.Cluster)
	node, err := consensus.Open(consensus.Options{
		Dir: c.path("raft"), Member: c.Member, Bind: "127.0.0.1:0", Advertise: nowhere, FSM: fsm.New(store), Telemetry: observability.Discard(),
		ServerTLS: mtls.ServerTLS(t.source, t.memberCA, allow), ClientTLS: t.raftTLS(allow),
		ElectionTimeout: c.RaftTimeout, HeartbeatTimeout: c.RaftTimeout,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close(context.WithoutCancel(ctx))) }()
	ctx, cancel := context.WithTimeout(ctx, rehearsalTimeout)
	defer cancel()
	done, stop := context.WithCancel(ctx)
	defer stop()
	err = node.RunLeader(done, func(ctx context.Context) error {
		defer stop()
		got, err := store.Read().Hash()
		if err != nil {
			return err
		}
		if got != want {
			return fleet.NewError(fleet.ErrCorrupt, "snapshot", "the restored cluster has the state hash %.12s, not %.12s, which it was restored with", got, want)
		}
		mark := fleet.Drill{ID: "drill-restored", Kind: fleet.DrillRestore, State: fleet.DrillPassed}
		_, err = proposer{node: node}.Propose(ctx, leader.Header("drill", utcNow()), command.DrillPut{Put: command.Put{Create: true}, Drill: mark})
		return err
	})
	if err == nil && ctx.Err() != nil {
		err = fleet.NewError(fleet.ErrTimeout, "", "the restored cluster did not come up within %s", rehearsalTimeout)
	}
	return err
}
