// Package issuance gets certificates from an ACME certificate authority (RFC 8555) for keys that its caller made and
// keeps. It is a client only: what to order, when, and how often after a failure is the leader's host loop; answering
// challenges is a Presenter; where the CA account is kept is the Storage.
//
// It drives certmagic's ACMEIssuer, one for DNS-01 and one for HTTP-01, and none of certmagic's managed certificates.
// When the CA is away or refuses, Issue returns a *Problem that says so in the CA's words, and nothing is left behind.
// All state that outlives a call is the account in Storage: another process with the same Storage goes on with it.
package issuance

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// orderTimeout bounds one call of Issue, challenge included.
const orderTimeout = 5 * time.Minute

// Presenter makes challenges answerable.
type Presenter interface {
	// Present returns when c is answerable: for HTTP-01 when every edge that DNS answers with acknowledged it. Its
	// error ends the attempt and comes back from Issue.
	Present(ctx context.Context, c fleet.Challenge) error
	// CleanUp withdraws the answer. It is called once for each Present, also after failures and when the caller of
	// Issue gave up.
	CleanUp(ctx context.Context, c fleet.Challenge) error
}

// ExternalAccount binds the ACME account to one that the operator has with the CA (RFC 8555 section 7.3.4).
type ExternalAccount struct {
	KeyID  string
	MACKey string // base64url, as the CA hands it out
}

// Options configure an Issuer.
type Options struct {
	// Directory is the URL of the CA's ACME directory; required.
	Directory string
	// Email is the contact that the CA keeps with the account; may be empty.
	Email string
	// Roots verify the CA's HTTPS server; nil means the system's.
	Roots *x509.CertPool
	// Storage keeps the account; required.
	Storage certmagic.Storage
	// Challenges is required.
	Challenges Presenter
	// Profile is the certificate profile to order, where the CA offers several; empty leaves it to the CA.
	Profile string
	// ExternalAccount is needed by CAs that say so.
	ExternalAccount *ExternalAccount
	// HTTPAddr is the host:port of any TCP listener of this process. Certmagic opens a listener for HTTP-01 unless
	// something listens there already; edges answer our challenges, so it must open none. Without it, HTTP-01 is refused.
	HTTPAddr  string
	Telemetry *observability.Telemetry
}

// Issuer orders certificates. It is safe for concurrent use.
type Issuer struct {
	o         Options
	dns, http *certmagic.ACMEIssuer
	orders    metric.Int64Counter
	seconds   metric.Float64Histogram
}

// liftRateLimit raises certmagic's limit of 10 orders in 10 s, which is one for the whole process: the host loop has
// its own limits, and a burst here would only wait with a worker in hand.
var liftRateLimit = sync.OnceFunc(func() { certmagic.RateLimitEvents = 1000 })

// New returns an Issuer. It does not contact the CA.
func New(o Options) (*Issuer, error) {
	if o.Directory == "" || o.Storage == nil || o.Challenges == nil || o.Telemetry == nil {
		return nil, fleet.Invalid("acme", "issuing certificates needs the CA's directory URL (acme_directory), storage, a presenter and telemetry")
	}
	liftRateLimit()
	i := &Issuer{o: o, orders: o.Telemetry.Counter("edgefleet_acme_orders_total"), seconds: o.Telemetry.Histogram("edgefleet_acme_order_seconds")}
	template := certmagic.ACMEIssuer{
		CA: o.Directory, Email: o.Email, Agreed: true, TrustedRoots: o.Roots, Profile: o.Profile,
		CertObtainTimeout: orderTimeout, DisableTLSALPNChallenge: true, Logger: zap.NewNop(),
	}
	if e := o.ExternalAccount; e != nil {
		template.ExternalAccount = &acme.EAB{KeyID: e.KeyID, MACKey: e.MACKey}
	}
	// Only Storage of the Config is used: certmagic.New would start the manager that we do without.
	config := &certmagic.Config{Storage: storage{Storage: o.Storage, presenter: o.Challenges}, Logger: zap.NewNop()}
	solving := template
	solving.DNS01Solver = dnsSolver{o.Challenges}
	i.dns = certmagic.NewACMEIssuer(config, solving)
	issuers := []*certmagic.ACMEIssuer{i.dns}
	if o.HTTPAddr != "" {
		var err error
		if template.ListenHost, template.AltHTTPPort, err = splitAddr(o.HTTPAddr); err != nil {
			return nil, err
		}
		i.http = certmagic.NewACMEIssuer(config, template)
		issuers = append(issuers, i.http)
	}
	if o.Email == "" {
		return i, nil
	}
	for _, iss := range issuers {
		// With an email given, all that this does is to take it over.
		if err := iss.PreCheck(context.Background(), nil, false); err != nil {
			return nil, fmt.Errorf("set up ACME client: %w", err)
		}
	}
	return i, nil
}

func splitAddr(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fleet.Invalid("http_addr", "%q is not a host:port", addr)
	}
	if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
		return "", 0, fleet.Invalid("http_addr", "%q has no port that something could listen on", addr)
	}
	return host, port, nil
}

// Issue orders a certificate for host with the key of csrDER, proving control by the challenge via, and returns the
// chain as PEM, leaf first. What the CA or the way to it did wrong is a *Problem; errors of the Presenter, of the
// Storage and of ctx come back as they are. It can be repeated with the same CSR.
func (i *Issuer) Issue(ctx context.Context, host fleet.HostName, tenant fleet.TenantID, csrDER []byte, via fleet.ChallengeType) ([]byte, error) {
	csr, err := parseCSR(host, csrDER)
	if err != nil {
		return nil, err
	}
	base, err := i.issuer(via)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	f := &flow{host: host, tenant: tenant, pending: map[string]fleet.Challenge{}}
	// The copy shares connections and settings; its own logger is where Retry-After of this order is seen.
	iss := *base
	iss.Logger = zap.New(tap{flow: f, log: i.o.Telemetry.Logger})
	started := time.Now()
	chain, err := obtain(context.WithValue(ctx, flowKey{}, f), &iss, csr)
	outcome := "issued"
	if err != nil {
		err = f.explain(ctx, err)
		outcome = reasonOf(err)
	}
	i.orders.Add(ctx, 1, metric.WithAttributes(attribute.String("challenge", string(via)), attribute.String("outcome", outcome)))
	i.seconds.Record(ctx, time.Since(started).Seconds(), metric.WithAttributes(attribute.String("challenge", string(via))))
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", host, err)
	}
	return chain, nil
}

func (i *Issuer) issuer(via fleet.ChallengeType) (*certmagic.ACMEIssuer, error) {
	switch via {
	case fleet.ChallengeDNS01:
		return i.dns, nil
	case fleet.ChallengeHTTP01:
		if i.http != nil {
			return i.http, nil
		}
	}
	return nil, fleet.Invalid("challenge", "challenge type %q is not set up", string(via))
}

// obtain runs the order and holds the result against the request.
func obtain(ctx context.Context, iss *certmagic.ACMEIssuer, csr *x509.CertificateRequest) ([]byte, error) {
	issued, err := iss.Issue(ctx, csr)
	if err != nil {
		return nil, err
	}
	leaf, err := parseLeaf(issued.Certificate)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, csr.RawSubjectPublicKeyInfo) {
		return nil, errors.New("the CA certified another key than the one of the request")
	}
	if err := leaf.VerifyHostname(csr.DNSNames[0]); err != nil {
		return nil, fmt.Errorf("the CA certified another name: %w", err)
	}
	return issued.Certificate, nil
}
