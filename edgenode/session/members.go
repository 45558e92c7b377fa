package session

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/edgefleet/edgefleet/edgenode/identity"
	"github.com/edgefleet/edgefleet/fleet"
)

// members are the addresses of the control plane.
type members struct {
	dir   string
	fixed []string
	log   *slog.Logger

	mu   sync.Mutex
	list []fleet.Endpoints
	// next rotates the member that is asked first, so that one that hangs costs every other poll only.
	next int
}

func openMembers(o Options) *members {
	m := &members{dir: o.Dir, fixed: o.ControlPlane, log: o.Telemetry.Logger, list: identity.LearnedMembers(o.Dir)}
	if len(m.list) == 0 {
		m.list = identity.UsableMembers(o.Members)
	}
	return m
}

// learn takes the members of a head set, keeps them for the next start, and returns the NATS addresses if they changed.
func (m *members) learn(ctx context.Context, list []fleet.Endpoints) (servers []string, changed bool) {
	list = identity.UsableMembers(list)
	m.mu.Lock()
	same := slices.Equal(list, m.list)
	if len(list) > 0 && !same {
		m.list = list
	}
	m.mu.Unlock()
	if len(list) == 0 || same {
		return nil, false
	}
	if err := identity.SaveMembers(m.dir, list); err != nil {
		m.log.WarnContext(ctx, "member addresses not stored", "err", err)
	}
	return m.nats(), true
}

// nats are the NATS addresses.
func (m *members) nats() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, e := range m.list {
		if e.NATS != "" {
			out = append(out, e.NATS)
		}
	}
	return out
}

// api are the API addresses, each call beginning with another member; the configured ones come last.
func (m *members) api() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for i := range m.list {
		if a := m.list[(i+m.next)%len(m.list)].API; a != "" {
			out = append(out, a)
		}
	}
	m.next++
	for _, a := range m.fixed {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}
