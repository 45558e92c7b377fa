package hosts

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hostname"
	"github.com/edgefleet/edgefleet/fleet/hoststate"
	"github.com/edgefleet/edgefleet/tls/issuance"
)

// Authority is a certificate authority that may be asked. The first is asked as long as it answers and CAA allows it.
type Authority struct {
	// Directory is the URL of its ACME directory, by which the state knows it.
	Directory string
	Issuer    Issuer
	// Identity is whom CAA records have to allow; nil means that CAA is left to the CA.
	Identity func(context.Context) (fleet.CAIdentity, error)
	Limits   Limits
}

const (
	// restLeast and restMost bound how long an authority that is away is left alone: a probe is one order.
	restLeast, restMost = 2 * time.Minute, 15 * time.Minute
	// probing is how long others wait for the order that asks an authority whether it is back.
	probing = time.Minute
)

// wait says that an order cannot go on now: why, and until when.
type wait struct {
	reason, message, action string
	until                   time.Time
}

// Error implements error.
func (w *wait) Error() string { return w.reason + ": " + w.message }

// route is of whom and how an order is asked for.
type route struct {
	ca  *Authority
	via fleet.ChallengeType
	// probe: it asks whether the authority is back.
	probe bool
}

// authority finds an authority by its directory; the first if it is not configured, or empty; nil where none is.
func (l *Loop) authority(directory string) *Authority {
	if len(l.o.Authorities) == 0 {
		return nil
	}
	for i := range l.o.Authorities {
		if l.o.Authorities[i].Directory == directory {
			return &l.o.Authorities[i]
		}
	}
	return &l.o.Authorities[0]
}

// eligible are the authorities that the order may go to, in order. An order that one has stays there while it answers.
func (l *Loop) eligible(o fleet.OrderRecord) []*Authority {
	if o.Asked || o.URL != "" {
		if ca := l.authority(o.Authority); ca != nil && !l.o.State.Read().Authority(ca.Directory).Away() {
			return []*Authority{ca}
		}
	}
	var out []*Authority
	for i := range l.o.Authorities {
		out = append(out, &l.o.Authorities[i])
	}
	return out
}

// resting says why an authority may not be asked for o now, nil if it may. away: another may be, if there is one.
func (l *Loop) resting(ca *Authority, o fleet.OrderRecord, now time.Time) (w *wait, away bool) {
	a := l.o.State.Read().Authority(ca.Directory)
	name := fleet.AuthorityName(ca.Directory)
	switch {
	case now.Before(a.Limited):
		return &wait{reason: fleet.ReasonCARateLimited, message: fmt.Sprintf("%s wants to be left alone until %s: %s", name, stamp(a.Limited), a.Problem), until: a.Limited}, false
	case a.Away() && (now.Before(a.Rest) || l.probed(ca)):
		until := now.Add(l.s.times(probing))
		if now.Before(a.Rest) {
			until = a.Rest
		}
		// Those that wait come back over the time of one rest, not all at once.
		until = until.Add(rand.N(max(a.Pause, time.Second)))
		return &wait{reason: fleet.ReasonCAUnavailable, message: fmt.Sprintf("%s has not answered since %s: %s", name, stamp(a.Since), a.Problem), until: until}, true
	case o.URL == "":
		return l.budget(ca, o, now), false
	}
	return nil, false
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// earliest is the wait that ends first.
func earliest(a, b *wait) *wait {
	if a == nil || b != nil && b.until.Before(a.until) {
		return b
	}
	return a
}

// mayAsk says how long o has to wait when no authority may be asked; nil when one may.
func (l *Loop) mayAsk(o fleet.OrderRecord, now time.Time) *wait {
	if len(l.o.Authorities) == 0 {
		return &wait{
			reason: fleet.ReasonCAUnavailable, message: "no certificate authority is configured",
			action: "set acme.directory on every member, or upload a certificate: fleetctl cert upload " + string(o.Host), until: now.Add(l.s.times(restMost)),
		}
	}
	var first *wait
	for _, ca := range l.eligible(o) {
		w, _ := l.resting(ca, o, now)
		if w == nil {
			return nil
		}
		first = earliest(first, w)
	}
	return first
}

// route decides of whom o is asked for and by which challenge: the first authority that CAA allows and that answers. It
// looks for what would make each refuse. The caller gives the authority back with done.
func (l *Loop) route(ctx context.Context, h fleet.Host, zone fleet.HostName, edge []netip.Addr, o fleet.OrderRecord, vias []fleet.ChallengeType) (route, *wait) {
	var held, refused *wait
	for _, ca := range l.eligible(o) {
		via, w := l.allowed(ctx, h, zone, edge, ca, vias)
		if w != nil && w.reason != fleet.ReasonCAAForbidden {
			w.until = l.o.Now().Add(l.s.Preflight(l.o.Now().Sub(o.CreatedAt)))
			return route{}, w
		}
		if w != nil {
			w.until = l.o.Now().Add(l.s.Preflight(l.o.Now().Sub(o.CreatedAt)))
			refused = earliest(refused, w)
			continue
		}
		w, away := l.resting(ca, o, l.o.Now())
		if w == nil {
			ok, probe := l.take(ca)
			if ok {
				return route{ca, via, probe}, nil
			}
			if w, away = l.resting(ca, o, l.o.Now()); w == nil { // the order that probed it has just ended
				w = &wait{reason: fleet.ReasonCAUnavailable, message: "the certificate authority was away", until: l.o.Now().Add(l.s.outage(1))}
			}
		}
		if held = earliest(held, w); !away {
			break
		}
	}
	if held != nil {
		return route{}, held
	}
	return route{}, refused
}

// allowed is the first of vias by which ca would take h; a wait without a time says why by none.
func (l *Loop) allowed(ctx context.Context, h fleet.Host, zone fleet.HostName, edge []netip.Addr, ca *Authority, vias []fleet.ChallengeType) (fleet.ChallengeType, *wait) {
	var first *wait
	for _, via := range vias {
		v := l.preflight(ctx, h, zone, edge, via, ca)
		if v.OK {
			return via, nil
		}
		if first == nil {
			first = &wait{reason: v.Reason, message: v.Message, action: v.Action}
		}
		if v.Reason != fleet.ReasonHTTPUnreachable && v.Reason != fleet.ReasonCAAForbidden {
			break // what is wrong is wrong for every challenge
		}
	}
	return "", first
}

// probed reports whether an order asks the authority, which is away, whether it is back.
func (l *Loop) probed(ca *Authority) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.probes[ca.Directory]
}

