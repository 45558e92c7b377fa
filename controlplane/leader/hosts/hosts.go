// Package hosts is the leader's loop that takes every host from a DNS name to HTTPS and keeps it there: it looks at
// the host's DNS records, orders and renews its certificate, and verifies it through the edges.
//
// It owns when and how often, and what a host's conditions say. It asks DNS (package check), the CA (package issuance)
// and the edges through interfaces; it serves nothing. Deadlines, keys and requests are in the state before anything is
// done with them, so that a new leader goes on where the old one was, with the same key; in memory are only the jobs
// that run now. Without DNS or the CA, hosts wait with a reason and keep the certificates they have; without a quorum
// the loop ends.
package hosts

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/issuance"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// name is the loop's name in audit entries and logs.
const name = "hosts"

// Resolver looks at a host's DNS records; check.Resolver is one.
type Resolver interface {
	// CheckHost reports whether h's records are right. edge are the addresses that the zone answers with for h. The
	// error is ctx's only.
	CheckHost(ctx context.Context, h fleet.Host, zone fleet.HostName, edge []netip.Addr) (fleet.DNSFinding, error)
	// Preflight looks for what would make ca refuse h by a challenge. The error is ctx's only.
	Preflight(ctx context.Context, h fleet.Host, zone fleet.HostName, edge []netip.Addr, via fleet.ChallengeType, ca fleet.CAIdentity) (fleet.DNSVerdict, error)
}

// Issuer gets certificates; issuance.Issuer is one.
type Issuer interface {
	// Issue returns the chain as PEM. Failures of the CA are *issuance.Problem.
	Issue(ctx context.Context, r issuance.Request) ([]byte, error)
	// Renewal returns when the CA wants the certificate to be renewed; ok is false if it does not say.
	Renewal(ctx context.Context, chain []byte) (w issuance.Window, ok bool, err error)
}

// Options configure a Loop.
type Options struct {
	State    *state.Store
	Proposer leader.Proposer
	// Fetch returns a blob of the bundles that heads name: from them the loop knows what edges acknowledged.
	Fetch    bundle.Fetch
	Resolver Resolver
	// Authorities are the certificate authorities, the one to prefer first, each with its own directory. Without any, orders
	// wait and say so, and certificates that their owners upload are brought to the edges all the same.
	Authorities []Authority
	// Challenges is the presenter that the issuers have.
	Challenges *Challenges
	// Sealer is the key-encryption key.
	Sealer keyring.Sealer
	// Handshake verifies by TLS handshakes that the edges show the certificate with that key for host; see NewHandshake.
	Handshake func(ctx context.Context, host fleet.HostName, spki string, edges []netip.Addr) error
	Telemetry *observability.Telemetry
	// Workers bounds the orders at the CA at one time; 128 by default, since an order mostly waits for the CA.
	Workers int
	// Lookups bounds the DNS checks and handshakes at one time; 64 by default.
	Lookups int
	// Scale multiplies every wait but the CA's own; 1 by default, less for trying things out.
	Scale float64
	Now   func() time.Time
}

func (o *Options) validate() error {
	if o.State == nil || o.Proposer == nil || o.Fetch == nil || o.Resolver == nil || o.Challenges == nil || o.Handshake == nil || o.Telemetry == nil {
		return fleet.Invalid("hosts", "the host loop misses one of its parts")
	}
	if o.Sealer == nil {
		return fleet.NewError(fleet.ErrSealed, "kek_file", "the host loop needs the key-encryption key: set kek_file")
	}
	known := map[string]bool{}
	for _, ca := range o.Authorities {
		if ca.Directory == "" || ca.Issuer == nil || known[ca.Directory] {
			return fleet.Invalid("acme", "each certificate authority needs an issuer and a directory of its own; %q has not", ca.Directory)
		}
		known[ca.Directory] = true
	}
	if o.Workers == 0 {
		o.Workers = 128
	}
	if o.Lookups == 0 {
		o.Lookups = 64
	}
	if o.Scale == 0 {
		o.Scale = 1
	}
	if o.Now == nil {
		o.Now = func() time.Time { return time.Now().UTC() }
	}
	if o.Workers < 1 || o.Lookups < 1 || o.Scale < 0 {
		return fleet.Invalid("hosts", "workers and lookups must be at least 1, scale positive")
	}
	return nil
}

// Loop is the loop.
type Loop struct {
	o     Options
	s     schedule
	pokes chan fleet.HostName

	// asking orders what is counted and learned of authorities; it is held over a commit.
	asking sync.Mutex
	mu     sync.Mutex
	// probes are the authorities that an order asks whether they are back.
	probes map[string]bool
}

// New makes the loop and registers its gauges.
func New(o Options) (*Loop, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	l := &Loop{o: o, s: newSchedule(o.Scale), pokes: make(chan fleet.HostName, 256), probes: map[string]bool{}}
	o.Telemetry.Gauge("edgefleet_hosts", l.countHosts)
	o.Telemetry.Gauge("edgefleet_certificate_least_life_seconds", l.leastLife)
	o.Telemetry.Gauge("edgefleet_certificate_uploads_needed", l.uploadsNeeded)
	o.Telemetry.Gauge("edgefleet_certificate_revocations_waiting", l.revocationsWaiting)
	return l, nil
}

// Check looks at a host's DNS records at once. It never blocks; without effect while this member does not lead.
func (l *Loop) Check(h fleet.HostName) {
	select {
	case l.pokes <- h:
	default: // so many are waiting that it is looked at soon anyway
	}
}

// Run blocks until ctx ends, then returns nil, or until a proposal fails for want of leadership or quorum.
func (l *Loop) Run(ctx context.Context) error {
	if err := l.o.Challenges.sweep(ctx); err != nil {
		return ended(ctx, fmt.Errorf("sweep challenges: %w", err))
	}
	ctx, cancel := context.WithCancel(ctx)
	r := newRun(l)
	r.jobs.Go(func() { l.renewals(ctx) })
	err := r.loop(ctx)
	cancel()
	r.jobs.Wait()
	return err
}

// ended is err, or nil when ctx is what ended the work.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// propose commits b. An object that changed or went away in the meantime is no error: the next step sees it.
func (l *Loop) propose(ctx context.Context, b command.Body) error {
	_, err := l.o.Proposer.Propose(ctx, leader.Header(name, l.o.Now()), b)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fleet.ErrNotFound), errors.Is(err, fleet.ErrConflict), errors.Is(err, fleet.ErrStale):
		l.o.Telemetry.Logger.DebugContext(ctx, "proposal overtaken", "command", b.Type().String(), "err", err)
		return nil
	}
	return fmt.Errorf("propose %s: %w", b.Type(), err)
}

func (l *Loop) countHosts() []observability.Sample {
	type key struct{ phase, status string }
	n := map[key]float64{}
	for _, h := range l.o.State.Read().Hosts() {
		n[key{string(h.Observed.Phase), string(h.Observed.Status)}]++
	}
	var out []observability.Sample
	for k, v := range n {
		out = append(out, observability.Sample{Value: v, Attrs: []attribute.KeyValue{attribute.String("phase", k.phase), attribute.String("status", k.status)}})
	}
	return out
}

func (l *Loop) leastLife() []observability.Sample {
	var least time.Time
	for _, c := range l.o.State.Read().Certificates() {
		if least.IsZero() || c.NotAfter.Before(least) {
			least = c.NotAfter
		}
	}
	if least.IsZero() {
		return nil
	}
	return []observability.Sample{{Value: least.Sub(l.o.Now()).Seconds()}}
}
