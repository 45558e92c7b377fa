package consensus_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
)

// verified returns how many ranges of its log the member verified with the result.
func (m *member) verified(t *testing.T, result string) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(exposition(t, m.tel)) {
		if strings.HasPrefix(line, "edgefleet_raft_log_ranges_verified_total{") && strings.Contains(line, `result="`+result+`"`) {
			if _, err := fmt.Sscan(line[strings.LastIndex(line, "}")+1:], &n); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
	}
	return n
}

func TestEveryMemberVerifiesItsLogAgainstTheLeaders(t *testing.T) {
	ms := cluster(t, 3, func(o *consensus.Options) { o.VerifyEvery = 16 })
	lead := ms[0]
	for round := range 3 {
		for i := range 40 {
			apply(t, lead, fmt.Sprintf("command-%d-%d;", round, i))
		}
		// A new leader goes on, with another log of its own sums.
		next := ms[(round+1)%3]
		if err := lead.TransferLeadership(t.Context(), next.options.Member); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the next one leads", next.IsLeader)
		lead = next
	}
	apply(t, lead, "last")
	for _, m := range ms {
		eventually(t, "ranges are verified", func() bool { return m.verified(t, "ok") >= 3 })
		if n := m.verified(t, "mismatch"); n != 0 {
			t.Errorf("%s: %d ranges differ", m.options.Member, n)
		}
		if why := m.tel.Health.Ready()["raft_log"]; why != "" {
			t.Errorf("%s: %s", m.options.Member, why)
		}
	}
}

// liar is a disk that changes one entry after it was written, with a checksum that fits.
type liar struct {
	raft.LogStore
	on *atomic.Bool
}

func (l liar) GetLog(index uint64, out *raft.Log) error {
	err := l.LogStore.GetLog(index, out)
	if err == nil && l.on.Load() && string(out.Data) == "command-7;" {
		out.Data = []byte("command-8;")
	}
	return err
}

func (l liar) IsMonotonic() bool { return true }

func TestADiskThatChangesAnEntryIsFoundWithoutARestart(t *testing.T) {
	var on atomic.Bool
	on.Store(true)
	ms := cluster(t, 3, func(o *consensus.Options) {
		o.VerifyEvery = 16
		if o.Member == "m2" {
			*o = consensus.WithLogStore(*o, func(s raft.LogStore) raft.LogStore { return liar{s, &on} })
		}
	})
	for i := range 40 {
		apply(t, ms[0], fmt.Sprintf("command-%d;", i))
	}
	eventually(t, "m2 is found out", func() bool { return ms[1].verified(t, "mismatch") == 1 })
	eventually(t, "m2 says what to do", func() bool {
		why := ms[1].tel.Health.Ready()["raft_log"]
		return strings.Contains(why, "storage corruption") && strings.Contains(why, "fleetctl cluster remove")
	})
	for _, m := range []*member{ms[0], ms[2]} {
		eventually(t, "the others are sound", func() bool { return m.verified(t, "ok") >= 2 })
		if n := m.verified(t, "mismatch"); n != 0 {
			t.Errorf("%s: %d ranges differ", m.options.Member, n)
		}
	}
}
