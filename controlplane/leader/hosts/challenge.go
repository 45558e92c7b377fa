package hosts

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
)

// reinspect is how often edges are looked at without news: a member may derive a bundle a moment after its head.
const reinspect = time.Second

// Challenges makes ACME challenges answerable through the replicated state: members' DNS servers answer DNS-01 from
// it, edges get HTTP-01 and TLS-ALPN-01 answers with their certificates. It is an issuance.Presenter, used on the leader only.
type Challenges struct {
	State    *state.Store
	Proposer leader.Proposer
	// Fetch returns a blob of the bundles that heads name.
	Fetch bundle.Fetch
	Now   func() time.Time
	// Acknowledge is how long edges may take to acknowledge an HTTP-01 answer; 3 s by default. Those that take longer are
	// out of DNS for the host until the challenge is over.
	Acknowledge time.Duration
	// Settle is how long followers get to apply what DNS answers with before the CA may ask them; 500 ms by default, a
	// multiple of the time in which a leader tells them what is committed.
	Settle time.Duration
	// Logger says which edges are late; none by default.
	Logger *slog.Logger
}

// outFor is how long an edge that is late stays out of DNS at most: as long as one attempt takes at most.
const outFor = 5 * time.Minute

// Present commits the answer, and returns when every edge that DNS answers with for the host acknowledged it (HTTP-01, TLS-ALPN-01).
// When edges are late and may not leave DNS, for too few would be left, it returns fleet.ErrTimeout.
func (c *Challenges) Present(ctx context.Context, ch fleet.Challenge) error {
	if _, err := c.Proposer.Propose(ctx, leader.Header(name, c.Now()), command.ChallengePut{Challenge: ch}); err != nil {
		return fmt.Errorf("publish challenge: %w", err)
	}
	if ch.Type != fleet.ChallengeDNS01 {
		return c.barrier(ctx, ch)
	}
	return c.settled(ctx)
}

// settled waits until followers have applied what was committed.
func (c *Challenges) settled(ctx context.Context) error {
	settle := c.Settle
	if settle == 0 {
		settle = 500 * time.Millisecond
	}
	select {
	case <-time.After(settle):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// CleanUp withdraws the answer.
func (c *Challenges) CleanUp(ctx context.Context, ch fleet.Challenge) error {
	del := command.ChallengeDelete{Host: ch.Host, Via: ch.Type, Token: ch.Token}
	if _, err := c.Proposer.Propose(ctx, leader.Header(name, c.Now()), del); err != nil {
		return fmt.Errorf("withdraw challenge: %w", err)
	}
	return nil
}

// barrier returns when every edge that DNS answers with has the answer. It takes edges that are late out of DNS.
func (c *Challenges) barrier(ctx context.Context, ch fleet.Challenge) error {
	limit := c.Acknowledge
	if limit == 0 {
		limit = 3 * time.Second
	}
	d, err := c.acknowledged(ctx, ch, limit)
	if err != nil || d.Complete() {
		return err
	}
	if left := dns.Without(d.nodes, d.late); !d.Published || len(d.late) == 0 || len(d.late) > fleet.MaxChallengeOut || len(left) == len(d.nodes) {
		return fleet.NewError(fleet.ErrTimeout, "challenge", "the answer to the challenge of %s is not on every edge: %s", ch.Host, &d.Deployment)
	}
	if c.Logger != nil {
		c.Logger.WarnContext(ctx, "edges are out of dns until a challenge is over", "host", string(ch.Host), "nodes", d.Laggards, "in_dns", d.Edges)
	}
	ch.Out = &fleet.ChallengeOut{Nodes: d.late, Until: c.Now().Add(outFor)}
	if _, err := c.Proposer.Propose(ctx, leader.Header(name, c.Now()), command.ChallengePut{Challenge: ch}); err != nil {
		return fmt.Errorf("take late edges out of dns: %w", err)
	}
	if err := c.settled(ctx); err != nil {
		return err
	}
	// Another edge may have come into DNS meanwhile.
	if d, err = c.acknowledged(ctx, ch, limit); err != nil || d.Complete() {
		return err
	}
	return fleet.NewError(fleet.ErrTimeout, "challenge", "the answer to the challenge of %s is not on every edge: %s", ch.Host, &d.Deployment)
}

// acknowledged waits until every edge in DNS has the answer, for at most limit, and returns who has it.
func (c *Challenges) acknowledged(ctx context.Context, ch fleet.Challenge, limit time.Duration) (*deployment, error) {
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	inspect := newInspector(c.Fetch)
	for {
		ws := c.State.Watch(state.Heads, state.Nodes, state.Hosts, state.DNSSets)
		v := c.State.Read()
		h, ok := v.Host(ch.Host)
		if !ok {
			return nil, fleet.NewError(fleet.ErrNotFound, "host", "host %s was deleted", ch.Host)
		}
		d := inspect.deployed(v, h, c.Now(), func(in content) bool { return in.tokens[ch.Token] })
		if d.Complete() {
			return d, nil
		}
		pause, stop := context.WithTimeout(wait, reinspect)
		err := ws.WatchCtx(pause)
		stop()
		switch {
		case err == nil || wait.Err() == nil:
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		default:
			return d, nil
		}
	}
}

// withdraw withdraws what is left of a host's challenges when an attempt is over: what an earlier leader presented, if the
// CA had looked at it already when this one came.
func (c *Challenges) withdraw(ctx context.Context, h fleet.HostName) error {
	for _, ch := range c.State.Read().Challenges() {
		if ch.Host != h {
			continue
		}
		if err := c.CleanUp(ctx, ch); err != nil {
			return err
		}
	}
	return nil
}

// sweep withdraws the answers that an earlier leader left behind, but those of orders that the CA has: it may be looking.
func (c *Challenges) sweep(ctx context.Context) error {
	v := c.State.Read()
	for _, ch := range v.Challenges() {
		if slices.ContainsFunc(v.OrdersOf(ch.Host), func(o fleet.OrderRecord) bool { return o.URL != "" }) {
			continue // the attempt that goes on with the order presents it again, and withdraws it
		}
		if err := c.CleanUp(ctx, ch); err != nil {
			return err
		}
	}
	return nil
}
