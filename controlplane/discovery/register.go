package discovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/edgefleet/edgefleet/fleet"
)

// Keys of the metadata of everything that is registered.
const (
	metaCluster = "edgefleet_cluster"
	// metaMember is the member that registered it.
	metaMember = "edgefleet_member"
	// metaObject is the member or node that it is.
	metaObject = "edgefleet_object"
)

// Status is the health of a service, in Consul's words.
type Status string

// The states of a service.
const (
	Passing  Status = api.HealthPassing
	Warning  Status = api.HealthWarning
	Critical Status = api.HealthCritical
)

// Service is one member or node as Consul shows it.
type Service struct {
	// Name is the service's, Object the member's or node's.
	Name, Object string
	// Address is an IP address or a name, Tagged are further addresses by Consul's tag (lan_ipv4, lan_ipv6).
	Address string
	Tagged  map[string]string
	Port    int
	Tags    []string
	Meta    map[string]string
	// Status and Output are what its check says.
	Status Status
	Output string
	// Maintenance, if set, is why it gets no traffic although it works.
	Maintenance string
	// Shared services are kept by the leader, for all; the others by the member that they are.
	Shared bool
}

// Inventory is what is to be registered.
type Inventory struct {
	// Services are all of the fleet's: this member's own, and the nodes', whoever keeps them.
	Services []Service
	// Objects says of each service's name which members or nodes there are: what is registered beyond is removed.
	Objects map[string][]string
	// Leads says that this member keeps the shared services; Led, that another one does.
	Leads, Led bool
}

// RegistrarOptions configure the registrar.
type RegistrarOptions struct {
	Cluster fleet.ClusterID
	Member  fleet.MemberID
	// TTL is how long a service that is not heard of stays as it is; default 30 s.
	TTL time.Duration
	// DeregisterAfter is how long Consul keeps a service that is critical; default 1 h, at least 1 m.
	DeregisterAfter time.Duration
	// Step is how often what is to be registered is looked at; default 1 s.
	Step time.Duration
	// Inventory is called at each step. It must not block.
	Inventory func() Inventory
	// Changed returns when the inventory may have changed, or when ctx ends.
	Changed func(ctx context.Context)
	Now     func() time.Time
}

// Registrar keeps this member, and the edge nodes while it leads, registered with the agent.
//
// When leadership moves, the new leader registers the nodes at its own agent; the old one removes its registrations only
// once it sees the new ones, so that at no moment a node is missing. With one agent for all members the registrations are
// the same, and are taken over.
type Registrar struct {
	c *Consul
	o RegistrarOptions
	// known is what this member registered, by service id. Run owns it until it ends, then Stop does.
	known map[string]*registration
	// refused is what Consul refused last, by what was tried: it holds up nothing else, and is tried again after a TTL.
	refused map[string]refusal
	// swept is when registrations were last looked through that nobody keeps.
	swept time.Time
	count atomic.Int64
}

// registration is a service as the agent was told.
type registration struct {
	service Service
	told    time.Time
	// adopted: it was found at the agent, and must be registered anew before its check is updated.
	adopted bool
}

// refusal is an answer of Consul that trying again does not change.
type refusal struct {
	service Service
	at      time.Time
	err     error
}

// NewRegistrar makes the registrar.
func NewRegistrar(c *Consul, o RegistrarOptions) *Registrar {
	if o.TTL == 0 {
		o.TTL = 30 * time.Second
	}
	if o.DeregisterAfter == 0 {
		o.DeregisterAfter = time.Hour
	}
	if o.Step == 0 {
		o.Step = time.Second
	}
	return &Registrar{c: c, o: o, known: map[string]*registration{}, refused: map[string]refusal{}}
}

// Registered is the number of services that this member keeps.
func (r *Registrar) Registered() int { return int(r.count.Load()) }

func (r *Registrar) id(s Service) string {
	return fmt.Sprintf("%s-%s-%s", s.Name, r.o.Cluster, s.Object)
}

// Run keeps what the inventory says registered until ctx ends.
func (r *Registrar) Run(ctx context.Context) error {
	retry := r.c.o.Retry
	for ctx.Err() == nil {
		err := r.c.explain(r.step(ctx))
		if err == nil {
			r.c.report(ctx, opRegister, r.refusals())
		} else {
			r.c.report(ctx, opRegister, err)
			var pause time.Duration
			pause, retry = r.c.backoff(retry)
			pauseFor(ctx, min(pause, r.o.TTL/3)) // what can be kept must not run out meanwhile
			r.swept = time.Time{}                // Consul may have forgotten everything
			continue
		}
		retry = r.c.o.Retry
		wait, cancel := context.WithTimeout(ctx, r.o.Step)
		r.o.Changed(wait)
		cancel()
		pauseFor(ctx, leastPause)
	}
	return nil
}

