package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

const (
	// headerForwarded marks a request that a follower passed on; it is not passed on again.
	headerForwarded = "Edgefleet-Forwarded-By"
	// headerSource is the original caller's address, believed from members only.
	headerSource = "Edgefleet-Source"
	// headerRequestID names a request in answers, logs and the audit log.
	headerRequestID = "X-Request-Id"
	// headerIndex is the log index that an answer includes.
	headerIndex = "Edgefleet-Index"
)

func (a *API) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := a.o.Now()
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		a.serve(rec, r, next)
		a.metrics.observe(r.Context(), r.Method, rec.status, a.o.Now().Sub(started))
	})
}

func (a *API) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	c, err := a.identify(r)
	w.Header().Set(headerRequestID, c.requestID)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err != nil {
		writeProblem(w, err, c.requestID)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	ctx, span := a.o.Telemetry.Tracer.Start(context.WithValue(r.Context(), callerKey{}, c), r.Method+" /v1")
	defer span.End()
	r = r.WithContext(ctx)
	if a.local(r) {
		next.ServeHTTP(w, r)
		return
	}
	leader, self := a.o.Consensus.Leader()
	switch {
	case self:
		if r.Method == http.MethodGet {
			index, err := a.o.Consensus.ReadIndex(ctx)
			if err != nil {
				writeProblem(w, err, c.requestID)
				return
			}
			w.Header().Set(headerIndex, itoa(index))
		}
		next.ServeHTTP(w, r)
	case leader == "" || r.Header.Get(headerForwarded) != "":
		w.Header().Set("Retry-After", "1")
		writeProblem(w, fleet.NewError(fleet.ErrUnavailable, "", "the control plane has no leader at the moment; reads answer with ?consistency=stale, try writes again"), c.requestID)
	default:
		a.forward(w, r, leader, c)
	}
}

// local says what this member answers from its own state: what says so, and what must work without a leader.
func (a *API) local(r *http.Request) bool {
	p := r.URL.Path
	switch {
	case p == "/v1/edge/poll", strings.HasPrefix(p, "/v1/edge/blobs/"), strings.HasPrefix(p, "/v1/openapi"), !strings.HasPrefix(p, "/v1/"):
		return true
	case r.Method != http.MethodGet:
		return false
	}
	// Each member has its own event store; a status of a member is about that member.
	return r.URL.Query().Get("consistency") == "stale" || strings.Contains(p, "/events") || p == "/v1/cluster"
}

func (a *API) forward(w http.ResponseWriter, r *http.Request, to fleet.MemberID, c caller) {
	m, ok := a.view().Member(to)
	if !ok {
		writeProblem(w, fleet.NewError(fleet.ErrUnavailable, "", "the leader %s is not known to this member yet; try again", to), c.requestID)
		return
	}
	proxy := &httputil.ReverseProxy{
		Transport: a.o.Forward,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "https", m.API, m.API
			p.Out.Header.Set(headerForwarded, string(a.o.Member))
			p.Out.Header.Set(headerSource, c.source)
			p.Out.Header.Set(headerRequestID, c.requestID)
			p.Out.Header.Set(headerIdentity, c.identity())
		},
		FlushInterval: -1,
		ModifyResponse: func(res *http.Response) error {
			for _, h := range []string{headerRequestID, "Cache-Control", "X-Content-Type-Options"} {
				w.Header().Del(h) // the leader's answer has its own
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			a.o.Telemetry.Logger.WarnContext(r.Context(), "forward to leader", "leader", to, "request_id", c.requestID, "err", err)
			writeProblem(w, fleet.NewError(fleet.ErrUnavailable, "", "the leader %s cannot be reached; whether the request took effect is not known", to), c.requestID)
		},
	}
	proxy.ServeHTTP(w, r)
}

// headerIdentity carries the verified certificate identity of a caller whose request a member passed on.
const headerIdentity = "Edgefleet-Identity"

