package discovery

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// waitTime is how long a blocking query waits for a change.
	waitTime = 55 * time.Second
	// leastPause is the least time between two queries of one watch, whatever Consul answers; an answer without an index
	// says nothing about when to ask next, and is followed by noIndexPause.
	leastPause   = 100 * time.Millisecond
	noIndexPause = 5 * time.Second
	// maxEntries bounds what is taken of one answer.
	maxEntries = 4096
)

// Watch hands over the healthy instances of a service, each time that they may have changed, and the error of each failure
// to learn them, until ctx ends. Instances are sorted and without duplicates.
func (c *Consul) Watch(ctx context.Context, s fleet.ConsulOrigin, got func([]fleet.Instance, error)) {
	c.watch(ctx, opOrigins, func(q *api.QueryOptions) (*api.QueryMeta, error) {
		if s.Datacenter != "" {
			q.Datacenter = s.Datacenter
		}
		entries, meta, err := c.api.Health().ServiceMultipleTags(s.Service, s.Tags, true, q)
		if err == nil {
			got(instances(entries), nil)
		}
		return meta, err
	}, func(err error) { got(nil, err) })
}

// WatchMembers hands over the API addresses of the members that are registered as service, those that pass their checks
// first, until ctx ends.
func (c *Consul) WatchMembers(ctx context.Context, service string, got func([]string)) {
	c.watch(ctx, opMembers, func(q *api.QueryOptions) (*api.QueryMeta, error) {
		entries, meta, err := c.api.Health().Service(service, "", false, q)
		if err == nil {
			got(addresses(entries))
		}
		return meta, err
	}, func(error) {})
}

// Members asks once for the API addresses of the members that are registered as service.
func (c *Consul) Members(ctx context.Context, service string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	entries, _, err := c.api.Health().Service(service, "", false, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, c.explain(err)
	}
	return addresses(entries), nil
}

// watch runs a blocking query again and again until ctx ends.
func (c *Consul) watch(ctx context.Context, op string, query func(*api.QueryOptions) (*api.QueryMeta, error), failed func(error)) {
	var index uint64
	retry := c.o.Retry
	for ctx.Err() == nil {
		limit, cancel := context.WithTimeout(ctx, waitTime+waitTime/8+callTimeout) // Consul adds up to a sixteenth
		meta, err := query((&api.QueryOptions{WaitIndex: index, WaitTime: waitTime}).WithContext(limit))
		cancel()
		if err == nil && meta == nil {
			err = errors.New("an answer without its index")
		}
		pause := leastPause
		switch {
		case err != nil:
			err = c.explain(err)
			if ctx.Err() == nil {
				failed(err)
			}
			index = 0 // Consul may have been restored from a backup
			pause, retry = c.backoff(retry)
		case meta.LastIndex == 0:
			index, pause = 0, noIndexPause
		case meta.LastIndex < index: // it went back: what was seen until now says nothing
			index = 0
		default:
			index = meta.LastIndex
		}
		if err == nil {
			retry = c.o.Retry
		}
		c.report(ctx, op, err)
		pauseFor(ctx, pause)
	}
}

// instances reads what Consul says, which anybody with a token may have written.
func instances(entries []*api.ServiceEntry) []fleet.Instance {
	var out []fleet.Instance
	for _, e := range entries[:min(len(entries), maxEntries)] {
		if e == nil || e.Service == nil {
			continue
		}
		i := fleet.Instance{Address: e.Service.Address, Port: e.Service.Port}
		if i.Address == "" && e.Node != nil {
			i.Address = e.Node.Address
		}
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b fleet.Instance) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Port, b.Port))
	})
	return slices.Compact(out)
}

func addresses(entries []*api.ServiceEntry) []string {
	var passing, others []string
	for _, e := range entries[:min(len(entries), maxEntries)] {
		if e == nil || e.Service == nil || e.Service.Port <= 0 || e.Service.Port > 65535 {
			continue
		}
		host := e.Service.Address
		if host == "" && e.Node != nil {
			host = e.Node.Address
		}
		if host == "" || len(host) > 253 {
			continue
		}
		addr := net.JoinHostPort(host, strconv.Itoa(e.Service.Port))
		if healthy(e.Checks) {
			passing = append(passing, addr)
		} else {
			others = append(others, addr)
		}
	}
	slices.Sort(passing)
	slices.Sort(others)
	all := append(slices.Compact(passing), slices.Compact(others)...)
	return all[:min(len(all), maxMembers)]
}

func healthy(checks api.HealthChecks) bool {
	return !slices.ContainsFunc(checks, func(c *api.HealthCheck) bool { return c == nil || c.Status != api.HealthPassing })
}

// maxMembers bounds the addresses of members that are tried.
const maxMembers = 32
