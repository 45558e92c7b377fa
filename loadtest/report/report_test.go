package report_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/loadtest/report"
)

func TestAReportHoldsOnlyIfAllItsChecksDo(t *testing.T) {
	for name, tc := range map[string]struct {
		fill  func(*report.Report)
		holds bool
	}{
		"nothing was checked":       {func(*report.Report) {}, false},
		"a rate at its bound":       {func(r *report.Report) { r.Add("rate", 10, "1/s", report.AtLeast(10), "") }, true},
		"a rate below its bound":    {func(r *report.Report) { r.Add("rate", 9.9, "1/s", report.AtLeast(10), "") }, false},
		"a wait at its bound":       {func(r *report.Report) { r.Add("wait", 50, "ms", report.AtMost(50), "") }, true},
		"a wait above its bound":    {func(r *report.Report) { r.Add("wait", 51, "ms", report.AtMost(50), "") }, false},
		"a number without a bound":  {func(r *report.Report) { r.Add("rate", 0, "1/s", report.Bound{}, "") }, true},
		"a check that was not made": {func(r *report.Report) { r.Add("rate", 9, "1/s", report.AtLeast(1), ""); r.Fail("peer", "", "away") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := report.Report{Started: time.Unix(0, 0)}
			tc.fill(&r)
			r.Finish(time.Unix(7, 0))
			if r.Holds != tc.holds || r.Seconds != 7 {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestBothFormsTellTheSame(t *testing.T) {
	r := report.Report{Scenario: "s", Started: time.Unix(0, 0).UTC(), Commit: "abc", Machine: report.ThisMachine(t.TempDir()), Peers: []report.Peer{{Name: "p", Version: "1", Setup: "as shipped"}}}
	r.Add("writes", 12345.6, "1/s", report.AtLeast(1000), "n")
	r.Fail("peer", "", "not installed")
	r.Finish(time.Unix(1, 0))
	var table, encoded bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"writes", "12346 1/s", ">= 1000", "yes", "NO", "not installed", "p 1: as shipped", "s: NOT all hold after 1 s, commit abc"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
	if err := r.WriteJSON(&encoded); err != nil {
		t.Fatal(err)
	}
	var again report.Report
	if err := json.Unmarshal(encoded.Bytes(), &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, again); diff != "" {
		t.Error(diff)
	}
}
