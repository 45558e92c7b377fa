package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

// handoverPause is how often a member that stops looks whether the new leader has registered the nodes.
const handoverPause = 200 * time.Millisecond

// handOver removes the shared services that this member registered when it led, as far as the leader has them now.
func (r *Registrar) handOver(ctx context.Context) error {
	names := map[string]bool{}
	for _, k := range r.known {
		if k.service.Shared {
			names[k.service.Name] = true
		}
	}
	for name := range names {
		taken, here, err := r.taken(ctx, name)
		if err != nil {
			return fmt.Errorf("hand over %s: %w", name, err)
		}
		for id, k := range r.known {
			switch {
			case !k.service.Shared || k.service.Name != name:
			case here[id]:
				delete(r.known, id) // the registration is the leader's now
			case taken[k.service.Object]:
				if err := r.drop(ctx, id); err != nil {
					return fmt.Errorf("deregister %s: %w", k.service.Object, err)
				}
			}
		}
	}
	return nil
}

// taken lists the objects of a service that another member keeps registered elsewhere, and the ids that it keeps in place
// of ours at the same agent.
func (r *Registrar) taken(ctx context.Context, name string) (elsewhere, here map[string]bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	entries, _, err := r.c.api.Health().Service(name, "", false, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, nil, err
	}
	elsewhere, here = map[string]bool{}, map[string]bool{}
	mine := map[string]bool{}
	for _, e := range entries {
		if r.ours(e) && e.Service.Meta[metaMember] == string(r.o.Member) {
			mine[e.Service.ID] = true
		}
	}
	for _, e := range entries {
		if !r.ours(e) || e.Service.Meta[metaMember] == string(r.o.Member) {
			continue
		}
		if mine[e.Service.ID] {
			elsewhere[e.Service.Meta[metaObject]] = true
		} else {
			here[e.Service.ID] = true
		}
	}
	return elsewhere, here, nil
}

// ours reports whether an entry is one of this cluster's registrations.
func (r *Registrar) ours(e *api.ServiceEntry) bool {
	return e != nil && e.Service != nil && e.Node != nil && e.Service.Meta[metaCluster] == string(r.o.Cluster)
}

// sweep finds registrations that nobody keeps: this member's own of an earlier life, which are adopted, and while it leads
// those of members and nodes that are gone, which are removed wherever they are.
func (r *Registrar) sweep(ctx context.Context, in Inventory) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	at, err := r.c.api.Agent().ServicesWithFilterOpts("Meta."+metaCluster+" == "+strconv.Quote(string(r.o.Cluster)), (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return err
	}
	shared := map[string]bool{}
	for _, s := range in.Services {
		shared[s.Name] = shared[s.Name] || s.Shared
	}
	for id, s := range at {
		if s == nil || r.known[id] != nil {
			continue
		}
		gone := !slices.Contains(in.Objects[s.Service], s.Meta[metaObject])
		switch {
		case s.Meta[metaMember] == string(r.o.Member):
			object := s.Meta[metaObject]
			r.known[id] = &registration{adopted: true, service: Service{Name: s.Service, Object: object, Shared: object != string(r.o.Member)}}
		case in.Leads && gone:
			if err := r.drop(ctx, id); err != nil {
				return fmt.Errorf("deregister %s: %w", id, err)
			}
		}
	}
	if !in.Leads {
		return nil
	}
	return r.sweepCatalog(ctx, in, at)
}

// sweepCatalog removes what is critical at other agents and is of members and nodes that are gone. An agent that runs
// brings it back until its time is over, which does no harm; one that is gone with its host would not remove it ever.
func (r *Registrar) sweepCatalog(ctx context.Context, in Inventory, here map[string]*api.AgentService) error {
	for name, objects := range in.Objects {
		entries, _, err := r.c.api.Health().Service(name, "", false, (&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !r.ours(e) || slices.Contains(objects, e.Service.Meta[metaObject]) || here[e.Service.ID] != nil || healthy(e.Checks) {
				continue
			}
			_, err := r.c.api.Catalog().Deregister(&api.CatalogDeregistration{Node: e.Node.Node, ServiceID: e.Service.ID}, (&api.WriteOptions{}).WithContext(ctx))
			if err != nil {
				return fmt.Errorf("deregister %s of Consul node %s: %w", e.Service.ID, e.Node.Node, err)
			}
		}
	}
	return nil
}

// Stop deregisters this member, after Run has ended. The nodes' registrations go when another member has taken them over,
// which it waits for while ctx lasts if there are others; if none does, they become critical by themselves.
func (r *Registrar) Stop(ctx context.Context, others bool) error {
	var errs []error
	shared := false
	for id, k := range r.known {
		if k.service.Shared {
			shared = true
			continue
		}
		errs = append(errs, r.drop(ctx, id))
	}
	if errors.Join(errs...) != nil || !shared || !others {
		return r.c.explain(errors.Join(errs...))
	}
	for {
		err := r.handOver(ctx)
		left := 0
		for _, k := range r.known {
			if k.service.Shared {
				left++
			}
		}
		if err != nil || left == 0 {
			return r.c.explain(err)
		}
		if pauseFor(ctx, handoverPause); ctx.Err() != nil {
			return nil // nobody took over; they expire
		}
	}
}
