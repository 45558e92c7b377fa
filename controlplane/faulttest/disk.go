package faulttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ErrDisk is the error of a disk that fails as told.
var ErrDisk = errors.New("disk fails as the test told it to")

// errGone is what a process that was killed would see, if it saw anything.
var errGone = errors.New("the process that wrote was killed")

// Damage is what becomes of the next append.
type Damage int

// The kinds of damage. After either failure the log takes nothing more until it is opened again, as the write-ahead log.
const (
	// Healthy appends are stored.
	Healthy Damage = iota
	// FailedNotApplied: the append fails and nothing of it is stored.
	FailedNotApplied
	// FailedButApplied: the append fails, and is there after the next start.
	FailedButApplied
)

// Disk is the disk of one member in memory. What an append was told to be stored survives a crash; what was being
// written then survives in part.
type Disk struct {
	mu        sync.Mutex
	entries   map[uint64]raft.Log
	low, high uint64
	stable    map[string][]byte
	snaps     []savedSnapshot
	// applied is the mark of the state machine; it lags behind.
	applied uint64

	damage Damage
	// slow is how long each append takes.
	slow time.Duration
	// torn says how many of the n entries that were being written when the process was killed are stored.
	torn func(n int) int
}

type savedSnapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

// NewDisk makes an empty disk.
func NewDisk(torn func(n int) int) *Disk {
	return &Disk{entries: map[uint64]raft.Log{}, stable: map[string][]byte{}, torn: torn}
}

// Fail makes the next append fail.
func (d *Disk) Fail(how Damage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.damage = how
}

// Slow makes each append take as long.
func (d *Disk) Slow(each time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow = each
}

// mount is the disk as one process sees it: after kill it writes nothing.
type mount struct {
	disk *Disk
	// hook is called in the middle of each snapshot.
	hook func()
	// The rest is guarded by the disk's lock.
	killed, sealed bool
	late           []raft.Log
}

// mount opens the disk for one process. Entries that a snapshot replaced, and that a crash left, are dropped, as a member
// does when it opens its log.
func (d *Disk) mount(hook func()) *mount {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.snaps) > 0 && d.high < d.snaps[0].meta.Index {
		d.entries, d.low, d.high = map[uint64]raft.Log{}, 0, 0
	}
	return &mount{disk: d, hook: hook}
}

// kill ends the process that had the disk; what failed but was applied is there from now on.
func (m *mount) kill() {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if m.killed {
		return
	}
	m.killed = true
	m.disk.store(m.late)
}

// store is called with mu held.
func (d *Disk) store(logs []raft.Log) {
	for _, l := range logs {
		if d.low == 0 {
			d.low = l.Index
		}
		d.entries[l.Index], d.high = l, l.Index
	}
}

// FirstIndex implements raft.LogStore.
func (m *mount) FirstIndex() (uint64, error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	return m.disk.low, nil
}

// LastIndex implements raft.LogStore.
func (m *mount) LastIndex() (uint64, error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	return m.disk.high, nil
}

// GetLog implements raft.LogStore.
func (m *mount) GetLog(index uint64, l *raft.Log) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	e, ok := m.disk.entries[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*l = e
	return nil
}

// StoreLog implements raft.LogStore.
func (m *mount) StoreLog(l *raft.Log) error { return m.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (m *mount) StoreLogs(logs []*raft.Log) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	entries := make([]raft.Log, 0, len(logs))
	for _, l := range logs {
		entries = append(entries, *l)
	}
	if slow := m.disk.slow; slow > 0 && !m.killed && !m.sealed {
		m.disk.mu.Unlock()
		time.Sleep(slow)
		m.disk.mu.Lock()
		if m.killed {
			m.disk.store(entries[:m.disk.torn(len(entries)+1)])
		}
	}
	switch {
	case m.killed:
		return errGone
	case m.sealed:
		return fmt.Errorf("sealed: %w", ErrDisk)
	case len(entries) > 0 && m.disk.high > 0 && entries[0].Index != m.disk.high+1:
		return fmt.Errorf("append entry %d behind %d: the log has no holes", entries[0].Index, m.disk.high)
	}
	damage := m.disk.damage
	m.disk.damage = Healthy
	switch damage {
	case FailedNotApplied:
		m.sealed = true
		return ErrDisk
	case FailedButApplied:
		m.sealed, m.late = true, entries
		return ErrDisk
	case Healthy:
	}
	m.disk.store(entries)
	return nil
}

