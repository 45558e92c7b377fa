package fsm_test

import (
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestRulesAreImportedAllOrNone(t *testing.T) {
	entry := func(id fleet.RuleID, pattern string) command.RuleEntry {
		s := rule(id, "acme").Spec
		s.Pattern = pattern
		return command.RuleEntry{ID: id, Spec: s}
	}
	in := func(b command.RulesImport) command.RulesImport {
		b.Tenant = "acme"
		return b
	}
	has := func(want map[fleet.RuleID]string) func(*testing.T, *state.View) {
		return func(t *testing.T, v *state.View) {
			t.Helper()
			got := map[fleet.RuleID]string{}
			for _, r := range v.RulesOf("acme") {
				got[r.ID] = r.Spec.Pattern
			}
			if len(got) != len(want) {
				t.Errorf("got %v, want %v", got, want)
			}
			for id, pattern := range want {
				if got[id] != pattern {
					t.Errorf("%s is %q, want %q", id, got[id], pattern)
				}
			}
		}
	}
	before := has(map[fleet.RuleID]string{"ra": "x"})
	run(t, []testCase{
		{name: "rules are added, changed and deleted together", given: []command.Body{rule("rz", "acme")}, when: in(command.RulesImport{Put: []command.RuleEntry{entry("ra", "new"), entry("rn", "y")}, Delete: []fleet.RuleID{"rz"}}), object: "rules/acme", of: "acme", then: has(map[fleet.RuleID]string{"ra": "new", "rn": "y"})},
		{name: "of a bad one none is written", when: in(command.RulesImport{Put: []command.RuleEntry{entry("rn", "y"), entry("ro", "")}}), refused: fleet.ErrInvalid, then: before},
		{name: "of one that is not there to delete none is written", when: in(command.RulesImport{Put: []command.RuleEntry{entry("rn", "y")}, Delete: []fleet.RuleID{"rb"}}), refused: fleet.ErrNotFound, unsaid: "beta", then: before},
		{name: "another tenant's id is taken", when: in(command.RulesImport{Put: []command.RuleEntry{entry("rb", "y")}}), refused: fleet.ErrConflict, unsaid: "beta", then: before},
		{name: "a rule twice", when: in(command.RulesImport{Put: []command.RuleEntry{entry("rn", "y"), entry("rn", "z")}}), refused: fleet.ErrInvalid, then: before},
		{name: "a rule that is written and deleted", when: in(command.RulesImport{Put: []command.RuleEntry{entry("ra", "y")}, Delete: []fleet.RuleID{"ra"}}), refused: fleet.ErrInvalid, then: before},
		{name: "rules that changed meanwhile", when: in(command.RulesImport{Put: []command.RuleEntry{entry("rn", "y")}, Base: &command.RulesBase{Count: 1, Revision: 1}}), refused: fleet.ErrChanged, then: before},
		{name: "of an unknown tenant", when: command.RulesImport{Tenant: "gamma"}, refused: fleet.ErrNotFound},
	})
}
