package rules_test

import (
	"errors"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

func TestMasksHoldWhereTheirConditionsDoUntilTheyExpire(t *testing.T) {
	end := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	q := fleet.Point{{"get", "q"}}
	set, err := rules.Compile([]fleet.BundleRule{
		{ID: "m1", Spec: fleet.RuleSpec{Kind: fleet.RuleSensitiveData, Point: q, ExpiresAt: end, Conditions: []fleet.RuleCondition{{Type: "equal", Point: "path[0]", Value: "a"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var none *rules.Set
	for _, test := range []struct {
		set  *rules.Set
		uri  string
		now  time.Time
		want string
	}{
		{set, "/a/x?q=abcdef", end.Add(-time.Second), "*"},
		{set, "/b/x?q=abcdef", end.Add(-time.Second), "abcdef"},
		{set, "/a/x?q=abcdef", end, "abcdef"},
		{none, "/a/x?q=abcdef", end, "abcdef"},
	} {
		if got := test.set.Mask(test.now).Apply(parse(test.uri, "")).Excerpt(q, "abcdef"); got != test.want {
			t.Errorf("%s at %s: %q, want %q", test.uri, test.now, got, test.want)
		}
	}
	if got := none.Mask(end).Apply(parse("/?password=abcdef", "")).Path("/abcdef"); got != "/*" {
		t.Errorf("without rules: %q", got)
	}
	if err := rules.Validate(fleet.RuleSpec{Kind: fleet.RuleSensitiveData, Pattern: "a*"}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a mask that hides nothing: %v", err)
	}
}
