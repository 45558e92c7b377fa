package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/controlplane/events/storetest"
	"github.com/edgefleet/edgefleet/fleet"
)

// eventAt is an event of tenant red.
func eventAt(seq uint64, at time.Time) fleet.Event {
	e := storetest.Event("n1", "b1", seq, "red", 0)
	e.Time = at.UTC()
	return e
}

// happened stores an event at every member that is named.
func (f *fixture) happened(e fleet.Event, members ...int) {
	f.t.Helper()
	for _, i := range members {
		must(f.t, f.members[i].events.Put(f.t.Context(), []fleet.Event{e}))
	}
}

// message is one message of a stream: its kind and the events' ids, or its data.
func message(t *testing.T, lines <-chan string) (kind, id, data string) {
	t.Helper()
	for {
		l := next(t, lines)
		if l == "END" {
			return l, id, data
		}
		field, value, _ := strings.Cut(l, ": ")
		switch field {
		case "event":
			kind = value
		case "id":
			id = value
		case "data":
			return kind, id, value
		}
	}
}

// sequence reads n events and returns their sequence numbers and the last id.
func sequence(t *testing.T, lines <-chan string, n int) (seqs []uint64, last string) {
	t.Helper()
	for range n {
		kind, id, data := message(t, lines)
		var e fleet.Event
		if err := json.Unmarshal([]byte(data), &e); kind != "event" || err != nil {
			t.Fatalf("got %s %s: %v", kind, data, err)
		}
		seqs, last = append(seqs, e.Seq), id
	}
	return seqs, last
}

func TestATailThatWasCutBeforeItsFirstEventLosesNone(t *testing.T) {
	f := open(t, 2)
	red := f.tenant("red", "")
	lines, cut := f.at(0, red).stream("/v1/tenants/red/events:tail")
	var start string
	for ok := false; !ok; {
		start, ok = strings.CutPrefix(next(t, lines), "id: ")
	}
	cut()
	f.happened(eventAt(1, time.Now()), 1)
	lines, _ = f.at(1, red).with("Last-Event-ID", start).stream("/v1/tenants/red/events:tail")
	f.happened(eventAt(2, time.Now()), 1)
	for seq := uint64(1); seq <= 2; {
		kind, _, data := message(t, lines)
		if kind == "gap" { // the other member's store is younger by a moment
			continue
		}
		var e fleet.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil || e.Seq != seq {
			t.Fatalf("got %s %s, want event %d", kind, data, seq)
		}
		seq++
	}
}

