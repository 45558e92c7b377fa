package hoststate

import (
	"fmt"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// ordered reports whether the control plane orders certificates for the host: not where its owner brings them, or wants
// none.
func ordered(f Facts) bool {
	return f.Host.Spec.Certificate == fleet.CertificateACME && (f.Cert == nil || !f.Cert.Own())
}

// bare reports whether the host is to be served without a certificate.
func bare(f Facts) bool { return f.Host.Spec.Certificate == fleet.CertificateNone && f.Cert == nil }

// plainText is what the condition of the certificate says of a host that is served without one.
const plainText = "the edge has no certificate for this host, as its owner decided: it answers over plain HTTP, for the CDN in front of it"

// Plain reports whether every edge has acknowledged that it serves the host without a certificate.
func Plain(o fleet.HostObserved) bool {
	return o.Certificate.State == fleet.ConditionTrue && o.Certificate.Message == plainText
}

// Behind is what DNS says about a host whose visitors come by another CDN: that the name leads there is as it should be,
// and proves nothing.
func Behind(s fleet.HostSpec, f fleet.DNSFinding) fleet.DNSFinding {
	if s.Certificate != fleet.CertificateNone {
		return f
	}
	f.DNSOnly = true
	switch f.Traffic.Reason {
	case fleet.ReasonDNSProxied, fleet.ReasonDNSWrongTarget, fleet.ReasonDNSPartial, fleet.ReasonDNSConflictAAAA:
		f.Traffic = fleet.DNSVerdict{OK: true}
	}
	return f
}

// notice is how long before its end people were last told that c needs a successor, zero if not yet, and when they are
// told next.
func notice(c *fleet.Certificate, now time.Time) (last time.Duration, next time.Time) {
	next = c.NotAfter
	for _, before := range fleet.UploadNotices { // the longest first
		if at := c.NotAfter.Add(-before); at.After(now) {
			return last, at
		}
		last = before
	}
	return last, next
}

// brought is the condition of a certificate that the control plane does not order; false where it does.
func brought(f Facts, verified bool) (fleet.Condition, bool) {
	if ordered(f) {
		return fleet.Condition{}, false
	}
	needed := fleet.Condition{State: fleet.ConditionWaiting, Reason: fleet.ReasonUploadNeeded}
	switch {
	case bare(f) && (Plain(f.Host.Observed) || f.Edges.Complete()):
		return fleet.Condition{State: fleet.ConditionTrue, Message: plainText}, true
	case bare(f):
		return fleet.Condition{State: fleet.ConditionWaiting, Reason: fleet.ReasonDeployPartial, Message: strings.Replace(f.Edges.String(), "it is being sent", "what the host is set to is being sent", 1)}, true
	case f.Cert == nil:
		needed.Message = "the host takes its own certificate only, and has none"
		return needed, true
	case !f.Now.Before(f.Cert.NotAfter):
		needed.State, needed.Message = fleet.ConditionFalse, expired(f.Cert)
		return needed, true
	case f.Rekey:
		needed.Message = "the private key of the certificate was on a node whose keys somebody may know: it needs a new key"
		return needed, true
	case !verified:
		return deploying(f), true
	}
	last, next := notice(f.Cert, f.Now)
	if last == 0 {
		return fleet.Condition{State: fleet.ConditionTrue, NextCheck: next}, true
	}
	needed.NextCheck = next
	needed.Message = fmt.Sprintf("the certificate ends at %s, in less than %d days, and is not renewed by the edge", moment(f.Cert.NotAfter), int(last/(24*time.Hour)))
	return needed, true
}

// wakeFor is when people are told next that a certificate needs a successor.
func (p *Plan) wakeFor(f Facts) {
	if f.Cert != nil && !ordered(f) {
		_, next := notice(f.Cert, f.Now)
		p.at(next, f.Now)
	}
}

// plainTarget is the phase of a host without a certificate.
func plainTarget(f Facts, o fleet.HostObserved, s Schedule) fleet.HostPhase {
	switch served := Plain(o) || f.Edges.Complete(); {
	case !served || shortcut(o.Phase, fleet.PhaseDeploying):
		return fleet.PhaseDeploying
	case !away(o.Routing):
		return fleet.PhaseActive
	case o.Phase == fleet.PhaseDetached || f.Now.Sub(o.Routing.Since) >= s.times(patience):
		return fleet.PhaseDetached
	}
	return fleet.PhaseMoved
}
