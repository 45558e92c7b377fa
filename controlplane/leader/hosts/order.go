package hosts

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hoststate"
	"github.com/edgefleet/edgefleet/tls/issuance"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// newOrder commits key and signing request of h's next certificate. The CA hears of it later, from whoever leads.
func (l *Loop) newOrder(ctx context.Context, h fleet.Host, cert *fleet.Certificate) error {
	generation := uint64(1)
	if cert != nil {
		generation = cert.Generation + 1
	}
	key, csr, spki, err := issuance.NewKeyAndCSR(h.Name)
	if err != nil {
		return err
	}
	sealed, err := l.o.Sealer.Seal(key, keyring.CertKeyAAD(h.Tenant, h.Name, spki, generation))
	clear(key)
	if err != nil {
		return fmt.Errorf("seal key of %s: %w", h.Name, err)
	}
	id := make([]byte, 10)
	if _, err := rand.Read(id); err != nil {
		return fmt.Errorf("make order id: %w", err)
	}
	return l.propose(ctx, command.OrderPut{Put: command.Put{Create: true}, Order: fleet.OrderRecord{
		Order: fleet.Order{
			ID: fleet.OrderID(hex.EncodeToString(id)), Host: h.Name, Tenant: h.Tenant, Generation: generation,
			Challenge: h.Observed.Challenge, State: fleet.OrderQueued, NextAttempt: l.o.Now(),
		},
		Key: sealed, CSR: csr, SPKI: spki,
	}})
}

// attempt looks at DNS once more, for a failed validation costs more than a look, and asks the CA.
func (l *Loop) attempt(ctx context.Context, h fleet.Host, zone fleet.HostName, edge []netip.Addr, o fleet.OrderRecord) result {
	if held := l.mayAsk(o, l.o.Now()); held != nil {
		return result{err: l.hold(ctx, o, held)}
	}
	res := l.checkDNS(ctx, h, zone, edge)
	if res.err != nil || res.fold == nil {
		return res
	}
	seen := res.fold(h.Observed)
	if seen.Challenge == "" {
		own := seen.Ownership
		o.Problem, o.NextAttempt = hoststate.Problem(own.Reason, own.Message, own.Action), l.o.Now().Add(l.s.retry(1))
		res.err = l.propose(ctx, command.OrderPut{Order: o})
		return res
	}
	way, held := l.route(ctx, h, zone, edge, o, vias(seen.Challenge))
	if held != nil {
		res.err = l.hold(ctx, o, held)
		return res
	}
	defer l.done(way)
	chain, err := l.ask(ctx, o, way)
	if errors.Is(err, fleet.ErrTimeout) && way.via != fleet.ChallengeDNS01 {
		// Edges are late, and too many to do without them: DNS-01 needs none, if the certificate record is there by now.
		again := l.checkDNS(ctx, h, zone, edge)
		if again.fold != nil && again.fold(h.Observed).Challenge == fleet.ChallengeDNS01 {
			if _, refused := l.allowed(ctx, h, zone, edge, way.ca, []fleet.ChallengeType{fleet.ChallengeDNS01}); refused == nil {
				res, way.via = again, fleet.ChallengeDNS01
				chain, err = l.ask(ctx, l.progress(o), way)
			}
		}
	}
	res.err = l.concluded(ctx, o, way, chain, err)
	return res
}

// vias are the challenges that the records allow, the best first.
func vias(best fleet.ChallengeType) []fleet.ChallengeType {
	if best == fleet.ChallengeHTTP01 {
		return []fleet.ChallengeType{best, fleet.ChallengeTLSALPN01}
	}
	return []fleet.ChallengeType{best}
}

// concluded stores how an attempt ended.
func (l *Loop) concluded(ctx context.Context, o fleet.OrderRecord, way route, chain []byte, err error) error {
	var held *wait
	if errors.As(err, &held) {
		return l.hold(ctx, o, held)
	}
	if ctx.Err() == nil {
		if err := l.heard(ctx, way.ca, o, err); err != nil {
			return err
		}
	}
	o.Challenge = way.via
	if err == nil {
		err = l.commit(ctx, o, way.ca, chain)
	}
	if err != nil {
		return l.failed(ctx, o, way.ca, err)
	}
	return nil
}

// ask gets the certificate of an order from a CA.
func (l *Loop) ask(ctx context.Context, o fleet.OrderRecord, way route) (chain []byte, err error) {
	err = fence(func() (err error) {
		chain, err = way.ca.Issuer.Issue(ctx, l.request(o, way))
		return err
	})
	if left := l.o.Challenges.withdraw(ctx, o.Host); err == nil {
		err = left
	}
	return chain, err
}

// progress is o with how far it is at the CA, which was stored since o was read.
func (l *Loop) progress(o fleet.OrderRecord) fleet.OrderRecord {
	if now, ok := l.o.State.Read().Order(o.ID); ok {
		o.Asked, o.URL, o.Authority = now.Asked, now.URL, now.Authority
	}
	return o
}

// request is what is asked of the CA, from where the order stands there. What another CA has of it is left to end.
func (l *Loop) request(o fleet.OrderRecord, way route) issuance.Request {
	r := issuance.Request{
		Host: o.Host, Tenant: o.Tenant, CSR: o.CSR, Via: []fleet.ChallengeType{way.via}, URL: o.URL, Asked: o.Asked,
		Save: l.save(way.ca, o),
	}
	if l.authority(o.Authority) != way.ca {
		r.URL, r.Asked = "", false
	}
	if c, ok := l.o.State.Read().Certificate(o.Host); ok && c.Source != fleet.SourceUploaded && l.authority(c.Authority) == way.ca {
		r.Replaces = c.Chain
	}
	return r
}

