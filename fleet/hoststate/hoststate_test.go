package hoststate_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hoststate"
)

var t0 = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// claimed is a host as it is when it was just added.
func claimed() fleet.Host {
	c := fleet.Condition{State: fleet.ConditionUnknown, Since: t0, NextCheck: t0}
	return fleet.Host{Name: "api.example.com", Tenant: "acme", Observed: fleet.HostObserved{
		Phase: fleet.PhaseClaimed, Status: fleet.StatusPending, Ownership: c, Certificate: c, Routing: c,
	}}
}

var (
	right    = fleet.DNSVerdict{OK: true}
	servfail = fleet.DNSVerdict{Reason: fleet.ReasonDNSServfail, Message: "SERVFAIL"}
	missing  = fleet.DNSVerdict{Reason: fleet.ReasonDNSMissing, Message: "no CNAME", Action: "set it"}
)

var (
	deployed = &hoststate.Deployment{Published: true, Edges: 1}
	lagging  = &hoststate.Deployment{Published: true, Edges: 2, Laggards: []string{"n1"}}
	usual    = hoststate.Schedule{Scale: 1}
)

func look(o fleet.HostObserved, f fleet.DNSFinding, now time.Time) fleet.HostObserved {
	return hoststate.Look(o, f, now, usual)
}

// decide is the plan for one host: what stands in the state then, and the names of what is done.
func decide(f hoststate.Facts) (fleet.HostObserved, []string, time.Time) {
	o, p := hoststate.Decide(f, usual)
	for range hoststate.Edges { // a host that begins in the wrong phase gets to the right one step by step
		if hoststate.Equal(o, f.Host.Observed) {
			break
		}
		f.Host.Observed = o
		o, p = hoststate.Decide(f, usual)
	}
	var do []string
	for _, x := range []struct {
		name string
		due  bool
	}{{"dns", p.DNS}, {"order", p.Order}, {"issue", p.Issue}, {"handshake", p.Handshake}} {
		if x.due {
			do = append(do, x.name)
		}
	}
	return o, do, p.Wake
}

func finding(certificate, traffic fleet.DNSVerdict) fleet.DNSFinding {
	return fleet.DNSFinding{Certificate: certificate, Traffic: traffic}
}

// seen is a host whose records were looked at.
func seen(certificate, traffic fleet.DNSVerdict) fleet.Host {
	h := claimed()
	h.Observed = look(h.Observed, finding(certificate, traffic), t0)
	return h
}

// serving is a host with a verified certificate of generation 1.
func serving(certificate, traffic fleet.DNSVerdict) fleet.Host {
	h := seen(certificate, traffic)
	h.Observed.VerifiedGeneration = 1
	return h
}

func order(attempts int, problem string, next time.Time) *fleet.Order {
	return &fleet.Order{Host: "api.example.com", State: fleet.OrderQueued, Challenge: fleet.ChallengeDNS01, Attempts: attempts, Problem: problem, NextAttempt: next}
}

func cert(generation uint64) *fleet.Certificate {
	return &fleet.Certificate{Host: "api.example.com", Generation: generation, NotBefore: t0.Add(-time.Hour), NotAfter: t0.Add(-time.Hour).Add(90 * 24 * time.Hour)}
}

