// Package storetest is the conformance suite of event stores: every engine must pass it.
//
// It owns no store. It needs only a function that opens one on a directory, and opens the same directory again to check
// what survived.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/fleet"
)

// Store is what the suite asks of a store; package events documents the methods.
type Store interface {
	Put(ctx context.Context, evs []fleet.Event) error
	Query(ctx context.Context, q events.Query) (events.Page, error)
	Get(ctx context.Context, tenant fleet.TenantID, id fleet.EventID) (fleet.Event, error)
	Attacks(ctx context.Context, q events.AttackQuery) (events.AttackPage, error)
	Aggregate(ctx context.Context, a events.Aggregation) (events.AggregatePage, error)
	Attack(ctx context.Context, tenant fleet.TenantID, id fleet.AttackID) (fleet.Attack, error)
	Through(ctx context.Context, node fleet.NodeID, boot string) (uint64, error)
	Close() error
}

// Open opens the store in dir with a clock that stands at Now.
type Open func(t *testing.T, dir string) Store

// Now is the time of the suite's clock: ten minutes after a UTC midnight.
var Now = time.Date(2026, 11, 5, 0, 10, 0, 0, time.UTC)

// Event returns the event with a sequence number of a tenant; it happened age before Now.
func Event(node fleet.NodeID, boot string, seq uint64, tenant fleet.TenantID, age time.Duration) fleet.Event {
	return fleet.Event{
		ID: fleet.NewEventID(node, boot, seq), NodeID: node, Boot: boot, Seq: seq, Time: Now.Add(-age),
		Tenant: tenant, Host: fleet.HostName(string(tenant) + ".example.com"), Region: "eu", Software: "1.0.0",
		Ruleset: fleet.Version{Incarnation: 1, Generation: 7}, MaskedPoints: []string{"header[AUTHORIZATION]"},
		RequestID: "r1", Type: fleet.AttackSQLi, Score: 15, Mode: "block", Status: fleet.Blocked,
		Rules: []fleet.MatchedRule{{ID: "942100", Message: "SQL Injection Attack Detected via libinjection", Severity: "critical"}},
		Point: "query[q]", Parameter: "q", Payloads: []string{"1' OR '1'='1"}, Method: "GET", Path: "/search", Protocol: "HTTP/2.0",
		ClientIP: "192.0.2.7", ClientPort: 4711, ResponseStatus: 403,
	}
}

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"an event is returned as it was put":                testRoundTrip,
		"an event that is put again changes nothing":        testIdempotence,
		"pages follow each other over days, in both orders": testPages,
		"a page stays the same while newer events arrive":   testPagesWhileWriting,
		"filters select":                                         testFilters,
		"a tenant sees its own events only":                      testTenants,
		"the watermark stops at a gap and moves when it is full": testThrough,
		"everything is there after the store is opened again":    testReopen,
		"what cannot be asked is refused with the field":         testRefusals,
		"events that are not valid are refused":                  testInvalid,
		"hits make the same attacks in whatever order they come": testAttacks,
		"events are counted by what they have in common":         testAggregate,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func closing(t *testing.T, s Store) Store {
	t.Helper()
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// all reads every page of q.
func all(t *testing.T, s Store, q events.Query) (ids []fleet.EventID) {
	t.Helper()
	for range 1000 {
		p, err := s.Query(t.Context(), q)
		must(t, err)
		if q.Limit > 0 && len(p.Events) > q.Limit {
			t.Fatalf("a page of %d events", len(p.Events))
		}
		for _, ev := range p.Events {
			ids = append(ids, ev.ID)
		}
		if q.Cursor = p.Next; q.Cursor == "" {
			return ids
		}
	}
	t.Fatal("the pages do not end")
	return nil
}

func testRoundTrip(t *testing.T, open Open) {
	s := closing(t, open(t, t.TempDir()))
	ev := Event("n1", "b1", 1, "acme", time.Minute)
	ev.Time = ev.Time.Add(123456789)
	ev.Path = "/\x00\u2028<script>é\"'\\%00"
	must(t, s.Put(t.Context(), []fleet.Event{ev}))
	got, err := s.Get(t.Context(), "acme", ev.ID)
	must(t, err)
	if diff := cmp.Diff(ev, got); diff != "" {
		t.Error(diff)
	}
	page, err := s.Query(t.Context(), events.Query{})
	must(t, err)
	if diff := cmp.Diff(events.Page{Events: []fleet.Event{ev}}, page); diff != "" {
		t.Error(diff)
	}
}

func testIdempotence(t *testing.T, open Open) {
	s := closing(t, open(t, t.TempDir()))
	must(t, s.Put(t.Context(), nil))
	ev := Event("n1", "b1", 1, "acme", time.Minute)
	for range 3 {
		changed := ev
		changed.Path += "x"
		must(t, s.Put(t.Context(), []fleet.Event{ev, ev, Event("n1", "b1", 2, "acme", 0), changed}))
	}
	if got := all(t, s, events.Query{}); len(got) != 2 {
		t.Errorf("%v", got)
	}
	got, err := s.Get(t.Context(), "", ev.ID)
	must(t, err)
	if diff := cmp.Diff(ev, got); diff != "" {
		t.Error(diff)
	}
}

// spread returns events over four days, two of each at the same moment, newest first.
func spread() (evs []fleet.Event) {
	seq := uint64(100)
	for hour := range 40 {
		for range 2 {
			seq--
			evs = append(evs, Event("n1", "b1", seq+100, "acme", time.Duration(hour)*2*time.Hour))
		}
	}
	return evs
}

func testPages(t *testing.T, open Open) {
	s := closing(t, open(t, t.TempDir()))
	evs := spread()
	must(t, s.Put(t.Context(), evs))
	var newest []fleet.EventID
	for _, ev := range evs {
		newest = append(newest, ev.ID)
	}
	var oldest []fleet.EventID
	for i := range newest {
		oldest = append(oldest, newest[len(newest)-1-i])
	}
	for _, limit := range []int{0, 1, 2, 3, 7, 79, 80, 81, 100} {
		if diff := cmp.Diff(newest, all(t, s, events.Query{Limit: limit})); diff != "" {
			t.Errorf("limit %d: %s", limit, diff)
		}
		if diff := cmp.Diff(oldest, all(t, s, events.Query{Limit: limit, Ascending: true})); diff != "" {
			t.Errorf("ascending, limit %d: %s", limit, diff)
		}
	}
	from, to := evs[30].Time, evs[10].Time
	if diff := cmp.Diff(newest[12:32], all(t, s, events.Query{Since: from, Until: to, Limit: 3})); diff != "" {
		t.Errorf("time range: %s", diff)
	}
}

func testPagesWhileWriting(t *testing.T, open Open) {
	s := closing(t, open(t, t.TempDir()))
	evs := spread()
	must(t, s.Put(t.Context(), evs[10:]))
	first, err := s.Query(t.Context(), events.Query{Limit: 10})
	must(t, err)
	must(t, s.Put(t.Context(), evs[:10]))
	rest := all(t, s, events.Query{Limit: 10, Cursor: first.Next})
	if len(rest) != 60 || rest[0] != evs[20].ID {
		t.Errorf("%d events from %s", len(rest), rest[0])
	}
}

func testFilters(t *testing.T, open Open) {
	s := closing(t, open(t, t.TempDir()))
	var evs []fleet.Event
	for i := range uint64(24) {
		ev := Event("n1", "b1", i+1, "acme", time.Duration(i)*time.Hour)
		if i%2 == 0 {
			ev.Type = fleet.AttackXSS
		}
		if i%3 == 0 {
			ev.Status = fleet.Monitored
		}
		if i%4 == 0 {
			ev.Host = "shop.example.com"
		}
		evs = append(evs, ev)
	}
	must(t, s.Put(t.Context(), evs))
	for name, tc := range map[string]struct {
		q    events.Query
		want int
	}{
		"type":           {events.Query{Type: fleet.AttackXSS}, 12},
		"status":         {events.Query{Status: fleet.Monitored}, 8},
		"host":           {events.Query{Host: "shop.example.com"}, 6},
		"all together":   {events.Query{Type: fleet.AttackXSS, Status: fleet.Monitored, Host: "shop.example.com", Tenant: "acme"}, 2},
		"nobody's type":  {events.Query{Type: "' OR 1=1 --"}, 0},
		"nobody's host":  {events.Query{Host: "%"}, 0},
		"since":          {events.Query{Since: Now.Add(-time.Hour)}, 2},
		"until excluded": {events.Query{Until: Now}, 23},
		"empty range":    {events.Query{Since: Now.Add(time.Hour)}, 0},
		"same moment":    {events.Query{Since: Now, Until: Now}, 0},
	} {
		if got := all(t, s, tc.q); len(got) != tc.want {
			t.Errorf("%s: %d events, want %d", name, len(got), tc.want)
		}
	}
}

func testTenants(t *testing.T, open Open) {
	s := closing(t, open(t, t.TempDir()))
	mine, theirs := Event("n1", "b1", 1, "acme", 0), Event("n1", "b1", 2, "globex", 0)
	must(t, s.Put(t.Context(), []fleet.Event{mine, theirs}))
	if diff := cmp.Diff([]fleet.EventID{mine.ID}, all(t, s, events.Query{Tenant: "acme"})); diff != "" {
		t.Error(diff)
	}
	if got := all(t, s, events.Query{Tenant: "acme", Host: theirs.Host}); len(got) != 0 {
		t.Errorf("another tenant's host: %v", got)
	}
	if got := all(t, s, events.Query{}); len(got) != 2 {
		t.Errorf("operator: %v", got)
	}
	_, err := s.Get(t.Context(), "acme", theirs.ID)
	_, absent := s.Get(t.Context(), "acme", "n1:b1:3")
	if !errors.Is(err, fleet.ErrNotFound) || !errors.Is(absent, fleet.ErrNotFound) {
		t.Errorf("another tenant's event: %v; one that is not there: %v", err, absent)
	}
	if _, err := s.Get(t.Context(), "", theirs.ID); err != nil {
		t.Errorf("operator: %v", err)
	}
	if _, err := s.Get(t.Context(), "acme", "nonsense"); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("an id that is none: %v", err)
	}
}

