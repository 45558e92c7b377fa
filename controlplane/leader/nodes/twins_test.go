package nodes_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader/nodes"
	"github.com/edgefleet/edgefleet/fleet"
)

// lives sends the heartbeats of n0, one each 5 seconds from each of the instances in turn.
func lives(l *nodes.Loop, rounds int, instances ...string) {
	for i := range rounds {
		for _, instance := range instances {
			r := report("n0")
			r.Boot, r.Instance = fmt.Sprint("boot", i), instance
			l.Report(r)
			time.Sleep(5 * time.Second / time.Duration(len(instances)))
		}
	}
}

func TestANodeThatIsTwoMachinesIsLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		l, stop := c.lead()
		lives(l, 4, "a")
		started := time.Now()
		lives(l, 5, "a", "b")
		n, _ := c.state.Read().Node("n0")
		if n.Lock == nil || n.Lock.Reason == "" || n.Lock.At.Sub(started) > 20*time.Second {
			t.Fatalf("lock %+v, begun at %s", n.Lock, started)
		}
		// Locked, it is not locked again; unlocked, it is watched anew.
		lives(l, 20, "a", "b")
		c.apply(command.Header{Time: time.Now()}, command.NodeUnlock{ID: "n0"})
		lives(l, 2, "a")
		if n, _ := c.state.Read().Node("n0"); n.Lock != nil {
			t.Errorf("locked again although one machine is gone: %+v", n.Lock)
		}
		lives(l, 6, "a", "b")
		if n, _ := c.state.Read().Node("n0"); n.Lock == nil {
			t.Error("not locked again")
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestOneMachineIsNotTakenForTwo(t *testing.T) {
	for name, live := range map[string]func(l *nodes.Loop){
		"it restarts, and messages of the life before are late": func(l *nodes.Loop) {
			lives(l, 5, "a")
			lives(l, 1, "b", "a", "b", "a", "b")
			lives(l, 20, "b")
		},
		"it restarts all the time": func(l *nodes.Loop) {
			for i := range 40 {
				lives(l, 1, fmt.Sprint("life", i))
			}
		},
		"it is restarted every few minutes, each time with a late message": func(l *nodes.Loop) {
			for i := range 6 {
				lives(l, 1, fmt.Sprint("life", i+1), fmt.Sprint("life", i), fmt.Sprint("life", i+1))
				lives(l, 20, fmt.Sprint("life", i+1))
			}
		},
		"old and new worker report side by side": func(l *nodes.Loop) { lives(l, 20, "a", "a") },
		"it does not say which life it is":       func(l *nodes.Loop) { lives(l, 20, "", "") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 1)
				l, stop := c.lead()
				live(l)
				if n, _ := c.state.Read().Node("n0"); n.Lock != nil || n.Observed.State != fleet.NodeUp {
					t.Errorf("lock %+v, %s", n.Lock, n.Observed.State)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
