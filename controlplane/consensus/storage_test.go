package consensus_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/fleet"
)

// stopped leaves the directory of a member that applied commands "command-0" to "command-49" in segments of a few
// entries each, without a snapshot.
func stopped(t *testing.T) consensus.Options {
	t.Helper()
	ms := cluster(t, 1, func(o *consensus.Options) { *o = consensus.WithSegmentBytes(*o, 1<<10) })
	for i := range 50 {
		apply(t, ms[0], fmt.Sprintf("command-%d;", i))
	}
	ms[0].crash(t)
	return ms[0].options
}

// segments lists the segment files, oldest first; the last holds the tail.
func segments(t *testing.T, o consensus.Options) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(o.Dir, "wal", "*.wal"))
	if err != nil || len(files) < 3 {
		t.Fatalf("segments %v, %v", files, err)
	}
	slices.Sort(files)
	return files
}

// edit changes the bytes of a file.
func edit(t *testing.T, file string, change func([]byte)) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	change(b)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// flip inverts one bit in the middle of the nth command of a file; negative n counts from the end.
func flip(t *testing.T, n int) func([]byte) {
	return func(b []byte) {
		var at []int
		for i := 0; ; {
			next := bytes.Index(b[i:], []byte("command-"))
			if next < 0 {
				break
			}
			at = append(at, i+next)
			i += next + 1
		}
		if n < 0 {
			n += len(at)
		}
		if n < 0 || n >= len(at) {
			t.Fatalf("no command %d of %d", n, len(at))
		}
		b[at[n]+3] ^= 0x10
	}
}

func TestADamagedLogIsRefusedWithWhatToDo(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, o consensus.Options)
		says   string
	}{
		{"a flipped bit in the middle of a sealed segment", func(t *testing.T, o consensus.Options) {
			edit(t, segments(t, o)[1], flip(t, 2))
		}, "checksum of an entry"},
		{"a flipped bit in the middle of the last segment", func(t *testing.T, o consensus.Options) {
			edit(t, segments(t, o)[len(segments(t, o))-1], flip(t, 0))
		}, "checksum of an entry"},
		{"a flipped bit in the very last entry, which looks like a write that was cut short", func(t *testing.T, o consensus.Options) {
			edit(t, segments(t, o)[len(segments(t, o))-1], flip(t, -1))
		}, "was stored"},
		{"zeroes in the middle of the last segment, which look like its end", func(t *testing.T, o consensus.Options) {
			edit(t, segments(t, o)[len(segments(t, o))-1], func(b []byte) { clear(b[80:320]) })
		}, "was stored"},
		{"a header of a sealed segment that is gone", func(t *testing.T, o consensus.Options) {
			edit(t, segments(t, o)[0], func(b []byte) { clear(b[:16]) })
		}, "corrupt"},
		{"an index of a sealed segment that points elsewhere", func(t *testing.T, o consensus.Options) {
			edit(t, segments(t, o)[0], func(b []byte) {
				// The first two entries of the index, which starts with the offset of the first entry.
				i := bytes.LastIndex(b, []byte{32, 0, 0, 0})
				copy(b[i:i+4], b[i+4:i+8])
			})
		}, "found entry"},
		{"a sealed segment that is missing", func(t *testing.T, o consensus.Options) {
			if err := os.Remove(segments(t, o)[1]); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
		{"a last segment that is missing", func(t *testing.T, o consensus.Options) {
			if err := os.Remove(segments(t, o)[len(segments(t, o))-1]); err != nil {
				t.Fatal(err)
			}
		}, "was stored"},
		{"metadata that is garbage", func(t *testing.T, o consensus.Options) {
			edit(t, filepath.Join(o.Dir, "wal", "wal-meta.db"), func(b []byte) { clear(b) })
		}, "wal-meta.db"},
	}
	healthy := stopped(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := healthy
			o.Dir = t.TempDir()
			if err := os.CopyFS(o.Dir, os.DirFS(healthy.Dir)); err != nil {
				t.Fatal(err)
			}
			test.damage(t, o)
			// Twice: to have refused it once must not have repaired it.
			for range 2 {
				m, err := tryStart(o)
				if err == nil {
					m.crash(t)
				}
				if !errors.Is(err, fleet.ErrCorrupt) {
					t.Fatalf("got %v", err)
				}
				mustContain(t, err, test.says, "write-ahead log of member m1 is corrupt", "move "+o.Dir+" aside and rejoin", "fleetctl cluster remove m1")
			}
		})
	}
}

