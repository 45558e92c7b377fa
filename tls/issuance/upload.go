package issuance

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// maxUploadKey bounds an uploaded key, in bytes of PEM; one of RSA with 8192 bits has some 6,500.
	maxUploadKey = 32 << 10
	// maxUploadChain is how many certificates an uploaded chain may have.
	maxUploadChain = 8
	// minRSA and maxRSA bound RSA keys, in bits: browsers take no shorter, Go's verifiers no longer ones.
	minRSA, maxRSA = 2048, 8192
	// soonEnds is the life left below which an upload is warned about, longLife the life above which browsers refuse
	// certificates of authorities that they know.
	soonEnds, longLife = 14 * 24 * time.Hour, 398 * 24 * time.Hour
)

// Upload is a certificate that its owner brought, checked.
type Upload struct {
	// Chain is PEM, leaf first, without what was around it and without a root at its end. Key is PKCS #8 DER: seal it, and
	// clear it.
	Chain string
	Key   []byte
	Leaf
	// Warnings say what visitors may not take.
	Warnings []string
}

// CheckUpload holds an uploaded chain and key (PEM) against each other, the host and what browsers take. What it refuses
// is fleet.ErrInvalid; no error quotes the key. roots are those of browsers; nil means the system's.
func CheckUpload(host fleet.HostName, chainPEM, keyPEM string, roots *x509.CertPool, now time.Time) (Upload, error) {
	certs, err := parseUpload(chainPEM)
	if err != nil {
		return Upload{}, err
	}
	leaf := certs[0]
	for _, check := range []func() error{
		func() error { return checkKind(leaf) },
		func() error { return checkNames(host, leaf) },
		func() error { return checkTimes(certs, now) },
		func() error { return checkLinks(certs) },
	} {
		if err := check(); err != nil {
			return Upload{}, err
		}
	}
	if certs, err = complete(certs, roots, now); err != nil {
		return Upload{}, err
	}
	u := Upload{Warnings: warnings(certs, roots, now)}
	var chain bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a buffer takes everything
	}
	u.Chain = chain.String()
	if len(u.Chain) > maxChain {
		return Upload{}, fleet.NewError(fleet.ErrTooLarge, "chain", "certificate chain of %d bytes; the limit is %d: leave out what is not needed", len(u.Chain), maxChain)
	}
	if u.Leaf, err = Describe([]byte(u.Chain)); err != nil {
		return Upload{}, err
	}
	u.Key, err = uploadedKey(keyPEM, leaf)
	return u, err
}

// parseUpload reads all certificates of a text.
func parseUpload(text string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				return nil, fleet.Invalid("certificate", "after %d certificates comes what is none: give certificates in PEM only, that of the host first", len(certs))
			}
			break
		}
		switch {
		case strings.Contains(block.Type, "PRIVATE KEY"):
			return nil, fleet.Invalid("certificate", "there is a private key among the certificates: give it apart, as the key")
		case block.Type != "CERTIFICATE":
			return nil, fleet.Invalid("certificate", "a PEM block is a %.40q: give CERTIFICATE blocks only, that of the host first", block.Type)
		case len(certs) == maxUploadChain:
			return nil, fleet.Invalid("certificate", "the chain has more than %d certificates: give that of the host and its intermediates", maxUploadChain)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fleet.Invalid("certificate", "certificate %d of the chain cannot be read: %v", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fleet.Invalid("certificate", "there is no certificate: give it in PEM; it begins with -----BEGIN CERTIFICATE-----")
	}
	return certs, nil
}

// checkKind refuses leaves that no browser takes.
func checkKind(leaf *x509.Certificate) error {
	if leaf.IsCA {
		return fleet.Invalid("certificate", "the first certificate (%.80s) is a CA's: put that of the host first, and its intermediates behind it", leaf.Subject)
	}
	if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) && leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil {
		return fleet.Invalid("certificate", "the certificate is signed by its own key: no browser takes it; have an authority issue one")
	}
	server := len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0
	for _, usage := range leaf.ExtKeyUsage {
		server = server || usage == x509.ExtKeyUsageServerAuth || usage == x509.ExtKeyUsageAny
	}
	if !server {
		return fleet.Invalid("certificate", "the certificate is not one for servers (its extended key usage lacks serverAuth): have a server certificate issued")
	}
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
			return fleet.Invalid("key", "an RSA key of %d bits: use %d to %d, or better ECDSA with P-256", bits, minRSA, maxRSA)
		}
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return fleet.Invalid("key", "an ECDSA key on the curve %s, which browsers do not take: use P-256 or P-384", key.Curve.Params().Name)
		}
	case ed25519.PublicKey:
		return fleet.Invalid("key", "an Ed25519 key, which browsers do not take in certificates: use ECDSA with P-256")
	default:
		return fleet.Invalid("key", "the key of the certificate is of a kind that browsers do not take: use ECDSA with P-256 or P-384, or RSA with %d bits or more", minRSA)
	}
	return nil
}

func checkNames(host fleet.HostName, leaf *x509.Certificate) error {
	if err := leaf.VerifyHostname(string(host)); err != nil {
		return fleet.Invalid("certificate", "the certificate is for %.300q, not for %s", leaf.DNSNames, host)
	}
	return nil
}

