package issuance_test

import (
	"bytes"
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
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/issuance"
)

var uploadNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// issued is a certificate and its key.
type issued struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (i issued) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw}))
}

func (i issued) keyPEM(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// sign issues a certificate; by itself without an issuer.
func sign(t *testing.T, name string, key crypto.Signer, by *issued, change func(*x509.Certificate)) issued {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: uploadNow.Add(-time.Hour), NotAfter: uploadNow.Add(60 * 24 * time.Hour),
	}
	if strings.Contains(name, ".") {
		c.DNSNames, c.ExtKeyUsage = []string{name}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	} else {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.NotAfter = true, true, x509.KeyUsageCertSign, uploadNow.Add(3650*24*time.Hour)
	}
	if change != nil {
		change(c)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return issued{cert, key}
}

func ecKey(t *testing.T, c elliptic.Curve) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestUploadsAreHeldAgainstWhatBrowsersTake(t *testing.T) {
	p256 := func() crypto.Signer { return ecKey(t, elliptic.P256()) }
	root := sign(t, "root", p256(), nil, nil)
	middle := sign(t, "middle", p256(), &root, nil)
	other := sign(t, "other", p256(), &root, nil)
	const host = "shop.example.com"
	good := sign(t, host, p256(), &middle, nil)
	leaf := func(key crypto.Signer, change func(*x509.Certificate)) issued {
		return sign(t, host, key, &middle, change)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	chain := func(cs ...issued) string {
		var b strings.Builder
		for _, c := range cs {
			b.WriteString(c.pem())
		}
		return b.String()
	}
	sec1, err := x509.MarshalECPrivateKey(good.key.(*ecdsa.PrivateKey)) //nolint:forcetypeassert // made above
	if err != nil {
		t.Fatal(err)
	}
	ecPEM := string(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{5, 0}})) + string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))
	byRSA := leaf(rsaKey, nil)
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)}))
	goodKey := good.keyPEM(t)
	of := func(i issued) (string, string) { return chain(i, middle), i.keyPEM(t) }
	type upload struct {
		name, cert, key string
		host            fleet.HostName
		stranger        bool   // browsers do not know the root
		refused         string // what the refusal says
		warns           string
		certs           int
	}
	cases := []upload{
		{name: "a full chain", cert: chain(good, middle), key: goodKey, certs: 2},
		{name: "a root at the end is dropped", cert: chain(good, middle, root), key: goodKey, certs: 2},
		{name: "a key in SEC 1 behind its parameters", cert: chain(good, middle), key: ecPEM, certs: 2},
		{name: "an RSA key in PKCS #1", cert: chain(byRSA, middle), key: pkcs1, certs: 2},
		{name: "an authority that browsers do not know is warned about", cert: chain(good, middle), key: goodKey, stranger: true, warns: "browsers do not know", certs: 2},
		{name: "a chain without its intermediate", cert: chain(good), key: goodKey, stranger: true, refused: "the chain is incomplete"},
		{name: "a chain in the wrong order", cert: chain(middle, good), key: goodKey, refused: "is a CA's"},
		{name: "an intermediate that signed nothing", cert: chain(good, other), key: goodKey, refused: "was issued by"},
		{name: "another key", cert: chain(good, middle), key: middle.keyPEM(t), refused: "does not belong"},
		{name: "another host", cert: chain(good, middle), key: goodKey, host: "www.example.com", refused: "not for www.example.com"},
		{name: "no certificate", cert: "hello", key: goodKey, refused: "what is none"},
		{name: "nothing", cert: "", key: goodKey, refused: "no certificate"},
		{name: "a key among the certificates", cert: chain(good) + goodKey, key: goodKey, refused: "private key among"},
		{name: "no key", cert: chain(good, middle), key: chain(good), refused: "no private key"},
		{name: "an encrypted key", cert: chain(good, middle), key: string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})), refused: "is encrypted"},
		{name: "a damaged key", cert: chain(good, middle), key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("sEcReT")})), refused: "cannot be read"},
		{name: "a key that is too large", cert: chain(good, middle), key: strings.Repeat("x", 33<<10), refused: "the limit is"},
		{name: "too many certificates", cert: strings.Repeat(chain(good), 9), key: goodKey, refused: "more than 8"},
	}
	for name, made := range map[string]struct {
		issued
		refused, warns string
	}{
		"one that ends soon":                     {leaf(p256(), func(c *x509.Certificate) { c.NotAfter = uploadNow.Add(5 * 24 * time.Hour) }), "", "ends in 5 days"},
		"one that lasts for too long":            {leaf(p256(), func(c *x509.Certificate) { c.NotAfter = uploadNow.Add(500 * 24 * time.Hour) }), "", "398 days"},
		"one that expired":                       {leaf(p256(), func(c *x509.Certificate) { c.NotAfter = uploadNow }), "expired at", ""},
		"one that is not valid yet":              {leaf(p256(), func(c *x509.Certificate) { c.NotBefore = uploadNow.Add(time.Hour) }), "not valid before", ""},
		"P-384":                                  {leaf(ecKey(t, elliptic.P384()), nil), "", ""},
		"P-521":                                  {leaf(ecKey(t, elliptic.P521()), nil), "P-521", ""},
		"Ed25519":                                {leaf(ed, nil), "Ed25519", ""},
		"RSA of 1024 bits":                       {leaf(short, nil), "RSA key of 1024 bits", ""},
		"a CA's":                                 {leaf(p256(), func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), "is a CA's", ""},
		"a client's":                             {leaf(p256(), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "not one for servers", ""},
		"one that signed itself":                 {sign(t, host, p256(), nil, nil), "signed by its own key", ""},
		"a wildcard over the host":               {leaf(p256(), func(c *x509.Certificate) { c.DNSNames = []string{"*.example.com"} }), "", ""},
		"a common name alone, without SAN names": {leaf(p256(), func(c *x509.Certificate) { c.DNSNames = nil }), "not for shop.example.com", ""},
	} {
		cert, key := of(made.issued)
		cases = append(cases, upload{name: name, cert: cert, key: key, refused: made.refused, warns: made.warns, certs: 2})
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			known := roots
			if tc.stranger {
				known = x509.NewCertPool()
			}
			if tc.host == "" {
				tc.host = host
			}
			u, err := issuance.CheckUpload(tc.host, tc.cert, tc.key, known, uploadNow)
			if tc.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tc.refused) || !errors.Is(err, fleet.ErrInvalid) && !errors.Is(err, fleet.ErrTooLarge) {
					t.Fatalf("%v, want %q", err, tc.refused)
				}
				if strings.Contains(err.Error(), "sEcReT") {
					t.Error("the refusal quotes the key")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if warned := strings.Join(u.Warnings, "; "); (tc.warns == "") != (warned == "") || !strings.Contains(warned, tc.warns) {
				t.Errorf("warns %q, want %q", warned, tc.warns)
			}
			if n := strings.Count(u.Chain, "BEGIN"); n != tc.certs {
				t.Errorf("%d certificates", n)
			}
			if _, err := x509.ParsePKCS8PrivateKey(u.Key); err != nil || bytes.Contains([]byte(u.Chain), []byte("PRIVATE")) || u.SPKI == "" || issuance.KeyType([]byte(u.Chain)) == "" {
				t.Errorf("%+v, %v", u.Leaf, err)
			}
		})
	}
}

func TestASignatureThatBrowsersDoNotVerifyIsRefused(t *testing.T) {
	// Go signs nothing with SHA-1 any more: RSA's algorithm identifiers differ in their last byte.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	root := sign(t, "root", key, nil, nil)
	good := sign(t, "shop.example.com", ecKey(t, elliptic.P256()), &root, nil)
	withSHA := func(last byte) []byte { return []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, last} }
	if n := bytes.Count(good.cert.Raw, withSHA(11)); n != 2 {
		t.Fatalf("the algorithm stands %d times in the certificate", n)
	}
	sha1 := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: bytes.ReplaceAll(good.cert.Raw, withSHA(11), withSHA(5))})
	_, err = issuance.CheckUpload("shop.example.com", string(sha1)+root.pem(), good.keyPEM(t), nil, uploadNow)
	if err == nil || !strings.Contains(err.Error(), "SHA1-RSA, which browsers refuse") {
		t.Errorf("%v", err)
	}
}

func FuzzCheckUpload(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n")
	f.Fuzz(func(_ *testing.T, cert, key string) {
		_, _ = issuance.CheckUpload("a.example.com", cert, key, x509.NewCertPool(), uploadNow)
	})
}
