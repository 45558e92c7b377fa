package api_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestEventsAreCountedInGroups(t *testing.T) {
	f := open(t, 1)
	red, blue := f.tenant("red", ""), f.tenant("blue", "")
	now := time.Now()
	for seq := range uint64(6) {
		e := eventAt(seq+1, now.Add(-time.Duration(seq)*time.Minute))
		e.Path = []string{"/a,b", "/c:d"}[seq%2]
		f.happened(e, 0)
	}
	ask := func(token, tenant string, q url.Values) answer {
		return f.at(0, token).call("GET", "/v1/tenants/"+tenant+"/events:query?"+q.Encode(), nil)
	}
	var got client.Page[map[string]any]
	ask(red, "red", url.Values{"group_by": {"path"}, "select": {"count,blocked"}, "where": {"path:in:/a,b", "path:in:/c:d", "type:eq:sqli"}, "order_by": {"-count,path"}, "limit": {"1"}}).want(200).into(&got)
	if diff := cmp.Diff([]map[string]any{{"path": "/a,b", "count": 3.0, "blocked": 3.0}}, got.Items); diff != "" || got.Next == "" {
		t.Errorf("%s, next %q", diff, got.Next)
	}
	ask(blue, "red", nil).want(404)
	var none client.Page[map[string]any]
	ask(blue, "blue", url.Values{"where": {"path:in:/c:d"}}).want(200).into(&none)
	if len(none.Items) != 0 {
		t.Errorf("another tenant's events are counted: %v", none.Items)
	}
	for name, q := range map[string]url.Values{
		"group_by": {"group_by": {"body"}}, "where": {"where": {"path"}}, "order_by": {"order_by": {"-path"}}, "cursor": {"cursor": {"x"}},
	} {
		if a := ask(red, "red", q).want(422); a.Field != name {
			t.Errorf("%s: %s", name, a.body)
		}
	}
}

func TestAnExportIsWholeAndHarmlessInASpreadsheet(t *testing.T) {
	f := open(t, 1)
	red, blue := f.tenant("red", ""), f.tenant("blue", "")
	now := time.Now()
	var evs []fleet.Event
	for seq := range uint64(250) { // three pages
		e := eventAt(seq+1, now.Add(time.Duration(seq)*time.Millisecond-time.Hour))
		e.Path = []string{"=cmd|' /C calc'!A0", "\t@SUM(1)", " +1", "/plain, \"quoted\"\nline"}[seq%4]
		evs = append(evs, e)
	}
	must(t, f.members[0].events.Put(t.Context(), evs))
	raw := f.at(0, red).call("GET", "/v1/tenants/red/events:export", nil).want(200)
	if ct := raw.header.Get("Content-Type"); ct != "application/x-ndjson" {
		t.Errorf("content type %q", ct)
	}
	var got []fleet.Event
	for line := range bytes.Lines(raw.body) {
		var e fleet.Event
		must(t, json.Unmarshal(line, &e))
		got = append(got, e)
	}
	if diff := cmp.Diff(evs, got); diff != "" {
		t.Error(diff)
	}
	table := f.at(0, red).call("GET", "/v1/tenants/red/events:export?format=csv", nil).want(200)
	rows, err := csv.NewReader(bytes.NewReader(table.body)).ReadAll()
	if err != nil || len(rows) != 251 || rows[0][7] != "path" {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for i, row := range rows[1:] {
		for _, cell := range row {
			if text := strings.TrimLeft(cell, " "); text != "" && strings.ContainsRune("=+-@\t", rune(text[0])) {
				t.Errorf("row %d: %q is a formula", i, cell)
			}
		}
		if want := evs[i].Path; strings.TrimPrefix(row[7], "'") != want {
			t.Errorf("row %d: path %q, want %q", i, row[7], want)
		}
	}
	f.at(0, blue).call("GET", "/v1/tenants/red/events:export", nil).want(404)
	f.at(0, red).call("GET", "/v1/tenants/red/events:export?attack=x", nil).want(404)
	if b := f.at(0, blue).call("GET", "/v1/tenants/blue/events:export", nil).want(200).body; len(b) != 0 {
		t.Errorf("another tenant's export: %s", b)
	}
}