func (c caller) identity() string {
	switch {
	case c.node != "":
		return "node/" + string(c.node)
	case c.member != "":
		return "member/" + string(c.member)
	}
	return ""
}

// identify finds out who calls. An unknown token and an unknown certificate are errors; none at all is not.
func (a *API) identify(r *http.Request) (caller, error) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	c := caller{source: host, requestID: newRequestID()}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		id, err := mtls.PeerIdentity(*r.TLS)
		if err != nil {
			return c, fleet.NewError(fleet.ErrUnauthenticated, "", "the client certificate is not of this cluster")
		}
		cluster, _ := a.view().Cluster()
		if id.Cluster != cluster.ID {
			return c, fleet.NewError(fleet.ErrUnauthenticated, "", "the client certificate is of another cluster")
		}
		if err := a.fromCertificate(&c, id, r); err != nil {
			return c, err
		}
	}
	if auth := r.Header.Get("Authorization"); auth != "" {
		t, err := a.authenticate(auth, c.source)
		if err != nil {
			return c, err
		}
		c.token = t
	}
	return c, nil
}

func (a *API) fromCertificate(c *caller, id fleet.Identity, r *http.Request) error {
	c.node, c.member = id.Node, id.Member
	if c.member != "" && r.Header.Get(headerForwarded) != "" {
		// The member vouches for whom it passes on: the source, the request id, and a verified identity.
		c.source, c.member = r.Header.Get(headerSource), ""
		if v := r.Header.Get(headerRequestID); len(v) == requestIDLength {
			c.requestID = v
		}
		switch kind, who, _ := strings.Cut(r.Header.Get(headerIdentity), "/"); kind {
		case "node":
			c.node = fleet.NodeID(who)
		case "member":
			c.member = fleet.MemberID(who)
		}
	}
	if c.node == "" {
		return nil
	}
	n, ok := a.view().Node(c.node)
	if !ok || !n.Identity.RevokedAt.IsZero() {
		return fleet.NewError(fleet.ErrDenied, "node", "node %s is not part of this fleet (any more): enrol the machine again with a new join token", c.node)
	}
	return nil
}

// tokenPrefix starts every API token: eft1.<id>.<secret>.
const tokenPrefix = "eft1"

// authenticate returns the token that the header carries. All failures read alike, and too many are slowed down.
func (a *API) authenticate(header, source string) (fleet.Token, error) {
	if !a.limiter.allow(source, a.o.Now()) {
		return fleet.Token{}, fleet.NewError(fleet.ErrRateLimited, "token", "too many failed authentications from this address: wait a minute")
	}
	value, _ := strings.CutPrefix(header, "Bearer ")
	parts := strings.Split(value, ".")
	if len(parts) == 3 && parts[0] == tokenPrefix {
		sum := sha256.Sum256([]byte(parts[2]))
		rec, ok := a.view().Token(fleet.TokenID(parts[1]))
		if !ok {
			rec.Hash = make([]byte, fleet.HashBytes)
		}
		if subtle.ConstantTimeCompare(rec.Hash, sum[:]) == 1 && ok {
			return rec.Token, nil
		}
	}
	a.limiter.failed(source)
	return fleet.Token{}, fleet.NewError(fleet.ErrUnauthenticated, "token", "the API token is not known: check FLEETCTL_TOKEN, or ask for a new token")
}

// newSecret makes 256 random bits for a token, and their stored hash.
func newSecret() (secret string, hash []byte) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	secret = base64.RawURLEncoding.EncodeToString(b)
	sum := sha256.Sum256([]byte(secret))
	return secret, sum[:]
}

// newID makes a random identifier with a prefix.
func newID(prefix string) string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return prefix + "-" + hex.EncodeToString(b)
}

const requestIDLength = 32

func newRequestID() string {
	b := make([]byte, requestIDLength/2)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

func writeProblem(w http.ResponseWriter, err error, requestID string) {
	p := problem(err, requestID)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(s int) {
	r.status = s
	r.ResponseWriter.WriteHeader(s)
}

// Unwrap lets http.ResponseController flush.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
