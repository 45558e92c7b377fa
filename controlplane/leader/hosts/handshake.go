package hosts

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// handshakeTimeout bounds one handshake.
	handshakeTimeout = 5 * time.Second
	// handshakeEdges is through how many edges a certificate is verified: more than one, and not a whole fleet.
	handshakeEdges = 4
)

// NewHandshake verifies certificates by handshakes with port of the edges. roots are the CA's; nil means the system's.
func NewHandshake(roots *x509.CertPool, port uint16) func(context.Context, fleet.HostName, string, []netip.Addr) error {
	return func(ctx context.Context, host fleet.HostName, spki string, edges []netip.Addr) error {
		for _, a := range edges[:min(len(edges), handshakeEdges)] {
			if err := handshake(ctx, host, spki, netip.AddrPortFrom(a, port), roots); err != nil {
				return fmt.Errorf("edge %s: %w", a, err)
			}
		}
		return nil
	}
}

func handshake(ctx context.Context, host fleet.HostName, spki string, edge netip.AddrPort, roots *x509.CertPool) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{ServerName: string(host.Probe()), RootCAs: roots, MinVersion: tls.VersionTLS12}}
	conn, err := d.DialContext(ctx, "tcp", edge.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing was sent
	tc, ok := conn.(*tls.Conn)
	if !ok {
		return fmt.Errorf("connection of type %T", conn)
	}
	sum := sha256.Sum256(tc.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	if hex.EncodeToString(sum[:]) != spki {
		return fleet.NewError(fleet.ErrStale, "certificate", "it shows another certificate for %s", host)
	}
	return nil
}
