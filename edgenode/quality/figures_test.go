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

// heldOut was written after the tables of the tuned profile, which were made with the other corpora in sight: its figures say
// what the others cannot, and are bound to nothing.
const heldOut = "testdata/heldout"

// TestTheTunedProfileBlocksAttacksAndLetsPeopleWork is the promise of the default profile. EDGEFLEET_QUALITY=1 measures
// the stock profile too, and logs the tables of docs/detection.md; EDGEFLEET_QUALITY_OUT names a file for each outcome.
func TestTheTunedProfileBlocksAttacksAndLetsPeopleWork(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of requests")
	}
	benign, attacks := readBenign(t, "testdata/benign"), readAttacks(t, "testdata/attacks")
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
		if err := os.WriteFile(f, []byte(strings.Join(slices.Concat(blocked, stopped), "\n")), 0o600); err != nil {
			t.Error(err)
		}
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
		unseen, unseenAttacks := readBenign(t, heldOut+"/benign"), readAttacks(t, heldOut+"/attacks")
		sb, _ = stock.measure(t, unseen)
		b, blocked = tuned.measure(t, unseen)
		write(t, "Held out: benign requests that are blocked", sb, b)
		sa, _ = stock.measure(t, unseenAttacks)
		a, stopped = tuned.measure(t, unseenAttacks)
		write(t, "Held out: attacks that are blocked, by placement", sa, a)
		t.Log(strings.Join(slices.Concat(blocked, stopped), "\n"))
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
