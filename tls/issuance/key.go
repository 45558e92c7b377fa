package issuance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// maxChain bounds a chain from the CA.
const maxChain = 64 << 10

// NewKeyAndCSR makes a P-256 key and the certificate signing request for host. The key is PKCS #8 DER: seal it before
// it is stored. spki is the SHA-256 of the public key info, hex.
func NewKeyAndCSR(host fleet.HostName) (keyPKCS8, csrDER []byte, spki string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, "", fmt.Errorf("generate key for %s: %w", host, err)
	}
	if keyPKCS8, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, nil, "", fmt.Errorf("encode key for %s: %w", host, err)
	}
	csrDER, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{string(host)}}, key)
	if err != nil {
		return nil, nil, "", fmt.Errorf("make signing request for %s: %w", host, err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, "", fmt.Errorf("encode public key for %s: %w", host, err)
	}
	return keyPKCS8, csrDER, digest(public), nil
}

func parseCSR(host fleet.HostName, der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, fleet.Invalid("csr", "certificate signing request for %s: %v", host, err)
	}
	if len(csr.DNSNames) != 1 || csr.DNSNames[0] != string(host) || len(csr.IPAddresses)+len(csr.EmailAddresses)+len(csr.URIs) > 0 || csr.Subject.CommonName != "" {
		return nil, fleet.Invalid("csr", "certificate signing request must name %s alone", host)
	}
	return csr, nil
}

// Leaf is what a certificate says.
type Leaf struct {
	NotBefore, NotAfter time.Time
	// Serial is hex.
	Serial string
	// Issuer is the distinguished name of the CA.
	Issuer string
	// SPKI is the SHA-256 of the public key info, hex.
	SPKI string
}

// Describe reads the leaf of a PEM chain; anything malformed is fleet.ErrInvalid.
func Describe(chain []byte) (Leaf, error) {
	c, err := parseLeaf(chain)
	if err != nil {
		return Leaf{}, err
	}
	return Leaf{
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Serial: c.SerialNumber.Text(16), Issuer: c.Issuer.String(), SPKI: digest(c.RawSubjectPublicKeyInfo),
	}, nil
}

// parseLeaf parses all of the chain, so that a broken one is found here and not by clients, and returns the leaf.
func parseLeaf(chain []byte) (*x509.Certificate, error) {
	if len(chain) > maxChain {
		return nil, fleet.NewError(fleet.ErrTooLarge, "chain", "certificate chain of %d bytes; the limit is %d", len(chain), maxChain)
	}
	var leaf *x509.Certificate
	for rest := chain; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fleet.Invalid("chain", "certificate chain holds a %q", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fleet.Invalid("chain", "certificate chain: %v", err)
		}
		if leaf == nil {
			leaf = c
		}
	}
	if leaf == nil {
		return nil, fleet.Invalid("chain", "certificate chain holds no certificate")
	}
	return leaf, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
