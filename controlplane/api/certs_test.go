package api_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// ownCertificate is a certificate of a private authority with that, its root.
func ownCertificate(t *testing.T, host string, life time.Duration) (chain string, key *ecdsa.PrivateKey, keyPEM string) {
	t.Helper()
	signed := func(c, by *x509.Certificate, key, signer *ecdsa.PrivateKey) string {
		der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), signer)
		must(t, err)
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(9999 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life), DNSNames: []string{host}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	chain = signed(leaf, root, key, rootKey) + signed(root, root, rootKey, rootKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return chain, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// keyForms are the forms in which a private key could get out.
func keyForms(t *testing.T, key *ecdsa.PrivateKey) [][]byte {
	t.Helper()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	scalar, err := key.Bytes()
	must(t, err)
	return [][]byte{scalar, []byte(base64.StdEncoding.EncodeToString(scalar)), []byte(base64.StdEncoding.EncodeToString(pkcs8)[20:80]), fmt.Appendf(nil, "%x", scalar), []byte("PRIVATE KEY")}
}

const ownPath = "/v1/tenants/acme/hosts/www.acme.example/certificate"

func TestAnUploadedCertificateIsStoredSealedAndTakenBack(t *testing.T) {
	f := open(t, 2)
	f.order()
	chain, key, keyPEM := ownCertificate(t, "www.acme.example", 10*24*time.Hour)
	in := client.CertificateUpload{Certificate: chain, Key: keyPEM}
	var c client.CertificateView
	// By a follower, which passes it on; and again under the same key.
	for range 2 {
		f.at(1, f.operator).with("Idempotency-Key", "k1").call("POST", ownPath, in).want(200).into(&c)
	}
	if c.Generation != 1 || c.Source != "uploaded" || !c.RenewAt.IsZero() {
		t.Errorf("%+v", c)
	}
	f.op().call("GET", ownPath, nil).want(200).into(&c)
	if c.KeyType != "ECDSA P-256" || !slices.Equal(c.Names, []string{"www.acme.example"}) || c.Order != nil || strings.Count(c.Chain, "BEGIN CERTIFICATE") != 1 || !c.RenewAt.IsZero() {
		t.Errorf("%+v", c)
	}
	rec, _ := f.members[1].state.Read().Certificate("www.acme.example")
	plain, err := f.kek.Open(rec.Key, keyring.CertKeyAAD("acme", "www.acme.example", rec.SPKI, 1))
	if stored, parsed := x509.ParsePKCS8PrivateKey(plain); err != nil || parsed != nil || !key.Equal(stored) {
		t.Errorf("the stored key does not open: %v, %v", err, parsed)
	}
	f.holdsNone(keyForms(t, key))

	// What is refused changes nothing, and quotes no key.
	before := len(f.audit())
	for says, bad := range map[string]client.CertificateUpload{
		"does not belong":    {Certificate: chain, Key: func() string { _, _, k := ownCertificate(t, "x.example.com", time.Hour); return k }()},
		"no certificate":     {Key: keyPEM},
		"private key among":  {Certificate: keyPEM, Key: keyPEM},
		"not for www.acme.e": {Certificate: func() string { c, _, _ := ownCertificate(t, "x.example.com", time.Hour); return c }(), Key: keyPEM},
	} {
		if got := f.op().call("POST", ownPath, bad).want(422); !strings.Contains(string(got.body), says) || strings.Contains(string(got.body), keyPEM[40:80]) {
			t.Errorf("%s, want %q", got.body, says)
		}
	}
	f.op().call("POST", ownPath+"/renew", nil).want(409)
	f.op().with("Edgefleet-Reason", "why").call("POST", ownPath+"/revoke", client.CertificateRevoke{}).want(409)
	if len(f.audit()) != before {
		t.Error("a refused request changed something")
	}

	f.op().call("POST", ownPath+"/remove", nil).want(200).into(&c)
	if c.RemovedAt.IsZero() || !c.RenewAt.Equal(c.RemovedAt) || c.Generation != 1 {
		t.Errorf("%+v", c)
	}
	f.op().call("POST", ownPath+"/remove", nil).want(409)
	audit := f.audit()
	if last := audit[len(audit)-1]; last.Operation != "certificate_remove" || last.Object != "certificate/www.acme.example" || last.Tenant != "acme" {
		t.Errorf("%+v", last)
	}
}

// holdsNone looks for secrets in the log, the state, the audit log and what members wrote.
func (f *fixture) holdsNone(secrets [][]byte) {
	f.t.Helper()
	var all bytes.Buffer
	f.log.mu.Lock()
	for _, e := range f.log.entries {
		all.Write(e.Data)
	}
	f.log.mu.Unlock()
	for _, m := range f.members {
		_, err := m.state.Read().WriteTo(&all)
		must(f.t, err)
		all.WriteString(m.logs.String())
	}
	for _, s := range secrets {
		if bytes.Contains(all.Bytes(), s) {
			f.t.Errorf("a private key is stored or logged (as %q)", s[:min(len(s), 8)])
		}
	}
}

func TestCertificatesAreListedByTheirEnd(t *testing.T) {
	f := open(t, 1)
	acme, beta := f.tenant("acme", fleet.SecurityEdge), f.tenant("beta", fleet.SecurityEdge)
	for i, of := range []fleet.TenantID{"acme", "acme", "beta", "acme"} {
		name := fmt.Sprintf("h%d.%s.example", i, of)
		f.propose(command.HostPut{Put: command.Put{Create: true}, Name: fleet.HostName(name), Tenant: of, Label: fmt.Sprintf("l%d", i), Spec: fleet.HostSpec{Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.1"}}}})
		chain, _, key := ownCertificate(t, name, time.Duration(40-10*i)*24*time.Hour)
		f.op().call("POST", "/v1/tenants/"+string(of)+"/hosts/"+name+"/certificate", client.CertificateUpload{Certificate: chain, Key: key}).want(200)
	}
	names := func(as as, query string) (out []string) {
		for next := ""; ; {
			var p client.Page[client.CertificateView]
			as.call("GET", "/v1/certs?limit=2"+query+"&cursor="+next, nil).want(200).into(&p)
			for _, c := range p.Items {
				if c.Chain != "" {
					t.Error("a list has whole chains")
				}
				out = append(out, string(c.Host)[:2])
			}
			if next = p.Next; next == "" {
				return out
			}
		}
	}
	for _, tc := range []struct {
		who, query string
		as         as
		want       []string
	}{
		{"an operator", "", f.op(), []string{"h3", "h2", "h1", "h0"}},
		{"an operator of a tenant's", "&tenant=acme", f.op(), []string{"h3", "h1", "h0"}},
		{"an operator of those that end soon", "&expiring=600h", f.op(), []string{"h3", "h2"}},
		{"a tenant", "", f.at(0, acme), []string{"h3", "h1", "h0"}},
		{"another", "", f.at(0, beta), []string{"h2"}},
	} {
		if got := names(tc.as, tc.query); !slices.Equal(got, tc.want) {
			t.Errorf("%s sees %v, want %v", tc.who, got, tc.want)
		}
	}
	f.at(0, beta).call("GET", "/v1/certs?tenant=acme", nil).want(404)
	f.op().call("GET", "/v1/certs?expiring=soon", nil).want(422)
	f.op().call("GET", "/v1/certs?cursor=x", nil).want(422)
}

func TestACertificateIsRenewedAndRevokedOnDemand(t *testing.T) {
	f := open(t, 1)
	f.order()
	chain, _, _ := ownCertificate(t, "www.acme.example", 90*24*time.Hour)
	f.propose(command.CertificateCommit{Order: "o1", Certificate: fleet.CertificateRecord{Certificate: fleet.Certificate{
		Host: "www.acme.example", Tenant: "acme", Generation: 1, SPKI: "spki", Serial: "a1", Chain: chain, NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour),
	}}})
	var c client.CertificateView
	f.op().with("Edgefleet-Reason", "wrong chain").call("POST", ownPath+"/renew", nil).want(200).into(&c)
	if c.Renewal.Source != fleet.RenewalRequested || c.RenewAt.After(time.Now()) || c.Source != "acme" {
		t.Errorf("%+v", c)
	}
	f.op().call("POST", ownPath+"/revoke", client.CertificateRevoke{}).want(422)
	f.op().with("Edgefleet-Reason", "leaked").call("POST", ownPath+"/revoke", client.CertificateRevoke{Now: true}).want(200).into(&c)
	if len(c.Revocations) != 1 || c.Revocations[0].Reason != fleet.RevokeKeyCompromise || c.Revocations[0].State != fleet.RevocationWaiting || c.Revoke != fleet.RevokeKeyCompromise {
		t.Errorf("%+v", c)
	}
	audit := f.audit()
	if last := audit[len(audit)-1]; last.Operation != "certificate_revoke" || last.Reason != "leaked" {
		t.Errorf("%+v", last)
	}
	other := f.tenant("beta", fleet.SecurityEdge)
	for _, end := range []string{"", "/renew", "/remove", "/revoke"} {
		method := map[bool]string{true: "GET", false: "POST"}[end == ""]
		f.at(0, other).with("Edgefleet-Reason", "mine").call(method, ownPath+end, map[string]any{}).want(404)
	}
}

func TestWhereAHostsCertificateComesFromIsSet(t *testing.T) {
	f := open(t, 1)
	f.order()
	const path = "/v1/tenants/acme/hosts/www.acme.example"
	for _, policy := range []string{"own", "none", "acme"} {
		var h client.HostView
		f.op().with("If-Match", "*").call("PATCH", path, map[string]string{"certificate": policy}).want(200).into(&h)
		if h.Spec.Certificate.String() != policy {
			t.Errorf("%q, want %s", h.Spec.Certificate, policy)
		}
	}
	f.op().with("If-Match", "*").call("PATCH", path, map[string]string{"certificate": "lost"}).want(422)
	if orders := f.members[0].state.Read().OrdersOf("www.acme.example"); len(orders) != 0 {
		t.Error("the order that was under way is still there")
	}
	var h client.HostView
	f.op().call("POST", "/v1/tenants/acme/hosts", map[string]any{"name": "own.acme.test", "origins": []map[string]string{{"url": "https://203.0.113.1"}}, "certificate": "own"}).want(201).into(&h)
	if h.Spec.Certificate != fleet.CertificateOwn {
		t.Errorf("%+v", h.Spec)
	}
}

// ordered has the host's next certificate issued before the caller calls.
func (f *fixture) ordered(of fleet.TenantID, host fleet.HostName, caller as) func() as {
	return func() as {
		sealed, err := f.kek.Seal([]byte("key"), nil)
		must(f.t, err)
		before, _ := f.members[0].state.Read().Certificate(host)
		chain, _, _ := ownCertificate(f.t, string(host), 90*24*time.Hour)
		f.propose(command.OrderPut{Put: command.Put{Create: true}, Order: fleet.OrderRecord{
			Order: fleet.Order{ID: "ordered", Host: host, Tenant: of, Generation: before.Generation + 1, State: fleet.OrderQueued}, Key: sealed, SPKI: "spki",
		}})
		f.propose(command.CertificateCommit{Order: "ordered", Certificate: fleet.CertificateRecord{Certificate: fleet.Certificate{
			Host: host, Tenant: of, Generation: before.Generation + 1, SPKI: "spki", Serial: "a1", Chain: chain, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		}}})
		return caller
	}
}