// TestMetadataThatEndsEarlyIsRefused: the store maps its file; reading behind its end would end the process without a word.
func TestMetadataThatEndsEarlyIsRefused(t *testing.T) {
	o := stopped(t)
	if err := os.Truncate(filepath.Join(o.Dir, "wal", "wal-meta.db"), 2*int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	// Once: the process that fell over the file keeps its lock until it ends, as it does then.
	m, err := tryStart(o)
	if err == nil {
		m.crash(t)
	}
	if !errors.Is(err, fleet.ErrCorrupt) {
		t.Fatalf("got %v", err)
	}
	mustContain(t, err, "write-ahead log of member m1 is corrupt", "move "+o.Dir+" aside and rejoin")
}

func TestAWriteThatACrashCutShortIsForgotten(t *testing.T) {
	o := stopped(t)
	// As after a power cut: a batch half on disk, never acknowledged, so behind the mark.
	tail := segments(t, o)[len(segments(t, o))-1]
	edit(t, tail, func(b []byte) {
		end := len(bytes.TrimRight(b, "\x00"))
		end += (8 - end%8) % 8
		copy(b[end:], []byte{1, 0, 0, 0, 200, 0, 0, 0, 'h', 'a', 'l', 'f'})
	})
	m := start(t, o)
	eventually(t, "m1 leads", m.IsLeader)
	apply(t, m, "more")
	if got := m.fsm.all(); len(got) != 52 {
		t.Errorf("%d commands", len(got))
	}
}

func TestADamagedSnapshotIsRefused(t *testing.T) {
	ms := cluster(t, 1, nil)
	if err := ms[0].Snapshot(); err != nil {
		t.Fatal(err)
	}
	ms[0].crash(t)
	tests := []struct {
		name, file string
		damage     func([]byte)
		says       string
	}{
		{"a flipped bit in the state", "state.bin", func(b []byte) { b[0] ^= 1 }, "CRC"},
		{"another term in what is said about it", "meta.json", func(b []byte) {
			at := bytes.Index(b, []byte(`"Term":`)) + len(`"Term":`)
			b[at] ^= 1
		}, "is not what was written"},
		{"another peer in what is said about it", "meta.json", func(b []byte) {
			at := bytes.Index(b, []byte(`"Address":"`)) + len(`"Address":"`)
			b[at] ^= 1
		}, "is not what was written"},
		{"something that is no JSON about it", "meta.json", func(b []byte) { clear(b) }, "is not what was written"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := ms[0].options
			o.Dir = t.TempDir()
			if err := os.CopyFS(o.Dir, os.DirFS(ms[0].options.Dir)); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(o.Dir, "snapshots", "*", test.file))
			if err != nil || len(files) != 1 {
				t.Fatalf("snapshots %v, %v", files, err)
			}
			edit(t, files[0], test.damage)
			m, err := tryStart(o)
			if err == nil {
				m.crash(t)
			}
			if !errors.Is(err, fleet.ErrCorrupt) {
				t.Fatalf("got %v", err)
			}
			mustContain(t, err, "snapshot ", test.says, "rejoin")
		})
	}
}

func TestAMissingSnapshotIsAGap(t *testing.T) {
	ms := cluster(t, 1, func(o *consensus.Options) {
		o.TrailingLogs = 1
		*o = consensus.WithSegmentBytes(*o, 1<<10)
	})
	for i := range 20 {
		apply(t, ms[0], fmt.Sprint(i))
	}
	if err := ms[0].Snapshot(); err != nil {
		t.Fatal(err)
	}
	ms[0].crash(t)
	if err := os.RemoveAll(filepath.Join(ms[0].options.Dir, "snapshots")); err != nil {
		t.Fatal(err)
	}
	_, err := tryStart(ms[0].options)
	if !errors.Is(err, fleet.ErrCorrupt) {
		t.Fatalf("got %v", err)
	}
	mustContain(t, err, "neither a snapshot nor a segment")
}

func TestASnapshotAheadOfTheLogReplacesIt(t *testing.T) {
	// As after a crash between receiving a snapshot from the leader and dropping the log that it replaces.
	behind := stopped(t)
	ahead := behind
	ahead.Dir = t.TempDir()
	if err := os.CopyFS(ahead.Dir, os.DirFS(behind.Dir)); err != nil {
		t.Fatal(err)
	}
	m := start(t, ahead)
	eventually(t, "m1 leads", m.IsLeader)
	apply(t, m, "snapshotted")
	if err := m.Snapshot(); err != nil {
		t.Fatal(err)
	}
	want := m.fsm.all()
	m.crash(t)
	if err := os.CopyFS(filepath.Join(behind.Dir, "snapshots"), os.DirFS(filepath.Join(ahead.Dir, "snapshots"))); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"goes on", "after a restart too"} {
		m = start(t, behind)
		eventually(t, "m1 leads", m.IsLeader)
		apply(t, m, command)
		want = append(want, command)
		if diff := cmp.Diff(want, m.fsm.all()); diff != "" {
			t.Error(diff)
		}
		m.crash(t)
	}
}

