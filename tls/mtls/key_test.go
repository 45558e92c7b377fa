package mtls_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// bare signs a client's certificate with any URI SANs, as only somebody with the authority's key could.
func bare(ca *mtls.CA, now time.Time, uris ...string) func(crypto.PublicKey) ([]byte, error) {
	return func(pub crypto.PublicKey) ([]byte, error) {
		block, _ := pem.Decode(ca.CertPEM())
		parent, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		key, err := x509.ParsePKCS8PrivateKey(ca.KeyDER())
		if err != nil {
			return nil, err
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bare"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		for _, s := range uris {
			u, err := url.Parse(s)
			if err != nil {
				return nil, err
			}
			template.URIs = append(template.URIs, u)
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
	}
}

func TestSigningRequestsProveTheirKey(t *testing.T) {
	p256 := newKey(t)
	p384 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []crypto.Signer{p256, p384, ed} {
		got, err := mtls.ParseCSR(must[[]byte](t)(mtls.CSR(k)))
		if err != nil {
			t.Errorf("%T: %v", k, err)
			continue
		}
		if want := must[string](t)(mtls.SPKI(k.Public())); want != must[string](t)(mtls.SPKI(got)) || len(want) != 64 {
			t.Errorf("%T: another key came out", k)
		}
	}
}

func TestSigningRequestsAreRefused(t *testing.T) {
	good := must[[]byte](t)(mtls.CSR(newKey(t)))
	forged, _ := pem.Decode(good)
	forged.Bytes[len(forged.Bytes)-1] ^= 1
	p224 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"no PEM":            []byte("hello"),
		"a certificate":     newCA(t, "x").CertPEM(),
		"two requests":      append(append([]byte{}, good...), good...),
		"trailing bytes":    append(append([]byte{}, good...), 'x'),
		"a false signature": pem.EncodeToMemory(forged),
		"cut off DER":       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: forged.Bytes[:40]}),
		"an RSA key":        must[[]byte](t)(mtls.CSR(must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048)))),
		"a P-224 key":       must[[]byte](t)(mtls.CSR(p224)),
	} {
		if _, err := mtls.ParseCSR(b); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := mtls.ParseCSR(make([]byte, 17<<10)); !errors.Is(err, fleet.ErrTooLarge) {
		t.Errorf("a large request: %v", err)
	}
}

func FuzzParseCSR(f *testing.F) {
	f.Add(must[[]byte](f)(mtls.CSR(newKey(f))))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pub, err := mtls.ParseCSR(b)
		switch {
		case err != nil && !errors.Is(err, fleet.ErrInvalid) && !errors.Is(err, fleet.ErrTooLarge):
			t.Errorf("unclassified: %v", err)
		case err == nil:
			if _, err := mtls.SPKI(pub); err != nil {
				t.Errorf("an accepted key has no SPKI: %v", err)
			}
		}
	})
}

func TestPoolsHoldCertificatesOnly(t *testing.T) {
	a, b := newCA(t, "a"), newCA(t, "b")
	pool, err := mtls.PoolFromPEM(mtls.ServerChain(a.CertPEM(), b.CertPEM()))
	if err != nil {
		t.Fatal(err)
	}
	for _, ca := range []*mtls.CA{a, b} {
		c := leaf(t, must[[]byte](t)(ca.SignNode(cluster, "n1", newKey(t).Public(), time.Now())))
		if _, err := c.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Errorf("%v: %v", ca, err)
		}
	}
	key := must[[]byte](t)(mtls.EncodeKey(newKey(t)))
	for name, bundle := range map[string][]byte{"nothing": nil, "a key": key, "a key behind a certificate": mtls.ServerChain(a.CertPEM(), key), "text": []byte("x")} {
		if _, err := mtls.PoolFromPEM(a.CertPEM(), bundle); !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), "bundle 2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAuthorityDoesNotPrintItsKey(t *testing.T) {
	ca := newCA(t, "members")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, ca); s != "certificate authority members" {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}
