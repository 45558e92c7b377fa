package hosts

import (
	"fmt"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// facts are what is known of one host at one moment.
type facts struct {
	host fleet.Host
	// order is the order under way, cert the certificate; nil if there is none.
	order *fleet.Order
	cert  *fleet.Certificate
	// edges is how the certificate is deployed; nil if that does not matter now.
	edges *deployment
	// rekey is set when the certificate needs a new private key, however long it lasts.
	rekey bool
	now   time.Time
}

// todo is what has to be done for a host now.
type todo struct {
	// dns: look at the records. order: start one. issue: attempt the order. handshake: verify through the edges.
	dns, order, issue, handshake bool
	// wake is when something will be due, zero if nothing.
	wake time.Time
}

func (t *todo) at(when, now time.Time) (due bool) {
	if !when.After(now) {
		return true
	}
	if t.wake.IsZero() || when.Before(t.wake) {
		t.wake = when
	}
	return false
}

// decide returns what should stand in the state about a host, and what is to be done. It is pure; results of DNS checks
// and handshakes are in the observed part already (see look and shake).
func decide(f facts, s schedule) (fleet.HostObserved, todo) {
	o := f.host.Observed
	var t todo
	t.dns = t.at(o.Routing.NextCheck, f.now)
	renew := f.cert != nil && f.order == nil && (f.rekey || t.at(f.cert.RenewAt(), f.now))
	t.order = f.order == nil && o.Challenge != "" && (f.cert == nil || renew)
	t.issue = f.order != nil && t.at(f.order.NextAttempt, f.now)
	verified := f.cert != nil && o.VerifiedGeneration == f.cert.Generation
	switch {
	case f.cert == nil || verified:
	case !f.edges.complete():
		// Edges' reports wake the loop; this is for a bundle that this member derives a moment after the head it follows.
		t.at(f.now.Add(s.times(redeploy)), f.now)
	default:
		// A time tells a handshake that failed, and waits for its next one, from a certificate that just arrived.
		t.handshake = !failedHandshake(o.Certificate) || t.at(o.Certificate.NextCheck, f.now)
	}
	o.Certificate = replace(o.Certificate, certificate(f, verified), f.now)
	o.Phase = phase(f, o)
	o.Status = status(f, o, s)
	return o, t
}

func failedHandshake(c fleet.Condition) bool {
	return c.Reason == fleet.ReasonDeployPartial && !c.NextCheck.IsZero()
}

// certificate is the condition of f's certificate.
func certificate(f facts, verified bool) fleet.Condition {
	switch {
	case f.cert == nil && f.order == nil:
		return fleet.Condition{State: fleet.ConditionWaiting, Message: "the certificate is ordered once DNS allows it"}
	case f.cert == nil && f.order.Attempts == 0 && f.order.Problem == "":
		return fleet.Condition{State: fleet.ConditionWaiting, Message: fmt.Sprintf("the certificate is being ordered by %s", f.order.Challenge), NextCheck: f.order.NextAttempt}
	case f.cert == nil:
		c := problem(*f.order)
		c.State = fleet.ConditionFalse
		return c
	case !f.now.Before(f.cert.NotAfter):
		c := fleet.Condition{State: fleet.ConditionFalse, Reason: fleet.ReasonRenewalBlocked, Message: fmt.Sprintf("the certificate expired at %s", f.cert.NotAfter.UTC().Format(time.RFC3339))}
		if f.order != nil {
			c.Message, c.NextCheck = c.Message+"; "+f.order.Problem, f.order.NextAttempt
		}
		return c
	case !verified:
		return deploying(f)
	case f.order != nil && f.order.Problem != "":
		c := problem(*f.order)
		return fleet.Condition{State: fleet.ConditionWaiting, Reason: fleet.ReasonRenewalBlocked, Message: f.order.Problem, Action: c.Action, NextCheck: c.NextCheck}
	case f.order == nil && f.host.Observed.Challenge == "" && !f.now.Before(f.cert.RenewAt()):
		own := f.host.Observed.Ownership
		return fleet.Condition{
			State: fleet.ConditionWaiting, Reason: fleet.ReasonRenewalBlocked, Action: own.Action, NextCheck: own.NextCheck,
			Message: fmt.Sprintf("the certificate ends at %s and cannot be renewed: %s", f.cert.NotAfter.UTC().Format(time.RFC3339), own.Message),
		}
	}
	return fleet.Condition{State: fleet.ConditionTrue, NextCheck: f.cert.RenewAt()}
}

// deploying is the condition of a certificate on its way to the edges. What a handshake reported stays until the next.
func deploying(f facts) fleet.Condition {
	switch d := f.edges; {
	case !d.complete():
		return fleet.Condition{State: fleet.ConditionWaiting, Reason: fleet.ReasonDeployPartial, Message: d.String()}
	case failedHandshake(f.host.Observed.Certificate):
		return f.host.Observed.Certificate
	}
	return fleet.Condition{State: fleet.ConditionWaiting, Reason: fleet.ReasonDeployPartial, Message: "every edge has the certificate; it is being verified by a handshake"}
}

// problem reads "CODE: text" of an order's last failure.
func problem(o fleet.Order) fleet.Condition {
	reason, text, ok := strings.Cut(o.Problem, ": ")
	if !ok {
		reason, text = fleet.ReasonCAUnavailable, o.Problem
	}
	c := fleet.Condition{Reason: reason, Message: text, NextCheck: o.NextAttempt}
	switch reason {
	case fleet.ReasonCAAForbidden:
		c.Action = fmt.Sprintf("allow the certificate authority in the CAA records of %s", o.Host)
	case fleet.ReasonCARejectedName:
		c.Action = "the certificate authority refuses this name: use another name, or ask it"
	case fleet.ReasonCARejected:
		c.Action = fmt.Sprintf("check the DNS records of %s", o.Host)
	}
	return c
}

// replace keeps Since while what the condition says stays the same.
func replace(old, c fleet.Condition, now time.Time) fleet.Condition {
	c.Since = now
	same := old.State == c.State && old.Reason == c.Reason
	if first := old.State == fleet.ConditionUnknown && c.State == fleet.ConditionWaiting; (same || first) && !old.Since.IsZero() {
		c.Since = old.Since
	}
	return c
}

func phase(f facts, o fleet.HostObserved) fleet.HostPhase {
	switch {
	case f.cert != nil && o.VerifiedGeneration > 0:
		return fleet.PhaseActive // a renewal is deployed while its predecessor serves
	case f.cert != nil:
		return fleet.PhaseDeploying
	case f.order != nil || o.Challenge != "":
		return fleet.PhaseOrdering
	case o.Ownership.State == fleet.ConditionUnknown:
		return fleet.PhaseClaimed
	}
	return fleet.PhasePendingDNS
}

func status(f facts, o fleet.HostObserved, s schedule) fleet.HostStatus {
	c := o.Certificate
	switch {
	case f.cert != nil && c.State == fleet.ConditionFalse,
		f.cert == nil && (c.Reason == fleet.ReasonCARejectedName || c.Reason == fleet.ReasonCAAForbidden),
		f.cert == nil && o.Ownership.State == fleet.ConditionWaiting && f.now.Sub(o.Ownership.Since) > s.times(patience):
		return fleet.StatusFailed
	case c.State == fleet.ConditionFalse, c.Reason == fleet.ReasonRenewalBlocked,
		o.Ownership.State == fleet.ConditionFalse, o.Routing.State == fleet.ConditionFalse:
		return fleet.StatusAttention
	case o.Phase == fleet.PhaseActive && o.Routing.State == fleet.ConditionTrue:
		return fleet.StatusActive
	}
	return fleet.StatusPending
}

// look folds what DNS says into o.
func look(o fleet.HostObserved, f fleet.DNSFinding, now time.Time, s schedule) fleet.HostObserved {
	o.Challenge = challenge(f)
	own := f.Certificate
	own.OK = o.Challenge != ""
	o.Ownership = replace(o.Ownership, verdict(o.Ownership, own), now)
	o.Routing = replace(o.Routing, verdict(o.Routing, f.Traffic), now)
	var next time.Time
	for _, c := range []fleet.Condition{o.Ownership, o.Routing} {
		if at := now.Add(s.dns(now.Sub(c.Since))); c.State != fleet.ConditionTrue && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if next.IsZero() {
		next = now.Add(s.times(recheck))
	}
	o.Ownership.NextCheck, o.Routing.NextCheck = next, next
	return o
}

// shake folds the outcome of a handshake through the edges into o.
func shake(o fleet.HostObserved, generation uint64, err error, now time.Time, s schedule) fleet.HostObserved {
	if err == nil {
		o.VerifiedGeneration = generation
		return o
	}
	o.Certificate = replace(o.Certificate, fleet.Condition{
		State: fleet.ConditionWaiting, Reason: fleet.ReasonDeployPartial, NextCheck: now.Add(s.times(redeploy)),
		Message: fmt.Sprintf("every edge has the certificate, but a handshake does not show it: %v", err),
	}, now)
	return o
}

// equal compares what is stored with what should be.
func equal(a, b fleet.HostObserved) bool {
	return a.Phase == b.Phase && a.Status == b.Status && a.Challenge == b.Challenge && a.VerifiedGeneration == b.VerifiedGeneration &&
		equalConditions(a.Ownership, b.Ownership) && equalConditions(a.Certificate, b.Certificate) && equalConditions(a.Routing, b.Routing)
}

func equalConditions(a, b fleet.Condition) bool {
	return a.State == b.State && a.Reason == b.Reason && a.Message == b.Message && a.Action == b.Action &&
		a.Since.Equal(b.Since) && a.NextCheck.Equal(b.NextCheck)
}

// challenge is what the records allow: DNS-01 needs no edge to be reached and so is preferred.
func challenge(f fleet.DNSFinding) fleet.ChallengeType {
	switch {
	case f.Certificate.OK:
		return fleet.ChallengeDNS01
	case f.Traffic.OK:
		return fleet.ChallengeHTTP01
	}
	return ""
}

// verdict is waiting for a record that was never right, and false for one that was.
func verdict(old fleet.Condition, v fleet.DNSVerdict) fleet.Condition {
	if v.OK {
		return fleet.Condition{State: fleet.ConditionTrue}
	}
	c := fleet.Condition{State: fleet.ConditionWaiting, Reason: v.Reason, Message: v.Message, Action: v.Action}
	if old.State == fleet.ConditionTrue || old.State == fleet.ConditionFalse {
		c.State = fleet.ConditionFalse
	}
	return c
}
