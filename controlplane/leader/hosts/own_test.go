package hosts_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/issuance"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// upload commits a certificate that the owner of h brought, and returns the pool that trusts it.
func (w *world) upload(h fleet.HostName, life time.Duration) *x509.CertPool {
	w.t.Helper()
	key, err := mtls.NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: string(h)}, DNSNames: []string{string(h)}, NotBefore: w.now().Add(-time.Hour), NotAfter: w.now().Add(life),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	leaf, err := issuance.Describe(chain)
	if err != nil {
		w.t.Fatal(err)
	}
	sealed, err := w.kek.Seal(private, keyring.CertKeyAAD("acme", h, leaf.SPKI, 1))
	if err != nil {
		w.t.Fatal(err)
	}
	w.must(w.t, command.CertificateUpload{Certificate: fleet.CertificateRecord{Key: sealed, Certificate: fleet.Certificate{
		Host: h, Tenant: "acme", Generation: 1, Chain: string(chain), SPKI: leaf.SPKI, Serial: leaf.Serial, Issuer: leaf.Issuer,
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Source: fleet.SourceUploaded,
	}}})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(chain)
	return pool
}

func TestWithoutAnAuthorityUploadedCertificatesAreServedAndTheirEndIsTold(t *testing.T) {
	w := newWorld(t)
	const name, bare = fleet.HostName("own.example.com"), fleet.HostName("bare.example.com")
	h, other := w.host(t, "acme", name, "l1"), w.host(t, "acme", bare, "l2")
	roots := w.upload(name, 60*24*time.Hour)
	tel := observability.Discard()
	l := w.loop(func(o *hosts.Options) {
		o.Authorities, o.Telemetry, o.Handshake = nil, tel, hosts.NewHandshake(roots, w.secure)
	})
	w.background(l.Run)
	w.set(h.Records(zone)[1], other.Records(zone)[1])
	w.wait(t, name, "active", active)
	got := w.wait(t, bare, "told that there is no authority", func(_ *state.View, h fleet.Host) bool {
		return h.Observed.Certificate.Reason == fleet.ReasonCAUnavailable
	})
	if c := got.Observed.Certificate; !strings.Contains(c.Message, "no certificate authority is configured") || !strings.Contains(c.Action, "acme.directory") || !strings.Contains(c.Action, "fleetctl cert upload bare.example.com") {
		t.Errorf("certificate %+v", c)
	}
	needed := func() bool {
		answer := httptest.NewRecorder()
		tel.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return strings.Contains(answer.Body.String(), "edgefleet_certificate_uploads_needed 1\n")
	}
	if needed() {
		t.Error("60 days before its end an upload is needed already")
	}
	w.mu.Lock()
	w.skew = 35 * 24 * time.Hour
	w.mu.Unlock()
	l.Check(name)
	got = w.wait(t, name, "told that its certificate ends", func(_ *state.View, h fleet.Host) bool {
		return h.Observed.Certificate.Reason == fleet.ReasonUploadNeeded
	})
	if c := got.Observed.Certificate; !strings.Contains(c.Message, "in less than 30 days, and is not renewed by the edge") || got.Observed.Status != fleet.StatusAttention || !needed() {
		t.Errorf("%+v, counted: %v", got.Observed, needed())
	}
	if u := tel.Undeclared(); len(u) > 0 {
		t.Error(u)
	}
}
