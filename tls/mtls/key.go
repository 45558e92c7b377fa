package mtls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	pemCertificate = "CERTIFICATE"
	pemRequest     = "CERTIFICATE REQUEST"
	pemKey         = "PRIVATE KEY"
	// maxPEM bounds one certificate or request; ours have less than 1 KiB.
	maxPEM = 16 << 10
)

// NewKey makes an ECDSA P-256 key.
func NewKey() (*ecdsa.PrivateKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return k, nil
}

// EncodeKey is the private key as PKCS #8 in PEM.
func EncodeKey(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// ParseKey reads what EncodeKey wrote.
func ParseKey(b []byte) (*ecdsa.PrivateKey, error) {
	der, err := onePEM(b, pemKey)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, fleet.NewError(fleet.ErrCorrupt, "identity", "the stored key is damaged, or of another type than ECDSA")
	}
	return key, nil
}

// CSR is a signing request for k in PEM. It names nothing: the signer decides what the certificate says and takes only
// the public key.
func CSR(k crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		return nil, fmt.Errorf("make signing request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemRequest, Bytes: der}), nil
}

// ParseCSR returns the public key of a signing request whose sender has proved to hold the private key. Everything else
// that the request asks for is ignored.
func ParseCSR(b []byte) (crypto.PublicKey, error) {
	der, err := onePEM(b, pemRequest)
	if err != nil {
		return nil, err
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fleet.Invalid("csr", "the signing request is malformed: %v", err)
	}
	// The key comes first: a signature by a huge RSA key would be a way to keep us busy.
	if err := checkKey(r.PublicKey); err != nil {
		return nil, err
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fleet.Invalid("csr", "the signing request is not signed by its own key")
	}
	return r.PublicKey, nil
}

// SPKI is the SHA-256 of the subject public key info, hex.
func SPKI(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// PoolFromPEM trusts exactly the given certificates; each argument holds one or more.
func PoolFromPEM(certs ...[]byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for i, b := range certs {
		rest := b
		found := 0
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if block.Type != pemCertificate || err != nil {
				return nil, fleet.Invalid("ca", "block %d of trust bundle %d is not a certificate", found+1, i+1)
			}
			pool.AddCert(cert)
			found++
		}
		if found == 0 || len(bytes.TrimSpace(rest)) > 0 {
			return nil, fleet.Invalid("ca", "trust bundle %d holds something else than certificates in PEM, or none", i+1)
		}
	}
	return pool, nil
}

// ServerChain is a leaf followed by its authority. API listeners send both, so that PinnedTLS finds the authority.
func ServerChain(leafPEM, caPEM []byte) []byte {
	chain := append(bytes.TrimSpace(bytes.Clone(leafPEM)), '\n')
	return append(append(chain, bytes.TrimSpace(caPEM)...), '\n')
}

// checkKey accepts the key types whose signatures are cheap to check and strong enough.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return fleet.Invalid("csr", "a key of this type is not accepted: use ECDSA P-256, ECDSA P-384 or Ed25519")
}

func parseCertificate(b []byte) (*x509.Certificate, error) {
	der, err := onePEM(b, pemCertificate)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fleet.Invalid("certificate", "the certificate is malformed: %v", err)
	}
	return cert, nil
}

// onePEM decodes exactly one block of the given type.
func onePEM(b []byte, kind string) ([]byte, error) {
	what := strings.ToLower(kind)
	if len(b) > maxPEM {
		return nil, fleet.NewError(fleet.ErrTooLarge, "pem", "a %s of %d bytes; the limit is %d", what, len(b), maxPEM)
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != kind || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fleet.Invalid("pem", "expected exactly one %s in PEM", what)
	}
	return block.Bytes, nil
}

// validDNSName accepts lower-case names of one or more labels, localhost included.
func validDNSName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for l := range strings.SplitSeq(s, ".") {
		if fleet.ValidateID("label", l) != nil {
			return false
		}
	}
	return true
}
