package supervise_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/identity"
	"github.com/edgefleet/edgefleet/edgenode/settings"
	"github.com/edgefleet/edgefleet/edgenode/supervise"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// plane is the part of a control plane that enrols and renews, with real certificates.
type plane struct {
	t                  *testing.T
	members, nodes, ap *mtls.CA
	head               ed25519.PublicKey

	mu sync.Mutex
	// status and problem answer instead, if set; away answers 503 so many times first.
	status  int
	problem string
	away    int
	// issued is when certificates begin; zero for now.
	issued time.Time
	// lost is how many answers to renewals do not arrive.
	lost   int
	keys   []string
	renews int
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{t: t}
	for _, ca := range []**mtls.CA{&p.members, &p.nodes, &p.ap} {
		var err error
		if *ca, err = mtls.NewCA("test", time.Now().Add(-48*time.Hour), 72*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if p.head, _, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	return p
}

// answer certifies a node's key.
func (p *plane) answer(pub crypto.PublicKey, now time.Time) fleet.EnrolResponse {
	cert, err := p.nodes.SignNode("c1", "edge-1", pub, now)
	if err != nil {
		p.t.Error(err)
	}
	return fleet.EnrolResponse{
		Node: "edge-1", Group: "default", Region: "default", Cluster: "c1", Incarnation: 1, Certificate: string(cert),
		MemberCA: string(p.members.CertPEM()), APICA: string(p.ap.CertPEM()), HeadKeys: [][]byte{p.head},
	}
}

func (p *plane) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away > 0 {
		p.away--
		rw.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if p.status != 0 {
		rw.WriteHeader(p.status)
		_, _ = rw.Write([]byte(p.problem))
		return
	}
	var in struct {
		fleet.RenewRequest
		HPKE []byte `json:"hpke"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		p.t.Error(err)
	}
	pub, err := mtls.ParseCSR([]byte(in.CSR))
	if err != nil {
		p.t.Error(err)
	}
	spki, err := mtls.SPKI(pub)
	if err != nil {
		p.t.Error(err)
	}
	p.keys = append(p.keys, spki)
	issued := time.Now()
	switch r.URL.Path {
	case "/v1/edge/enrol":
		if err := keyring.ValidateHPKEKey(in.HPKE); err != nil {
			p.t.Error(err)
		}
		if !p.issued.IsZero() {
			issued = p.issued
		}
	case "/v1/edge/renew":
		p.renews++
		if _, err := mtls.VerifyRenewal("c1", string(p.nodes.CertPEM()), in.RenewRequest); err != nil {
			p.t.Errorf("renewal: %v", err)
		}
		if len(r.TLS.PeerCertificates) > 0 {
			p.t.Error("the certificate, which may have ended, was shown")
		}
		if p.lost > 0 {
			p.lost--
			panic(http.ErrAbortHandler)
		}
	}
	_ = json.NewEncoder(rw).Encode(p.answer(pub, issued))
}

// start serves the API and returns its address.
func (p *plane) start() string {
	p.t.Helper()
	key, err := mtls.NewKey()
	if err != nil {
		p.t.Fatal(err)
	}
	leaf, err := p.ap.SignServer([]string{"127.0.0.1"}, key.Public(), time.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	keyPEM, err := mtls.EncodeKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(mtls.ServerChain(leaf, p.ap.CertPEM()), keyPEM)
	if err != nil {
		p.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(p)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: p.nodes.Pool()}
	s.StartTLS()
	p.t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func (p *plane) token() string { return "efn1.tok1.c2VjcmV0." + p.ap.Fingerprint() }

func publicKey(t *testing.T, keyPEM []byte) crypto.PublicKey {
	t.Helper()
	block, _ := pem.Decode(keyPEM)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer).Public()
}

// run supervises in this process.
func (h *host) run(ctx context.Context, token string) error {
	h.t.Helper()
	s, err := settings.Load(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return supervise.Run(ctx, supervise.Options{Settings: s, ConfigPath: h.cfg, Token: token, Telemetry: observability.Discard()})
}

func (h *host) identityDir() string { return filepath.Join(h.dir, "data", "identity") }

func TestANewNodeEnrolsAndRenewsWhatIsHalfOver(t *testing.T) {
	p := newPlane(t)
	p.away, p.issued = 1, time.Now().Add(-15*time.Hour) // past half of its life and the widest spread
	h := newHost(t, p.start())
	t.Setenv(roleVariable, "worker")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.run(ctx, p.token()) }()
	h.pid()
	eventually(t, "the certificate is renewed", func() bool {
		id, err := identity.Open(h.identityDir())
		return err == nil && time.Until(id.Source.Certificate().Leaf.NotAfter) > 23*time.Hour
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	id, err := identity.Open(h.identityDir())
	if err != nil {
		t.Fatal(err)
	}
	if id.Trust.Node != "edge-1" || id.Trust.Certificate != "" || len(id.HeadKeys) != 1 || len(id.HPKE) == 0 {
		t.Errorf("identity %+v", id.Trust)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.renews != 1 || len(p.keys) != 2 || p.keys[0] == p.keys[1] {
		t.Errorf("%d renewals, keys %v", p.renews, p.keys)
	}
	entries, err := os.ReadDir(h.identityDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 || e.Name() == "enrol.key" {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestANodeThatWasAwayForDaysRenewsWithTheKeyOfItsLastCertificate(t *testing.T) {
	p := newPlane(t)
	p.issued, p.lost = time.Now().Add(-5*24*time.Hour), 1
	h := newHost(t, p.start())
	t.Setenv(roleVariable, "worker")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.run(ctx, p.token()) }()
	h.pid() // it serves meanwhile
	eventually(t, "the first renewal is asked for", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.renews == 1
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// Whatever became of the answer: the next attempt, of another process, asks for the same key.
	ctx, cancel = context.WithCancel(t.Context())
	go func() { done <- h.run(ctx, "") }()
	eventually(t, "the certificate is renewed", func() bool {
		id, err := identity.Open(h.identityDir())
		return err == nil && time.Until(id.Source.Certificate().Leaf.NotAfter) > 23*time.Hour
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.renews != 2 || len(p.keys) != 3 || p.keys[0] == p.keys[1] || p.keys[1] != p.keys[2] {
		t.Errorf("%d renewals, keys %v", p.renews, p.keys)
	}
	if _, err := os.Stat(filepath.Join(h.identityDir(), "next.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the key of the renewal that is done: %v", err)
	}
}

func TestARefusedEnrolmentEndsWithWhatToDo(t *testing.T) {
	tests := []struct {
		name, problem, want string
		status              int
	}{
		{"a used token", `{"kind":"conflict","detail":"join token tok1 was used by edge-7"}`, "was used by edge-7", 409},
		{"an expired token", `{"kind":"denied","detail":"join token tok1 ended"}`, "ended", 403},
		{"a wrong secret", `{"kind":"unauthenticated","detail":"unknown join token"}`, "unknown join token", 401},
		{"a wrong clock", `{"kind":"invalid","field":"sent","detail":"the node's clock is 3h off"}`, "3h off", 422},
		{"no problem at all", "", "401", 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlane(t)
			p.status, p.problem = tt.status, tt.problem
			h := newHost(t, p.start())
			err := h.run(t.Context(), p.token())
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "fleetctl node join-token") {
				t.Errorf("got %v", err)
			}
			if _, err := identity.Open(h.identityDir()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("identity: %v", err)
			}
		})
	}
}

func TestAControlPlaneThatTheTokenDoesNotNameIsNotTrusted(t *testing.T) {
	p, other := newPlane(t), newPlane(t)
	h := newHost(t, p.start())
	err := h.run(t.Context(), other.token())
	if err == nil || !strings.Contains(err.Error(), "join token") || fleet.KindOf(err).Name != "denied" {
		t.Errorf("got %v", err)
	}
	if len(p.keys) != 0 {
		t.Error("the token was sent")
	}
}

func TestATokenThatIsNoneIsSaid(t *testing.T) {
	for _, token := range []string{"", "efm1.a.b.c", "efn1.a.b", "efn1.a.b.zz", "hunter2-hunter2", strings.Repeat(".", 100)} {
		h := newHost(t, "127.0.0.1:1")
		err := h.run(t.Context(), token)
		if err == nil || !strings.Contains(err.Error(), "join") || !strings.Contains(err.Error(), "fleetctl node join-token") {
			t.Errorf("%q: got %v", token, err)
		}
		if token != "" && len(token) > 5 && strings.Contains(err.Error(), token) {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}

func TestAnInterruptedEnrolmentGoesOnWithTheSameKey(t *testing.T) {
	p := newPlane(t)
	p.status, p.problem = 409, `{"kind":"conflict","detail":"later"}`
	h := newHost(t, p.start())
	if err := h.run(t.Context(), p.token()); err == nil {
		t.Fatal("not refused")
	}
	first, err := identity.NewKeys(h.identityDir())
	if err != nil {
		t.Fatal(err)
	}
	again, err := identity.NewKeys(h.identityDir())
	if err != nil || string(first.KeyPEM) != string(again.KeyPEM) {
		t.Errorf("another key, %v", err)
	}
}

func TestADamagedIdentityIsSaid(t *testing.T) {
	for _, file := range []string{"trust.json", "node.crt", "node.key", "hpke.key"} {
		h := newHost(t, "127.0.0.1:1").enrolled()
		path := filepath.Join(h.identityDir(), file)
		if file == "hpke.key" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.run(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "enrol again") {
			t.Errorf("%s: got %v", file, err)
		}
	}
}
