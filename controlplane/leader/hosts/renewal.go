package hosts

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/issuance"
)

const (
	// askRenewal is how often a CA that does not say otherwise is asked when a certificate is to be renewed.
	askRenewal = 6 * time.Hour
	// askRenewalMost and askRenewalLeast bound what a CA may say.
	askRenewalMost, askRenewalLeast = 24 * time.Hour, time.Minute
	// lookRenewals is how often it is looked which certificates are to be asked about, renewalsAtOnce how many at a time.
	lookRenewals   = time.Minute
	renewalsAtOnce = 4
)

// plan asks the CA when c is to be renewed, and stores that if it is news; it returns when to ask again. A renewal that
// somebody asked for stands.
func (l *Loop) plan(ctx context.Context, c fleet.Certificate) (again time.Time) {
	again = l.o.Now().Add(askRenewal)
	if c.Renewal.Source == fleet.RenewalRequested || c.Source == fleet.SourceUploaded {
		return again
	}
	var renewal fleet.Renewal
	w, ok, err := l.window(ctx, c)
	switch {
	case ctx.Err() != nil:
		return again
	case err != nil && !c.Renewal.At.IsZero():
		l.o.Telemetry.Logger.DebugContext(ctx, "renewal time not learned", "host", string(c.Host), "err", err)
		return again // what it said last holds
	case err == nil && ok:
		renewal = c.PlanRenewal(w.Start, w.End, w.Explanation)
		if !w.Again.IsZero() {
			again = l.o.Now().Add(min(askRenewalMost, max(askRenewalLeast, w.Again.Sub(l.o.Now()))))
		}
	default:
		renewal = c.PlanRenewal(time.Time{}, time.Time{}, "")
	}
	if sameRenewal(c.Renewal, renewal) {
		return again
	}
	if err := l.propose(ctx, command.RenewalPlan{Host: c.Host, Generation: c.Generation, Renewal: renewal}); err != nil {
		l.o.Telemetry.Logger.WarnContext(ctx, "renewal time not stored", "host", string(c.Host), "err", err)
		return l.o.Now().Add(lookRenewals)
	}
	return again
}

// errResting is why an authority that is away is not asked.
var errResting = errors.New("the certificate authority is away, or wants to be left alone")

// window asks the authority that issued c when it is to be renewed. One that is away is left alone.
func (l *Loop) window(ctx context.Context, c fleet.Certificate) (w issuance.Window, ok bool, err error) {
	ca := l.authority(c.Authority)
	if ca == nil {
		return w, false, nil
	}
	if a := l.o.State.Read().Authority(ca.Directory); a.Away() || l.o.Now().Before(a.Limited) {
		return w, false, errResting
	}
	if c.Authority != "" && c.Authority != ca.Directory {
		return w, false, nil // an authority that is not configured any more
	}
	return ca.Issuer.Renewal(ctx, []byte(c.Chain))
}

func sameRenewal(a, b fleet.Renewal) bool {
	return a.At.Equal(b.At) && a.Source == b.Source && a.Start.Equal(b.Start) && a.End.Equal(b.End) && a.Explanation == b.Explanation
}

// asked is when to ask about one certificate next.
type asked struct {
	generation uint64
	at         time.Time
}

// renewals keeps asking the CA about all certificates until ctx ends. When it asked is in memory only: a new leader asks
// about all of them anew, spread over the time in which each is asked about anyway.
func (l *Loop) renewals(ctx context.Context) {
	next := map[fleet.HostName]asked{}
	tick := time.NewTicker(lookRenewals)
	defer tick.Stop()
	for ctx.Err() == nil {
		l.askDue(ctx, next)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (l *Loop) askDue(ctx context.Context, next map[fleet.HostName]asked) {
	var due []fleet.Certificate
	known, now := map[fleet.HostName]asked{}, l.o.Now()
	for _, c := range l.o.State.Read().Certificates() {
		a, ok := next[c.Host]
		switch {
		case !ok && !c.Renewal.At.IsZero():
			a.at = now.Add(c.Spread(askRenewal))
		case ok && a.generation != c.Generation && !c.Renewal.At.IsZero():
			a.at = now.Add(askRenewal) // it was asked about when it was issued
		}
		a.generation = c.Generation
		if known[c.Host] = a; !a.at.After(now) {
			due = append(due, c.Certificate)
		}
	}
	clear(next)
	var mu sync.Mutex
	var work sync.WaitGroup
	slots := make(chan struct{}, renewalsAtOnce)
	for _, c := range due {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			at := l.plan(ctx, c)
			mu.Lock()
			defer mu.Unlock()
			known[c.Host] = asked{c.Generation, at}
		})
	}
	work.Wait()
	maps.Copy(next, known)
}
