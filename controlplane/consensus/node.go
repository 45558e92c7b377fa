package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
)

// transferTimeout bounds the hand-over of leadership in Close.
const transferTimeout = 2 * time.Second

// Node is one running member of the cluster. All methods may be called from any goroutine.
type Node struct {
	member    fleet.MemberID
	log       *slog.Logger
	raft      *raft.Raft
	fsm       *trackedFSM
	logs      raft.LogStore
	advertise raft.ServerAddress
	parts     parts

	leadership leadership
	gate       gate
	// closing is closed when Close begins, so that nobody waits for a Raft that will not answer.
	closing chan struct{}
	owned   sync.WaitGroup

	closeOnce sync.Once
	closeErr  error

	// barrier is the last barrier that was applied here: everything up to its index is in the state machine.
	barrierMu sync.Mutex
	barrier   struct{ term, index uint64 }
}

// parts are what a Node stands on: disk and network in production, memory in tests that run on fake time.
type parts struct {
	logs      raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	transport transport
	mark      *mark
	// applied is the mark of the state machine, marked what it said; nil and 0 for a log in memory.
	applied *mark
	marked  uint64
	// dial connects to another member's Raft port; nil in memory.
	dial func(raft.ServerAddress, time.Duration) (net.Conn, error)
	// recheck ends connections that would not be admitted now; nil in memory.
	recheck func()
	// disconnect breaks every connection, so that Raft's goroutines are not held up by a peer that is slow.
	disconnect func() error
	// release gives back disk and lock after Raft stopped.
	release func() error
}

// Open starts the member that lives in o.Dir: it locks the directory, checks the log and the snapshot, listens, and
// takes part in whatever configuration the log holds. A new member is idle until Bootstrap, or until a leader adds it.
//
// Errors: fleet.ErrInvalid for the options; fleet.ErrConflict when the directory or the port is in use;
// fleet.ErrCorrupt when the log or a snapshot is damaged.
func Open(o Options) (*Node, error) {
	o = o.withDefaults()
	if err := errors.Join(o.validate(), o.validateDisk()); err != nil {
		return nil, err
	}
	log := newLogger(o.Telemetry.Logger)
	d, err := openDisk(o, log)
	if err != nil {
		return nil, err
	}
	stream, err := listen(o, refusals(o.Telemetry))
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	transport, disconnect := overNetwork(stream, log)
	stable := &stableStore{StableStore: d.wal}
	n, err := open(o, parts{
		logs: d.wal, stable: stable, snapshots: d.snaps, transport: transport, mark: d.mark,
		applied: d.applied, marked: d.marked, dial: stream.Dial, recheck: stream.recheck, disconnect: disconnect,
		release: func() error { stable.end(); return d.close() },
	})
	if err != nil {
		return nil, errors.Join(err, disconnect(), d.close())
	}
	return n, nil
}

// overNetwork is Raft's transport over stream, and what breaks every connection of it.
func overNetwork(stream raft.StreamLayer, log hclog.Logger) (transport, func() error) {
	t := network{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream, MaxPool: maxPool, Timeout: ioTimeout, Logger: log.Named("transport"),
	})}
	return t, func() error {
		t.CloseStreams()
		return errors.Join(t.Close(), stream.Close())
	}
}

