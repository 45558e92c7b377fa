// Package discovery talks to Consul: it finds members, registers members and edge nodes with health that follows their
// real one, and watches the services that customers' hosts have as origins.
//
// It owns the conversation with Consul and nothing of what follows from it: it decides about no origin, and trusts no
// member (certificates and the join token's pin do). Consul may be away, slow or wrong at any time: calls are bounded in
// time and size, watches keep on trying with growing pauses, and nobody else waits for it. While it is away its callers
// keep what they had; it is shown as degraded, never as a reason not to be ready.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// callTimeout bounds a call that is not to block.
const callTimeout = 10 * time.Second

// Options say how Consul is reached.
type Options struct {
	// Address is host:port or a URL of the HTTP API, of the agent on this host best.
	Address string
	// TokenFile holds the ACL token; it is read for every call, so that a new token needs no restart.
	TokenFile string
	// CAFile verifies an https address; empty: the system's roots. CertFile and KeyFile are shown to it.
	CAFile, CertFile, KeyFile string
	// Datacenter is the one that is asked; empty: the agent's.
	Datacenter string
	// Retry is the pause after a failure, doubled until MaxRetry; defaults 1 s and 30 s.
	Retry, MaxRetry time.Duration
	Telemetry       *observability.Telemetry
}

// Consul is one Consul.
type Consul struct {
	api      *api.Client
	o        Options
	log      *slog.Logger
	requests metric.Int64Counter

	mu sync.Mutex
	// failing has what does not work now, by what it is for.
	failing map[string]error
}

// operations are what Consul is asked for, as the metric names them.
var operations = []string{opRegister, opMembers, opOrigins}

const (
	opRegister = "register"
	opMembers  = "members"
	opOrigins  = "origins"
)

// Open reads the files that o names. It does not talk to Consul, which may be away now.
func Open(o Options) (*Consul, error) {
	if o.Retry == 0 {
		o.Retry = time.Second
	}
	if o.MaxRetry == 0 {
		o.MaxRetry = 30 * time.Second
	}
	if o.Telemetry == nil {
		o.Telemetry = observability.Discard()
	}
	hc, err := httpClient(o)
	if err != nil {
		return nil, err
	}
	cfg := &api.Config{Address: o.Address, HttpClient: hc, Datacenter: o.Datacenter}
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, fleet.Invalid("consul.address", "%q is not the address of a Consul agent (%v): give one such as 127.0.0.1:8500 or https://consul.example.net:8501", o.Address, err)
	}
	c := &Consul{api: client, o: o, log: o.Telemetry.Logger, requests: o.Telemetry.Counter("edgefleet_consul_requests_total"), failing: map[string]error{}}
	return c, nil
}

// Instruments shows the metrics of this package; both parts are nil on a member without Consul.
func Instruments(tel *observability.Telemetry, c *Consul, r *Registrar) {
	requests := tel.Counter("edgefleet_consul_requests_total")
	for _, op := range operations {
		for _, result := range []string{"ok", "failed"} {
			requests.Add(context.Background(), 0, metric.WithAttributes(attribute.String("operation", op), attribute.String("result", result)))
		}
	}
	tel.Gauge("edgefleet_consul_degraded", func() []observability.Sample {
		if c != nil && c.Err() != nil {
			return []observability.Sample{{Value: 1}}
		}
		return []observability.Sample{{Value: 0}}
	})
	tel.Gauge("edgefleet_consul_registered", func() []observability.Sample {
		if r == nil {
			return []observability.Sample{{Value: 0}}
		}
		return []observability.Sample{{Value: float64(r.Registered())}}
	})
}

// Err is what does not work now; nil when everything does, or nothing was tried yet.
func (c *Consul) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.problem()
}

func (c *Consul) problem() error {
	for _, op := range operations { // a fixed order, so that what is shown does not change without need
		if err := c.failing[op]; err != nil {
			return fleet.NewError(fleet.ErrUnavailable, "consul", "Consul at %s: %s: %v; traffic and writes go on, addresses and registrations stay as they are", c.o.Address, op, err)
		}
	}
	return nil
}

// report records how an operation went. It is logged and shown when it starts to fail and when it works again.
func (c *Consul) report(ctx context.Context, op string, err error) {
	if err != nil && ctx.Err() != nil {
		return // it was given up, which says nothing about Consul
	}
	result := "ok"
	if err != nil {
		result = "failed"
	}
	c.requests.Add(ctx, 1, metric.WithAttributes(attribute.String("operation", op), attribute.String("result", result)))
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.failing[op] != nil
	if err == nil {
		delete(c.failing, op)
	} else {
		c.failing[op] = err
	}
	c.o.Telemetry.Health.Degrade("consul", c.problem())
	switch {
	case err != nil && !was:
		c.log.WarnContext(ctx, "consul fails, trying again", "operation", op, "address", c.o.Address, "err", err)
	case err == nil && was:
		c.log.InfoContext(ctx, "consul works again", "operation", op, "address", c.o.Address)
	}
}

// backoff is the pause after one more failure.
func (c *Consul) backoff(pause time.Duration) (wait, next time.Duration) {
	return pause/2 + rand.N(pause/2+1), min(2*pause, c.o.MaxRetry)
}

func pauseFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// maxText bounds what is repeated of an answer, in bytes.
const maxText = 200

// explain shortens what Consul answered and says what to do about it.
func (c *Consul) explain(err error) error {
	var status api.StatusError
	if !errors.As(err, &status) {
		return shorten(err)
	}
	if status.Code == 403 || status.Code == 401 {
		return fleet.NewError(fleet.ErrDenied, "consul.token_file", "the ACL token may not (status %d): give it the policy in deploy/consul/policy.hcl, and put it into consul.token_file", status.Code)
	}
	return fmt.Errorf("status %d: %s", status.Code, clip(status.Body))
}

func shorten(err error) error {
	if err == nil || len(err.Error()) <= 2*maxText {
		return err
	}
	return errors.New(clip(err.Error()))
}

func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	out := []rune(s)
	for i, r := range out {
		if r < ' ' {
			out[i] = ' '
		}
	}
	return string(out)
}