func testThrough(t *testing.T, open Open) {
	s := closing(t, open(t, t.TempDir()))
	put := func(node fleet.NodeID, boot string, seqs ...uint64) {
		t.Helper()
		var evs []fleet.Event
		for _, seq := range seqs {
			// Neighbours in sequence may be of different tenants and days.
			evs = append(evs, Event(node, boot, seq, fleet.TenantID(fmt.Sprintf("t%d", seq%3)), time.Duration(seq%5)*24*time.Hour))
		}
		must(t, s.Put(t.Context(), evs))
	}
	want := func(node fleet.NodeID, boot string, through uint64) {
		t.Helper()
		if got, err := s.Through(t.Context(), node, boot); err != nil || got != through {
			t.Fatalf("%s %s: %d, %v; want %d", node, boot, got, err, through)
		}
	}
	want("n1", "b1", 0)
	put("n1", "b1", 2, 3)
	want("n1", "b1", 0)
	put("n1", "b1", 1)
	want("n1", "b1", 3)
	put("n1", "b1", 9, 7, 5, 6)
	want("n1", "b1", 3)
	put("n1", "b1", 4, 4, 2)
	want("n1", "b1", 7)
	put("n1", "b1", 8)
	want("n1", "b1", 9)
	put("n1", "b2", 1)
	put("n2", "b1", 2, 1)
	want("n1", "b1", 9)
	want("n1", "b2", 1)
	want("n2", "b1", 2)
}

