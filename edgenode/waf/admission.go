package waf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/edgefleet/edgefleet/fleet"
)

// waitersPerSlot bounds the requests of one client or tenant that wait for each slot of its share.
const waitersPerSlot = 64

// errCrowded: so many requests wait already that another would only hold memory until its deadline.
var errCrowded = errors.New("too many of its requests wait already")

// admission shares the engine's slots: a client can make judging expensive, so neither one client nor one tenant may hold
// all of them. A request waits for its client's share, then for its tenant's, then for the engine: who waits for its own
// share holds nothing that others need.
type admission struct {
	clients shares[netip.Prefix]
	tenants shares[fleet.TenantID]
	engine  chan struct{}
}

func newAdmission(o Options) *admission {
	return &admission{
		clients: shares[netip.Prefix]{size: o.ClientShare, of: map[netip.Prefix]*share{}},
		tenants: shares[fleet.TenantID]{size: o.TenantShare, of: map[fleet.TenantID]*share{}},
		engine:  make(chan struct{}, o.Concurrency),
	}
}

// enter waits for a slot until ctx ends. With one, the caller must call leave; without, cause is what was busy, as a reason
// of edgefleet_waf_errors_total.
func (a *admission) enter(ctx context.Context, in Input) (leave func(), cause string, err error) {
	client := network(in.ClientAddr.Addr())
	if err := a.clients.enter(ctx, client); err != nil {
		return nil, "busy_client", fmt.Errorf("%w: the client has its share of the rule engine in use: %w", fleet.ErrTimeout, err)
	}
	if err := a.tenants.enter(ctx, in.Tenant); err != nil {
		a.clients.leave(client)
		return nil, "busy_tenant", fmt.Errorf("%w: the tenant has its share of the rule engine in use: %w", fleet.ErrTimeout, err)
	}
	select {
	case a.engine <- struct{}{}:
		return func() {
			<-a.engine
			a.tenants.leave(in.Tenant)
			a.clients.leave(client)
		}, "", nil
	case <-ctx.Done():
		a.tenants.leave(in.Tenant)
		a.clients.leave(client)
		return nil, "busy", fmt.Errorf("%w: the rule engine is busy: %w", fleet.ErrTimeout, context.Cause(ctx))
	}
}

// network is what counts as one client: an IPv4 address, or the /64 of an IPv6 address, within which a client has as many
// addresses as it likes.
func network(a netip.Addr) netip.Prefix {
	bits := 32
	if a = a.Unmap(); a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // clients without an address share one
	}
	return p
}

// shares are the parts of the slots that each key may use. It knows only the keys that have requests now.
type shares[K comparable] struct {
	size int

	mu sync.Mutex
	of map[K]*share
}

type share struct {
	slots chan struct{}
	// users counts the requests that have or wait for a slot.
	users int
}

// enter takes a slot of key's share. It waits until ctx ends, but not where too many do.
func (s *shares[K]) enter(ctx context.Context, key K) error {
	mine := s.join(key)
	if mine == nil {
		return errCrowded
	}
	select {
	case mine.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		s.part(key)
		return context.Cause(ctx)
	}
}

// leave gives the slot back that enter took.
func (s *shares[K]) leave(key K) { <-s.part(key).slots }

func (s *shares[K]) join(key K) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := s.of[key]
	if mine == nil {
		mine = &share{slots: make(chan struct{}, s.size)}
		s.of[key] = mine
	}
	if mine.users >= s.size*(1+waitersPerSlot) {
		return nil
	}
	mine.users++
	return mine
}

func (s *shares[K]) part(key K) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := s.of[key]
	if mine.users--; mine.users == 0 {
		delete(s.of, key)
	}
	return mine
}
