package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
	"github.com/edgefleet/edgefleet/fleet/sample"
)

// randomRules are a few rules of every kind that decides, over the few words that random requests are made of.
func randomRules(r *rand.Rand) []fleet.BundleRule {
	word := func() string { return []string{"alpha", "beta", "gamma"}[r.IntN(3)] }
	var bundle []fleet.BundleRule
	for i := range 1 + r.IntN(8) {
		s := fleet.RuleSpec{}
		switch r.IntN(5) {
		case 0:
			s = fleet.RuleSpec{Kind: fleet.RuleMode, Mode: fleet.Modes[r.IntN(len(fleet.Modes))]}
		case 1:
			s = fleet.RuleSpec{Kind: fleet.RuleVPatch, Point: fleet.Point{{"get", word()}}}
		case 2:
			s = fleet.RuleSpec{Kind: fleet.RuleDisableRule, Rules: []string{fmt.Sprintf("r%d", r.IntN(8))}}
		case 3:
			s = fleet.RuleSpec{Kind: fleet.RuleVPatch, AttackTypes: []fleet.AttackType{fleet.AttackCustom}, Point: fleet.Point{{"get", word()}}}
		default:
			s = fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: word(), AttackType: fleet.AttackCustom, Experimental: r.IntN(3) == 0}
		}
		if r.IntN(2) == 0 {
			s.Conditions = append(s.Conditions, fleet.RuleCondition{Type: fleet.MatchEqual, Point: "path[0]", Value: word()})
		}
		if r.IntN(10) == 0 {
			s.ExpiresAt = time.Now().Add(-time.Hour)
		}
		bundle = append(bundle, fleet.BundleRule{ID: fleet.RuleID(fmt.Sprintf("r%d", i)), Spec: s})
	}
	return bundle
}

// TestExplanationsSayWhatTheEdgeDoes sends random requests through an edge with random rules. The managed rules are there, and
// the words mean nothing to them.
func TestExplanationsSayWhatTheEdgeDoes(t *testing.T) {
	judge, err := waf.NewEngine(waf.Options{AnomalyThreshold: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) { o.Judge = judge }, originServer(t, func(http.ResponseWriter, *http.Request) {}))
	c := e.client(false)
	random := rand.New(rand.NewPCG(3, 1))
	word := func() string { return []string{"alpha", "beta", "gamma", "delta"}[random.IntN(4)] }
	seen := map[rules.Outcome]int{}
	modes := append([]fleet.Mode{fleet.ModeInherit}, fleet.Modes...)
	for range 60 {
		set := compiled(t, randomRules(random)...)
		before := e.snapshot.Load()
		host := *before.Hosts[hostName]
		host.Rules, host.Mode = set, modes[random.IntN(len(modes))]
		next := *before
		next.Hosts = map[fleet.HostName]*config.Host{hostName: &host}
		e.snapshot.Store(&next)
		for range 4 {
			uri := "/" + word() + "/x?" + word() + "=" + word()
			events := len(e.events.list())
			a := do(t, c, http.MethodGet, "https://"+hostName+uri, http.NoBody, "User-Agent", "Mozilla/5.0")
			q := sample.Request{Method: http.MethodGet, Scheme: "https", Proto: "HTTP/1.1", Host: hostName, URI: uri, Header: http.Header{"User-Agent": {"Mozilla/5.0"}}}
			x := set.Explain(rules.Question{Host: host.Mode, Request: q.Parse(128 << 10), Now: time.Now()})
			fired := 0
			for _, m := range x.Matches {
				if m.DisabledBy == "" {
					fired++
				}
			}
			if blocked := a.StatusCode == http.StatusForbidden; blocked != (x.Outcome == rules.OutcomeBlocked) || (len(e.events.list()) > events) != (fired > 0) {
				t.Fatalf("%s in %s: the edge answered %d with %d events, and the explanation is %+v", uri, host.Mode, a.StatusCode, len(e.events.list())-events, x)
			}
			seen[x.Outcome]++
		}
	}
	for _, o := range []rules.Outcome{rules.OutcomePassed, rules.OutcomeReported, rules.OutcomeBlocked} {
		if seen[o] < 10 {
			t.Errorf("%d of %s: the test says too little", seen[o], o)
		}
	}
}
