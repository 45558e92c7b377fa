package quality_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
)

// What the tuned profile must hold: the shares are of requests.
const (
	mostBenignBlocked    = 0.01
	leastAttacksDetected = 0.90
)

// figure counts the requests of a group, and those that were blocked.
type figure struct{ all, blocked int }

func (f figure) share() float64 { return float64(f.blocked) / float64(f.all) }

// measure sends requests and counts those that are answered 403. Any other answer than the origin's is an error: a request
// that did not get to the rules says nothing about them.
func (e *edge) measure(t testing.TB, requests []request) (map[string]figure, []string) {
	t.Helper()
	outcomes, errs := make([]outcome, len(requests)), make([]error, len(requests))
	each(len(requests), func(i int) { outcomes[i], errs[i] = e.send(context.WithoutCancel(t.Context()), requests[i].raw()) })
	figures := map[string]figure{}
	var blocked []string
	for i, r := range requests {
		s := outcomes[i].status
		if s == 400 && r.attack { // the edge itself refuses a target that the origin could read in another way
			s = 403
		}
		if errs[i] != nil || s != 200 && s != 403 {
			t.Errorf("%s, %s: status %d, %v", r.group, r.name, s, errs[i])
		}
		f := figures[r.group]
		f.all++
		if s == 403 {
			f.blocked++
			var rules []string
			for _, ev := range outcomes[i].events {
				for _, m := range ev.Rules {
					rules = append(rules, m.ID)
				}
			}
			blocked = append(blocked, fmt.Sprintf("%s, %s: %v", r.group, r.name, rules))
		} else {
			blocked = append(blocked, fmt.Sprintf("passed %s, %s", r.group, r.name))
		}
		figures[r.group] = f
	}
	return figures, blocked
}

func total(figures map[string]figure) figure {
	var sum figure
	for _, f := range figures {
		sum.all += f.all
		sum.blocked += f.blocked
	}
	return sum
}

// TestTheTunedProfileBlocksAttacksAndLetsPeopleWork is the promise of the default profile. EDGEFLEET_QUALITY=1 measures
// the stock profile too, and writes docs/detection.md.
func TestTheTunedProfileBlocksAttacksAndLetsPeopleWork(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of requests")
	}
	benign, attacks := readBenign(t), readAttacks(t)
	if len(benign) < 500 {
		t.Fatalf("%d benign requests: 500 and more make a share of one in a hundred mean something", len(benign))
	}
	if raceEnabled {
		benign, attacks = thin(benign, 20), thin(attacks, 60)
	}
	tuned := newEdge(t, waf.Options{}, fleet.ModeBlock)
	b, blocked := tuned.measure(t, benign)
	a, stopped := tuned.measure(t, attacks)
	if f := os.Getenv("EDGEFLEET_QUALITY_OUT"); f != "" {
		_ = os.WriteFile(f, []byte(strings.Join(append(blocked, stopped...), "\n")), 0o600)
	}
	sums := [2]figure{total(b), total(a)}
	t.Logf("tuned: %d of %d benign requests blocked, %d of %d attacks", sums[0].blocked, sums[0].all, sums[1].blocked, sums[1].all)
	if !raceEnabled && sums[0].share() > mostBenignBlocked {
		t.Errorf("%.1f %% of benign requests are blocked, more than %.0f %%", 100*sums[0].share(), 100*mostBenignBlocked)
		for _, s := range blocked {
			if !strings.HasPrefix(s, "passed") {
				t.Log(s)
			}
		}
	}
	if !raceEnabled && sums[1].share() < leastAttacksDetected {
		t.Errorf("%.1f %% of attacks are blocked, less than %.0f %%", 100*sums[1].share(), 100*leastAttacksDetected)
	}
	if os.Getenv("EDGEFLEET_QUALITY") != "" && !raceEnabled {
		stock := newEdge(t, waf.Options{Profile: waf.ProfileStock}, fleet.ModeBlock)
		sb, _ := stock.measure(t, benign)
		sa, _ := stock.measure(t, attacks)
		write(t, "Benign requests that are blocked, by category", sb, b)
		write(t, "Attacks that are blocked, by placement", sa, a)
	}
}

func thin(all []request, n int) []request {
	var some []request
	for i := 0; i < len(all); i += n {
		some = append(some, all[i])
	}
	return some
}

func write(t testing.TB, title string, stock, tuned map[string]figure) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n| | requests | stock level 1 | tuned |\n|---|---|---|---|\n", title)
	row := func(name string, s, u figure) {
		fmt.Fprintf(&b, "| %s | %d | %d (%.1f %%) | %d (%.1f %%) |\n", name, s.all, s.blocked, 100*s.share(), u.blocked, 100*u.share())
	}
	for _, name := range slices.Sorted(maps.Keys(stock)) {
		row(name, stock[name], tuned[name])
	}
	row("all", total(stock), total(tuned))
	t.Log("\n" + b.String())
}