func TestDecide(t *testing.T) {
	renewal := cert(1).RenewAt()
	failedHandshake := seen(right, right)
	failedHandshake.Observed.Certificate = fleet.Condition{State: fleet.ConditionWaiting, Reason: fleet.ReasonDeployPartial, Message: "handshake: no", Since: t0, NextCheck: t0.Add(5 * time.Second)}
	broken := serving(right, right)
	broken.Observed = look(broken.Observed, finding(missing, missing), t0.Add(time.Hour))
	silent := serving(right, right)
	silent.Observed = look(silent.Observed, finding(servfail, servfail), t0.Add(time.Hour))
	for _, tc := range []struct {
		name   string
		facts  hoststate.Facts
		phase  fleet.HostPhase
		status fleet.HostStatus
		cert   fleet.ConditionState
		reason string
		do     []string
	}{
		{"a new host is looked at", hoststate.Facts{Host: claimed()}, fleet.PhaseClaimed, fleet.StatusPending, fleet.ConditionWaiting, "", []string{"dns"}},
		{"without records it waits", hoststate.Facts{Host: seen(missing, missing)}, fleet.PhasePendingDNS, fleet.StatusPending, fleet.ConditionWaiting, "", nil},
		{"for a week", hoststate.Facts{Host: seen(missing, missing), Now: t0.Add(8 * 24 * time.Hour)}, fleet.PhasePendingDNS, fleet.StatusFailed, fleet.ConditionWaiting, "", []string{"dns"}},
		{"the certificate record is enough to order", hoststate.Facts{Host: seen(right, missing)}, fleet.PhasePreflight, fleet.StatusPending, fleet.ConditionWaiting, "", []string{"order"}},
		{"so is traffic", hoststate.Facts{Host: seen(missing, right)}, fleet.PhasePreflight, fleet.StatusPending, fleet.ConditionWaiting, "", []string{"order"}},
		{"an order that is due is worked on", hoststate.Facts{Host: seen(right, right), Order: order(0, "", t0)}, fleet.PhaseOrdering, fleet.StatusPending, fleet.ConditionWaiting, "", []string{"issue"}},
		{"a failed one waits and says why", hoststate.Facts{Host: seen(right, right), Order: order(1, "CA_REJECTED: dns: no TXT", t0.Add(time.Minute))}, fleet.PhaseOrdering, fleet.StatusAttention, fleet.ConditionFalse, fleet.ReasonCARejected, nil},
		{"until its time", hoststate.Facts{Host: seen(right, right), Order: order(1, "CA_REJECTED: dns: no TXT", t0.Add(time.Minute)), Now: t0.Add(time.Minute)}, fleet.PhaseOrdering, fleet.StatusAttention, fleet.ConditionFalse, fleet.ReasonCARejected, []string{"issue"}},
		{"a refused name is failed", hoststate.Facts{Host: seen(right, right), Order: order(1, "CA_REJECTED_NAME: policy", t0.Add(time.Minute))}, fleet.PhaseOrdering, fleet.StatusFailed, fleet.ConditionFalse, fleet.ReasonCARejectedName, nil},
		{"a certificate goes to the edges", hoststate.Facts{Host: seen(right, right), Cert: cert(1)}, fleet.PhaseDeploying, fleet.StatusPending, fleet.ConditionWaiting, fleet.ReasonDeployPartial, nil},
		{"all of them", hoststate.Facts{Host: seen(right, right), Cert: cert(1), Edges: lagging}, fleet.PhaseDeploying, fleet.StatusPending, fleet.ConditionWaiting, fleet.ReasonDeployPartial, nil},
		{"and is verified", hoststate.Facts{Host: seen(right, right), Cert: cert(1), Edges: deployed}, fleet.PhaseDeploying, fleet.StatusPending, fleet.ConditionWaiting, fleet.ReasonDeployPartial, []string{"handshake"}},
		{"a failed handshake waits", hoststate.Facts{Host: failedHandshake, Cert: cert(1), Edges: deployed}, fleet.PhaseDeploying, fleet.StatusPending, fleet.ConditionWaiting, fleet.ReasonDeployPartial, nil},
		{"and is tried again", hoststate.Facts{Host: failedHandshake, Cert: cert(1), Edges: deployed, Now: t0.Add(5 * time.Second)}, fleet.PhaseDeploying, fleet.StatusPending, fleet.ConditionWaiting, fleet.ReasonDeployPartial, []string{"handshake"}},
		{"a verified host is active", hoststate.Facts{Host: serving(right, right), Cert: cert(1)}, fleet.PhaseActive, fleet.StatusActive, fleet.ConditionTrue, "", nil},
		{"its traffic may still have to move", hoststate.Facts{Host: serving(right, missing), Cert: cert(1)}, fleet.PhaseActive, fleet.StatusPending, fleet.ConditionTrue, "", nil},
		{"records that were right and went away need attention", hoststate.Facts{Host: broken, Cert: cert(1), Now: t0.Add(time.Hour)}, fleet.PhaseMoved, fleet.StatusAttention, fleet.ConditionTrue, "", nil},
		{"at a third of its life it is renewed", hoststate.Facts{Host: serving(right, right), Cert: cert(1), Now: renewal}, fleet.PhaseActive, fleet.StatusActive, fleet.ConditionTrue, "", []string{"dns", "order"}},
		{"not while an order is under way", hoststate.Facts{Host: serving(right, right), Cert: cert(1), Order: order(0, "", renewal.Add(time.Hour)), Now: renewal}, fleet.PhaseRenewing, fleet.StatusActive, fleet.ConditionTrue, "", []string{"dns"}},
		{"a failed renewal keeps it active with attention", hoststate.Facts{Host: serving(right, right), Cert: cert(1), Order: order(1, "CA_REJECTED: no", renewal.Add(time.Hour)), Now: renewal}, fleet.PhaseRenewing, fleet.StatusAttention, fleet.ConditionWaiting, fleet.ReasonRenewalBlocked, []string{"dns"}},
		{"without records it cannot be renewed", hoststate.Facts{Host: serving(missing, missing), Cert: cert(1), Now: renewal}, fleet.PhaseActive, fleet.StatusAttention, fleet.ConditionWaiting, fleet.ReasonRenewalBlocked, []string{"dns"}},
		{"and fails when it ends", hoststate.Facts{Host: serving(missing, missing), Cert: cert(1), Now: cert(1).NotAfter}, fleet.PhaseActive, fleet.StatusFailed, fleet.ConditionFalse, fleet.ReasonRenewalBlocked, []string{"dns"}},
		{"a new generation is deployed while the old one serves", hoststate.Facts{Host: serving(right, right), Cert: cert(2), Edges: lagging}, fleet.PhaseRenewing, fleet.StatusActive, fleet.ConditionWaiting, fleet.ReasonDeployPartial, nil},
		{"DNS that led elsewhere for a week detaches it", hoststate.Facts{Host: broken, Cert: cert(1), Now: t0.Add(8 * 24 * time.Hour)}, fleet.PhaseDetached, fleet.StatusSuspended, fleet.ConditionTrue, "", []string{"dns"}},
		{"a detached host is not renewed", hoststate.Facts{Host: broken, Cert: cert(1), Now: renewal}, fleet.PhaseDetached, fleet.StatusSuspended, fleet.ConditionWaiting, fleet.ReasonRenewalBlocked, []string{"dns"}},
		{"a name server that does not answer moves nothing", hoststate.Facts{Host: silent, Cert: cert(1), Now: t0.Add(8 * 24 * time.Hour)}, fleet.PhaseActive, fleet.StatusAttention, fleet.ConditionTrue, "", []string{"dns"}},
		{"what CAA forbids is preflight", hoststate.Facts{Host: seen(right, right), Order: order(0, hoststate.Problem(fleet.ReasonCAAForbidden, "example.com allows only digicert.com", "add it"), t0.Add(time.Minute))}, fleet.PhasePreflight, fleet.StatusFailed, fleet.ConditionFalse, fleet.ReasonCAAForbidden, nil},
		{"an answered challenge is validation", hoststate.Facts{Host: seen(right, right), Order: order(0, "", t0), Attempting: true, Challenged: true}, fleet.PhaseValidating, fleet.StatusPending, fleet.ConditionWaiting, "", []string{"issue"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.facts.Now.IsZero() {
				tc.facts.Now = t0
			}
			o, do, wake := decide(tc.facts)
			if o.Phase != tc.phase || o.Status != tc.status || o.Certificate.State != tc.cert || o.Certificate.Reason != tc.reason {
				t.Errorf("phase %s, status %s, certificate %+v", o.Phase, o.Status, o.Certificate)
			}
			if d := cmp.Diff(tc.do, do); d != "" {
				t.Error(d)
			}
			if !wake.IsZero() && !wake.After(tc.facts.Now) {
				t.Errorf("wakes at %s, which is not later than %s", wake, tc.facts.Now)
			}
			if len(do) == 0 && wake.IsZero() {
				t.Error("nothing to do and nothing to wait for")
			}
			tc.facts.Host.Observed = o
			if again, _, _ := decide(tc.facts); !cmp.Equal(o, again) {
				t.Errorf("deciding again changes it: %s", cmp.Diff(o, again))
			}
		})
	}
}