func checkTimes(certs []*x509.Certificate, now time.Time) error {
	const form = "2006-01-02 15:04:05 UTC"
	for i, c := range certs {
		switch {
		case !now.Before(c.NotAfter):
			return fleet.Invalid("certificate", "certificate %d of the chain (%.80s) expired at %s: have a new one issued", i+1, c.Subject, c.NotAfter.UTC().Format(form))
		case now.Before(c.NotBefore):
			return fleet.Invalid("certificate", "certificate %d of the chain (%.80s) is not valid before %s: upload it then", i+1, c.Subject, c.NotBefore.UTC().Format(form))
		}
	}
	return nil
}

// weak are signatures that browsers do not verify any more.
func weak(a x509.SignatureAlgorithm) bool {
	switch a { //nolint:exhaustive // all others are good
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1, x509.DSAWithSHA256, x509.UnknownSignatureAlgorithm:
		return true
	}
	return false
}

// root reports whether c ends a chain.
func root(c *x509.Certificate) bool { return c.IsCA && bytes.Equal(c.RawIssuer, c.RawSubject) }

// checkLinks refuses a chain in which one certificate did not sign the one before it.
func checkLinks(certs []*x509.Certificate) error {
	for i, c := range certs {
		if weak(c.SignatureAlgorithm) && !root(c) {
			return fleet.Invalid("certificate", "certificate %d of the chain (%.80s) is signed with %s, which browsers refuse: have it issued with SHA-256", i+1, c.Subject, c.SignatureAlgorithm)
		}
		if i+1 == len(certs) {
			break
		}
		next := certs[i+1]
		if !next.IsCA || !bytes.Equal(c.RawIssuer, next.RawSubject) || c.CheckSignatureFrom(next) != nil {
			return fleet.Invalid("certificate", "certificate %d of the chain (%.80s) was issued by %.80s, and behind it comes %.80s: put that of the host first, and behind each the one that signed it", i+1, c.Subject, c.Issuer, next.Subject)
		}
	}
	return nil
}

// known reports whether the chain leads to one of roots.
func known(certs []*x509.Certificate, roots *x509.CertPool, now time.Time) bool {
	pool := x509.NewCertPool()
	for _, c := range certs[1:] {
		pool.AddCert(c)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, CurrentTime: now})
	return err == nil
}

// complete refuses a chain that ends too early, and drops a root at its end.
func complete(certs []*x509.Certificate, roots *x509.CertPool, now time.Time) ([]*x509.Certificate, error) {
	if root(certs[len(certs)-1]) {
		return certs[:len(certs)-1], nil
	}
	if len(certs) == 1 && !known(certs, roots, now) {
		return nil, fleet.Invalid("certificate", "the chain is incomplete: the certificate was issued by %.80s; put that authority's intermediate certificate behind it (its fullchain file), or its root if it is a private one", certs[0].Issuer)
	}
	return certs, nil
}

// warnings say what visitors may not take of a chain that is good otherwise.
func warnings(certs []*x509.Certificate, roots *x509.CertPool, now time.Time) []string {
	var out []string
	if !known(certs, roots, now) {
		out = append(out, fmt.Sprintf("the chain leads to %.80s, which browsers do not know: visitors who come directly are warned; behind another CDN that knows it, all is well", certs[len(certs)-1].Issuer))
	}
	leaf := certs[0]
	if left := leaf.NotAfter.Sub(now); left < soonEnds {
		out = append(out, fmt.Sprintf("the certificate ends in %d days, and the edge does not renew it: upload its successor before", int(left/(24*time.Hour))))
	}
	if leaf.NotAfter.Sub(leaf.NotBefore) > longLife {
		out = append(out, "the certificate lasts for more than 398 days: browsers refuse such certificates of public authorities")
	}
	return out
}

// UploadWarnings are those of CheckUpload, for a chain that was taken.
func UploadWarnings(chain string, roots *x509.CertPool, now time.Time) []string {
	certs, err := parseUpload(chain)
	if err != nil {
		return nil
	}
	return warnings(certs, roots, now)
}

// uploadedKey reads a private key (PKCS #8, PKCS #1 or SEC 1) and holds it against the certificate.
func uploadedKey(text string, leaf *x509.Certificate) ([]byte, error) {
	if len(text) > maxUploadKey {
		return nil, fleet.NewError(fleet.ErrTooLarge, "key", "a private key of %d bytes; the limit is %d", len(text), maxUploadKey)
	}
	var block *pem.Block
	for rest := []byte(text); ; {
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fleet.Invalid("key", "there is no private key: give it in PEM; it begins with -----BEGIN PRIVATE KEY-----")
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			break // before it, OpenSSL writes the parameters of a curve
		}
	}
	defer clear(block.Bytes)
	if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
		return nil, fleet.Invalid("key", "the private key is encrypted: decrypt it first, for example with 'openssl pkey -in FILE -out FILE.plain'; it is sealed before it is stored")
	}
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, fleet.Invalid("key", "the private key cannot be read: give it as PKCS #8, PKCS #1 or SEC 1, in PEM") // the reason may quote it
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(leaf.PublicKey) {
		return nil, fleet.Invalid("key", "the private key does not belong to the certificate: give the key that its signing request was made with")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fleet.Invalid("key", "the private key cannot be stored")
	}
	return der, nil
}

// KeyType names the kind of a certificate's key, as people do.
func KeyType(chain []byte) string {
	leaf, err := parseLeaf(chain)
	if err != nil {
		return ""
	}
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	}
	return leaf.PublicKeyAlgorithm.String()
}

// Names are those that a certificate is for.
func Names(chain []byte) []string {
	leaf, err := parseLeaf(chain)
	if err != nil {
		return nil
	}
	return leaf.DNSNames
}
