package hosts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

const (
	// renewLimit bounds a renewal of all certificates, renewMargin is how much longer they last than that.
	renewLimit  = 500 * time.Second
	renewMargin = 100 * time.Second
	// stallLimit is how long no certificate may be renewed before the renewal counts as over.
	stallLimit = 60 * time.Second
	// lookPause is between two looks at how far the renewal is.
	lookPause = time.Second
	// tellPause is how often somebody who waits is told.
	tellPause = 20 * time.Second
	// dueHosts is how many hosts each tenant has whose certificates are due.
	dueHosts = 20
	// handshakePause is between two handshakes of a visitor while pauses are looked for.
	handshakePause = 5 * time.Millisecond
)

// renewing is a fleet whose certificates all become due at a moment.
type renewing struct {
	*world
	seeded
	due, end time.Time
	// quiet are the handshakes of as long a time before that moment as after it.
	quiet, busy harness.Samples
}

// renewal starts a fleet with n certificates that are due when it runs and has been measured, and measures handshakes for a
// time before that and after.
func (r *run) renewal(ctx context.Context, name string, n int, start, measured time.Duration) (*renewing, error) {
	now := time.Now().UTC().Truncate(time.Second)
	f := &renewing{seeded: seeded{n: n, prefix: name, tenantHosts: dueHosts}, due: now.Add(start + measured)}
	f.end = f.due.Add(renewLimit + renewMargin)
	r.env.Say("a fleet with %d certificates, which are due at %s", n, f.due.Format(time.TimeOnly))
	a, err := newAuthority(now)
	if err != nil {
		return nil, err
	}
	f.world, err = r.startBeside(ctx, name, nodes, true, func(w *world, s *state.Store) error {
		if err := f.seeded.setRecords(w); err != nil {
			return err
		}
		return f.active(s, a, w.members.KEK(), w.originURL, f.due, f.end)
	})
	if err != nil {
		return nil, err
	}
	for _, node := range f.nodes {
		if err := visit(ctx, node.HTTPS(), f.host(n-1), a.roots()); err != nil {
			return nil, fmt.Errorf("%s through %s, before the renewal: %w", f.host(n-1), node.ID, err)
		}
	}
	if late := time.Since(f.due.Add(-measured)); late > 0 {
		return nil, errors.Join(fleet.NewError(fleet.ErrTimeout, name, "the fleet was %s too late to be measured before its certificates were due: the machine is busy", late.Round(time.Second)), f.close(ctx))
	}
	r.env.Say("handshakes before the renewal")
	if f.quiet, err = f.handshakes(ctx, measured); err != nil {
		return nil, err
	}
	if err := waitUntil(ctx, f.due); err != nil {
		return nil, err
	}
	r.env.Say("handshakes during the renewal")
	f.busy, err = f.handshakes(ctx, measured)
	return f, err
}

func waitUntil(ctx context.Context, at time.Time) error {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// handshakes makes handshakes with all nodes, one at a time at each, for a time; they are sorted.
func (f *renewing) handshakes(ctx context.Context, length time.Duration) (harness.Samples, error) {
	var mu sync.Mutex
	var all harness.Samples
	load := harness.Load{Workers: len(f.nodes), For: length, Do: func(ctx context.Context, worker, _ int) error {
		started := time.Now()
		err := handshake(ctx, f.nodes[worker].HTTPS(), string(f.host(rand.IntN(f.n))), worker)
		took := time.Since(started)
		if err == nil {
			mu.Lock()
			all = append(all, took)
			mu.Unlock()
		}
		return errors.Join(err, waitUntil(ctx, time.Now().Add(handshakePause)))
	}}
	out, err := load.Run(ctx)
	if err == nil && out.Errors > 0 {
		err = fleet.NewError(fleet.ErrUnavailable, "handshakes", "%d of %d handshakes failed, one with: %v", out.Errors, out.Errors+out.Count, out.First)
	}
	return all.Sorted(), err
}

// renew measures the renewal of many certificates to its end.
func (r *run) renew(ctx context.Context) error {
	n := harness.Pick(r.env, 10_000, 40, 6)
	f, err := r.renewal(ctx, "renew", n, harness.Pick(r.env, 60*time.Second, 18*time.Second, 14*time.Second), harness.Pick(r.env, 20*time.Second, 3*time.Second, time.Second))
	if err != nil {
		return err
	}
	with, without := f.busy.Quantile(0.99), f.quiet.Quantile(0.99)
	r.rep.Add("handshake p99 during renewals", harness.Millis(with), "ms", report.AtMost(1.1*harness.Millis(without)), fmt.Sprintf("%.2f × that before (%.2f ms, %d handshakes); members and CA on the same machine, with a ninth of the nodes' priority, as they have machines of their own elsewhere", float64(with)/float64(without), harness.Millis(without), len(f.quiet)))
	seen, err := r.watchRenewal(ctx, f)
	if err != nil {
		return err
	}
	wanted, beside := 20.0, "the CA's own limit is not known"
	limit, err := r.bareOrders(ctx, f.world)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		r.rep.Fail("the CA's orders", "1/s", err.Error())
	default:
		wanted, beside = min(wanted, limit), fmt.Sprintf("%.0f %% of the CA's own limit", 100*seen.rate/limit)
		r.rep.Add("the CA's orders", limit, "1/s", report.Bound{}, fmt.Sprintf("Pebble's own limit: %d clients of acmez that make orders by DNS-01, beside the same fleet with nothing to renew", bareClients))
	}
	r.rep.Add("renewals", seen.rate, "1/s", report.AtLeast(wanted), fmt.Sprintf("%s; %d certificates in %.0f s%s", beside, seen.renewed, seen.took.Seconds(), seen.ended))
	r.rep.Add("certificates renewed", float64(seen.renewed), "certificates", report.AtLeast(float64(n)), fmt.Sprintf("of %d that were due at one moment, within %s", n, renewLimit))
	r.rep.Add("least life left", seen.least, "s", report.AtLeast(0), "of any certificate, while they were renewed: none expired")
	r.renewed = f
	return f.close(ctx)
}

