package hosts

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
)

// reinspect is how often edges are looked at without news: a member may derive a bundle a moment after its head.
const reinspect = time.Second

// Challenges makes ACME challenges answerable through the replicated state: members' DNS servers answer DNS-01 from
// it, edges get HTTP-01 answers with their certificates. It is an issuance.Presenter, used on the leader only.
type Challenges struct {
	State    *state.Store
	Proposer leader.Proposer
	// Fetch returns a blob of the bundles that heads name.
	Fetch bundle.Fetch
	Now   func() time.Time
	// Acknowledge is how long edges may take to acknowledge an HTTP-01 answer; 15 s by default.
	Acknowledge time.Duration
	// Settle is how long followers get to apply a DNS-01 answer before the CA may ask them; 500 ms by default, a
	// multiple of the time in which a leader tells them what is committed.
	Settle time.Duration
}

// Present commits the answer, and returns when every edge that serves the host acknowledged it (HTTP-01).
func (c *Challenges) Present(ctx context.Context, ch fleet.Challenge) error {
	if _, err := c.Proposer.Propose(ctx, leader.Header(name, c.Now()), command.ChallengePut{Challenge: ch}); err != nil {
		return fmt.Errorf("publish challenge: %w", err)
	}
	if ch.Type == fleet.ChallengeHTTP01 {
		return c.acknowledged(ctx, ch)
	}
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

func (c *Challenges) acknowledged(ctx context.Context, ch fleet.Challenge) error {
	limit := c.Acknowledge
	if limit == 0 {
		limit = 15 * time.Second
	}
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	inspect := newInspector(c.Fetch)
	for {
		ws := c.State.Watch(state.Heads, state.Nodes, state.Hosts)
		v := c.State.Read()
		h, ok := v.Host(ch.Host)
		if !ok {
			return fleet.NewError(fleet.ErrNotFound, "host", "host %s was deleted", ch.Host)
		}
		d := inspect.deployed(v, h, func(in content) bool { return in.tokens[ch.Token] })
		if d.Complete() {
			return nil
		}
		pause, stop := context.WithTimeout(wait, reinspect)
		err := ws.WatchCtx(pause)
		stop()
		if err == nil || wait.Err() == nil {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fleet.NewError(fleet.ErrTimeout, "challenge", "the answer to the challenge of %s is not on every edge: %s", ch.Host, &d.Deployment)
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
