// Package api is the public API under /v1: what fleetctl, the console, customers' programs, nodes and members call.
//
// It owns authentication, authorisation by role and duty, input limits, errors (RFC 9457) and the shape of requests; it
// decides nothing about state: changes are proposed, and a follower passes them on to the leader. Without a leader,
// reads that ask for stale data, event queries and nodes' polls still answer.
package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/edgefleet/edgefleet/controlplane/audit"
	"github.com/edgefleet/edgefleet/controlplane/blobs"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// Consensus is what the API needs of Raft.
type Consensus interface {
	// Propose commits a command; on a follower it is ErrUnavailable.
	Propose(ctx context.Context, h command.Header, b command.Body) (any, error)
	// ReadIndex returns when the local state includes everything committed before the call.
	ReadIndex(ctx context.Context) (uint64, error)
	// Settled returns when the local state, of the leader, includes everything committed before it led; cheap once it does.
	Settled(ctx context.Context) error
	// Leader names the leader and whether it is this member.
	Leader() (id fleet.MemberID, self bool)
	// Status fills in what Raft knows.
	Status() (term, index uint64)
	// Suffrage lists the members of the Raft configuration.
	Suffrage() (map[fleet.MemberID]string, error)
	// Admit adds a member, without a vote, unless known objects; Remove takes one out, after retire took it from the state.
	// Neither runs while the other does.
	Admit(ctx context.Context, id fleet.MemberID, addr string, known func() error) error
	Remove(ctx context.Context, id fleet.MemberID, retire func() error) error
	// TransferLeadership hands leadership to a voter, or to any with an empty id.
	TransferLeadership(ctx context.Context, to fleet.MemberID) error
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
	Audit   *audit.Log
	// Report takes a node's report that came by HTTPS.
	Report func(fleet.Report)
	// OriginsOut is what the nodes say of a host's origins, and which nodes were heard; nil knows nothing.
	OriginsOut func(fleet.HostName) (map[fleet.NodeID][]fleet.OriginOut, []fleet.NodeID)
	// Checks runs the readiness checks of the cluster.
	Checks func(ctx context.Context) []fleet.Check
	// PointsHere says whether a host's DNS still leads to the edge; deletion is refused then.
	PointsHere func(ctx context.Context, h fleet.Host) (bool, error)
	// Consul says that this cluster follows Consul services, so that hosts may have them as origins.
	Consul bool
	// OwnStats is how this member stands in Raft, Stats how another does, Healthy what is good enough.
	OwnStats func() client.RaftStats
	Stats    func(ctx context.Context, m fleet.Member) (client.RaftStats, error)
	Healthy  Healthy
	// Zone is the edge zone as this member answers it, CheckZone asks every name server for it.
	Zone      func() client.Zone
	CheckZone func(ctx context.Context) []fleet.Check
	// CertBudget is what may still be asked of the certificate authorities.
	CertBudget func() client.CertBudget
	// Recheck makes the leader look at a host at once.
	Recheck func(fleet.HostName)
	// Forward reaches other members' APIs with this member's certificate.
	Forward http.RoundTripper
	// ForwardWaiting is Forward for reads that wait, whose answers may take minutes; Forward if nil.
	ForwardWaiting http.RoundTripper
	// ClientCAs verify nodes and members that connect with a certificate.
	ClientCAs *x509.CertPool
	// Crash kills this member's process; nil on one that takes no part in drills.
	Crash func()
	// Backups is how scheduled backups stand on this member.
	Backups func() fleet.BackupStatus
	// Callers bound what each caller asks of this member.
	Callers CallerLimits
	// Scratch is the directory for a snapshot on its way; empty: the system's.
	Scratch   string
	Telemetry *observability.Telemetry
	Now       func() time.Time
}

// Limits of one connection and one request; a stream of events extends the last as it goes.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	writeTimeout  = 2 * time.Minute
	maxHeader     = 32 << 10
	// maxBody bounds a request's body, in bytes.
	maxBody = 1 << 20
)

// API is the API of one member.
type API struct {
	o       Options
	huma    huma.API
	mux     *http.ServeMux
	ops     map[string]operation // by the mux's pattern
	metrics metrics
	limiter *limiter
	callers *callers
	crowd   *crowd
	waiting *waiting
	tails   *tails
	// sessions are the reads that end with their token, uses when tokens were used.
	sessions *sessions
	uses     *uses
	// settleTimeout bounds the wait for other members.
	settleTimeout time.Duration
	// bodyTimeout bounds the arrival of a request's body.
	bodyTimeout time.Duration
}

// New makes the API.
func New(o Options) *API {
	a := newAPI(o)
	spec := sync.OnceValues(a.document)
	a.route(operation{id: "openapi", method: http.MethodGet, path: "/v1/openapi.json", scope: public, permission: fleet.PermPublic, duty: fleet.DutyConsole}.locally(), func(w http.ResponseWriter, r *http.Request) {
		b, err := spec()
		if err != nil {
			writeProblem(w, problem(err, callerOf(r.Context())))
			return
		}
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(b) // a client that went away
	})
	a.registerDocs(sync.OnceValues(a.docs))
	return a
}

func newAPI(o Options) *API {
	if o.ForwardWaiting == nil {
		o.ForwardWaiting = o.Forward
	}
	a := &API{o: o, mux: http.NewServeMux(), ops: map[string]operation{}, limiter: newLimiter(), callers: newCallers(o.Callers), crowd: newCrowd(o.Callers.Nodes), waiting: newWaiting(), metrics: newMetrics(o.Telemetry), tails: newTails(), sessions: newSessions(), uses: &uses{seen: map[fleet.TokenID]time.Time{}}, settleTimeout: settleTimeout, bodyTimeout: bodyTimeout}
	if o.Consensus != nil {
		a.o.Consensus = watched{o.Consensus, a.still}
	}
	a.huma = humago.New(a.mux, config())
	for _, register := range []func(){
		a.registerCluster, a.registerSnapshots, a.registerBackups, a.registerDrills, a.registerMembers, a.registerTenants, a.registerHosts, a.registerCerts, a.registerOrigins, a.registerRules, a.registerNodes, a.registerLocks, a.registerEvents, a.registerEdge, a.registerAudit,
		a.registerSettle, a.registerZone, a.registerCertBudget, a.registerUsers, a.registerApprovals,
	} {
		register()
	}
	// Registered by huma for its own errors, which transformError replaces.
	delete(a.huma.OpenAPI().Components.Schemas.Map(), "ErrorModel")
	delete(a.huma.OpenAPI().Components.Schemas.Map(), "ErrorDetail")
	return a
}

// route adds an endpoint that is not described in the OpenAPI document.
func (a *API) route(op operation, h http.HandlerFunc) {
	a.ops[op.pattern()] = op
	a.mux.HandleFunc(op.pattern(), h)
}

// Server is the server of the API, which shows the certificate of source and asks for one of ClientCAs. Its Shutdown
// ends streams of events and reads that wait at once.
func (a *API) Server(source *mtls.Source) *http.Server {
	s := &http.Server{
		Handler: a, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, WriteTimeout: writeTimeout, MaxHeaderBytes: maxHeader,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: a.o.ClientCAs,
			SessionTicketsDisabled: true, // every connection proves its identity anew
			GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return source.Certificate(), nil },
		},
	}
	s.RegisterOnShutdown(a.tails.end)
	return s
}
