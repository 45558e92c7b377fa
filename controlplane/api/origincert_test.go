package api_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// clientCert makes a certificate for a client, of a new authority that comes after it, and its key.
func clientCert(t *testing.T, change func(*x509.Certificate)) (chain, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return certOf(t, k, change), keyPEM(t, k)
}

func keyPEM(t *testing.T, k crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func certOf(t *testing.T, k crypto.Signer, change func(*x509.Certificate)) string {
	t.Helper()
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "origins"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "edge.acme.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(leaf)
	}
	var out bytes.Buffer
	for _, c := range []struct {
		template *x509.Certificate
		public   crypto.PublicKey
	}{{leaf, k.Public()}, {root, ca.Public()}} {
		der, err := x509.CreateCertificate(rand.Reader, c.template, root, c.public, ca)
		must(t, err)
		must(t, pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return out.String()
}

func TestNodesGetACertificateToShowToAnOrigin(t *testing.T) {
	const path, origin = "/v1/tenants/acme/hosts/www.acme.example/origins", "https://203.0.113.1"
	f := open(t, 2)
	acme := f.at(0, f.tenant("acme", fleet.SecurityEdge))
	acme.call("POST", "/v1/tenants/acme/hosts", client.HostCreate{Name: "www.acme.example", Origins: []fleet.Origin{{URL: origin}, {URL: "http://203.0.113.2"}}}).want(201)

	chain, key := clientCert(t, nil)
	var got fleet.OriginCert
	acme.with("Edgefleet-Reason", "the origin wants one").call("POST", path+"/certificate", client.OriginCertSet{Origin: origin, Certificate: "comment\n" + chain, Key: key}).want(200).into(&got)
	if got.Generation != 1 || got.Chain != chain || got.Subject != "CN=edge.acme.example" || got.Issuer != "CN=origins" || got.Serial != "4d" || len(got.SPKI) != 64 || time.Until(got.NotAfter) > time.Hour {
		t.Errorf("%+v", got)
	}
	last := f.audit()[len(f.audit())-1]
	if last.Operation != "origin_cert_put" || last.Object != "origin_certificate/www.acme.example" || last.Reason != "the origin wants one" {
		t.Errorf("%+v", last)
	}

	// Nobody gets to see the key: not in what is stored and copied, not in what is answered.
	block, _ := pem.Decode([]byte(key))
	var stored bytes.Buffer
	_, err := f.members[0].state.Read().WriteTo(&stored)
	must(t, err)
	answered := acme.call("GET", path, nil).want(200).body
	for what, text := range map[string]string{"the state": stored.String(), "the answer": string(answered)} {
		if !strings.Contains(text, got.SPKI) {
			t.Errorf("%s does not have the certificate", what)
		}
		if strings.Contains(text, "PRIVATE KEY") || strings.Contains(text, base64.StdEncoding.EncodeToString(block.Bytes)) || strings.Contains(text, strings.Split(key, "\n")[1]) {
			t.Errorf("%s has the key", what)
		}
	}
	rec, _ := f.members[0].state.Read().OriginCert("www.acme.example", origin)
	if plain, err := f.kek.Open(rec.Key, keyring.OriginKeyAAD(rec.OriginCert)); err != nil || !bytes.Equal(plain, block.Bytes) {
		t.Error("the stored key is not the one that was given", err)
	}

	// The next one, by a follower.
	chain, key = clientCert(t, nil)
	f.at(1, f.operator).call("POST", path+"/certificate", client.OriginCertSet{Origin: origin, Certificate: chain, Key: key}).want(200).into(&got)
	var views client.OriginViews
	acme.call("GET", path, nil).want(200).into(&views)
	if got.Generation != 2 || len(views.Origins) != 2 || views.Origins[0].Certificate == nil || views.Origins[0].Certificate.SPKI != got.SPKI || views.Origins[1].Certificate != nil {
		t.Errorf("%+v %+v", got, views)
	}
	acme.call("POST", path+"/certificate/delete", client.OriginCertDelete{Origin: origin}).want(200)
	acme.call("POST", path+"/certificate/delete", client.OriginCertDelete{Origin: origin}).want(404)
	views = client.OriginViews{}
	acme.call("GET", path, nil).want(200).into(&views)
	if views.Origins[0].Certificate != nil {
		t.Errorf("%+v", views)
	}
}

func TestACertificateThatNoOriginWouldTakeIsRefused(t *testing.T) {
	const origin = "https://203.0.113.1"
	f := open(t, 1)
	acme := f.at(0, f.tenant("acme", fleet.SecurityEdge))
	acme.call("POST", "/v1/tenants/acme/hosts", client.HostCreate{Name: "www.acme.example", Origins: []fleet.Origin{{URL: origin}, {URL: "http://203.0.113.2"}}}).want(201)
	good, key := clientCert(t, nil)
	other, otherKey := clientCert(t, nil)
	first := func(chain string) string {
		return chain[:strings.Index(chain, "-----END CERTIFICATE-----\n")+len("-----END CERTIFICATE-----\n")]
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	must(t, err)
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	must(t, err)
	changed := func(change func(*x509.Certificate)) client.OriginCertSet {
		chain, key := clientCert(t, change)
		return client.OriginCertSet{Origin: origin, Certificate: chain, Key: key}
	}
	for name, tc := range map[string]struct {
		in     client.OriginCertSet
		status int
		says   string
	}{
		"another certificate's key":        {client.OriginCertSet{Origin: origin, Certificate: good, Key: otherKey}, 422, "does not belong to the first certificate"},
		"a chain in the wrong order":       {client.OriginCertSet{Origin: origin, Certificate: strings.TrimPrefix(good, first(good)) + first(good), Key: key}, 422, "does not belong to the first certificate"},
		"an authority that did not sign":   {client.OriginCertSet{Origin: origin, Certificate: first(good) + strings.TrimPrefix(other, first(other)), Key: key}, 422, "did not sign"},
		"an expired certificate":           {changed(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), 422, "expired at"},
		"one of tomorrow":                  {changed(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }), 422, "not valid before"},
		"one for servers":                  {changed(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), 422, "clientAuth"},
		"an authority's":                   {changed(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), 422, "an authority's"},
		"a weak key":                       {client.OriginCertSet{Origin: origin, Certificate: certOf(t, weak, nil), Key: keyPEM(t, weak)}, 422, "1024 bits"},
		"a key on a small curve":           {client.OriginCertSet{Origin: origin, Certificate: certOf(t, small, nil), Key: keyPEM(t, small)}, 422, "P-224"},
		"a key among the certificates":     {client.OriginCertSet{Origin: origin, Certificate: good + key, Key: key}, 422, "private key among the certificates"},
		"no key":                           {client.OriginCertSet{Origin: origin, Certificate: good, Key: good}, 422, "give the private key"},
		"an encrypted key":                 {client.OriginCertSet{Origin: origin, Certificate: good, Key: strings.ReplaceAll(key, "PRIVATE", "ENCRYPTED PRIVATE")}, 422, "passphrase"},
		"no certificate":                   {client.OriginCertSet{Origin: origin, Certificate: "none", Key: key}, 422, "-----BEGIN CERTIFICATE-----"},
		"too long a chain":                 {client.OriginCertSet{Origin: origin, Certificate: strings.Repeat(good, 6), Key: key}, 413, "more than 10"},
		"an origin that is not the host's": {client.OriginCertSet{Origin: "https://203.0.113.9", Certificate: good, Key: key}, 404, "has no origin"},
		"an origin without TLS":            {client.OriginCertSet{Origin: "http://203.0.113.2", Certificate: good, Key: key}, 422, "use https"},
	} {
		t.Run(name, func(t *testing.T) {
			got := acme.call("POST", "/v1/tenants/acme/hosts/www.acme.example/origins/certificate", tc.in).want(tc.status)
			if !strings.Contains(string(got.body), tc.says) {
				t.Errorf("%s, want %q", got.body, tc.says)
			}
			if k := strings.Split(key, "\n")[1]; strings.Contains(string(got.body), k) {
				t.Error("the answer has the key")
			}
		})
	}
}
