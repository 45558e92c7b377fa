package nodes_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/leader/nodes"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestWhatNodesSayOfOriginsIsKnownForAsLongAsTheyAreHeardOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := nodes.New(nodes.Options{Now: time.Now, ReapAfter: 15 * time.Second})
		tell := func(n fleet.NodeID, out ...fleet.OriginOut) {
			r := report(n)
			r.OriginsOut = out
			l.Report(r)
		}
		check := func(when string, nodes, out int) {
			t.Helper()
			said, heard := l.OriginsOut("a.example.com")
			if len(heard) != nodes || len(said["n1"]) != out || len(said["n2"]) != 0 {
				t.Errorf("%s: %v of %v", when, said, heard)
			}
		}
		check("at first", 0, 0)
		tell("n1", fleet.OriginOut{Host: "a.example.com", Server: "203.0.113.1:443", Reason: "dial"}, fleet.OriginOut{Host: "b.example.com", Server: "203.0.113.1:443", Reason: "dial"})
		tell("n2")
		check("out at one of two", 2, 1)
		tell("n1", make([]fleet.OriginOut, fleet.MaxOriginsOut+1)...)
		check("after a report over the limit", 2, 1)
		tell("n1")
		check("back", 2, 0)
		time.Sleep(10 * time.Second)
		tell("n2")
		time.Sleep(10 * time.Second)
		check("after one fell silent", 1, 0)
	})
}
