package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

const (
	// requestTimeout bounds one request over the bus.
	requestTimeout = 5 * time.Second
	// firstRetry is the first wait after a head that could not be loaded yet; it doubles up to the poll interval.
	firstRetry = time.Second
	// maxCounters bounds the tenants in one report, so that it fits into a message; the others follow in the next.
	maxCounters = 1000
)

// follow applies heads as they arrive, and polls: at the start and after each connect at once, else at jittered intervals.
func (s *Session) follow(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry, soon := firstRetry, false
	for {
		var complete bool
		select {
		case <-ctx.Done():
			return
		case <-s.mail.came:
			complete = true
			for _, set := range s.mail.take() {
				complete = s.apply(ctx, set) && complete
			}
			if complete || soon {
				// The timer runs on. A poll that is to bring what is missing, such as the group key of a new epoch, must not be put
				// off by heads that come meanwhile and lack the same.
				continue
			}
		case <-timer.C:
			complete = s.poll(ctx)
		case <-s.pollNow:
			complete = s.poll(ctx)
		}
		wait := jitter(s.options.PollInterval)
		if soon = !complete; complete {
			retry = firstRetry
		} else {
			wait = min(wait, jitter(retry))
			retry = min(2*retry, s.options.PollInterval)
		}
		timer.Reset(wait)
	}
}

// jitter spreads d over three quarters to five quarters of it, so that nodes that started together do not poll together.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// poll asks for the node's heads, by the bus or else by HTTPS, and applies them. It reports whether every head was
// answered.
func (s *Session) poll(ctx context.Context) bool {
	body, err := json.Marshal(s.report())
	if err != nil {
		s.options.Telemetry.Logger.ErrorContext(ctx, "report not encoded", "err", err)
		return false
	}
	set, err := s.pollBus(ctx, body)
	count(ctx, s.polls, "nats", err)
	s.answered.Store(err == nil)
	if err != nil {
		var second error
		set, second = s.https.poll(ctx, s.members.api(), body)
		count(ctx, s.polls, "https", second)
		s.answered.Store(second == nil)
		err = errors.Join(err, second)
		if second != nil {
			if ctx.Err() == nil {
				s.options.Telemetry.Logger.WarnContext(ctx, "no member answers the poll", "err", err)
			}
			return true // the members are away: the regular interval is soon enough
		}
	}
	return s.apply(ctx, set)
}

func (s *Session) pollBus(ctx context.Context, body []byte) (fleet.HeadSet, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	reply, err := s.bus.Request(ctx, s.options.Node.PollSubject(), body)
	if err != nil {
		return fleet.HeadSet{}, fmt.Errorf("poll by nats: %w", err)
	}
	if kind := reply.Header.Get(fleet.BlobErrorHeader); kind != "" {
		return fleet.HeadSet{}, fmt.Errorf("%w: poll by nats: a member answered %.64q", fleet.ErrUnavailable, kind)
	}
	var set fleet.HeadSet
	if err := json.Unmarshal(reply.Data, &set); err != nil {
		return fleet.HeadSet{}, fmt.Errorf("poll by nats: malformed answer: %w", err)
	}
	return set, nil
}

// apply hands a head set to the store and reports the outcome at once. It reports whether every head was answered.
func (s *Session) apply(ctx context.Context, set fleet.HeadSet) bool {
	if servers, changed := s.members.learn(ctx, set.Members); changed {
		s.bus.SetServers(servers)
	}
	before := s.options.Store.Reports()
	answered := s.options.Store.Apply(ctx, set, s.fetch)
	if changed(before, s.options.Store.Reports()) {
		nudge(s.beatNow)
	}
	return len(answered) >= len(set.Heads)
}

func changed(a, b []fleet.HeadReport) bool {
	if len(a) != len(b) {
		return true
	}
	for i := range a {
		if a[i] != b[i] {
			return true
		}
	}
	return false
}

// beat reports at the interval and when asked to. A report that cannot be sent is replaced by the next. While the bus is
// away, reports go with polls by HTTPS, or this node would be called down between two of them; with the members away too,
// the poll interval is soon enough.
func (s *Session) beat(ctx context.Context) {
	ticker := time.NewTicker(s.options.HeartbeatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.beatNow:
		}
		body, err := json.Marshal(s.report())
		if err == nil {
			err = s.bus.Publish(s.options.Node.ReportSubject(), body)
		}
		if err != nil {
			s.options.Telemetry.Logger.DebugContext(ctx, "report not sent", "err", err)
			if s.answered.Load() {
				nudge(s.pollNow)
			}
		}
	}
}

func (s *Session) report() fleet.Report {
	return fleet.Report{
		Node: s.options.Node, Boot: s.options.Boot, Instance: s.options.Instance, Sent: time.Now(), Software: observability.Version,
		Serving: s.options.Serving(), Heads: s.options.Store.Reports(), Counters: s.counters(),
		Uncertified: s.options.Uncertified(), OriginsOut: s.options.OriginsOut(),
	}
}

// counters are all counters or, when there are too many for one message, the next part of them: each is a total, so
// that a later report brings the rest.
func (s *Session) counters() []fleet.TenantCounters {
	all := s.options.Counters()
	if len(all) <= maxCounters {
		return all
	}
	start := int(s.counterOffset.Add(maxCounters)-maxCounters) % len(all)
	part := all[start:min(start+maxCounters, len(all))]
	if rest := maxCounters - len(part); rest > 0 {
		part = append(append([]fleet.TenantCounters{}, part...), all[:rest]...)
	}
	return part
}
