package issuance_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/issuance"
	"github.com/edgefleet/edgefleet/tls/issuance/pebbletest"
)

// edge answers challenges: HTTP-01 as an edge would, DNS-01 as a resolver that follows the delegated CNAME.
type edge struct {
	mu        sync.Mutex
	answers   map[string]fleet.Challenge // by token
	presented []fleet.Challenge
	refuse    error
	lie       bool
}

func (e *edge) Present(_ context.Context, c fleet.Challenge) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.presented = append(e.presented, c)
	if e.refuse != nil {
		return e.refuse
	}
	if e.lie {
		c.Response = "something else"
	}
	e.answers[c.Token] = c
	return nil
}

func (e *edge) CleanUp(_ context.Context, c fleet.Challenge) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.answers, c.Token)
	return nil
}

func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	token, _ := strings.CutPrefix(r.URL.Path, "/.well-known/acme-challenge/")
	c, ok := e.answers[token]
	if !ok || c.Type != fleet.ChallengeHTTP01 || string(c.Host) != strings.Split(r.Host, ":")[0] {
		http.NotFound(w, r)
		return
	}
	_, _ = io.WriteString(w, c.Response) // the CA sees a broken answer
}

func (e *edge) resolve(w dns.ResponseWriter, req *dns.Msg) {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := new(dns.Msg).SetReply(req)
	q := req.Question[0]
	host, isDCV := strings.CutPrefix(strings.TrimSuffix(q.Name, "."), "_acme-challenge.")
	switch {
	case q.Qtype == dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
	case q.Qtype == dns.TypeTXT && isDCV:
		const target = "label.dcv.edge.example."
		m.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: target}}
		for _, c := range e.answers {
			if c.Type == fleet.ChallengeDNS01 && string(c.Host) == host {
				m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: target, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{c.Response}})
			}
		}
	}
	_ = w.WriteMsg(m) // the CA sees a missing answer
}

func (e *edge) clean() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.answers) == 0
}

// world is an edge, its DNS and HTTP servers on loopback, and a CA that looks at them.
func world(t *testing.T, rejectNonces int) (*edge, *pebbletest.Pebble) {
	t.Helper()
	e := &edge{answers: map[string]fleet.Challenge{}}
	web := httptest.NewServer(e)
	t.Cleanup(web.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	server := &dns.Server{Listener: l, Handler: dns.HandlerFunc(e.resolve), NotifyStartedFunc: func() { close(started) }}
	go func() { _ = server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = server.Shutdown() })
	return e, pebbletest.Start(t, pebbletest.Options{
		Resolver: l.Addr().String(), HTTPPort: web.Listener.Addr().(*net.TCPAddr).Port, RejectNonces: rejectNonces,
	})
}

func newIssuer(t *testing.T, e *edge, directory string, roots *x509.CertPool, storage certmagic.Storage) *issuance.Issuer {
	t.Helper()
	tel := observability.Discard()
	i, err := issuance.New(issuance.Options{
		Directory: directory, Email: "ops@example.com", Roots: roots, Storage: storage, Challenges: e,
		Telemetry: tel, Profile: "default",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if u := tel.Undeclared(); len(u) > 0 {
			t.Error(u)
		}
	})
	return i
}

// request is a request that nothing is kept of.
func request(host fleet.HostName, csr []byte, via fleet.ChallengeType) issuance.Request {
	return issuance.Request{Host: host, Tenant: "acme", CSR: csr, Via: []fleet.ChallengeType{via}, Save: func(context.Context, bool, string) error { return nil }}
}

func order(t *testing.T, i *issuance.Issuer, host fleet.HostName, via fleet.ChallengeType) (chain, key []byte, err error) {
	t.Helper()
	key, csr, spki, err := issuance.NewKeyAndCSR(host)
	if err != nil {
		t.Fatal(err)
	}
	chain, err = i.Issue(t.Context(), request(host, csr, via))
	if err != nil {
		return nil, nil, err
	}
	leaf, err := issuance.Describe(chain)
	if err != nil || leaf.SPKI != spki || leaf.Serial == "" || !strings.Contains(leaf.Issuer, "Pebble") || leaf.NotAfter.Sub(leaf.NotBefore) < 24*time.Hour {
		t.Errorf("leaf %+v, %v", leaf, err)
	}
	return chain, key, nil
}

