// Package issuance gets certificates from an ACME certificate authority (RFC 8555) for keys that its caller made and
// keeps. It is a client only: what to order, when, and how often after a failure is the leader's host loop; answering
// challenges is a Presenter; where the CA account is kept is the Storage.
//
// An order is made once: its URL is handed to the caller before anything else is done with it, and a Request that has one
// goes on where that order stands, in this process or another. When the CA is away or refuses, Issue returns a *Problem
// that says so in the CA's words. All state that outlives a call is the account in Storage and what Request.Save stored.
package issuance

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

const (
	// orderTimeout bounds one call of Issue, challenge included.
	orderTimeout = 5 * time.Minute
	// requestTimeout bounds one request to the CA.
	requestTimeout = 30 * time.Second
	// defaultProfile is what is ordered where the CA offers it: server certificates without what no server needs.
	defaultProfile = "tlsserver"
)

// Presenter makes challenges answerable.
type Presenter interface {
	// Present returns when c is answerable: for HTTP-01 when every edge that DNS answers with acknowledged it. After
	// fleet.ErrTimeout another challenge of the request is tried; another error ends the attempt and comes back from Issue.
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
	// Profile is the certificate profile to order; empty means tlsserver where the CA offers it, else the CA's choice.
	Profile string
	// CAA are the names by which CAA records may allow the CA, if its directory does not say.
	CAA []string
	// ExternalAccount is needed by CAs that say so.
	ExternalAccount *ExternalAccount
	// Wrap, if set, goes around the connection to the CA.
	Wrap      func(http.RoundTripper) http.RoundTripper
	Telemetry *observability.Telemetry
}

// Issuer orders certificates. It is safe for concurrent use.
type Issuer struct {
	o       Options
	client  *acme.Client
	orders  metric.Int64Counter
	seconds metric.Float64Histogram

	mu        sync.Mutex
	directory *acme.Directory
	// location is the URI of the account, empty until it is known.
	location string
}

// New returns an Issuer. It does not contact the CA.
func New(o Options) (*Issuer, error) {
	if o.Directory == "" || o.Storage == nil || o.Challenges == nil || o.Telemetry == nil {
		return nil, fleet.Invalid("acme", "issuing certificates needs the CA's directory URL (acme.directory), storage, a presenter and telemetry")
	}
	var wire http.RoundTripper = &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
	}
	if o.Wrap != nil {
		wire = o.Wrap(wire)
	}
	return &Issuer{
		o:      o,
		client: &acme.Client{Directory: o.Directory, HTTPClient: &http.Client{Transport: listener{wire}, Timeout: requestTimeout}, UserAgent: "edgefleet"},
		orders: o.Telemetry.Counter("edgefleet_acme_orders_total"), seconds: o.Telemetry.Histogram("edgefleet_acme_order_seconds"),
	}, nil
}

// Request is what is to be issued, and how far an earlier call came.
type Request struct {
	Host   fleet.HostName
	Tenant fleet.TenantID
	// CSR is DER; its key stays the same for as long as the order lasts.
	CSR []byte
	// Via are the challenges to prove control by, the best first.
	Via []fleet.ChallengeType
	// URL is that of the order, empty before the CA answered with one.
	URL string
	// Asked: the CA may have made an order of which no URL was stored.
	Asked bool
	// Replaces is the chain (PEM) of the certificate that is renewed, if the same CA issued it (RFC 9773).
	Replaces string
	// Save stores how far the order is, durably, before Issue goes on: asked before the CA hears of it, the URL as soon as
	// there is one. Its error ends the attempt.
	Save func(ctx context.Context, asked bool, url string) error
}

// Issue orders a certificate for the key of the request, proving control by a challenge, and returns the chain as PEM,
// leaf first. What the CA or the way to it did wrong is a *Problem; errors of the Presenter, of the Storage, of Save and
// of ctx come back as they are. It can be repeated with what Save stored.
func (i *Issuer) Issue(ctx context.Context, r Request) ([]byte, error) {
	csr, err := r.validate()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	f := &flow{issuer: i, request: r, csr: csr}
	ctx = context.WithValue(ctx, flowKey{}, f)
	started := time.Now()
	chain, err := f.run(ctx)
	outcome := "issued"
	if err != nil {
		err = f.explain(ctx, err)
		outcome = reasonOf(err)
	}
	i.orders.Add(ctx, 1, metric.WithAttributes(attribute.String("challenge", string(f.via)), attribute.String("outcome", outcome)))
	i.seconds.Record(ctx, time.Since(started).Seconds(), metric.WithAttributes(attribute.String("challenge", string(f.via))))
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", r.Host, err)
	}
	return chain, nil
}

func (r Request) validate() (*x509.CertificateRequest, error) {
	csr, err := parseCSR(r.Host, r.CSR)
	if err != nil {
		return nil, err
	}
	if len(r.Via) == 0 || r.Save == nil {
		return nil, fleet.Invalid("challenge", "an order of %s needs a challenge type and somewhere to store how far it is", r.Host)
	}
	for _, via := range r.Via {
		if via != fleet.ChallengeDNS01 && via != fleet.ChallengeHTTP01 && via != fleet.ChallengeTLSALPN01 {
			return nil, fleet.Invalid("challenge", "challenge type %q is not set up", string(via))
		}
	}
	return csr, nil
}

// dir is the CA's directory. The client fetches it once; nobody else may use the client while it does.
func (i *Issuer) dir(ctx context.Context) (acme.Directory, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.directory != nil {
		return *i.directory, nil
	}
	d, err := i.client.GetDirectory(ctx)
	if err != nil {
		return acme.Directory{}, err
	}
	i.directory = &d
	return d, nil
}

// profile is what an order names.
func (i *Issuer) profile(d acme.Directory) (string, error) {
	var offered map[string]string
	if d.Meta != nil {
		offered = d.Meta.Profiles
	}
	if i.o.Profile == "" {
		if _, ok := offered[defaultProfile]; ok {
			return defaultProfile, nil
		}
		return "", nil
	}
	if _, ok := offered[i.o.Profile]; !ok {
		return "", fleet.Invalid("acme.profile", "the CA at %s offers no profile %q: leave acme.profile empty, or choose one that its directory lists", i.o.Directory, i.o.Profile)
	}
	return i.o.Profile, nil
}

// fits holds the CA's answer against the request.
func fits(chain []byte, csr *x509.CertificateRequest) error {
	leaf, err := parseLeaf(chain)
	if err != nil {
		return err
	}
	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, csr.RawSubjectPublicKeyInfo) {
		return errors.New("the CA certified another key than the one of the request")
	}
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != csr.DNSNames[0] {
		return fmt.Errorf("the CA certified %q, not %s", leaf.DNSNames, csr.DNSNames[0])
	}
	return nil
}
