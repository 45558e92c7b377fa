// Package hoststate is the state machine of hosts, as data and one pure function: which phase may follow which (Edges),
// when DNS is looked at (Schedule), what every reason code asks for (Messages), and Decide, which turns what is known
// of a host into what should stand in the state about it and what is to be done.
//
// It looks nothing up, has no clock and stores nothing: the leader's host loop gathers the Facts, does what a Plan says
// and commits the outcome. When DNS, the CA or the edges are away, the loop tells so in the facts, and what is decided
// here is to keep what works and to wait with a reason.
package hoststate

import (
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Facts are what is known of one host at one moment.
type Facts struct {
	Host fleet.Host
	// Order is the order under way, Cert the certificate; nil if there is none.
	Order *fleet.Order
	Cert  *fleet.Certificate
	// Attempting: the order is being worked on now. Challenged: an answer to the CA's challenge is published.
	Attempting, Challenged bool
	// Rekey is set when the certificate needs a new private key, however long it lasts.
	Rekey bool
	// Edges is how the certificate is deployed; nil if that does not matter now.
	Edges *Deployment
	Now   time.Time
}

// Plan is what has to be done for a host now.
type Plan struct {
	// DNS: look at the records. Order: start one. Issue: attempt the order. Handshake: verify through the edges.
	DNS, Order, Issue, Handshake bool
	// Wake is when something will be due, zero if nothing.
	Wake time.Time
}

func (p *Plan) at(when, now time.Time) (due bool) {
	if !when.After(now) {
		return true
	}
	if p.Wake.IsZero() || when.Before(p.Wake) {
		p.Wake = when
	}
	return false
}

// Decide returns what should stand in the state about a host, and what is to be done. Results of DNS checks and
// handshakes are in the observed part already (see Look and Shake).
func Decide(f Facts, s Schedule) (fleet.HostObserved, Plan) {
	o := f.Host.Observed
	var p Plan
	p.DNS = p.at(o.Routing.NextCheck, f.Now)
	if !ordered(f) && o.Ownership.State == fleet.ConditionFalse {
		o.Ownership.State = fleet.ConditionWaiting // what is missing is needed for orders only
	}
	if to := target(f, o, s); !ordered(f) && shortcut(o.Phase, to) {
		o.Phase = to
	} else {
		o.Phase = step(o.Phase, to)
	}
	detached := o.Phase == fleet.PhaseDetached
	p.wakeFor(f)
	renew := ordered(f) && f.Cert != nil && f.Order == nil && (f.Rekey || p.at(f.Cert.RenewAt(), f.Now))
	p.Order = ordered(f) && f.Order == nil && o.Challenge != "" && (f.Cert == nil || renew) && !detached
	p.Issue = ordered(f) && f.Order != nil && p.at(f.Order.NextAttempt, f.Now) && !detached
	verified := f.Cert != nil && o.VerifiedGeneration == f.Cert.Generation
	switch {
	case f.Cert == nil && (!bare(f) || Plain(o)) || verified:
	case !f.Edges.Complete():
		// Edges' reports wake the loop; this is for a bundle that this member derives a moment after the head it follows.
		p.at(f.Now.Add(s.times(redeploy)), f.Now)
	case f.Cert == nil:
	default:
		// A time tells a handshake that failed, and waits for its next one, from a certificate that just arrived.
		p.Handshake = !failedHandshake(o.Certificate) || p.at(o.Certificate.NextCheck, f.Now)
	}
	if o.Phase == fleet.PhaseMoved {
		p.at(o.Routing.Since.Add(s.times(patience)), f.Now)
	}
	if o.Phase != target(f, o, s) {
		p.Wake = f.Now // the next step of a path of several
	}
	o.Certificate = replace(o.Certificate, certificate(f, verified), f.Now)
	o.Status = RollUp(o, f.Now, s)
	return o, p
}

// target is the phase that the facts speak of.
func target(f Facts, o fleet.HostObserved, s Schedule) fleet.HostPhase {
	switch verified := f.Cert != nil && o.VerifiedGeneration > 0; {
	case bare(f):
		return plainTarget(f, o, s)
	case verified && away(o.Routing):
		if o.Phase == fleet.PhaseDetached || f.Now.Sub(o.Routing.Since) >= s.times(patience) {
			return fleet.PhaseDetached
		}
		return fleet.PhaseMoved
	case verified && (f.Order != nil || o.VerifiedGeneration != f.Cert.Generation):
		return fleet.PhaseRenewing
	case verified:
		return fleet.PhaseActive
	case f.Cert != nil:
		return fleet.PhaseDeploying
	case o.Ownership.State == fleet.ConditionUnknown && o.Challenge == "" && f.Order == nil:
		return fleet.PhaseClaimed
	case o.Challenge == "":
		return fleet.PhasePendingDNS
	case f.Order == nil || preflight(f.Order.Problem):
		return fleet.PhasePreflight
	case f.Attempting && f.Challenged:
		return fleet.PhaseValidating
	case f.Attempting && (o.Phase == fleet.PhaseValidating || o.Phase == fleet.PhaseIssuing):
		return fleet.PhaseIssuing
	}
	return fleet.PhaseOrdering
}

// away: the record was right once, and leads elsewhere now. What another CDN hides or a name server does not answer is
// not known to be elsewhere.
func away(routing fleet.Condition) bool {
	return routing.State == fleet.ConditionFalse && (routing.Reason == fleet.ReasonDNSMissing || routing.Reason == fleet.ReasonDNSWrongTarget)
}

// RollUp says a host's state in one word. It follows from the phase and the conditions, and from how long they stand.
func RollUp(o fleet.HostObserved, now time.Time, s Schedule) fleet.HostStatus {
	c := o.Certificate
	bad := c.State == fleet.ConditionFalse
	switch {
	case o.Phase == fleet.PhaseDetached:
		return fleet.StatusSuspended
	case bad && (c.Reason == fleet.ReasonRenewalBlocked || c.Reason == fleet.ReasonUploadNeeded || c.Reason == fleet.ReasonCARejectedName || c.Reason == fleet.ReasonCAAForbidden),
		c.State == fleet.ConditionWaiting && o.Phase == fleet.PhasePendingDNS && o.Ownership.State == fleet.ConditionWaiting && now.Sub(o.Ownership.Since) > s.times(patience):
		return fleet.StatusFailed
	case bad, c.Reason == fleet.ReasonRenewalBlocked, c.Reason == fleet.ReasonUploadNeeded && o.VerifiedGeneration > 0, o.Ownership.State == fleet.ConditionFalse, o.Routing.State == fleet.ConditionFalse:
		return fleet.StatusAttention
	case (o.Phase == fleet.PhaseActive || o.Phase == fleet.PhaseRenewing) && o.Routing.State == fleet.ConditionTrue:
		return fleet.StatusActive
	}
	return fleet.StatusPending
}

// Equal compares what is stored with what should be.
func Equal(a, b fleet.HostObserved) bool {
	return a.Phase == b.Phase && a.Status == b.Status && a.Challenge == b.Challenge && a.VerifiedGeneration == b.VerifiedGeneration &&
		equal(a.Ownership, b.Ownership) && equal(a.Certificate, b.Certificate) && equal(a.Routing, b.Routing)
}

func equal(a, b fleet.Condition) bool {
	return a.State == b.State && a.Reason == b.Reason && a.Message == b.Message && a.Action == b.Action && a.Since.Equal(b.Since) && a.NextCheck.Equal(b.NextCheck)
}

// replace keeps Since while what the condition says stays the same, and fills in what the table of messages wants.
func replace(old, c fleet.Condition, now time.Time) fleet.Condition {
	if m, ok := Lookup(c.Reason); ok && c.Action == "" && m.Who != fleet.WhoNobody {
		c.Action = m.Wanted
	}
	c.Since = now
	same := old.State == c.State && old.Reason == c.Reason
	if first := old.State == fleet.ConditionUnknown && c.State == fleet.ConditionWaiting; (same || first) && !old.Since.IsZero() {
		c.Since = old.Since
	}
	return c
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func expired(c *fleet.Certificate) string {
	return fmt.Sprintf("the certificate expired at %s", moment(c.NotAfter))
}