// open starts a member on the given parts; o is complete and valid. On an error the parts are still the caller's.
func open(o Options, p parts) (*Node, error) {
	if o.wrapLog != nil {
		p.logs = o.wrapLog(p.logs)
	}
	tel := o.Telemetry
	watched := &watchedLog{mark: p.mark, health: tel.Health, log: tel.Logger}
	verified := &verifiedLog{
		LogStore: p.logs, every: o.VerifyEvery,
		damaged: watched.damage, log: tel.Logger, ranges: tel.Counter("edgefleet_raft_log_ranges_verified_total"),
	}
	watched.LogStore = verified
	cached, err := raft.NewLogCache(entryCache, watched)
	if err != nil {
		return nil, fmt.Errorf("cache log entries: %w", err)
	}
	closing := make(chan struct{})
	n := &Node{
		member: o.Member, log: tel.Logger, logs: cached, parts: p,
		fsm:       &trackedFSM{fsm: o.FSM, log: tel.Logger, observe: applySeconds(tel), mark: p.applied, growth: newGrowth(o.SnapshotBytes), closing: closing},
		advertise: p.transport.LocalAddr(),
		closing:   closing,
	}
	if err := n.fsm.resume(p, p.marked); err != nil {
		return nil, fmt.Errorf("recover the state of member %s: %w", o.Member, err)
	}
	n.leadership.changed = make(chan struct{})
	notify := make(chan bool, 1)
	in := newIncoming(p.transport)
	p.transport = in
	if err := verified.start(); err != nil {
		return nil, err
	}
	n.parts.release = func() error { return errors.Join(verified.close(), p.release()) }
	if n.raft, err = newRaft(o.config(notify), n.fsm, cached, p); err != nil {
		return nil, errors.Join(fmt.Errorf("start raft on the log of member %s: %w", o.Member, err), verified.close())
	}
	verified.raft.Store(n.raft)
	n.owned.Go(func() { in.run(n) })
	n.owned.Go(func() { n.follow(notify) })
	n.owned.Go(func() { n.bound(o.TrailingLogs) })
	n.publish(tel)
	return n, nil
}

// newRaft turns the panics of Raft's start, which come before its goroutines, into errors: it panics when it cannot read
// an entry behind the snapshot.
func newRaft(c *raft.Config, fsm raft.FSM, logs raft.LogStore, p parts) (r *raft.Raft, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			r, err = nil, fmt.Errorf("%w: %v", fleet.ErrCorrupt, cause)
		}
	}()
	return raft.NewRaft(c, fsm, logs, p.stable, p.snapshots, p.transport)
}

// Bootstrap makes this member the only voter of a new cluster. It is done once in a cluster's life, on one member;
// fleet.ErrConflict says that this member has state already.
func (n *Node) Bootstrap() error {
	err := n.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		ID: raft.ServerID(n.member), Address: n.advertise, Suffrage: raft.Voter,
	}}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return fleet.NewError(fleet.ErrConflict, "dir", "member %s already belongs to a cluster: a cluster is begun once, on an empty directory", n.member)
	}
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// Recheck ends the Raft connections of members that would not be admitted now: who may connect is asked when a connection
// is made, and they last.
func (n *Node) Recheck() {
	if n.parts.recheck != nil {
		n.parts.recheck()
	}
}

// Addr is the address that other members are told.
func (n *Node) Addr() string { return string(n.advertise) }

// Snapshot writes a snapshot of the state machine now and drops the log behind it, here only. Without anything new
// since the last one it does nothing.
func (n *Node) Snapshot() error {
	err := n.raft.Snapshot().Error()
	if err == nil || errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return fmt.Errorf("take a snapshot: %w", err)
}

// Close stops the member. A leader first hands over to another voter, so that the cluster is without one for
// milliseconds instead of an election timeout; without another voter, or when that fails, it just stops. The order is:
// hand over, end leadership here, break connections, wait for Raft, close the log, free the lock. When ctx ends before
// Raft has stopped, the log stays open and fleet.ErrTimeout is returned: the process should exit.
func (n *Node) Close(ctx context.Context) error {
	n.closeOnce.Do(func() { n.closeErr = n.stop(ctx, true) })
	return n.closeErr
}

func (n *Node) stop(ctx context.Context, handOver bool) error {
	if handOver && n.IsLeader() && n.otherVoters() {
		transfer, cancel := context.WithTimeout(ctx, transferTimeout)
		if err := n.TransferLeadership(transfer, ""); err != nil {
			n.log.WarnContext(ctx, "leadership was not handed over, the others will elect", "err", err)
		}
		cancel()
	}
	close(n.closing)
	n.leadership.end()
	stopping := n.raft.Shutdown()
	err := n.parts.disconnect()
	stopped := make(chan error, 1)
	go func() { stopped <- stopping.Error() }()
	select {
	case stopErr := <-stopped:
		n.owned.Wait()
		return errors.Join(err, stopErr, n.parts.release())
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("%w: raft did not stop: %w", fleet.ErrTimeout, ctx.Err()))
	}
}

// otherVoters reports whether there is anyone to hand leadership to.
func (n *Node) otherVoters() bool {
	for _, s := range n.configuration().Servers {
		if s.Suffrage == raft.Voter && s.ID != raft.ServerID(n.member) {
			return true
		}
	}
	return false
}
