// Package origins is the leader's loop that follows the Consul services which hosts have as origins, and commits the
// servers that they stand for.
//
// It owns which instances a host gets, and what is said about the others. Who is healthy is Consul's word, behind the
// Watcher. When Consul is away or knows no healthy instance, the last good ones stay: an empty answer is more likely a
// mistake than a customer without servers. Nodes see plain addresses only.
package origins

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// Watcher follows services.
type Watcher interface {
	// Watch calls got with the healthy instances of a service, sorted, whenever they may have changed, and with each error
	// to learn them, until ctx ends. Instances may be anything.
	Watch(ctx context.Context, s fleet.ConsulOrigin, got func([]fleet.Instance, error))
}

// Options configure the loop.
type Options struct {
	State    *state.Store
	Proposer leader.Proposer
	// Watcher is nil on a member without Consul: then nothing changes, and Degraded says so if a host needs it.
	Watcher Watcher
	// Degraded is told what keeps services from being followed; nil when nothing does.
	Degraded func(error)
	// Fold is how long changes are gathered into one command; default 250 ms.
	Fold time.Duration
	Now  func() time.Time
}

const (
	// batch bounds the hosts of one command, so that it stays below command.MaxBytes.
	batch = 64
	// recheck is how often hosts are looked at although nothing seems to have changed: the nodes' own addresses do.
	recheck = 30 * time.Second
)

// Loop is the loop.
type Loop struct {
	o Options

	mu sync.Mutex
	// heard is the last answer for each query that is watched.
	heard map[string]answer
	news  chan struct{}
}

// answer is what was learned of one query. Nothing, neither instances nor an error, is known until the first.
type answer struct {
	known     bool
	instances []fleet.Instance
	err       error
}

// New makes the loop.
func New(o Options) *Loop {
	if o.Fold == 0 {
		o.Fold = 250 * time.Millisecond
	}
	return &Loop{o: o, heard: map[string]answer{}, news: make(chan struct{}, 1)}
}

// Run blocks until ctx ends or a proposal fails.
func (l *Loop) Run(ctx context.Context) error {
	l.mu.Lock()
	clear(l.heard) // of an earlier time of leadership
	l.mu.Unlock()
	defer l.o.Degraded(nil) // it is the next leader's to say
	var watchers sync.WaitGroup
	defer watchers.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	watched := map[string]context.CancelFunc{}
	for {
		ws := l.o.State.Watch(state.Hosts, state.Tenants, state.Clusters)
		v := l.o.State.Read()
		l.follow(ctx, &watchers, watched, queries(v))
		if err := l.commit(ctx, v); err != nil {
			return err
		}
		changed := make(chan struct{})
		wait, cancel := context.WithTimeout(ctx, recheck)
		go func() { defer close(changed); _ = ws.WatchCtx(wait) }()
		select {
		case <-changed:
		case <-l.news:
		}
		cancel()
		<-changed
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(l.o.Fold):
		}
	}
}

// queries are those that the hosts need, by their text.
func queries(v *state.View) map[string]fleet.ConsulOrigin {
	need := map[string]fleet.ConsulOrigin{}
	for _, h := range v.HostsWithServices() {
		for _, o := range h.Spec.Origins {
			if !o.IsConsul() {
				continue
			}
			if c, err := o.ParseConsul(); err == nil {
				need[c.Query()] = c
			}
		}
	}
	return need
}

// follow starts and ends watches so that those run that are needed.
func (l *Loop) follow(ctx context.Context, group *sync.WaitGroup, watched map[string]context.CancelFunc, need map[string]fleet.ConsulOrigin) {
	if l.o.Watcher == nil {
		var err error
		if len(need) > 0 {
			err = fleet.NewError(fleet.ErrUnavailable, "consul", "%d Consul services are origins of hosts, and this member, which leads, has no Consul configured: the last known instances stay; set consul.address as on the other members", len(need))
		}
		l.o.Degraded(err)
		return
	}
	for q, stop := range watched {
		if _, ok := need[q]; !ok {
			stop()
			delete(watched, q)
			l.mu.Lock()
			delete(l.heard, q)
			l.mu.Unlock()
		}
	}
	for q, c := range need {
		if watched[q] != nil {
			continue
		}
		own, stop := context.WithCancel(ctx)
		watched[q] = stop
		group.Go(func() {
			l.o.Watcher.Watch(own, c, func(is []fleet.Instance, err error) {
				if own.Err() == nil {
					l.hear(q, is, err)
				}
			})
		})
	}
}

// hear keeps an answer and wakes the loop. An error leaves the instances that were heard before.
func (l *Loop) hear(q string, is []fleet.Instance, err error) {
	l.mu.Lock()
	a := l.heard[q]
	if a.err = err; err == nil {
		a.known, a.instances = true, is
	}
	l.heard[q] = a
	l.mu.Unlock()
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// commit proposes what differs from the state.
func (l *Loop) commit(ctx context.Context, v *state.View) error {
	hosts := v.HostsWithServices()
	for _, o := range v.AllOrigins() { // and those that had one
		if h, ok := v.Host(o.Host); ok && !slices.ContainsFunc(h.Spec.Origins, fleet.Origin.IsConsul) {
			hosts = append(hosts, h)
		}
	}
	if len(hosts) == 0 {
		return nil
	}
	var changed []fleet.HostOrigins
	r := l.resolver(v)
	for _, h := range hosts {
		before, _ := v.HostOrigins(h.Name)
		if next := r.host(h, before); !equal(before, next) {
			changed = append(changed, next)
		}
	}
	for part := range slices.Chunk(changed, batch) {
		if _, err := l.o.Proposer.Propose(ctx, leader.Header("origins", r.now), command.OriginsResolve{Hosts: part}); err != nil {
			return fmt.Errorf("resolve origins: %w", err)
		}
	}
	return nil
}