func testReopen(t *testing.T, open Open) {
	dir := t.TempDir()
	s := open(t, dir)
	evs := spread()
	must(t, s.Put(t.Context(), evs))
	must(t, s.Put(t.Context(), []fleet.Event{Event("n2", "b1", 1, "acme", 0), Event("n2", "b1", 3, "acme", 0)}))
	must(t, s.Close())
	must(t, s.Close())
	s = closing(t, open(t, dir))
	if got := all(t, s, events.Query{}); len(got) != len(evs)+2 {
		t.Errorf("%d events", len(got))
	}
	must(t, s.Put(t.Context(), []fleet.Event{Event("n2", "b1", 2, "acme", 0)}))
	if got, err := s.Through(t.Context(), "n2", "b1"); err != nil || got != 3 {
		t.Errorf("watermark %d, %v", got, err)
	}
}

func testRefusals(t *testing.T, open Open) {
	s := closing(t, open(t, t.TempDir()))
	must(t, s.Put(t.Context(), spread()))
	page, err := s.Query(t.Context(), events.Query{Limit: 1})
	must(t, err)
	for name, tc := range map[string]struct {
		q     events.Query
		field string
	}{
		"limit":                      {events.Query{Limit: 101}, "limit"},
		"negative limit":             {events.Query{Limit: -1}, "limit"},
		"range":                      {events.Query{Since: Now, Until: Now.Add(-1)}, "until"},
		"cursor":                     {events.Query{Cursor: "x"}, "cursor"},
		"cursor of nothing":          {events.Query{Cursor: "e30"}, "cursor"},
		"cursor of the other order":  {events.Query{Cursor: page.Next, Ascending: true}, "cursor"},
		"cursor with something more": {events.Query{Cursor: page.Next + "AAAA"}, "cursor"},
	} {
		if _, err := s.Query(t.Context(), tc.q); !errors.Is(err, fleet.ErrInvalid) || fleet.AsError(err).Field != tc.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func testInvalid(t *testing.T, open Open) {
	s := closing(t, open(t, t.TempDir()))
	bad := Event("n1", "b1", 1, "acme", 0)
	bad.Tenant = "../x"
	if err := s.Put(t.Context(), []fleet.Event{Event("n1", "b1", 2, "acme", 0), bad}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("%v", err)
	}
	if got := all(t, s, events.Query{}); len(got) != 0 {
		t.Errorf("half a batch was stored: %v", got)
	}
}
