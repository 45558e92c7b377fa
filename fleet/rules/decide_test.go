package rules_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

// TestTheTableOfModes has every mode and list, with what is decided of each kind of request.
func TestTheTableOfModes(t *testing.T) {
	const analysed, passed, reported, blocked = "analysed", "passed", "reported", "blocked"
	for _, test := range []struct {
		mode   fleet.Mode
		source rules.Source
		// What becomes of a clean request, a malicious one, one that a virtual patch stops, and one that cannot be judged where
		// the fail policy closes.
		analyses                          bool
		clean, malicious, patched, failed string
	}{
		{fleet.ModeOff, rules.SourceNone, false, passed, passed, passed, passed},
		{fleet.ModeOff, rules.SourceAllow, false, passed, passed, passed, passed},
		{fleet.ModeOff, rules.SourceDeny, false, passed, passed, passed, passed},
		{fleet.ModeOff, rules.SourceGray, false, passed, passed, passed, passed},
		{fleet.ModeMonitoring, rules.SourceNone, true, reported, reported, blocked, reported},
		{fleet.ModeMonitoring, rules.SourceAllow, false, passed, passed, passed, passed},
		{fleet.ModeMonitoring, rules.SourceDeny, false, blocked, blocked, blocked, blocked},
		{fleet.ModeMonitoring, rules.SourceGray, true, reported, reported, blocked, reported},
		{fleet.ModeSafeBlocking, rules.SourceNone, true, reported, reported, blocked, reported},
		{fleet.ModeSafeBlocking, rules.SourceAllow, false, passed, passed, passed, passed},
		{fleet.ModeSafeBlocking, rules.SourceDeny, false, blocked, blocked, blocked, blocked},
		{fleet.ModeSafeBlocking, rules.SourceGray, true, reported, blocked, blocked, blocked},
		{fleet.ModeBlock, rules.SourceNone, true, reported, blocked, blocked, blocked},
		{fleet.ModeBlock, rules.SourceAllow, false, passed, passed, passed, passed},
		{fleet.ModeBlock, rules.SourceDeny, false, blocked, blocked, blocked, blocked},
		{fleet.ModeBlock, rules.SourceGray, true, reported, blocked, blocked, blocked},
	} {
		t.Run(fmt.Sprintf("%s from %q", test.mode, test.source), func(t *testing.T) {
			if got := rules.Analyses(test.mode, test.source); got != test.analyses {
				t.Errorf("analyses %t, want %t", got, test.analyses)
			}
			for name, c := range map[string]struct {
				facts rules.Facts
				want  string
			}{
				"clean":     {rules.Facts{}, test.clean},
				"malicious": {rules.Facts{Malicious: true}, test.malicious},
				"patched":   {rules.Facts{Malicious: true, Patched: true}, test.patched},
				"failed": {rules.Facts{
					Failed: []fleet.FailCause{fleet.FailTimeout}, Policy: fleet.FailPolicy{Timeout: fleet.FailClose},
				}, test.failed},
			} {
				c.facts.Mode, c.facts.Source = test.mode, test.source
				v := rules.Decide(c.facts)
				got := passed
				if v.Report {
					got = reported
				}
				if v.Block {
					got = blocked
				}
				if got != c.want || (v.Block) != (v.Reason != "") || v.Block && !v.Report {
					t.Errorf("%s: %s (%+v), want %s", name, got, v, c.want)
				}
			}
		})
	}
	if n := len(fleet.Modes) * len(rules.Sources); n != 16 {
		t.Errorf("%d modes and lists: the table has 16 lines", n)
	}
}

func TestTheFailPolicyDecidesByCause(t *testing.T) {
	for _, cause := range fleet.FailCauses {
		closed, err := fleet.FailPolicy{}.With(cause, fleet.FailClose)
		if err != nil {
			t.Fatal(err)
		}
		for _, failed := range fleet.FailCauses {
			v := rules.Decide(rules.Facts{Mode: fleet.ModeBlock, Failed: []fleet.FailCause{failed}, Policy: closed})
			if v.Block != (failed == cause) || v.Block && (v.Reason != rules.BlockedFailure || v.Cause != cause) {
				t.Errorf("%s closes and %s happens: %+v", cause, failed, v)
			}
		}
	}
	// An attack that was found is one, whatever else could not be judged.
	v := rules.Decide(rules.Facts{Mode: fleet.ModeBlock, Malicious: true, Failed: fleet.FailCauses})
	if diff := cmp.Diff(rules.Verdict{Report: true, Block: true, Reason: rules.BlockedAttack}, v); diff != "" {
		t.Error(diff)
	}
}

func TestEachLayerGoesOverThoseBeforeIt(t *testing.T) {
	for name, test := range map[string]struct {
		layers rules.Layers
		want   rules.Setting
	}{
		"nothing is set":                     {rules.Layers{}, rules.Setting{Mode: "monitoring", Layer: "default"}},
		"a host inherits nothing":            {rules.Layers{Host: "inherit"}, rules.Setting{Mode: "monitoring", Layer: "default"}},
		"a host inherits":                    {rules.Layers{Tenant: "block", TenantRule: "t", Host: "inherit"}, rules.Setting{Mode: "block", Layer: "tenant", Rule: "t"}},
		"the host over the tenant":           {rules.Layers{Tenant: "block", Host: "off"}, rules.Setting{Mode: "off", Layer: "host"}},
		"the location over the host":         {rules.Layers{Host: "off", Location: "block", LocationRule: "l"}, rules.Setting{Mode: "block", Layer: "location", Rule: "l"}},
		"a kill switch over all":             {rules.Layers{Location: "block", Kill: "monitoring"}, rules.Setting{Mode: "monitoring", Layer: "kill_switch"}},
		"a kill switch never to stricter":    {rules.Layers{Host: "off", Kill: "monitoring"}, rules.Setting{Mode: "off", Layer: "host"}},
		"a kill switch that changes nothing": {rules.Layers{Host: "monitoring", Kill: "monitoring"}, rules.Setting{Mode: "monitoring", Layer: "host"}},
	} {
		if diff := cmp.Diff(test.want, rules.Resolve(test.layers)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
