//nolint:forbidigo // the randomness here is the test's input, from a seed that it names
package hoststate_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hoststate"
)

var phases = []fleet.HostPhase{
	fleet.PhaseClaimed, fleet.PhasePendingDNS, fleet.PhasePreflight, fleet.PhaseOrdering, fleet.PhaseValidating, fleet.PhaseIssuing,
	fleet.PhaseDeploying, fleet.PhaseActive, fleet.PhaseRenewing, fleet.PhaseMoved, fleet.PhaseDetached,
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func randomVerdict(r *rand.Rand) fleet.DNSVerdict {
	if r.IntN(2) == 0 {
		return fleet.DNSVerdict{OK: true}
	}
	return fleet.DNSVerdict{Reason: pick(r, hoststate.Messages).Code, Message: "m"}
}

// randomFacts changes everything that may be different at the next look, without regard to what can be.
func randomFacts(r *rand.Rand, h fleet.Host, now time.Time) hoststate.Facts {
	f := hoststate.Facts{Host: h, Now: now, Attempting: r.IntN(2) == 0, Challenged: r.IntN(2) == 0}
	if r.IntN(2) == 0 {
		f.Order = &fleet.Order{Host: h.Name, Attempts: r.IntN(3), NextAttempt: now.Add(time.Duration(r.IntN(7200)-3600) * time.Second)}
		f.Order.Problem = pick(r, []string{"", "garbage", "CA_REJECTED: no", hoststate.Problem(pick(r, hoststate.Messages).Code, "seen", "wanted")})
	}
	if r.IntN(2) == 0 {
		begin := now.Add(-time.Duration(r.IntN(2400)) * time.Hour)
		f.Cert = &fleet.Certificate{Host: h.Name, Generation: uint64(r.IntN(3)), NotBefore: begin, NotAfter: begin.Add(90 * 24 * time.Hour)}
	}
	if r.IntN(3) > 0 {
		f.Edges = &hoststate.Deployment{Published: r.IntN(2) == 0, Edges: r.IntN(3)}
		f.Edges.Laggards = make([]string, r.IntN(f.Edges.Edges+1))
	}
	return f
}

func TestWhateverHappensOnlyLegalStepsAreTaken(t *testing.T) {
	taken := map[hoststate.Edge]bool{}
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 4))
		h, now := claimed(), t0
		for range 200 {
			now = now.Add(pick(r, []time.Duration{0, time.Second, time.Minute, time.Hour, 100 * time.Hour}))
			switch r.IntN(4) {
			case 0:
				h.Observed = hoststate.Look(h.Observed, finding(randomVerdict(r), randomVerdict(r)), now, usual)
			case 1:
				h.Observed = hoststate.Shake(h.Observed, uint64(r.IntN(3)), pick(r, []error{nil, errors.New("no")}), now, usual)
			}
			f := randomFacts(r, h, now)
			settle(t, &f, taken)
			h = f.Host
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
	for _, e := range hoststate.Edges {
		if e.From != "" && e.From != fleet.PhaseDeleting && !taken[hoststate.Edge{From: e.From, To: e.To}] {
			t.Errorf("no random facts lead from %s to %s: %s", e.From, e.To, e.When)
		}
	}
}

// settle decides until nothing changes, and checks each step.
func settle(t *testing.T, f *hoststate.Facts, taken map[hoststate.Edge]bool) {
	t.Helper()
	for range len(phases) {
		before := f.Host.Observed
		o, p := hoststate.Decide(*f, usual)
		if before.Phase != o.Phase && !hoststate.Legal(before.Phase, o.Phase) {
			t.Errorf("from %s to %s: %+v", before.Phase, o.Phase, f)
		}
		taken[hoststate.Edge{From: before.Phase, To: o.Phase}] = true
		if want := hoststate.RollUp(o, f.Now, usual); o.Status != want || !slices.Contains(phases, o.Phase) {
			t.Errorf("status %s, by its conditions %s: %+v", o.Status, want, o)
		}
		if (o.Phase == fleet.PhaseDetached || o.Phase == fleet.PhaseClaimed) && (p.Order || p.Issue) {
			t.Errorf("the CA is asked for a %s host", o.Phase)
		}
		f.Host.Observed = o
		if hoststate.Equal(before, o) {
			return
		}
	}
	t.Errorf("it does not settle: %+v", f)
}

func TestEdgesNameWhatIsThere(t *testing.T) {
	for _, e := range hoststate.Edges {
		if e.When == "" || e.From == e.To || !hoststate.Legal(e.From, e.To) && e.From != "" {
			t.Errorf("%+v", e)
		}
	}
	for _, p := range phases {
		if !hoststate.Legal(p, fleet.PhaseDeleting) || hoststate.Legal(p, fleet.PhaseClaimed) || hoststate.Legal(fleet.PhaseTombstone, p) || hoststate.Legal(fleet.PhaseDeleting, p) || hoststate.Legal(p, fleet.PhaseTombstone) {
			t.Errorf("the edges of %s", p)
		}
	}
	if !hoststate.Legal(fleet.PhaseDeleting, fleet.PhaseTombstone) || hoststate.Legal(fleet.PhaseTombstone, fleet.PhaseDeleting) {
		t.Error("deleting ends in a tombstone, and nothing leaves it")
	}
}

func TestMessages(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range hoststate.Messages {
		if seen[m.Code] || m.Seen == "" || m.Wanted == "" || m.Who == "" || m.Next == "" || !strings.HasPrefix(m.Example, m.Code+": ") {
			t.Errorf("%+v", m)
		}
		seen[m.Code] = true
	}
	for _, code := range []string{
		"DNS_MISSING", "DNS_WRONG_TARGET", "DNS_PARTIAL", "DNS_CONFLICT_AAAA", "DNS_PROXIED", "DNS_SERVFAIL", "DNSSEC_BOGUS", "CAA_FORBIDDEN", "CAA_LOOKUP_FAILED",
		"CLAIMED_ELSEWHERE", "CA_RATE_LIMITED", "CA_REJECTED_NAME", "CA_UNAVAILABLE", "RENEWAL_BLOCKED", "DEPLOY_PARTIAL", "CA_REJECTED", "HTTP_UNREACHABLE",
	} {
		if !seen[code] {
			t.Errorf("%s has no message", code)
		}
	}
	o := hoststate.Look(claimed().Observed, finding(fleet.DNSVerdict{Reason: fleet.ReasonDNSSECBogus, Message: "m"}, missing), t0, usual)
	bogus, _ := hoststate.Lookup(fleet.ReasonDNSSECBogus)
	want := []fleet.HostAdvice{
		{Condition: "ownership", Reason: "DNSSEC_BOGUS", Seen: "m", Wanted: bogus.Wanted, Who: fleet.WhoCustomer, NextCheck: t0.Add(time.Second)},
		{Condition: "routing", Reason: "DNS_MISSING", Seen: "no CNAME", Wanted: "set it", Who: fleet.WhoCustomer, NextCheck: t0.Add(time.Second)},
	}
	if d := cmp.Diff(want, hoststate.Advise(o)); d != "" {
		t.Error(d)
	}
}

// The page is written by go test ./fleet/hoststate -run TheMessages -update.
func TestTheMessagesPageIsTheOneOfTheTable(t *testing.T) {
	const path = "../../docs/messages.md"
	if *update {
		if err := os.WriteFile(path, []byte(hoststate.Page()), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(hoststate.Page(), string(raw)); d != "" {
		t.Errorf("docs/messages.md (-want +got), go test ./fleet/hoststate -run TheMessages -update writes it:\n%s", d)
	}
}