func TestIssueFromARealCA(t *testing.T) {
	e, ca := world(t, 0)
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	i := newIssuer(t, e, ca.Directory, ca.Roots, storage)
	for _, via := range []fleet.ChallengeType{fleet.ChallengeDNS01, fleet.ChallengeHTTP01} {
		t.Run(string(via), func(t *testing.T) {
			host := fleet.HostName("api-" + strings.ReplaceAll(string(via), "-", "") + ".example.com")
			chain, keyDER, err := order(t, i, host, via)
			if err != nil {
				t.Fatal(err)
			}
			verify(t, host, chain, keyDER, ca.IssuerRoots(t))
			last := e.presented[len(e.presented)-1]
			if last.Type != via || last.Host != host || last.Tenant != "acme" || last.Token == "" || last.CreatedAt.IsZero() {
				t.Errorf("presented %+v", last)
			}
			if !e.clean() {
				t.Error("the challenge was not cleaned up")
			}
		})
	}
	t.Run("nothing of a challenge is stored, and the account is used again", func(t *testing.T) {
		keys, err := storage.List(t.Context(), "", true)
		if err != nil {
			t.Fatal(err)
		}
		accounts := 0
		for _, k := range keys {
			if strings.Contains(k, "challenge_tokens") {
				t.Errorf("stored %s", k)
			}
			if strings.HasSuffix(k, ".key") {
				accounts++
			}
		}
		if accounts != 1 {
			t.Errorf("%d accounts in %v", accounts, keys)
		}
		if _, _, err := order(t, newIssuer(t, e, ca.Directory, ca.Roots, storage), "again.example.com", fleet.ChallengeDNS01); err != nil {
			t.Error(err)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for n := range 24 {
			wg.Go(func() {
				via := []fleet.ChallengeType{fleet.ChallengeDNS01, fleet.ChallengeHTTP01}[n%2]
				if _, _, err := order(t, i, fleet.HostName("h"+string(rune('a'+n))+".example.com"), via); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("the same request twice", func(t *testing.T) {
		_, csr, _, err := issuance.NewKeyAndCSR("twice.example.com")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := i.Issue(t.Context(), request("twice.example.com", csr, fleet.ChallengeDNS01)); err != nil {
				t.Error(err)
			}
		}
	})
	failures(t, e, i)
}

// failures are the ways in which the same CA says no.
func failures(t *testing.T, e *edge, i *issuance.Issuer) {
	t.Helper()
	for _, via := range []fleet.ChallengeType{fleet.ChallengeDNS01, fleet.ChallengeHTTP01} {
		t.Run("a wrong answer by "+string(via), func(t *testing.T) {
			e.lie = true
			defer func() { e.lie = false }()
			_, _, err := order(t, i, "lie.example.com", via)
			var p *issuance.Problem
			if !errors.As(err, &p) || p.Type != "unauthorized" || p.Status != 403 || p.Reason() != fleet.ReasonCARejected || !strings.Contains(p.Detail, "challenge") {
				t.Errorf("%#v, %v", p, err)
			}
			if !e.clean() {
				t.Error("the challenge was not cleaned up")
			}
		})
	}
	t.Run("a name that the CA refuses", func(t *testing.T) {
		_, _, err := order(t, i, "www.blocked.example", fleet.ChallengeDNS01)
		var p *issuance.Problem
		if !errors.As(err, &p) || p.Reason() != fleet.ReasonCARejectedName || p.Detail == "" {
			t.Errorf("%#v, %v", p, err)
		}
	})
	for _, via := range []fleet.ChallengeType{fleet.ChallengeDNS01, fleet.ChallengeHTTP01} {
		t.Run("edges that do not take the answer of "+string(via), func(t *testing.T) {
			e.refuse = fleet.NewError(fleet.ErrTimeout, "challenge", "edge 7 did not acknowledge")
			defer func() { e.refuse = nil }()
			_, _, err := order(t, i, "late.example.com", via)
			var p *issuance.Problem
			if !errors.Is(err, fleet.ErrTimeout) || errors.As(err, &p) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("a cancelled order", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, csr, _, err := issuance.NewKeyAndCSR("x.example.com")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := i.Issue(ctx, request("x.example.com", csr, fleet.ChallengeDNS01)); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

func verify(t *testing.T, host fleet.HostName, chain, keyDER []byte, roots *x509.CertPool) {
	t.Helper()
	pair, err := tls.X509KeyPair(chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	if err != nil {
		t.Fatal(err)
	}
	intermediates := x509.NewCertPool()
	intermediates.AppendCertsFromPEM(chain)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: string(host), Roots: roots, Intermediates: intermediates}); err != nil {
		t.Error(err)
	}
}

func TestRefusedNoncesAreSurvived(t *testing.T) {
	e, ca := world(t, 20)
	i := newIssuer(t, e, ca.Directory, ca.Roots, &certmagic.FileStorage{Path: t.TempDir()})
	for _, host := range []fleet.HostName{"a.example.com", "b.example.com", "c.example.com"} {
		if _, _, err := order(t, i, host, fleet.ChallengeHTTP01); err != nil {
			t.Error(err)
		}
	}
}

// limited is a proxy before the CA that answers new orders with status and Retry-After.
func limited(t *testing.T, ca *pebbletest.Pebble, status int, problem, retryAfter string) *httptest.Server {
	t.Helper()
	target, err := url.Parse(ca.Directory)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", target.Host, r.In.Host
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Roots}},
	}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "order") {
			proxy.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", retryAfter)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, problem) // a broken answer fails the test anyway
	}))
	t.Cleanup(s.Close)
	return s
}

func TestRetryAfterIsReported(t *testing.T) {
	e, ca := world(t, 0)
	for _, tc := range []struct {
		name, problem, after, reason string
		status                       int
		want                         time.Duration
	}{
		{"a rate limit in seconds", `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates","status":429}`, "3600", fleet.ReasonCARateLimited, 429, time.Hour},
		{"a rate limit as a date", `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates"}`, time.Now().Add(2 * time.Hour).UTC().Format(http.TimeFormat), fleet.ReasonCARateLimited, 429, 2 * time.Hour},
		{"a CA that is down", `{"type":"urn:ietf:params:acme:error:serverInternal","detail":"maintenance"}`, "60", fleet.ReasonCAUnavailable, 503, time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := limited(t, ca, tc.status, tc.problem, tc.after)
			roots := x509.NewCertPool()
			roots.AddCert(s.Certificate())
			i := newIssuer(t, e, s.URL+"/dir", roots, &certmagic.FileStorage{Path: t.TempDir()})
			_, _, err := order(t, i, "limited.example.com", fleet.ChallengeDNS01)
			var p *issuance.Problem
			if !errors.As(err, &p) || p.Reason() != tc.reason || p.Status != tc.status || (p.RetryAfter-tc.want).Abs() > time.Minute {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
}

func TestACAThatIsAway(t *testing.T) {
	gone := httptest.NewUnstartedServer(nil)
	addr := gone.Listener.Addr().String()
	gone.Close()
	i := newIssuer(t, &edge{}, "https://"+addr+"/dir", nil, &certmagic.FileStorage{Path: t.TempDir()})
	_, _, err := order(t, i, "x.example.com", fleet.ChallengeDNS01)
	var p *issuance.Problem
	if !errors.As(err, &p) || p.Reason() != fleet.ReasonCAUnavailable || p.Status != 0 || !strings.Contains(p.Detail, addr) {
		t.Errorf("%+v, %v", p, err)
	}
}

// broken is a storage that is away.
type broken struct{ certmagic.Storage }

func (broken) Load(context.Context, string) ([]byte, error) { return nil, fleet.ErrSealed }

func TestAStorageThatIsAway(t *testing.T) {
	i := newIssuer(t, &edge{}, "https://127.0.0.1:1/dir", nil, broken{&certmagic.FileStorage{Path: t.TempDir()}})
	if _, _, err := order(t, i, "x.example.com", fleet.ChallengeDNS01); !errors.Is(err, fleet.ErrSealed) {
		t.Errorf("%v", err)
	}
}

func TestInvalidInput(t *testing.T) {
	i := newIssuer(t, &edge{}, "https://127.0.0.1:1/dir", nil, &certmagic.FileStorage{Path: t.TempDir()})
	_, csr, _, err := issuance.NewKeyAndCSR("a.example.com")
	if err != nil {
		t.Fatal(err)
	}
	_, otherName := i.Issue(t.Context(), request("b.example.com", csr, fleet.ChallengeDNS01))
	_, noCSR := i.Issue(t.Context(), request("a.example.com", []byte("x"), fleet.ChallengeDNS01))
	_, noChallenge := i.Issue(t.Context(), request("a.example.com", csr, "dns-account-01"))
	_, noDirectory := issuance.New(issuance.Options{})
	for name, err := range map[string]error{"name": otherName, "csr": noCSR, "challenge": noChallenge, "directory": noDirectory} {
		if !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		leaf, err := issuance.Describe(b)
		if err == nil && len(leaf.SPKI) != 64 {
			t.Errorf("%+v", leaf)
		}
		if err != nil && !errors.Is(err, fleet.ErrInvalid) && !errors.Is(err, fleet.ErrTooLarge) {
			t.Error(err)
		}
	})
}
