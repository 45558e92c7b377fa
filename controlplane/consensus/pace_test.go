package consensus_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/observability"
)

// large is a state machine whose snapshot is the work of chunks milliseconds.
type large struct{ *list }

const chunks = 100

func (l large) Snapshot() (raft.FSMSnapshot, error) { return largeSnapshot{}, nil }

type largeSnapshot struct{}

func (largeSnapshot) Persist(sink raft.SnapshotSink) error {
	for range chunks {
		time.Sleep(time.Millisecond)
		if _, err := sink.Write(make([]byte, 64<<10)); err != nil {
			return err
		}
	}
	return sink.Close()
}

func (largeSnapshot) Release() {}

func TestASnapshotTakesAQuarterOfTheTimeAndNoneWhenTheMemberStops(t *testing.T) {
	for name, stops := range map[string]bool{"at rest for three quarters": false, "in a hurry": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, transport := raft.NewInmemTransport("")
				n, err := consensus.OpenInMemory(consensus.Options{Member: "m1", FSM: large{&list{}}, Telemetry: observability.Discard()}, transport)
				if err != nil {
					t.Fatal(err)
				}
				b := &bubble{nodes: []*consensus.Node{n}}
				if err := n.Bootstrap(); err != nil {
					t.Fatal(err)
				}
				settle()
				if _, _, err := n.Apply(t.Context(), []byte("x")); err != nil {
					t.Fatal(err)
				}
				begin, done := time.Now(), make(chan struct{})
				go func() {
					defer close(done)
					_ = n.Snapshot() // a member that stops may say so
				}()
				least, most := 4*chunks*time.Millisecond-10*time.Millisecond, 4*chunks*time.Millisecond
				if stops {
					time.Sleep(20 * time.Millisecond)
					b.close(t)
					least, most = 0, (chunks+20)*time.Millisecond
				}
				<-done
				if took := time.Since(begin); took < least || took > most {
					t.Errorf("took %s, want %s to %s", took, least, most)
				}
				if !stops {
					b.close(t)
				}
			})
		})
	}
}
