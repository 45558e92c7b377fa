package hoststate

import (
	"fmt"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// Problem is how an order keeps what was in its way: a reason code, what is seen, and what is wanted (may be empty).
func Problem(reason, seen, wanted string) string {
	seen = strings.ReplaceAll(seen, "\n", " ")
	if wanted == "" {
		return reason + ": " + seen
	}
	return reason + ": " + seen + "\n" + wanted
}

// problem reads what Problem wrote.
func problem(o fleet.Order) fleet.Condition {
	reason, text, ok := strings.Cut(o.Problem, ": ")
	if !ok {
		reason, text = fleet.ReasonCAUnavailable, o.Problem
	}
	c := fleet.Condition{Reason: reason, NextCheck: o.NextAttempt}
	c.Message, c.Action, _ = strings.Cut(text, "\n")
	if c.Action == "" && reason == fleet.ReasonCAAForbidden {
		c.Action = fmt.Sprintf("allow the certificate authority in the CAA records of %s", o.Host)
	}
	if c.Action == "" && reason == fleet.ReasonCARejected {
		c.Action = fmt.Sprintf("check the DNS records of %s", o.Host)
	}
	return c
}

// preflight reports whether a problem was found before the CA was asked for anything.
func preflight(problem string) bool {
	reason, _, _ := strings.Cut(problem, ": ")
	m, ok := Lookup(reason)
	return ok && m.Preflight
}

// certificate is the condition of the certificate.
func certificate(f Facts, verified bool) fleet.Condition {
	if c, ok := brought(f, verified); ok {
		return c
	}
	switch {
	case f.Cert == nil && f.Order == nil:
		return fleet.Condition{State: fleet.ConditionWaiting, Message: "the certificate is ordered once DNS allows it"}
	case f.Cert == nil && f.Order.Attempts == 0 && f.Order.Problem == "":
		return fleet.Condition{State: fleet.ConditionWaiting, Message: fmt.Sprintf("the certificate is being ordered by %s", f.Order.Challenge), NextCheck: f.Order.NextAttempt}
	case f.Cert == nil:
		c := problem(*f.Order)
		c.State = fleet.ConditionFalse
		return c
	case !f.Now.Before(f.Cert.NotAfter):
		c := fleet.Condition{State: fleet.ConditionFalse, Reason: fleet.ReasonRenewalBlocked, Message: expired(f.Cert)}
		if f.Order != nil {
			p := problem(*f.Order)
			c.Message, c.Action, c.NextCheck = strings.TrimSuffix(c.Message+"; "+p.Message, "; "), p.Action, p.NextCheck
		}
		return c
	case !verified:
		return deploying(f)
	case f.Order != nil && f.Order.Problem != "":
		c := problem(*f.Order)
		return fleet.Condition{State: fleet.ConditionWaiting, Reason: fleet.ReasonRenewalBlocked, Message: c.Reason + ": " + c.Message, Action: c.Action, NextCheck: c.NextCheck}
	case f.Order == nil && f.Host.Observed.Challenge == "" && !f.Now.Before(f.Cert.RenewAt()):
		own := f.Host.Observed.Ownership
		return fleet.Condition{
			State: fleet.ConditionWaiting, Reason: fleet.ReasonRenewalBlocked, Action: own.Action, NextCheck: own.NextCheck,
			Message: fmt.Sprintf("the certificate ends at %s and cannot be renewed: %s", moment(f.Cert.NotAfter), own.Message),
		}
	}
	return fleet.Condition{State: fleet.ConditionTrue, NextCheck: f.Cert.RenewAt()}
}

// deploying is the condition of a certificate on its way to the edges. What a handshake reported stays until the next.
func deploying(f Facts) fleet.Condition {
	switch d := f.Edges; {
	case !d.Complete():
		return fleet.Condition{State: fleet.ConditionWaiting, Reason: fleet.ReasonDeployPartial, Message: d.String()}
	case failedHandshake(f.Host.Observed.Certificate):
		return f.Host.Observed.Certificate
	}
	return fleet.Condition{State: fleet.ConditionWaiting, Reason: fleet.ReasonDeployPartial, Message: "every edge has the certificate; it is being verified by a handshake"}
}

func failedHandshake(c fleet.Condition) bool {
	return c.Reason == fleet.ReasonDeployPartial && !c.NextCheck.IsZero()
}

// Deployment is how far one thing (a certificate or a challenge) has come to the edges of a host.
type Deployment struct {
	// Published: the committed head of the host's group has it.
	Published bool
	// Edges counts the nodes in DNS; Laggards are those that have not acknowledged it.
	Edges    int
	Laggards []string
}

// Complete reports whether every edge has it, and there is one.
func (d *Deployment) Complete() bool {
	return d != nil && d.Published && len(d.Laggards) == 0 && d.Edges > 0
}

// String says what is missing.
func (d *Deployment) String() string {
	switch {
	case d == nil || !d.Published:
		return "it is being sent to the edges"
	case d.Edges == 0:
		return "no edge of the host's group and regions is in DNS"
	case len(d.Laggards) == 0:
		return "every edge has it"
	}
	const most = 4
	shown := d.Laggards[:min(most, len(d.Laggards))]
	if more := len(d.Laggards) - len(shown); more > 0 {
		return fmt.Sprintf("not acknowledged yet by %s and %d more edges", strings.Join(shown, ", "), more)
	}
	return "not acknowledged yet by " + strings.Join(shown, ", ")
}
