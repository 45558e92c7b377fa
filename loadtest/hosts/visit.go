package hosts

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// visitLimit bounds one visit.
const visitLimit = 5 * time.Second

// visit makes one request of a host through a node, as a browser would whose DNS answered with that node: the certificate
// has to verify, and the answer has to be the origin's.
func visit(ctx context.Context, address string, host fleet.HostName, roots *x509.CertPool) error {
	ctx, cancel := context.WithTimeout(ctx, visitLimit)
	defer cancel()
	conn, err := dial(ctx, address, &tls.Config{ServerName: string(host), RootCAs: roots, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}, NextProtos: []string{"http/1.1"}})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return request(conn, host)
}

// dial connects and makes the handshake.
func dial(ctx context.Context, address string, config *tls.Config) (*tls.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(visitLimit))
}

// request makes one request and wants the origin's answer.
func request(conn net.Conn, host fleet.HostName) error {
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nUser-Agent: loadtest\r\nAccept: */*\r\nConnection: close\r\n\r\n", host); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		return fleet.NewError(fleet.ErrUnavailable, "visit", "%s answered %s, wanted the origin's 204", host, res.Status)
	}
	return nil
}
