package events

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

func FuzzDecode(f *testing.F) {
	now := time.Date(2026, 11, 5, 0, 0, 0, 0, time.UTC)
	ev := fleet.Event{
		ID: "n1:b1:2", NodeID: "n1", Boot: "b1", Seq: 2, Time: now, Tenant: "acme", Host: "a.example.com",
		Type: fleet.AttackSQLi, Status: fleet.Blocked, Payloads: []string{"x"}, Rules: []fleet.MatchedRule{{ID: "1"}},
	}
	good, err := json.Marshal(fleet.EventMessage{Released: 1, Event: ev})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"event":{"node_id":"n1"}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, why, err := decode("n1", data, now, DefaultRetention)
		if (err == nil) != (why == "") {
			t.Fatalf("reason %q with error %v", why, err)
		}
		if err != nil {
			return
		}
		if m.Event.NodeID != "n1" || m.Event.Validate() != nil || m.Released >= m.Event.Seq {
			t.Fatalf("accepted %+v", m)
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := decode("n1", again, now, DefaultRetention); err != nil && len(again) <= fleet.MaxEventBytes {
			t.Fatalf("not accepted again: %v", err)
		}
	})
}

func FuzzCursor(f *testing.F) {
	s, err := encodeCursor(cursor{Time: 1, ID: "n1:b1:1"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s)
	f.Add("e30")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := decodeCursor(s); err == nil && s != "" && (c.ID == "" || c.Time < 0) {
			t.Fatalf("accepted %+v", c)
		}
	})
}

func TestASubjectNamesItsNode(t *testing.T) {
	if got := nodeOf(fleet.NodeID("n1").EventSubject()); got != "n1" {
		t.Errorf("%q", got)
	}
}
