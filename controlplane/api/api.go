// Package api is the public API under /v1: what fleetctl, the console, customers' programs, nodes and members call.
//
// It owns authentication, authorisation by role and duty, input limits, errors (RFC 9457) and the shape of requests; it
// decides nothing about state: changes are proposed, and a follower passes them on to the leader. Without a leader,
// reads that ask for stale data, event queries and nodes' polls still answer.
package api

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/edgefleet/edgefleet/controlplane/blobs"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// Consensus is what the API needs of Raft.
type Consensus interface {
	// Propose commits a command; on a follower it is ErrUnavailable.
	Propose(ctx context.Context, h command.Header, b command.Body) (any, error)
	// ReadIndex returns when the local state includes everything committed before the call.
	ReadIndex(ctx context.Context) (uint64, error)
	// Leader names the leader and whether it is this member.
	Leader() (id fleet.MemberID, self bool)
	// Status fills in what Raft knows.
	Status() (term, index uint64)
	// Suffrage lists the members of the Raft configuration.
	Suffrage() (map[fleet.MemberID]string, error)
	// AddVoter and Remove change the configuration.
	AddVoter(ctx context.Context, id fleet.MemberID, addr string) error
	Remove(ctx context.Context, id fleet.MemberID) error
}

// Options configure the API.
type Options struct {
	Member    fleet.MemberID
	State     *state.Store
	Consensus Consensus
	// Keys and Library are nil on a member without the KEK.
	Keys    *keys.Keys
	Library *blobs.Library
	Events  *events.Store
	// Report takes a node's report that came by HTTPS.
	Report func(fleet.Report)
	// Checks runs the readiness checks of the cluster.
	Checks func(ctx context.Context) []fleet.Check
	// PointsHere says whether a host's DNS still leads to the edge; deletion is refused then.
	PointsHere func(ctx context.Context, h fleet.Host) (bool, error)
	// Recheck makes the leader look at a host at once.
	Recheck func(fleet.HostName)
	// Forward reaches other members' APIs with this member's certificate.
	Forward http.RoundTripper
	// ClientCAs verify nodes and members that connect with a certificate.
	ClientCAs *x509.CertPool
	Telemetry *observability.Telemetry
	Now       func() time.Time
}

// maxBody bounds a request's body, in bytes.
const maxBody = 1 << 20

// API is the API of one member.
type API struct {
	o       Options
	huma    huma.API
	handler http.Handler
	metrics metrics
	limiter *limiter
}

// New makes the API.
func New(o Options) *API {
	a := &API{o: o, limiter: newLimiter(), metrics: newMetrics(o.Telemetry)}
	mux := http.NewServeMux()
	a.huma = humago.New(mux, Config())
	a.register()
	a.handler = a.middleware(mux)
	return a
}

// Handler serves the API.
func (a *API) Handler() http.Handler { return a.handler }

// Config is the OpenAPI configuration.
func Config() huma.Config {
	huma.NewError = newProblem // huma makes its own errors, for example of validation, through this hook
	c := huma.DefaultConfig("Edgefleet", "1")
	c.Info.Description = "Control plane of a managed security edge. Every change is audited; errors are RFC 9457 problems with a stable kind."
	c.CreateHooks = nil // no $schema links in bodies: an object is what it is
	c.DocsPath, c.SchemasPath, c.OpenAPIPath = "", "", "/v1/openapi"
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "API token, eft1.…"},
		"mtls":  {Type: "mutualTLS", Description: "certificate of a node or a member"},
	}
	c.RejectUnknownQueryParameters = true
	return c
}

// OpenAPI is the description of the API as JSON; it is committed as docs/openapi.json.
func OpenAPI() ([]byte, error) {
	a := &API{o: Options{Telemetry: observability.Discard()}}
	a.huma = humago.New(http.NewServeMux(), Config())
	a.register()
	return json.MarshalIndent(a.huma.OpenAPI(), "", "  ")
}

func (a *API) register() {
	a.registerCluster()
	a.registerTenants()
	a.registerHosts()
	a.registerRules()
	a.registerNodes()
	a.registerEvents()
	a.registerEdge()
}

// newProblem makes huma's own errors problems like ours: the first detail says which field.
func newProblem(status int, msg string, errs ...error) huma.StatusError {
	p := &client.Problem{Status: status, Title: http.StatusText(status), Detail: msg, Kind: kindOf(status)}
	for i, e := range errs {
		d, ok := e.(huma.ErrorDetailer)
		if !ok {
			p.Detail += ": " + e.Error()
			continue
		}
		detail := d.ErrorDetail()
		if i == 0 {
			p.Field = detail.Location
		}
		p.Detail += ": " + detail.Message
		if detail.Location != "" {
			p.Detail += " (" + detail.Location + ")"
		}
	}
	return statusProblem{p}
}

func kindOf(status int) string {
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType, http.StatusNotAcceptable:
		return "invalid"
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return "not_found"
	case http.StatusRequestEntityTooLarge:
		return "too_large"
	}
	return "internal"
}

// statusProblem is a Problem as huma writes it.
type statusProblem struct{ *client.Problem }

// GetStatus implements huma.StatusError.
func (p statusProblem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (statusProblem) ContentType(string) string { return "application/problem+json" }

// problem turns an error into what the caller sees. Internal errors show nothing but the request id.
func problem(err error, requestID string) *client.Problem {
	k, e := fleet.KindOf(err), fleet.AsError(err)
	p := &client.Problem{Status: k.Status, Title: http.StatusText(k.Status), Detail: e.Message, Kind: k.Name, Field: e.Field, RequestID: requestID}
	if k.Name == "internal" {
		p.Detail = "internal error; the members' logs have the request id"
	}
	return p
}
