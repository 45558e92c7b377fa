package mtls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// SignRenewal makes a node's request for a certificate for the key of csr, signed by the key of its last certificate.
func SignRenewal(last *tls.Certificate, cluster fleet.ClusterID, node fleet.NodeID, csr []byte, now time.Time) (fleet.RenewRequest, error) {
	key, ok := last.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return fleet.RenewRequest{}, fleet.NewError(fleet.ErrCorrupt, "identity", "the stored key is a %T", last.PrivateKey)
	}
	r := fleet.RenewRequest{Node: node, CSR: string(csr), Certificate: string(encodeCertificate(last.Certificate[0])), Sent: now.UTC()}
	sum := sha256.Sum256(r.Statement(cluster))
	var err error
	if r.Signature, err = ecdsa.SignASN1(rand.Reader, key, sum[:]); err != nil {
		return fleet.RenewRequest{}, fmt.Errorf("sign renewal: %w", err)
	}
	return r, nil
}

// Renewal is a request whose sender has proved to hold both keys.
type Renewal struct {
	// Last is the SPKI of the key that signed, Next of the one that is to be certified.
	Last, Next string
	Public     crypto.PublicKey
}

// VerifyRenewal holds a request against the authority of nodes: its certificate, which may have ended, was issued to that
// node, its key signed the request, and the new key signed the signing request. Whether the key is the node's last one is
// for the state to say. What is wrong with the proof is fleet.ErrUnauthenticated, all alike.
func VerifyRenewal(cluster fleet.ClusterID, nodeCA string, r fleet.RenewRequest) (Renewal, error) {
	leaf, err := parseCertificate([]byte(r.Certificate))
	if err != nil {
		return Renewal{}, err
	}
	if !issued(leaf, nodeCA, fleet.Identity{Cluster: cluster, Node: r.Node}) || !signed(leaf.PublicKey, r.Statement(cluster), r.Signature) {
		return Renewal{}, fleet.NewError(fleet.ErrUnauthenticated, "signature", "the renewal is not signed by a key that this cluster certified for node %s: enrol the machine with the token of `fleetctl node join-token`", r.Node)
	}
	next, err := ParseCSR([]byte(r.CSR))
	if err != nil {
		return Renewal{}, err
	}
	out := Renewal{Public: next}
	if out.Last, err = SPKI(leaf.PublicKey); err != nil {
		return Renewal{}, err
	}
	out.Next, err = SPKI(next)
	return out, err
}

// issued reports whether ca certified leaf for that identity, some time.
func issued(leaf *x509.Certificate, ca string, id fleet.Identity) bool {
	authority, err := parseCertificate([]byte(ca))
	if err != nil || checkKey(leaf.PublicKey) != nil || len(leaf.URIs) != 1 || leaf.CheckSignatureFrom(authority) != nil {
		return false
	}
	named, err := fleet.ParseSPIFFE(leaf.URIs[0].String())
	return err == nil && named == id
}

func signed(pub crypto.PublicKey, message, signature []byte) bool {
	sum := sha256.Sum256(message)
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, sum[:], signature)
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, signature)
	}
	return false
}