// DeleteRange implements raft.LogStore.
func (m *mount) DeleteRange(from, to uint64) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	d := m.disk
	switch {
	case m.killed:
		return errGone
	case m.sealed:
		return fmt.Errorf("sealed: %w", ErrDisk)
	case from > d.low && to < d.high:
		return fmt.Errorf("delete entries %d to %d: a hole", from, to)
	}
	for i := from; i <= to; i++ {
		delete(d.entries, i)
	}
	switch {
	case from <= d.low && to >= d.high:
		d.low, d.high = 0, 0
	case from <= d.low:
		d.low = to + 1
	default:
		d.high = from - 1
	}
	return nil
}

// IsMonotonic implements raft.MonotonicLogStore, as the write-ahead log does.
func (*mount) IsMonotonic() bool { return true }

var errNotFound = errors.New("not found")

// Set implements raft.StableStore. A process that was killed sees no error, for Raft would panic.
func (m *mount) Set(key, val []byte) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if slow := m.disk.slow; slow > 0 && !m.killed { // votes and terms are synced as entries are
		m.disk.mu.Unlock()
		time.Sleep(slow)
		m.disk.mu.Lock()
	}
	if !m.killed {
		m.disk.stable[string(key)] = bytes.Clone(val)
	}
	return nil
}

// Get implements raft.StableStore.
func (m *mount) Get(key []byte) ([]byte, error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	v, ok := m.disk.stable[string(key)]
	if !ok {
		return nil, errNotFound
	}
	return bytes.Clone(v), nil
}

// SetUint64 implements raft.StableStore.
func (m *mount) SetUint64(key []byte, val uint64) error {
	return m.Set(key, fmt.Appendf(nil, "%d", val))
}

// GetUint64 implements raft.StableStore.
func (m *mount) GetUint64(key []byte) (uint64, error) {
	b, err := m.Get(key)
	if err != nil {
		return 0, err
	}
	var v uint64
	_, err = fmt.Sscanf(string(b), "%d", &v)
	return v, err
}

// raise moves the mark of the state machine.
func (m *mount) raise(index uint64) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if !m.killed {
		m.disk.applied = index
	}
}

// Create implements raft.SnapshotStore.
func (m *mount) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, configIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{mount: m, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term, Configuration: c, ConfigurationIndex: configIndex,
	}}, nil
}

// List implements raft.SnapshotStore.
func (m *mount) List() ([]*raft.SnapshotMeta, error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if len(m.disk.snaps) == 0 {
		return nil, nil
	}
	meta := m.disk.snaps[0].meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open implements raft.SnapshotStore.
func (m *mount) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	for _, s := range m.disk.snaps {
		if s.meta.ID == id {
			meta := s.meta
			return &meta, io.NopCloser(bytes.NewReader(s.data)), nil
		}
	}
	return nil, nil, errNotFound
}

// sink takes one snapshot, which is there once it is closed.
type sink struct {
	mount *mount
	meta  raft.SnapshotMeta
	data  bytes.Buffer
	ended bool
}

func (s *sink) Write(b []byte) (int, error) {
	if s.data.Len() == 0 {
		s.mount.hook()
	}
	return s.data.Write(b)
}

func (s *sink) ID() string { return s.meta.ID }

func (s *sink) Cancel() error {
	s.ended = true
	return nil
}

func (s *sink) Close() error {
	s.mount.disk.mu.Lock()
	defer s.mount.disk.mu.Unlock()
	if s.ended {
		return nil
	}
	s.ended = true
	if s.mount.killed {
		return errGone
	}
	s.meta.Size = int64(s.data.Len())
	s.mount.disk.snaps = []savedSnapshot{{s.meta, s.data.Bytes()}}
	return nil
}

// failed says whether an append failed since the disk was opened.
func (m *mount) failed() bool {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	return m.sealed
}
