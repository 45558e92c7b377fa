// Package hosts is the load scenario of hosts: how soon a customer's name has HTTPS, alone and beside names that are
// broken for ever; renewals at scale; what handshakes, the certificate table and the zone's name server can do beside
// crypto/tls and nsd; and how fast a certificate is at a hundred nodes.
//
// Its bounds are the project's promises. Members, nodes and the CA are real processes; the customers' name server, their
// origin and the visitors are here. It owns no product code.
package hosts

import (
	"context"
	"fmt"

	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

// Name is the scenario's name.
const Name = "hosts"

// About is the scenario in a line.
const About = "names to HTTPS, renewals, handshakes, deployment of certificates and DNS answers, beside crypto/tls and nsd"

// members and nodes are how many processes there are where nothing else is said.
const (
	members = 3
	nodes   = 2
)

// run is one run of the scenario.
type run struct {
	env *harness.Env
	rep *report.Report
	// alone is what issue found, nil before.
	alone *issued
	// shared is the fleet of the parts that need nothing of their own in it, nil before the first of them.
	shared *world
	// renewed is the fleet of renew, of which a short run keeps the handshakes for due.
	renewed *renewing
}

// fleet is the fleet that parts share.
func (r *run) fleet(ctx context.Context) (*world, error) {
	if r.shared != nil {
		return r.shared, nil
	}
	w, err := r.start(ctx, "fleet", nodes, nil)
	if err == nil {
		r.shared = w
	}
	return w, err
}

// leave ends the shared fleet, so that it takes nothing from those that follow.
func (r *run) leave(ctx context.Context) error {
	if r.shared == nil {
		return nil
	}
	w := r.shared
	r.shared = nil
	return w.close(ctx)
}

// part is a part and what measures it; one that is alone has a fleet of its own.
type part struct {
	name  string
	run   func(*run, context.Context) error
	alone bool
}

// parts are in the order in which they run.
var parts = []part{
	{"sni", (*run).sni, true},
	{"handshakes", (*run).handshakes, false},
	{"dns", (*run).dns, false},
	{"issue", (*run).issue, false},
	{"deploy", (*run).deploy, false},
	{"broken", (*run).broken, true},
	{"renew", (*run).renew, true},
	{"due", (*run).due, true},
}

// Parts names the parts in the order in which they run.
func Parts() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// Run measures. A number that cannot be had is a check that does not hold; an error ends the scenario.
func Run(ctx context.Context, e *harness.Env, rep *report.Report) error {
	r := &run{env: e, rep: rep}
	for _, p := range parts {
		if !e.Wants(p.name) {
			continue
		}
		if p.alone {
			if err := r.leave(ctx); err != nil {
				return err
			}
		}
		if err := p.run(r, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return r.leave(ctx)
}
