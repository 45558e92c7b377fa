package consensus_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/observability"
)

func TestTheLogIsBoundedInBytesNotOnlyInEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, transport := raft.NewInmemTransport("")
		n, err := consensus.OpenInMemory(consensus.Options{
			Member: "m1", FSM: &list{}, Telemetry: observability.Discard(), SnapshotBytes: 10 << 10,
		}, transport)
		if err != nil {
			t.Fatal(err)
		}
		b := &bubble{nodes: []*consensus.Node{n}}
		defer b.close(t)
		if err := n.Bootstrap(); err != nil {
			t.Fatal(err)
		}
		settle()
		length := func(commands, size int) (first, entries uint64) {
			t.Helper()
			for range commands {
				if _, _, err := n.Apply(t.Context(), []byte(strings.Repeat("x", size))); err != nil {
					t.Fatal(err)
				}
			}
			settle()
			first, err := consensus.FirstIndex(n)
			if err != nil {
				t.Fatal(err)
			}
			return first, n.Stats().LastIndex - first + 1
		}
		if first, _ := length(9, 1<<10); first != 1 {
			t.Errorf("9 of 10 KiB, and the log begins at entry %d", first)
		}
		if first, _ := length(1, 1<<10); first == 1 {
			t.Error("10 of 10 KiB, and no entry was dropped")
		}
		// Twenty entries are twice the limit; Raft's own are a few more.
		for range 10 {
			if first, entries := length(7, 1<<10); entries > 25 {
				t.Errorf("from entry %d the log has %d entries", first, entries)
			}
		}
		before, _ := length(0, 0)
		if first, entries := length(900, 1); first != before || entries < 900 {
			t.Errorf("small entries were dropped: the log begins at %d instead of %d and has %d", first, before, entries)
		}
	})
}

func TestWhatTheLogHadBeforeARestartCounts(t *testing.T) {
	ms := cluster(t, 1, func(o *consensus.Options) { o.SnapshotBytes = 10 << 10 })
	command := strings.Repeat("x", 1<<10)
	for range 8 {
		apply(t, ms[0], command)
	}
	ms[0].crash(t)
	m := start(t, ms[0].options)
	eventually(t, "it leads again", m.IsLeader)
	if first, err := consensus.FirstIndex(m.Node); err != nil || first != 1 {
		t.Fatalf("the log begins at entry %d, %v", first, err)
	}
	apply(t, m, command)
	apply(t, m, command)
	eventually(t, "the log was shortened", func() bool {
		first, err := consensus.FirstIndex(m.Node)
		return err == nil && first > 1
	})
}