// take reports whether the authority may be asked by one order more: only one asks an authority that was away.
func (l *Loop) take(ca *Authority) (ok, probe bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.o.State.Read().Authority(ca.Directory).Away() {
		return true, false
	}
	if l.probes[ca.Directory] {
		return false, false
	}
	l.probes[ca.Directory] = true
	return true, true
}

// done gives back what take gave.
func (l *Loop) done(way route) {
	if !way.probe {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.probes, way.ca.Directory)
}

// heard stores what the outcome of an attempt says of the authority, if that is news.
func (l *Loop) heard(ctx context.Context, ca *Authority, o fleet.OrderRecord, err error) error {
	var p *issuance.Problem
	if err != nil && !errors.As(err, &p) {
		return nil // ours, not its
	}
	// Outcomes of several orders come at one time: each is judged by what the one before left.
	l.asking.Lock()
	defer l.asking.Unlock()
	a, now := l.o.State.Read().Authority(ca.Directory), l.o.Now()
	switch {
	case p != nil && p.Reason() == fleet.ReasonCARateLimited:
		until := now.Add(p.RetryAfter)
		if p.RetryAfter <= 0 || ofName(o.Host, p) || !until.After(a.Limited) {
			return nil
		}
		a = fleet.Authority{Directory: a.Directory, Limited: until, Problem: clipped(p)} // it answers
	case p != nil && p.Reason() == fleet.ReasonCAUnavailable:
		if a.Away() && now.Before(a.Rest) {
			return nil // it rests already
		}
		l.failedOnce(&a, p, now)
	case a.Failures == 0:
		return nil
	default:
		a = fleet.Authority{Directory: a.Directory, Limited: a.Limited}
		l.o.Telemetry.Logger.InfoContext(ctx, "certificate authority answers again", "authority", ca.Directory)
	}
	if a.Away() {
		l.o.Telemetry.Logger.WarnContext(ctx, "certificate authority is away", "authority", ca.Directory, "since", a.Since, "rest", a.Rest, "err", err)
	}
	if _, err := l.o.Proposer.Propose(ctx, leader.Header(name, now), command.AuthorityObserve{Authority: a}); err != nil {
		return fmt.Errorf("store what is known of %s: %w", ca.Directory, err)
	}
	return nil
}

// failedOnce adds an answer that was none. From the third on the authority rests, each time for longer.
func (l *Loop) failedOnce(a *fleet.Authority, p *issuance.Problem, now time.Time) {
	if a.Failures == 0 {
		a.Since = now
	}
	a.Failures, a.Problem = min(a.Failures+1, fleet.AuthorityAway), clipped(p)
	if !a.Away() {
		return
	}
	a.Pause = min(max(2*a.Pause, l.s.times(restLeast)), l.s.times(restMost))
	a.Rest = now.Add(a.Pause/2 + rand.N(a.Pause/2+1))
	if p.RetryAfter > 0 {
		a.Rest = now.Add(p.RetryAfter)
	}
}

// ofName reports whether a limit is one of the name or its domain, which others need not wait for.
func ofName(h fleet.HostName, p *issuance.Problem) bool {
	return strings.Contains(p.Detail, hostname.Registered(h))
}

func clipped(p *issuance.Problem) string {
	s := p.Error()
	return strings.ToValidUTF8(s[:min(len(s), 300)], "")
}

// hold stores why an order waits.
func (l *Loop) hold(ctx context.Context, o fleet.OrderRecord, w *wait) error {
	if ctx.Err() != nil {
		return nil
	}
	o = l.progress(o)
	o.Problem, o.NextAttempt = hoststate.Problem(w.reason, w.message, w.action), w.until
	return l.propose(ctx, command.OrderPut{Order: o})
}
