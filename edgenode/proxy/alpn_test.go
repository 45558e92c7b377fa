package proxy_test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/asn1"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/alpn"
)

func TestACertificateAuthorityIsShownTheAnswerInAHandshakeAndNobodyElseIs(t *testing.T) {
	e := newEdge(t, nil)
	cert, err := alpn.Certificate("new.example.com", "tok.print")
	if err != nil {
		t.Fatal(err)
	}
	next := *e.snapshot.Load()
	next.Validations = map[fleet.HostName]*tls.Certificate{"new.example.com": cert}
	e.snapshot.Store(&next)
	ask := func(name string, protos ...string) (tls.ConnectionState, error) {
		c, err := tls.Dial("tcp", e.https.Addr().String(), &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protos}) //nolint:noctx // loopback
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState(), nil
	}
	s, err := ask("new.example.com", alpn.Protocol)
	if err != nil || s.NegotiatedProtocol != alpn.Protocol {
		t.Fatalf("%q, %v", s.NegotiatedProtocol, err)
	}
	want, _ := asn1.Marshal(func() []byte { d := sha256.Sum256([]byte("tok.print")); return d[:] }())
	leaf := s.PeerCertificates[0]
	found := false
	for _, x := range leaf.Extensions {
		if x.Id.String() == "1.3.6.1.5.5.7.1.31" {
			found = x.Critical && string(x.Value) == string(want)
		}
	}
	if !found || len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "new.example.com" {
		t.Errorf("names %v, the answer is there: %v", leaf.DNSNames, found)
	}
	for _, tc := range []struct {
		name   string
		server string
		protos []string
	}{
		{"a name that the edge was not given", "other.example.org", []string{alpn.Protocol}},
		{"a name that is served, and has no challenge", hostName, []string{alpn.Protocol}},
		{"a visitor of a name that is not served yet", "new.example.com", []string{"h2", "http/1.1"}},
		{"a visitor that offers the protocol among others", "new.example.com", []string{"h2", alpn.Protocol}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if s, err := ask(tc.server, tc.protos...); err == nil {
				t.Errorf("a handshake by %q", s.NegotiatedProtocol)
			}
		})
	}
	// A host that is served is served as ever to those who do not ask as a CA.
	if s, err := ask(hostName, "h2", alpn.Protocol); err != nil || s.NegotiatedProtocol != "h2" {
		t.Errorf("%q, %v", s.NegotiatedProtocol, err)
	}
}
