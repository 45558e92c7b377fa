package hoststate

import (
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Look folds what DNS says into o.
func Look(o fleet.HostObserved, f fleet.DNSFinding, now time.Time, s Schedule) fleet.HostObserved {
	o.Challenge = challenge(f)
	own := f.Certificate
	own.OK = o.Challenge != ""
	o.Ownership = replace(o.Ownership, verdict(o.Ownership, own), now)
	o.Routing = replace(o.Routing, verdict(o.Routing, f.Traffic), now)
	var next time.Time
	for _, c := range []fleet.Condition{o.Ownership, o.Routing} {
		if at := now.Add(s.DNS(now.Sub(c.Since))); c.State != fleet.ConditionTrue && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if next.IsZero() {
		next = now.Add(s.times(recheck))
	}
	o.Ownership.NextCheck, o.Routing.NextCheck = next, next
	return o
}

// Shake folds the outcome of a handshake through the edges into o.
func Shake(o fleet.HostObserved, generation uint64, err error, now time.Time, s Schedule) fleet.HostObserved {
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

// challenge is what the records allow: DNS-01 needs no edge to be reached and so is preferred.
func challenge(f fleet.DNSFinding) fleet.ChallengeType {
	switch {
	case f.Certificate.OK:
		return fleet.ChallengeDNS01
	case f.Traffic.OK && !f.DNSOnly:
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