// fullDisk fails appends while full is set.
type fullDisk struct {
	raft.LogStore
	full *atomic.Bool
}

func (d fullDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d fullDisk) StoreLogs(logs []*raft.Log) error {
	if d.full.Load() {
		return syscall.ENOSPC
	}
	return d.LogStore.StoreLogs(logs)
}

func (d fullDisk) IsMonotonic() bool { return true }

func TestALeaderWhoseDiskIsFullStepsDownAndSaysSo(t *testing.T) {
	var full atomic.Bool
	ms := cluster(t, 3, func(o *consensus.Options) {
		if o.Member == "m1" {
			*o = consensus.WithLogStore(*o, func(s raft.LogStore) raft.LogStore { return fullDisk{s, &full} })
		}
	})
	full.Store(true)
	_, _, err := ms[0].Apply(t.Context(), []byte("lost"))
	if !errors.Is(err, fleet.ErrUnavailable) || !errors.Is(err, consensus.ErrOutcomeUnknown) {
		t.Errorf("apply on a full disk: %v", err)
	}
	mustContain(t, err, "free the disk and restart this member", syscall.ENOSPC.Error())
	if failing := ms[0].tel.Health.Ready()["raft_log"]; !strings.Contains(failing, "free the disk") {
		t.Errorf("health is %q", failing)
	}
	leader := leaderOf(t, ms[1:]...)
	apply(t, leader, "kept")
	if ms[0].IsLeader() {
		t.Error("two leaders")
	}
	full.Store(false)
	eventually(t, "the member caught up", ms[0].fsm.holds("kept"))
	if failing := ms[0].tel.Health.Ready(); len(failing) > 0 {
		t.Errorf("health is %v", failing)
	}
	if ms[0].fsm.holds("lost")() || ms[1].fsm.holds("lost")() {
		t.Error("a command that was never written was applied")
	}
}

func FuzzEntryChecksum(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 2, 3})
	f.Add(consensus.AddChecksum([]byte("entry")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if entry, err := consensus.CutChecksum(b); err == nil && !bytes.Equal(consensus.AddChecksum(entry), b) {
			t.Errorf("%x was accepted and not written", b)
		} else if err != nil && !errors.Is(err, fleet.ErrCorrupt) {
			t.Error(err)
		}
		entry, err := consensus.CutChecksum(consensus.AddChecksum(b))
		if err != nil || !bytes.Equal(entry, b) {
			t.Errorf("%x became %x, %v", b, entry, err)
		}
	})
}

func TestAnEntryThatRotsWhileTheMemberRunsMakesItUnhealthy(t *testing.T) {
	ms := cluster(t, 1, func(o *consensus.Options) { *o = consensus.WithSegmentBytes(*o, 1<<10) })
	for i := range 600 { // more than Raft keeps in memory
		apply(t, ms[0], fmt.Sprintf("command-%d;", i))
	}
	edit(t, segments(t, ms[0].options)[1], flip(t, 2))
	// A new member needs every entry.
	o := newAuthority(t).options(t, "m2")
	o.ServerTLS, o.ClientTLS = ms[0].options.ServerTLS, ms[0].options.ClientTLS
	newcomer := start(t, o)
	if err := ms[0].AddNonvoter(t.Context(), "m2", newcomer.Addr()); err != nil {
		t.Fatal(err)
	}
	unhealthy := func() bool { return strings.Contains(ms[0].tel.Health.Ready()["raft_log"], "checksum") }
	eventually(t, "the member is unhealthy", unhealthy)
	apply(t, ms[0], "x")
	if !unhealthy() {
		t.Error("an append made a damaged log healthy")
	}
}

func TestALateHeartbeatFindsNoClosedStore(t *testing.T) {
	below := raft.NewInmemStore()
	s, end := consensus.NewStableStore(below)
	term := []byte("CurrentTerm")
	if err := s.SetUint64(term, 1); err != nil {
		t.Fatal(err)
	}
	end()
	if err := s.SetUint64(term, 2); err != nil { // Raft would panic
		t.Errorf("a term that comes too late: %v", err)
	}
	if got, err := below.GetUint64(term); got != 1 || err != nil {
		t.Errorf("the store was written after its end: term %d, %v", got, err)
	}
}
