package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/fleet"
)

// counts puts 240 events over 60 hours: 6 paths, 3 client addresses, every third monitored.
func counts(t *testing.T, s Store) {
	t.Helper()
	var evs []fleet.Event
	for i := range uint64(240) {
		ev := Event("n1", "b1", i+1, "acme", time.Duration(i)*15*time.Minute)
		ev.Path = fmt.Sprintf("/%d", i%6)
		ev.ClientIP = fmt.Sprintf("192.0.2.%d", i%3)
		if i%3 == 0 {
			ev.Status, ev.ResponseStatus = fleet.Monitored, 99
		}
		evs = append(evs, ev)
	}
	must(t, s.Put(t.Context(), append(evs, Event("n1", "b2", 1, "globex", 0))))
}

// aggregate reads all pages of what a asks of the tenant acme.
func aggregate(t *testing.T, s Store, a events.Aggregation) (rows []map[string]any) {
	t.Helper()
	a.Tenant = "acme"
	for range 1000 {
		p, err := s.Aggregate(t.Context(), a)
		must(t, err)
		if rows = append(rows, p.Rows...); p.Next == "" {
			return rows
		}
		a.Cursor = p.Next
	}
	t.Fatal("the pages do not end")
	return nil
}

func testAggregate(t *testing.T, open Open) {
	s := closing(t, open(t, t.TempDir()))
	counts(t, s)
	since := Now.Add(-60 * time.Hour)
	n := func(v int) int64 { return int64(v) }
	for name, tc := range map[string]struct {
		a    events.Aggregation
		want []map[string]any
	}{
		"one number":              {events.Aggregation{Since: since}, []map[string]any{{"count": n(240)}}},
		"the last day by default": {events.Aggregation{Select: []string{"count", "blocked"}}, []map[string]any{{"count": n(96), "blocked": n(64)}}},
		"nothing":                 {events.Aggregation{Since: Now.Add(-100 * time.Hour), Until: since.Add(-time.Hour)}, nil},
		"groups by a number, the larger first": {
			events.Aggregation{Since: since, GroupBy: []string{"response_status"}, OrderBy: []events.Order{{By: "response_status", Desc: true}}},
			[]map[string]any{{"response_status": n(403), "count": n(160)}, {"response_status": n(99), "count": n(80)}},
		},
		"conditions": {
			events.Aggregation{Since: since, GroupBy: []string{"path", "client_ip"}, Where: []events.Condition{
				{Field: "path", Op: "in", Values: []string{"/0", "/1", "/5", "' OR 1=1 --"}},
				{Field: "client_ip", Op: "ne", Values: []string{"192.0.2.2"}},
				{Field: "response_status", Op: "eq", Values: []string{"403"}},
				{Field: "host", Op: "prefix", Values: []string{"acme."}},
			}},
			[]map[string]any{{"path": "/1", "client_ip": "192.0.2.1", "count": n(40)}},
		},
		"a prefix is no pattern": {events.Aggregation{Since: since, Where: []events.Condition{{Field: "path", Op: "prefix", Values: []string{"%"}}}}, nil},
		"days, with the first and last": {
			events.Aggregation{Since: since, GroupBy: []string{"day"}, Select: []string{"count", "first", "last"}},
			[]map[string]any{
				{"day": day(2), "count": n(47), "first": at(239), "last": at(193)},
				{"day": day(3), "count": n(96), "first": at(192), "last": at(97)},
				{"day": day(4), "count": n(96), "first": at(96), "last": at(1)},
				{"day": day(5), "count": n(1), "first": at(0), "last": at(0)},
			},
		},
	} {
		got := aggregate(t, s, tc.a)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		tc.a.Limit = 1
		if diff := cmp.Diff(tc.want, aggregate(t, s, tc.a)); diff != "" {
			t.Errorf("%s, one a page: %s", name, diff)
		}
	}
	testAggregateRefusals(t, s)
}

func day(d int) time.Time { return time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC) }

// at is the time of the i-th event of counts.
func at(i int) time.Time { return Now.Add(-time.Duration(i) * 15 * time.Minute) }

func testAggregateRefusals(t *testing.T, s Store) {
	t.Helper()
	paged := events.Aggregation{Tenant: "acme", GroupBy: []string{"path"}, Limit: 2}
	p, err := s.Aggregate(t.Context(), paged)
	must(t, err)
	for name, tc := range map[string]struct {
		a     events.Aggregation
		field string
	}{
		"a measure that is none":        {events.Aggregation{Select: []string{"sum(body)"}}, "select"},
		"a field that is none":          {events.Aggregation{GroupBy: []string{"body"}}, "group_by"},
		"a field twice":                 {events.Aggregation{GroupBy: []string{"path", "path"}}, "group_by"},
		"an order of what is not there": {events.Aggregation{OrderBy: []events.Order{{By: "path"}}}, "order_by"},
		"a comparison that is none":     {events.Aggregation{Where: []events.Condition{{Field: "path", Op: "like", Values: []string{"x"}}}}, "where"},
		"no values":                     {events.Aggregation{Where: []events.Condition{{Field: "path", Op: "in"}}}, "where"},
		"a status that is no number":    {events.Aggregation{Where: []events.Condition{{Field: "response_status", Op: "eq", Values: []string{"x"}}}}, "where"},
		"too large a page":              {events.Aggregation{Limit: 101}, "limit"},
		"a time range of nothing":       {events.Aggregation{Since: Now, Until: Now}, "time_range"},
		"a cursor that is none":         {events.Aggregation{Cursor: "x"}, "cursor"},
		"a cursor of something else":    {events.Aggregation{GroupBy: []string{"host"}, Limit: 2, Cursor: p.Next}, "cursor"},
	} {
		tc.a.Tenant = "acme"
		if _, err := s.Aggregate(t.Context(), tc.a); !errors.Is(err, fleet.ErrInvalid) || fleet.AsError(err).Field != tc.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}