func TestATailGoesOnAtAnotherMemberWhereItWasCut(t *testing.T) {
	f := open(t, 2)
	red := f.tenant("red", "")
	f.lead("") // neither end needs a leader
	began := time.Now()
	at := func(seq uint64) time.Time { return began.Add(time.Duration(seq) * time.Second) } //nolint:gosec // small
	lines, cut := f.at(0, red).stream("/v1/tenants/red/events:tail")
	next(t, lines)
	for seq := range uint64(3) {
		f.happened(eventAt(seq+1, at(seq+1)), 0, 1)
	}
	got, last := sequence(t, lines, 3)
	cut()
	for seq := uint64(4); seq <= 250; seq++ { // more than two pages
		f.happened(eventAt(seq, at(seq)), 1)
	}
	late := eventAt(900, at(2))
	late.Boot = "b2"
	late.ID = fleet.NewEventID(late.NodeID, late.Boot, late.Seq)
	f.happened(late, 1)

	t.Run("with nothing lost and nothing twice", func(t *testing.T) {
		lines, _ := f.at(1, red).with("Last-Event-ID", last).stream("/v1/tenants/red/events:tail")
		more, _ := sequence(t, lines, 247)
		f.happened(eventAt(251, at(251)), 1)
		live, _ := sequence(t, lines, 1)
		var want []uint64
		for seq := range uint64(251) {
			want = append(want, seq+1)
		}
		if diff := cmp.Diff(want, slices.Concat(got, more, live)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("with what came late, if it overlaps", func(t *testing.T) {
		lines, _ := f.at(1, red).with("Last-Event-ID", last).stream("/v1/tenants/red/events:tail?overlap=1500ms")
		again, _ := sequence(t, lines, 4)
		if diff := cmp.Diff([]uint64{2, 900, 3, 4}, again); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("without a gap, which it says otherwise", func(t *testing.T) {
		old := eventAt(1, began.Add(-100*24*time.Hour))
		lines, _ := f.at(1, red).with("Last-Event-ID", events.PositionOf(old).String()).stream("/v1/tenants/red/events:tail")
		kind, _, data := message(t, lines)
		var gap struct {
			After     time.Time `json:"after"`
			KeptSince time.Time `json:"kept_since"`
		}
		if err := json.Unmarshal([]byte(data), &gap); kind != "gap" || err != nil || !gap.After.Equal(old.Time) || !gap.KeptSince.After(old.Time) {
			t.Errorf("got %s %s, want a gap", kind, data)
		}
		if all, _ := sequence(t, lines, 3); !slices.Equal(all, []uint64{1, 2, 900}) {
			t.Errorf("after the gap: %v", all)
		}
	})
}

func TestATailThatCannotBeginIsRefused(t *testing.T) {
	f := open(t, 1)
	red := f.tenant("red", "")
	for name, test := range map[string]struct{ id, query, field string }{
		"an id that is none":       {"17", "", "Last-Event-ID"},
		"an id of another API":     {"1760000000000000000-x", "", "Last-Event-ID"},
		"a time before all time":   {"-5-n1:b1:1", "", "Last-Event-ID"},
		"an overlap that is none":  {"1760000000000000000-n1:b1:1", "?overlap=ten", "overlap"},
		"an overlap of two hours":  {"1760000000000000000-n1:b1:1", "?overlap=2h", "overlap"},
		"an overlap to the future": {"1760000000000000000-n1:b1:1", "?overlap=-1s", "overlap"},
	} {
		if got := f.at(0, red).with("Last-Event-ID", test.id).call("GET", "/v1/tenants/red/events:tail"+test.query, nil).want(422); got.Field != test.field {
			t.Errorf("%s: field %q: %s", name, got.Field, got.body)
		}
	}
}

// The whole way: members that die under a client of this project, while events come.
func TestAFollowerSeesEveryEventOnceWhileMembersDie(t *testing.T) {
	f := open(t, 3)
	red := f.tenant("red", "")
	c, err := client.New(client.Options{Addrs: []string{f.members[0].addr, f.members[1].addr, f.members[2].addr}, Token: red, TLS: f.tls(nil)})
	must(t, err)
	defer c.Close()

	const last = 120
	ctx, enough := context.WithTimeout(t.Context(), patience)
	defer enough()
	var mu sync.Mutex
	var got []uint64
	var broken []error
	ended := make(chan error, 1)
	go func() {
		ended <- c.Follow(ctx, "/v1/tenants/red/events:tail", nil, func(err error) {
			mu.Lock()
			defer mu.Unlock()
			broken = append(broken, err)
		}, func(data []byte) error {
			var e fleet.Event
			if err := json.Unmarshal(data, &e); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if got = append(got, e.Seq); e.Seq == last {
				enough()
			}
			return nil
		})
	}()
	seen := func(what string, ok func() bool) {
		await(t, what, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return ok()
		})
	}
	// A stream begins with what comes after it was opened.
	first := eventAt(1, time.Now())
	await(t, "the stream is open", func() bool { return f.members[0].api.OpenTails() > 0 })
	f.happened(first, 0, 1, 2)
	seen("the first event", func() bool { return len(got) == 1 })
	for seq := uint64(2); seq <= last; seq++ {
		if seq == 40 || seq == 80 { // the member that the client reads from
			must(t, f.members[seq/40-1].server.Close())
		}
		f.happened(eventAt(seq, time.Now()), 2, 1, 0)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	slices.Sort(got)
	var want []uint64
	for seq := range uint64(last) {
		want = append(want, seq+1)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lost or twice: %s", diff)
	}
	if len(broken) == 0 {
		t.Error("it was not said that the stream broke")
	}
	if text := fmt.Sprint(broken); strings.Contains(text, "may be missing") {
		t.Errorf("a gap was told: %s", text)
	}
}
