// Package alpn answers ACME's TLS-ALPN-01 challenges (RFC 8737): it makes the certificate that shows a CA the answer, and
// tells the CA's handshake from all others. Which names have an answer is the caller's; nothing is kept here, and nothing
// else is asked, so that it works for as long as the edge has its configuration.
package alpn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Protocol is what a CA negotiates to see an answer, and nobody else does.
const Protocol = "acme-tls/1"

// life is how long a validation certificate is valid; CAs do not look at that.
const life = 24 * time.Hour

// identifier is id-pe-acmeIdentifier.
var identifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// Asked reports whether a handshake is that of a CA: it offers the protocol and no other.
func Asked(h *tls.ClientHelloInfo) bool {
	return len(h.SupportedProtos) == 1 && h.SupportedProtos[0] == Protocol
}

// Certificate makes the validation certificate of a name from the key authorization: self-signed, with a key that is used
// for nothing else and stays in memory.
func Certificate(host fleet.HostName, keyAuthorization string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of the validation certificate of %s: %w", host, err)
	}
	digest := sha256.Sum256([]byte(keyAuthorization))
	value, err := asn1.Marshal(digest[:])
	if err != nil {
		return nil, fmt.Errorf("encode answer for %s: %w", host, err)
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ACME challenge"}, DNSNames: []string{string(host)},
		NotBefore: now.Add(-life), NotAfter: now.Add(life), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: identifier, Critical: true, Value: value}},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make validation certificate of %s: %w", host, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Config is a handshake that shows c to the CA and ends.
func Config(c *tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{Protocol}, Certificates: []tls.Certificate{*c}, SessionTicketsDisabled: true}
}
