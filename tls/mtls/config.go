package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/edgefleet/edgefleet/fleet"
)

// Allow decides whether an authenticated peer may connect; its error, fleet.ErrDenied, ends the handshake.
type Allow func(fleet.Identity) error

// MembersOnly admits the members of one cluster and no node.
func MembersOnly(c fleet.ClusterID) Allow {
	return func(id fleet.Identity) error {
		if id.Cluster == c && id.Member != "" {
			return nil
		}
		return fleet.NewError(fleet.ErrDenied, "identity", "%s is not a member of cluster %s", describe(id), c)
	}
}

// AnyOf admits the members and nodes of one cluster.
func AnyOf(c fleet.ClusterID) Allow {
	return func(id fleet.Identity) error {
		if id.Cluster == c && (id.Member != "" || id.Node != "") {
			return nil
		}
		return fleet.NewError(fleet.ErrDenied, "identity", "%s does not belong to cluster %s", describe(id), c)
	}
}

func describe(id fleet.Identity) string {
	switch {
	case id.Member != "":
		return fmt.Sprintf("member %s of cluster %s", id.Member, id.Cluster)
	case id.Node != "":
		return fmt.Sprintf("node %s of cluster %s", id.Node, id.Cluster)
	}
	return "a peer without identity"
}

// ServerTLS accepts peers whose certificate an authority in clients signed for client use and whose identity allow
// admits. TLS 1.3 only; no session tickets, so that every connection proves its identity anew. allow must not be
// nil.
func ServerTLS(src *Source, clients *x509.CertPool, allow Allow) *tls.Config {
	if allow == nil {
		panic("mtls: ServerTLS without Allow")
	}
	if clients == nil {
		clients = x509.NewCertPool() // nil would mean the system's authorities
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              clients,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return src.Certificate(), nil
		},
		VerifyConnection: verifier(allow),
	}
}

// ClientTLS accepts a server whose certificate an authority in servers signed for serverName and, if allow is not nil,
// whose identity allow admits: API listeners have a name and no identity, members have both. A nil src sends no client
// certificate. With an empty serverName, crypto/tls verifies the host that is dialled.
func ClientTLS(src *Source, servers *x509.CertPool, serverName string, allow Allow) *tls.Config {
	if servers == nil {
		servers = x509.NewCertPool() // nil would mean the system's authorities
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: servers, ServerName: serverName}
	if src != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return src.Certificate(), nil
		}
	}
	if allow != nil {
		c.VerifyConnection = verifier(allow)
	}
	return c
}

func verifier(allow Allow) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		id, err := PeerIdentity(cs)
		if err != nil {
			return err
		}
		return allow(id)
	}
}

// PeerIdentity is who is at the other end of a connection, by its verified certificate: fleet.ErrUnauthenticated if it
// sent none, fleet.ErrDenied if the certificate names no identity of a cluster.
func PeerIdentity(cs tls.ConnectionState) (fleet.Identity, error) {
	if len(cs.VerifiedChains) == 0 || len(cs.VerifiedChains[0]) == 0 {
		return fleet.Identity{}, fleet.NewError(fleet.ErrUnauthenticated, "certificate", "the peer showed no certificate of this cluster's authorities")
	}
	leaf := cs.VerifiedChains[0][0]
	// X.509-SVID, section 2: exactly one URI SAN. More would let a reader pick the one it likes.
	if len(leaf.URIs) != 1 {
		return fleet.Identity{}, fleet.NewError(fleet.ErrDenied, "certificate", "the certificate of %q has %d URI names; an identity has exactly one", leaf.Subject.CommonName, len(leaf.URIs))
	}
	id, err := fleet.ParseSPIFFE(leaf.URIs[0].String())
	if id.Member != "" {
		id.Join = fleet.TokenID(leaf.Subject.SerialNumber)
	}
	return id, err
}

// PinnedTLS is for first contact, when a newcomer knows its control plane only by the fingerprint in its join token:
// it accepts a server that sends an authority with exactly this fingerprint and a leaf that this authority signed for
// server use. A DNS name that was dialled is verified too. When an IP address is dialled, crypto/tls does not pass it on,
// so that any API listener of the pinned authority is accepted: that authority signs nothing else.
func PinnedTLS(fingerprint string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The usual verification needs the authority itself; VerifyConnection takes its place and always runs.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return verifyPinned(cs, fingerprint)
		},
	}
}

func verifyPinned(cs tls.ConnectionState, pin string) error {
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, cert := range cs.PeerCertificates {
		if cert.IsCA && fingerprint(cert) == pin {
			roots.AddCert(cert)
			found = true
		} else {
			intermediates.AddCert(cert)
		}
	}
	if !found {
		return fleet.NewError(fleet.ErrDenied, "token", "the server did not show the certificate authority that the join token names: check the address, or get a new token from this cluster")
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: cs.ServerName})
	if err != nil {
		return fmt.Errorf("%w: the server's certificate is not good for the pinned certificate authority: %w", fleet.ErrDenied, err)
	}
	return nil
}
