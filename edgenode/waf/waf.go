// Package waf judges requests with a tenant's own rules and the OWASP core rule set.
package waf

import (
	"context"
	"net/netip"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

// Options configures an Engine; zero fields take the defaults.
type Options struct {
	// ParanoiaLevel of the core rule set, 1 to 4; default 1.
	ParanoiaLevel int
	// AnomalyThreshold is the inbound score from which a request is malicious; default 5.
	AnomalyThreshold int
	// BodyLimit bounds the inspected body in bytes; default 128 KiB.
	BodyLimit int
	// Concurrency bounds the requests judged at once; default twice the CPUs.
	Concurrency int
}

// Engine judges requests for all tenants. It is safe for concurrent use.
type Engine struct{}

// NewEngine compiles the core rule set, which takes about a second.
func NewEngine(o Options) (*Engine, error) { return &Engine{}, nil }

// Input is one request to judge.
type Input struct {
	Tenant     fleet.TenantID
	Host       fleet.HostName
	Mode       fleet.Mode
	Rules      *rules.Set
	Request    *request.Request
	ClientAddr netip.AddrPort
}

// Decision is the verdict on a request.
type Decision struct {
	// Block says that the request must not reach the origin.
	Block bool
	// Malicious says that it was judged malicious, in any mode.
	Malicious bool
	// Events are masked, one for each attack type; the caller adds node, sequence, time and ids.
	Events []fleet.Event
	// EngineError says that the request was not, or not wholly, judged; it passes unless Block is set.
	EngineError error
}

// Judge judges one request.
func (e *Engine) Judge(ctx context.Context, in Input) Decision { return Decision{} }
