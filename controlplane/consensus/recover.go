package consensus

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
)

// keyCurrentTerm is where Raft keeps the term of a member.
var keyCurrentTerm = []byte("CurrentTerm")

// Recovery says how a member goes on that no majority will agree with: it alone decides what was committed.
type Recovery struct {
	// Servers is the new configuration; all of them vote. This member must be among them, and every other one must begin
	// with an empty directory.
	Servers []Server
	// Loaded says that the state machine has its state already, from elsewhere, as of Index in Term: the directory must be
	// empty then. Else the state is what the directory holds.
	Loaded      bool
	Index, Term uint64
	// Entry makes the last command before the member goes on, when the state machine has everything else. Nothing has
	// been written by then: an error leaves the directory as it was.
	Entry func(r Recovered) ([]byte, error)
	// Accept looks at what the state machine answered to that command.
	Accept func(answer any) error
}

// Recovered is what a member has when it recovers.
type Recovered struct {
	// Index and Term are those of the last entry, before Entry's.
	Index, Term uint64
	// Beyond is how many entries there were behind the last one that this member knew to be committed: they count as
	// committed from here on, whether anybody was told so or not.
	Beyond uint64
}

// Recover gives the stopped member in o.Dir a new configuration: it takes every entry of the log as committed, adds one
// command, and replaces log and configuration by a snapshot of the result, one index and one term later, so that no
// other member's log can pass for a continuation. The network is not used.
//
// Errors: fleet.ErrConflict when the member runs, or when the directory is not as Loaded needs it; fleet.ErrNotFound
// when there is nothing to recover; fleet.ErrCorrupt when log or snapshot is damaged.
func Recover(o Options, r Recovery) (out Recovered, err error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return out, err
	}
	log := newLogger(o.Telemetry.Logger)
	d, err := openDisk(o, log)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if r.Loaded {
		out, err = d.requireEmpty(o, r)
	} else {
		out, err = d.replay(o)
	}
	if err != nil {
		return out, err
	}
	entry, err := r.Entry(out)
	if err != nil {
		return out, err
	}
	current, err := d.wal.GetUint64(keyCurrentTerm)
	if err != nil {
		return out, fmt.Errorf("read term: %w", err)
	}
	last := raft.Log{Index: out.Index + 1, Term: max(out.Term, current) + 1, Type: raft.LogCommand, Data: entry}
	if err := r.Accept(o.FSM.Apply(&last)); err != nil {
		return out, err
	}
	return out, d.restart(o.FSM, last, configurationOf(r.Servers))
}

func configurationOf(servers []Server) raft.Configuration {
	var c raft.Configuration
	for _, s := range servers {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Address), Suffrage: raft.Voter})
	}
	return c
}

func (d *disk) requireEmpty(o Options, r Recovery) (Recovered, error) {
	metas, err := d.snaps.List()
	if err != nil {
		return Recovered{}, fmt.Errorf("list snapshots: %w", err)
	}
	last, err := d.wal.LastIndex()
	if err != nil {
		return Recovered{}, fmt.Errorf("read last index of the log: %w", err)
	}
	if len(metas) > 0 || last > 0 {
		return Recovered{}, fleet.NewError(fleet.ErrConflict, "dir", "%s holds the log of a cluster already: use an empty directory", o.Dir)
	}
	return Recovered{Index: r.Index, Term: r.Term}, nil
}

// replay gives the state machine everything that the directory holds.
func (d *disk) replay(o Options) (Recovered, error) {
	var out Recovered
	metas, err := d.snaps.List()
	if err != nil {
		return out, fmt.Errorf("list snapshots: %w", err)
	}
	if len(metas) > 0 {
		_, r, err := d.snaps.Open(metas[0].ID)
		if err == nil {
			err = o.FSM.Restore(r)
		}
		if err != nil {
			return out, fmt.Errorf("%w: restore snapshot %s: %w", fleet.ErrCorrupt, metas[0].ID, err)
		}
		out.Index, out.Term = metas[0].Index, metas[0].Term
	}
	last, err := d.wal.LastIndex()
	if err != nil {
		return out, fmt.Errorf("read last index of the log: %w", err)
	}
	for i := out.Index + 1; i <= last; i++ {
		var l raft.Log
		if err := getLog(d.wal, i, &l); err != nil {
			return out, fmt.Errorf("read log entry %d: %w", i, err)
		}
		if l.Type == raft.LogCommand {
			o.FSM.Apply(&l)
			if i > d.marked {
				out.Beyond++
			}
		}
		out.Index, out.Term = l.Index, l.Term
	}
	if out.Index == 0 {
		return out, fleet.NewError(fleet.ErrNotFound, "dir", "%s holds no log: there is nothing to recover; bring the cluster back from a snapshot with 'controlplane init --from-snapshot'", o.Dir)
	}
	return out, nil
}

// restart replaces what the directory holds by a snapshot at last. Interrupted anywhere it has one or the other: the
// snapshot appears whole, and the log that it replaces is dropped when the member starts, if not here.
func (d *disk) restart(machine raft.FSM, last raft.Log, c raft.Configuration) error {
	if err := d.wal.SetUint64(keyCurrentTerm, last.Term); err != nil {
		return fmt.Errorf("store term: %w", err)
	}
	state, err := machine.Snapshot()
	if err != nil {
		return fmt.Errorf("take a snapshot: %w", err)
	}
	defer state.Release()
	// Only for how it writes addresses in the snapshot's description.
	_, addresses := raft.NewInmemTransport("")
	sink, err := d.snaps.Create(raft.SnapshotVersionMax, last.Index, last.Term, c, last.Index, addresses)
	if err != nil {
		return fmt.Errorf("create snapshot: %w", err)
	}
	if err := state.Persist(sink); err != nil { // which closes it
		return fmt.Errorf("write snapshot: %w", err)
	}
	first, err := d.wal.FirstIndex()
	if err != nil {
		return fmt.Errorf("read first index of the log: %w", err)
	}
	end, err := d.wal.LastIndex()
	if err != nil {
		return fmt.Errorf("read last index of the log: %w", err)
	}
	if end == 0 {
		return nil
	}
	if err := d.mark.lower(0); err != nil {
		return err
	}
	if err := d.wal.DeleteRange(first, end); err != nil {
		return fmt.Errorf("drop the log that the snapshot replaces: %w", err)
	}
	return nil
}