// commit stores the certificate and ends the order in one step.
func (l *Loop) commit(ctx context.Context, o fleet.OrderRecord, ca *Authority, chain []byte) error {
	leaf, err := issuance.Describe(chain)
	if err != nil {
		return err
	}
	c := fleet.CertificateRecord{Key: o.Key, Certificate: fleet.Certificate{
		Host: o.Host, Tenant: o.Tenant, Generation: o.Generation, Chain: string(chain), SPKI: leaf.SPKI,
		Serial: leaf.Serial, Issuer: leaf.Issuer, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Authority: ca.Directory,
	}}
	// A commit that is refused counts as a failed attempt: without the pause, the order would be due again at once.
	if _, err := l.o.Proposer.Propose(ctx, leader.Header(name, l.o.Now()), command.CertificateCommit{Order: o.ID, Certificate: c}); err != nil {
		return fmt.Errorf("commit certificate: %w", err)
	}
	l.plan(ctx, c.Certificate)
	l.o.Telemetry.Logger.InfoContext(ctx, "certificate issued", "host", string(o.Host), "tenant", string(o.Tenant),
		"generation", o.Generation, "challenge", string(o.Challenge), "not_after", leaf.NotAfter)
	return nil
}

// failed stores what went wrong and when the next attempt is.
func (l *Loop) failed(ctx context.Context, o fleet.OrderRecord, ca *Authority, err error) error {
	if ctx.Err() != nil || errors.Is(err, fleet.ErrUnavailable) {
		return err // this member does not lead any more: the next leader attempts it again
	}
	o = l.progress(o)
	var p *issuance.Problem
	if errors.As(err, &p) && p.Ended {
		o.Asked, o.URL = false, ""
	}
	o.Attempts++
	reason, pause := l.judge(o.Attempts, err)
	now := l.o.Now()
	o.Problem, o.NextAttempt = hoststate.Problem(reason, text(err), ""), now.Add(pause)
	switch reason {
	case fleet.ReasonCARejected, fleet.ReasonCARejectedName, fleet.ReasonCAAForbidden:
		o.Failed = append(o.RecentFailures(now), now)
		o.Failed = o.Failed[max(0, len(o.Failed)-fleet.MaxOrderFailures):]
	case fleet.ReasonCAUnavailable:
		if held := l.mayAsk(o, now); held != nil {
			o.NextAttempt = held.until // it rests for longer
		} else if l.o.State.Read().Authority(ca.Directory).Away() {
			// Another may be asked, before this one's rest is over: later, the order would only ask this one again.
			o.NextAttempt = now.Add(l.s.elsewhere())
		}
	}
	l.o.Telemetry.Logger.WarnContext(ctx, "certificate order failed", "host", string(o.Host), "tenant", string(o.Tenant),
		"authority", ca.Directory, "reason", reason, "attempts", o.Attempts, "next_attempt", o.NextAttempt, "err", err)
	return l.propose(ctx, command.OrderPut{Order: o})
}

// judge is the reason of a failure and how long to wait after the n-th.
func (l *Loop) judge(n int, err error) (reason string, wait time.Duration) {
	var p *issuance.Problem
	switch {
	case errors.As(err, &p):
		reason, wait = p.Reason(), l.s.retry(n)
		if reason == fleet.ReasonCAUnavailable {
			wait = l.s.outage(n)
		}
		if p.RetryAfter > 0 {
			wait = p.RetryAfter // exactly: the CA counts requests that come before
		}
		return reason, wait
	case errors.Is(err, fleet.ErrTimeout):
		return fleet.ReasonDeployPartial, l.s.outage(n)
	}
	return fleet.ReasonCAUnavailable, l.s.outage(n)
}

// text is what people read: the CA's words without the layers around them.
func text(err error) string {
	var p *issuance.Problem
	if errors.As(err, &p) {
		return p.Error()
	}
	return err.Error()
}

// checkDNS looks at the records of h.
func (l *Loop) checkDNS(ctx context.Context, h fleet.Host, zone fleet.HostName, edge []netip.Addr) result {
	var f fleet.DNSFinding
	err := fence(func() (err error) {
		f, err = l.o.Resolver.CheckHost(ctx, h, zone, edge)
		return err
	})
	if ctx.Err() != nil {
		return result{}
	}
	if err != nil {
		v := fleet.DNSVerdict{Reason: fleet.ReasonDNSServfail, Message: err.Error()}
		f = fleet.DNSFinding{Certificate: v, Traffic: v}
	}
	now := l.o.Now()
	f = hoststate.Behind(h.Spec, f)
	return result{fold: func(o fleet.HostObserved) fleet.HostObserved { return hoststate.Look(o, f, now, l.s.Schedule) }}
}

// verify makes handshakes through the edges.
func (l *Loop) verify(ctx context.Context, c fleet.Certificate, edges []netip.Addr) result {
	err := fence(func() error { return l.o.Handshake(ctx, c.Host, c.SPKI, edges) })
	if ctx.Err() != nil {
		return result{}
	}
	now := l.o.Now()
	return result{fold: func(o fleet.HostObserved) fleet.HostObserved {
		return hoststate.Shake(o, c.Generation, err, now, l.s.Schedule)
	}}
}

// fence turns a panic into an error, so that one host cannot end the loop for all.
func fence(work func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	return work()
}
