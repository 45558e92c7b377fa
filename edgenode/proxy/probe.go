package proxy

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
)

const (
	// probeTick is how often it is looked for health checks that are due.
	probeTick = 100 * time.Millisecond
	// maxProbes bounds the health checks under way on this node; one that finds no room is due at the next tick.
	maxProbes = 64
	// maxProbeBody bounds what is read of the answer to one.
	maxProbeBody = 64 << 10
	// probeAgent tells origins who asks.
	probeAgent = "edgefleet-health-check"
)

// checks is where the health checks of one origin stand. Its fields but running belong to the check under way, or else to
// the loop that starts them.
type checks struct {
	running   atomic.Bool
	next      time.Time
	good, bad int
}

// probed is one origin that is asked.
type probed struct {
	pool   *pool
	origin *origin
}

// probe asks the origins of hosts that have a health check how they are, until ctx ends. They are asked from the moment that
// a host is served, not from its first request on.
func (o *origins) probe(ctx context.Context, snapshot func() *config.Snapshot, header http.Header) {
	var (
		wg    sync.WaitGroup
		seen  *config.Snapshot
		asked []probed
		room  = make(chan struct{}, maxProbes)
	)
	defer wg.Wait()
	tick := time.NewTicker(probeTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s := snapshot(); s != seen {
			seen, asked = s, o.probed(s)
		}
		for _, a := range asked {
			c, now := &a.origin.checks, time.Now()
			if c.running.Load() || now.Before(c.next) {
				continue
			}
			select {
			case room <- struct{}{}:
			default:
				continue
			}
			interval := a.pool.host.Forwarding.Health.WithDefaults().Interval()
			c.next = now.Add(interval*9/10 + rand.N(interval/5)) // nodes that started together do not ask together
			c.running.Store(true)
			wg.Go(func() {
				defer func() { <-room }()
				defer c.running.Store(false)
				a.pool.ask(ctx, a.origin, header)
			})
		}
	}
}

func (o *origins) probed(s *config.Snapshot) []probed {
	var out []probed
	for _, h := range s.Hosts {
		if h.Forwarding.Health.Path == "" {
			continue
		}
		p := o.pool(h)
		for _, m := range p.members {
			out = append(out, probed{p, m})
		}
	}
	return out
}

// ask makes one health check, and changes what is thought of m when enough of them agree.
func (p *pool) ask(ctx context.Context, m *origin, header http.Header) {
	h := p.host.Forwarding.Health.WithDefaults()
	within, cancel := context.WithTimeout(ctx, h.Timeout())
	defer cancel()
	err := m.ask(within, strings.TrimPrefix(string(p.host.Name), "*."), h.Path, header)
	c := &m.checks
	switch {
	case ctx.Err() != nil:
	case err == nil:
		c.good, c.bad = c.good+1, 0
		if c.good == h.Healthy {
			back := m.sick.CompareAndSwap(true, false)
			m.up()
			if back {
				p.log.InfoContext(ctx, "origin passes its health check again", "tenant", p.host.Tenant, "host", p.host.Name, "origin", m.endpoint.Address())
			}
		}
	default:
		c.good, c.bad = 0, c.bad+1
		if c.bad >= h.Unhealthy && m.sick.CompareAndSwap(false, true) {
			m.outOf(m.healthReason(err), time.Now())
			p.log.WarnContext(ctx, "origin fails its health check", "tenant", p.host.Tenant, "host", p.host.Name, "origin", m.endpoint.Address(), "err", err)
		}
	}
}

// ask reports why an origin is not healthy.
func (o *origin) ask(ctx context.Context, host, path string, header http.Header) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme(o.endpoint)+"://"+o.endpoint.Address()+path, nil)
	if err != nil {
		return fmt.Errorf("make health check: %w", err)
	}
	r.Host, r.Header = host, header.Clone()
	res, err := o.transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxProbeBody))
	if res.StatusCode < 200 || res.StatusCode >= 400 {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return err
}