func TestDNSIsPolledLessAndLessOften(t *testing.T) {
	h, now := claimed(), t0
	counts := map[string]int{}
	for now.Before(t0.Add(9 * 24 * time.Hour)) {
		h.Observed = look(h.Observed, finding(missing, missing), now)
		switch age := now.Sub(t0); {
		case age < 30*time.Second:
			counts["30s"]++
		case age < 2*time.Minute:
			counts["2m"]++
		case age < 10*time.Minute:
			counts["10m"]++
		case age < time.Hour:
			counts["1h"]++
		case age < 24*time.Hour:
			counts["1d"]++
		case age < 7*24*time.Hour:
			counts["7d"]++
		default:
			counts["later"]++
		}
		now = h.Observed.Routing.NextCheck
	}
	want := map[string]int{"30s": 30, "2m": 18, "10m": 32, "1h": 50, "1d": 276, "7d": 144, "later": 2}
	if d := cmp.Diff(want, counts); d != "" {
		t.Error(d)
	}
	h.Observed = look(h.Observed, finding(right, right), now)
	if o := h.Observed; o.Ownership.State != fleet.ConditionTrue || !o.Ownership.Since.Equal(now) || !o.Routing.NextCheck.Equal(now.Add(time.Hour)) || o.Ownership.Message != "" {
		t.Errorf("once right: %+v", o.Ownership)
	}
	h.Observed = look(h.Observed, finding(missing, right), now.Add(time.Hour))
	if o := h.Observed; o.Challenge != fleet.ChallengeHTTP01 || o.Ownership.State != fleet.ConditionTrue {
		t.Errorf("without the certificate record, traffic proves control: %+v", o)
	}
	h.Observed = look(h.Observed, finding(missing, missing), now.Add(2*time.Hour))
	if o := h.Observed; o.Routing.State != fleet.ConditionFalse || !o.Routing.NextCheck.Equal(now.Add(2*time.Hour+time.Second)) {
		t.Errorf("gone again: %+v", o.Routing)
	}
}
