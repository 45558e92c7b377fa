// Package mtls is the identity of members and nodes: the private certificate authorities, the keys and signing requests
// they sign, and the TLS configurations that accept exactly the identities that a listener or a client means.
//
// An identity is one SPIFFE ID in a URI SAN (fleet.ParseSPIFFE). Addresses are never verified: members answer to
// MemberServerName. The package keeps no registry of issued or revoked certificates (the replicated state does), asks no
// network, and takes every time of issue as an argument. Identity files may be replaced while a process runs; while
// they cannot be read, the last good ones stay in use.
package mtls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	nodeLife   = 24 * time.Hour
	memberLife = 365 * 24 * time.Hour
	serverLife = 365 * 24 * time.Hour
	// backdate lets a certificate be used at once by hosts whose clocks are a little behind.
	backdate = 5 * time.Minute
	// maxServerHosts bounds the names and addresses of one API listener.
	maxServerHosts = 64
)

// CA is one private certificate authority with its key. Members, nodes and the API have one each, so that a
// certificate of one kind is never good for another.
type CA struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	keyDER []byte
}

// NewCA makes a self-signed authority.
func NewCA(name string, now time.Time, life time.Duration) (*CA, error) {
	key, err := NewKey()
	if err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name, Organization: []string{"Edgefleet"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	return newCA(cert, key)
}

// LoadCA restores an authority from what CertPEM and KeyDER gave.
func LoadCA(certPEM, keyDER []byte) (*CA, error) {
	cert, err := parseCertificate(certPEM)
	if err != nil {
		return nil, fmt.Errorf("load certificate authority: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, fleet.NewError(fleet.ErrCorrupt, "ca", "the key of the certificate authority %s is not PKCS #8", cert.Subject.CommonName)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fleet.NewError(fleet.ErrCorrupt, "ca", "the key of the certificate authority %s does not belong to its certificate", cert.Subject.CommonName)
	}
	if !cert.IsCA {
		return nil, fleet.NewError(fleet.ErrCorrupt, "ca", "the certificate %s is not a certificate authority", cert.Subject.CommonName)
	}
	return newCA(cert, key)
}

func newCA(cert *x509.Certificate, key *ecdsa.PrivateKey) (*CA, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key of certificate authority: %w", err)
	}
	return &CA{cert: cert, key: key, keyDER: der}, nil
}

// CertPEM is the authority's certificate.
func (c *CA) CertPEM() []byte { return encodeCertificate(c.cert.Raw) }

// KeyDER is the private key as PKCS #8: a secret, to be sealed before it goes anywhere.
func (c *CA) KeyDER() []byte { return bytes.Clone(c.keyDER) }

// Pool holds this authority alone.
func (c *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

// Fingerprint is the SHA-256 of the certificate, hex: what join tokens pin.
func (c *CA) Fingerprint() string { return fingerprint(c.cert) }

// NotAfter is when the authority ends, and with it everything that it signed.
func (c *CA) NotAfter() time.Time { return c.cert.NotAfter }

// String names the authority and hides the key.
func (c *CA) String() string { return "certificate authority " + c.cert.Subject.CommonName }

// GoString does the same for %#v.
func (c *CA) GoString() string { return c.String() }

// SignNode issues a node's certificate: for clients only, valid for 24 hours.
func (c *CA) SignNode(cluster fleet.ClusterID, n fleet.NodeID, pub crypto.PublicKey, now time.Time) ([]byte, error) {
	if err := fleet.ValidateID("node", n); err != nil {
		return nil, err
	}
	return c.signIdentity(cluster, fleet.NodeSPIFFE(cluster, n), pub, now, &x509.Certificate{
		Subject:     pkix.Name{CommonName: string(n)},
		NotAfter:    now.Add(nodeLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// SignMember issues a member's certificate: for client and server, valid for a year.
func (c *CA) SignMember(cluster fleet.ClusterID, m fleet.MemberID, pub crypto.PublicKey, now time.Time) ([]byte, error) {
	return c.SignJoined(cluster, m, "", pub, now)
}

// SignJoined is SignMember for a member that came by a join token, which the certificate names: another member that has
// the id later is told apart by it.
func (c *CA) SignJoined(cluster fleet.ClusterID, m fleet.MemberID, join fleet.TokenID, pub crypto.PublicKey, now time.Time) ([]byte, error) {
	if err := fleet.ValidateID("member", m); err != nil {
		return nil, err
	}
	return c.signIdentity(cluster, fleet.MemberSPIFFE(cluster, m), pub, now, &x509.Certificate{
		Subject:     pkix.Name{CommonName: string(m), SerialNumber: string(join)},
		NotAfter:    now.Add(memberLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{MemberServerName(cluster)},
	})
}

// SignServer issues the certificate of an API listener for the given names and addresses, valid for a year.
func (c *CA) SignServer(hosts []string, pub crypto.PublicKey, now time.Time) ([]byte, error) {
	if len(hosts) == 0 || len(hosts) > maxServerHosts {
		return nil, fleet.Invalid("hosts", "%d names for the API's certificate: give 1 to %d", len(hosts), maxServerHosts)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "edgefleet api"},
		NotAfter:    now.Add(serverLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if a, err := netip.ParseAddr(h); err == nil {
			template.IPAddresses = append(template.IPAddresses, a.Unmap().WithZone("").AsSlice())
		} else if validDNSName(h) {
			template.DNSNames = append(template.DNSNames, h)
		} else {
			return nil, fleet.Invalid("hosts", "%q is neither a DNS name nor an IP address", h)
		}
	}
	return c.sign(template, pub, now)
}

// MemberServerName is the name in every member's certificate; clients verify it instead of addresses, which change.
func MemberServerName(c fleet.ClusterID) string {
	return "member." + string(c) + ".edgefleet.internal"
}

func (c *CA) signIdentity(cluster fleet.ClusterID, spiffe string, pub crypto.PublicKey, now time.Time, template *x509.Certificate) ([]byte, error) {
	if err := fleet.ValidateID("cluster", cluster); err != nil {
		return nil, err
	}
	id, err := url.Parse(spiffe)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	template.URIs = []*url.URL{id}
	return c.sign(template, pub, now)
}

// sign fills in what all leaves share. A leaf never outlives its authority: it would only fail later, and nowhere near
// its cause.
func (c *CA) sign(template *x509.Certificate, pub crypto.PublicKey, now time.Time) ([]byte, error) {
	if err := checkKey(pub); err != nil {
		return nil, err
	}
	if !now.Before(c.cert.NotAfter) {
		return nil, fleet.NewError(fleet.ErrUnavailable, "ca", "%s ended at %s and signs nothing more: rotate it", c, c.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	template.NotBefore = now.Add(-backdate)
	if template.NotAfter.After(c.cert.NotAfter) {
		template.NotAfter = c.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, pub, c.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return encodeCertificate(der), nil
}

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}