// renewed is how a renewal went.
type renewed struct {
	renewed int
	took    time.Duration
	rate    float64
	least   float64
	// ended says why it was over before its time; empty if it was not.
	ended string
}

// watchRenewal watches until all certificates are renewed, or the time is over.
func (r *run) watchRenewal(ctx context.Context, f *renewing) (renewed, error) {
	out := renewed{least: math.Inf(1)}
	r.env.Say("renewals to the last one")
	limit := harness.Pick(r.env, renewLimit, 20*time.Second, 20*time.Second)
	last, told := time.Now(), time.Now()
	for {
		count, least, err := f.progress(ctx)
		if err != nil {
			return out, err
		}
		if count > out.renewed {
			last = time.Now()
		}
		if time.Since(told) > tellPause {
			told = time.Now()
			r.env.Say("%d of %d renewed after %.0f s", count, f.n, time.Since(f.due).Seconds())
		}
		out.renewed, out.took, out.least = count, time.Since(f.due), min(out.least, least)
		out.rate = float64(count) / out.took.Seconds()
		if count >= f.n || out.took > limit {
			return out, nil
		}
		if time.Since(last) > stallLimit {
			out.ended = fmt.Sprintf("; given up after %s without one more: the CA's end, or ours", stallLimit)
			return out, nil
		}
		if err := waitUntil(ctx, time.Now().Add(lookPause)); err != nil {
			return out, err
		}
	}
}

// progress is how many certificates were issued, and the least life of any.
func (w *world) progress(ctx context.Context) (issued int, least float64, err error) {
	least = math.Inf(1)
	for _, m := range w.members.All {
		err := samples(ctx, m.Admin()+"/metrics", func(name, labels string, v float64) {
			switch {
			case name == "edgefleet_acme_orders_total" && strings.Contains(labels, `outcome="issued"`):
				issued += int(v)
			case name == "edgefleet_certificate_least_life_seconds":
				least = min(least, v)
			}
		})
		if err != nil {
			return 0, 0, fmt.Errorf("metrics of %s: %w", m.ID, err)
		}
	}
	return issued, least, nil
}

// samples reads metrics in the text format.
func samples(ctx context.Context, url string, each func(name, labels string, v float64)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(io.LimitReader(res.Body, 16<<20))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			return fleet.NewError(fleet.ErrCorrupt, "metrics", "%s has the line %.200q", url, line)
		}
		name, labels, _ := strings.Cut(line[:i], "{")
		each(name, labels, v)
	}
	return lines.Err()
}

// due compares the longest handshake while many names are due with the longest of as much time before.
func (r *run) due(ctx context.Context) error {
	if f := r.renewed; f != nil && (r.env.Short || r.env.Smoke) {
		r.longest(f) // another fleet would find no more
		return nil
	}
	n := harness.Pick(r.env, 100_000, 500, 6)
	f, err := r.renewal(ctx, "due", n, harness.Pick(r.env, 150*time.Second, 20*time.Second, 14*time.Second), harness.Pick(r.env, 20*time.Second, 3*time.Second, time.Second))
	if err != nil {
		return err
	}
	r.longest(f)
	return f.close(ctx)
}

// longest reports the longest handshakes of a fleet.
func (r *run) longest(f *renewing) {
	tell := func(s harness.Samples) string {
		return fmt.Sprintf("%d handshakes, p50 %.2f ms, p99 %.2f ms, longest %.2f ms", len(s), harness.Millis(s.Quantile(0.5)), harness.Millis(s.Quantile(0.99)), harness.Millis(s.Max()))
	}
	longer := max(0, harness.Millis(f.busy.Max()-f.quiet.Max()))
	r.rep.Add("longest handshake while names are due", longer, "ms", report.AtMost(1), fmt.Sprintf("more than the longest of as much time before; %d names due: %s; before: %s", f.n, tell(f.busy), tell(f.quiet)))
}