// step brings the agent up to the inventory.
func (r *Registrar) step(ctx context.Context) error {
	in := r.o.Inventory()
	wanted := map[string]bool{}
	for _, s := range in.Services {
		if s.Shared && !in.Leads && (in.Led || r.known[r.id(s)] == nil) {
			continue // without a leader, who kept them last goes on: nodes serve without one
		}
		wanted[r.id(s)] = true
		if err := r.try("register", s, func() error { return r.keep(ctx, s) }); err != nil {
			return err
		}
	}
	if r.o.Now().Sub(r.swept) > r.o.TTL {
		if err := r.sweep(ctx, in); err != nil {
			return fmt.Errorf("look through registrations: %w", err)
		}
		r.swept = r.o.Now()
	}
	for _, id := range slices.Sorted(maps.Keys(r.known)) {
		s := r.known[id].service
		if wanted[id] || s.Shared && !in.Leads && slices.Contains(in.Objects[s.Name], s.Object) {
			continue
		}
		if err := r.try("deregister", s, func() error { return r.drop(ctx, id) }); err != nil {
			return err
		}
	}
	r.count.Store(int64(len(r.known)))
	if in.Led {
		return r.handOver(ctx)
	}
	return nil
}

// try does something about a service; what Consul refuses is remembered, and no error.
func (r *Registrar) try(verb string, s Service, do func() error) error {
	key, now := verb+" "+r.id(s), r.o.Now()
	if was, ok := r.refused[key]; ok && now.Sub(was.at) < r.o.TTL && sameDefinition(was.service, s) {
		return nil
	}
	err := do()
	if status, answered := errors.AsType[api.StatusError](err); answered && status.Code/100 == 4 && status.Code != 429 {
		r.refused[key] = refusal{s, now, fmt.Errorf("%s %s: %w", verb, s.Object, r.c.explain(err))}
		return nil
	}
	delete(r.refused, key)
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, s.Object, err)
	}
	return nil
}

// refusals names the first of what Consul refuses, and counts it.
func (r *Registrar) refusals() error {
	maps.DeleteFunc(r.refused, func(_ string, was refusal) bool { return r.o.Now().Sub(was.at) > 2*r.o.TTL }) // not tried any more
	keys := slices.Sorted(maps.Keys(r.refused))
	switch len(keys) {
	case 0:
		return nil
	case 1:
		return r.refused[keys[0]].err
	}
	return fmt.Errorf("%w (and %d more)", r.refused[keys[0]].err, len(keys)-1)
}

// keep registers a service, or tells how it is.
func (r *Registrar) keep(ctx context.Context, s Service) error {
	id, now := r.id(s), r.o.Now()
	k := r.known[id]
	if k == nil || k.adopted || !sameDefinition(k.service, s) {
		return r.register(ctx, id, s)
	}
	if k.service.Maintenance != s.Maintenance {
		if err := r.maintain(ctx, id, s.Maintenance); err != nil {
			return r.register(ctx, id, s)
		}
		k.service.Maintenance = s.Maintenance
	}
	if k.service.Status == s.Status && k.service.Output == s.Output && now.Sub(k.told) < r.o.TTL/3 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := r.c.api.Agent().UpdateTTLOpts(checkID(id), s.Output, string(s.Status), (&api.QueryOptions{}).WithContext(ctx))
	if _, answered := errors.AsType[api.StatusError](err); answered {
		return r.register(ctx, id, s) // the agent does not know it any more
	}
	if err != nil {
		return err
	}
	k.service, k.told = s, now
	return nil
}

func checkID(id string) string { return "service:" + id }

// sameDefinition reports whether only the health of two services differs.
func sameDefinition(a, b Service) bool {
	a.Status, a.Output, a.Maintenance = b.Status, b.Output, b.Maintenance
	return reflect.DeepEqual(a, b)
}

func (r *Registrar) register(ctx context.Context, id string, s Service) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	meta := map[string]string{metaCluster: string(r.o.Cluster), metaMember: string(r.o.Member), metaObject: s.Object}
	maps.Copy(meta, s.Meta)
	tagged := map[string]api.ServiceAddress{}
	for tag, addr := range s.Tagged {
		tagged[tag] = api.ServiceAddress{Address: addr, Port: s.Port}
	}
	err := r.c.api.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
		ID: id, Name: s.Name, Address: s.Address, TaggedAddresses: tagged, Port: s.Port, Tags: s.Tags, Meta: meta,
		Check: &api.AgentServiceCheck{
			CheckID: checkID(id), Name: "Health of " + s.Object, Notes: "As the Edgefleet control plane sees it", TTL: r.o.TTL.String(), Status: string(s.Status),
			DeregisterCriticalServiceAfter: r.o.DeregisterAfter.String(),
		},
	}, api.ServiceRegisterOpts{}.WithContext(ctx))
	if err != nil {
		return err
	}
	// The registration says the status, not what it is about.
	if err := r.c.api.Agent().UpdateTTLOpts(checkID(id), s.Output, string(s.Status), (&api.QueryOptions{}).WithContext(ctx)); err != nil {
		return err
	}
	if err := r.maintain(ctx, id, s.Maintenance); err != nil {
		return err
	}
	r.known[id] = &registration{service: s, told: r.o.Now()}
	return nil
}

func (r *Registrar) maintain(ctx context.Context, id, reason string) error {
	q := (&api.QueryOptions{}).WithContext(ctx)
	if reason == "" {
		return r.c.api.Agent().DisableServiceMaintenanceOpts(id, q)
	}
	return r.c.api.Agent().EnableServiceMaintenanceOpts(id, reason, q)
}

// drop deregisters a service; one that the agent does not know is as good.
func (r *Registrar) drop(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := r.c.api.Agent().ServiceDeregisterOpts(id, (&api.QueryOptions{}).WithContext(ctx))
	if status, answered := errors.AsType[api.StatusError](err); answered && status.Code != 403 {
		err = nil
	}
	if err == nil {
		delete(r.known, id)
	}
	return err
}
