package api

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"slices"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// maxOriginChain bounds the certificates of a chain.
	maxOriginChain = 10
	// minRSA is the least size of an RSA key, in bits.
	minRSA = 2048
)

// readOriginCert checks a certificate that is to be shown to an origin, and returns it with its key (PKCS #8 DER). What
// an error says is about the certificate, never out of the key.
func readOriginCert(in client.OriginCertSet, now time.Time) (fleet.OriginCert, []byte, error) {
	chain, text, err := readChain(in.Certificate)
	if err != nil {
		return fleet.OriginCert{}, nil, err
	}
	leaf := chain[0]
	if err := checkKey(in.Key); err != nil {
		return fleet.OriginCert{}, nil, err
	}
	pair, err := tls.X509KeyPair([]byte(text), []byte(in.Key))
	if err != nil {
		return fleet.OriginCert{}, nil, fleet.Invalid("key", "the private key does not belong to the first certificate (%.80s): give the two that were made together, the certificate of the key first in its file", leaf.Subject)
	}
	if err := checkLeaf(leaf, now); err != nil {
		return fleet.OriginCert{}, nil, err
	}
	for i, c := range chain[1:] {
		if err := chain[i].CheckSignatureFrom(c); err != nil {
			return fleet.OriginCert{}, nil, fleet.Invalid("certificate", "certificate %d (%.80s) did not sign the one before it (%.80s): order them from the leaf to the root, and leave out what does not belong", i+2, c.Subject, chain[i].Subject)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return fleet.OriginCert{}, nil, fleet.Invalid("key", "a private key of this kind cannot be used: give one of RSA, ECDSA or Ed25519")
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	c := fleet.OriginCert{Origin: in.Origin, Chain: text, SPKI: hex.EncodeToString(sum[:]), Serial: leaf.SerialNumber.Text(16), NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC()}
	c.Subject, c.Issuer = names(leaf)
	return c, der, nil
}

// readChain reads the certificates of a PEM text, and returns them with that text without all else that it has.
func readChain(text string) (chain []*x509.Certificate, clean string, err error) {
	var out bytes.Buffer
	for rest := []byte(text); len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		switch block, rest = pem.Decode(rest); {
		case block == nil:
			return nil, "", fleet.Invalid("certificate", "after %d certificates comes something else: give certificates in PEM, which begin with -----BEGIN CERTIFICATE-----", len(chain))
		case strings.Contains(block.Type, "PRIVATE KEY"):
			return nil, "", fleet.Invalid("certificate", "there is a private key among the certificates: give it apart, as the key")
		case block.Type != "CERTIFICATE":
			return nil, "", fleet.Invalid("certificate", "a PEM block is a %.40q: give CERTIFICATE blocks only", block.Type)
		case len(chain) == maxOriginChain:
			return nil, "", fleet.NewError(fleet.ErrTooLarge, "certificate", "there are more than %d certificates: give those between the leaf and the root only", maxOriginChain)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, "", fleet.Invalid("certificate", "certificate %d cannot be read: %v", len(chain)+1, err)
		}
		chain = append(chain, c)
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}) // a buffer takes everything
	}
	if len(chain) == 0 {
		return nil, "", fleet.Invalid("certificate", "there is no certificate: give one in PEM, which begins with -----BEGIN CERTIFICATE-----")
	}
	return chain, out.String(), nil
}

// checkKey says what is wrong with the armour of a private key.
func checkKey(text string) error {
	block, rest := pem.Decode([]byte(text))
	for block != nil && block.Type == "EC PARAMETERS" { // openssl writes them before the key
		block, rest = pem.Decode(rest)
	}
	switch {
	case block == nil:
		return fleet.Invalid("key", "there is no private key in PEM: it begins with -----BEGIN PRIVATE KEY-----")
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return fleet.Invalid("key", "the private key is encrypted with a passphrase: decrypt it first ('openssl pkey -in FILE -out FILE.plain'); it is sealed before it is stored")
	case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return fleet.Invalid("key", "the file of the key has a %.40q: give the private key", block.Type)
	}
	return nil
}

// checkLeaf refuses what no origin would take.
func checkLeaf(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fleet.Invalid("certificate", "the certificate (%.80s) expired at %s: give one that is valid", leaf.Subject, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Add(fleet.MaxClockSkew).Before(leaf.NotBefore):
		return fleet.Invalid("certificate", "the certificate (%.80s) is not valid before %s: give it then", leaf.Subject, leaf.NotBefore.UTC().Format(time.RFC3339))
	case leaf.IsCA:
		return fleet.Invalid("certificate", "the first certificate (%.80s) is an authority's: give the one that it issued to you first", leaf.Subject)
	}
	client := func(u x509.ExtKeyUsage) bool { return u == x509.ExtKeyUsageClientAuth || u == x509.ExtKeyUsageAny }
	if (len(leaf.ExtKeyUsage) > 0 || len(leaf.UnknownExtKeyUsage) > 0) && !slices.ContainsFunc(leaf.ExtKeyUsage, client) {
		return fleet.Invalid("certificate", "the certificate (%.80s) is not for clients: have one issued with the extended key usage clientAuth", leaf.Subject)
	}
	switch k := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA {
			return fleet.Invalid("certificate", "the certificate (%.80s) has an RSA key of %d bits: it needs %d", leaf.Subject, n, minRSA)
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P224() {
			return fleet.Invalid("certificate", "the certificate (%.80s) has a key on P-224: use P-256, P-384, Ed25519 or RSA", leaf.Subject)
		}
	case ed25519.PublicKey:
	default:
		return fleet.Invalid("certificate", "the certificate (%.80s) has a key of a kind that TLS does not know: use P-256, P-384, Ed25519 or RSA", leaf.Subject)
	}
	return nil
}
