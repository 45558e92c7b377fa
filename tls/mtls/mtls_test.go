package mtls_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

const cluster fleet.ClusterID = "prod"

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newCA(t testing.TB, name string) *mtls.CA {
	t.Helper()
	return must[*mtls.CA](t)(mtls.NewCA(name, time.Now(), 10*365*24*time.Hour))
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	return must[*ecdsa.PrivateKey](t)(mtls.NewKey())
}

// source writes an identity for what sign returns and opens it.
func source(t testing.TB, sign func(pub crypto.PublicKey) ([]byte, error)) *mtls.Source {
	t.Helper()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write(t, cert, key, sign)
	return must[*mtls.Source](t)(mtls.OpenSource(cert, key))
}

// write signs and writes an identity and returns the certificate.
func write(t testing.TB, certFile, keyFile string, sign func(pub crypto.PublicKey) ([]byte, error)) []byte {
	t.Helper()
	k := newKey(t)
	cert := must[[]byte](t)(sign(k.Public()))
	if err := mtls.WriteIdentity(certFile, keyFile, cert, must[[]byte](t)(mtls.EncodeKey(k))); err != nil {
		t.Fatal(err)
	}
	return cert
}

func member(ca *mtls.CA, c fleet.ClusterID, now time.Time) func(crypto.PublicKey) ([]byte, error) {
	return func(pub crypto.PublicKey) ([]byte, error) { return ca.SignMember(c, "m1", pub, now) }
}

func node(ca *mtls.CA, c fleet.ClusterID, now time.Time) func(crypto.PublicKey) ([]byte, error) {
	return func(pub crypto.PublicKey) ([]byte, error) { return ca.SignNode(c, "n1", pub, now) }
}

func server(ca *mtls.CA, hosts ...string) func(crypto.PublicKey) ([]byte, error) {
	return func(pub crypto.PublicKey) ([]byte, error) {
		leaf, err := ca.SignServer(hosts, pub, time.Now())
		return mtls.ServerChain(leaf, ca.CertPEM()), err
	}
}

// connect makes one TLS connection over loopback and returns each side's error and what the server saw. The client
// reads a byte, since in TLS 1.3 it learns only then that it was refused.
func connect(t *testing.T, serverTLS, clientTLS *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer func() { _ = l.Close() }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer func() { _ = raw.Close() }()
		c := tls.Server(raw, serverTLS)
		if serverErr = c.HandshakeContext(ctx); serverErr == nil {
			state = c.ConnectionState()
			_, serverErr = c.Write([]byte{1})
		}
	}()
	raw := must[net.Conn](t)((&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String()))
	c := tls.Client(raw, clientTLS)
	if clientErr = c.HandshakeContext(ctx); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	_ = raw.Close()
	<-done
	return state, serverErr, clientErr
}

func TestMembersKnowEachOther(t *testing.T) {
	ca, now := newCA(t, "members"), time.Now()
	allow := mtls.MembersOnly(cluster)
	srv, cli := source(t, member(ca, cluster, now)), source(t, member(ca, cluster, now))
	state, serverErr, clientErr := connect(t, mtls.ServerTLS(srv, ca.Pool(), allow), mtls.ClientTLS(cli, ca.Pool(), mtls.MemberServerName(cluster), allow))
	if err := errors.Join(serverErr, clientErr); err != nil {
		t.Fatal(err)
	}
	got := must[fleet.Identity](t)(mtls.PeerIdentity(state))
	if diff := cmp.Diff(fleet.Identity{Cluster: cluster, Member: "m1"}, got); diff != "" {
		t.Error(diff)
	}
	if state.Version != tls.VersionTLS13 {
		t.Errorf("version %#x", state.Version)
	}
}

func TestServerRefuses(t *testing.T) {
	ca, nodes, now := newCA(t, "members"), newCA(t, "nodes"), time.Now()
	both := must[*x509.CertPool](t)(mtls.PoolFromPEM(ca.CertPEM(), nodes.CertPEM()))
	srv := source(t, member(ca, cluster, now))
	for name, tc := range map[string]struct {
		client *mtls.Source
		allow  mtls.Allow
		pool   *x509.CertPool
		want   string
	}{
		"a node where only members may come":    {source(t, node(nodes, cluster, now)), mtls.MembersOnly(cluster), both, "node n1 of cluster prod is not a member"},
		"a member of another cluster":           {source(t, member(ca, "other", now)), mtls.MembersOnly(cluster), both, "member m1 of cluster other is not a member of cluster prod"},
		"a node of another cluster":             {source(t, node(nodes, "other", now)), mtls.AnyOf(cluster), both, "does not belong to cluster prod"},
		"a certificate of another authority":    {source(t, member(newCA(t, "members"), cluster, now)), mtls.MembersOnly(cluster), both, "signed by unknown authority"},
		"a node's authority not in the pool":    {source(t, node(nodes, cluster, now)), mtls.AnyOf(cluster), ca.Pool(), "signed by unknown authority"},
		"an expired certificate":                {source(t, node(nodes, cluster, now.Add(-25*time.Hour))), mtls.AnyOf(cluster), both, "expired"},
		"a certificate that begins later":       {source(t, node(nodes, cluster, now.Add(time.Hour))), mtls.AnyOf(cluster), both, "not yet valid"},
		"a certificate without identity":        {source(t, bare(ca, now)), mtls.AnyOf(cluster), both, "0 URI names"},
		"a certificate with two identities":     {source(t, bare(ca, now, "spiffe://prod/member/m1", "spiffe://prod/member/m2")), mtls.AnyOf(cluster), both, "2 URI names"},
		"a certificate with a foreign identity": {source(t, bare(ca, now, "spiffe://prod/ns/default")), mtls.AnyOf(cluster), both, "neither a member nor a node"},
		"a server's certificate":                {source(t, server(ca, "localhost")), mtls.AnyOf(cluster), both, "incompatible key usage"},
		"a client without certificate":          {nil, mtls.AnyOf(cluster), both, "didn't provide a certificate"},
		"everyone without a pool":               {source(t, node(nodes, cluster, now)), mtls.AnyOf(cluster), nil, "signed by unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			_, serverErr, clientErr := connect(t, mtls.ServerTLS(srv, tc.pool, tc.allow), mtls.ClientTLS(tc.client, ca.Pool(), mtls.MemberServerName(cluster), nil))
			if serverErr == nil || clientErr == nil || !strings.Contains(serverErr.Error(), tc.want) {
				t.Errorf("got %v and %v, want %q", serverErr, clientErr, tc.want)
			}
		})
	}
}

func TestClientRefuses(t *testing.T) {
	ca, nodes, now := newCA(t, "members"), newCA(t, "nodes"), time.Now()
	both := must[*x509.CertPool](t)(mtls.PoolFromPEM(ca.CertPEM(), nodes.CertPEM()))
	cli := source(t, node(nodes, cluster, now))
	for name, tc := range map[string]struct {
		server *mtls.Source
		pool   *x509.CertPool
		want   string
	}{
		"a member of another cluster":      {source(t, member(ca, "other", now)), both, "not member.prod.edgefleet.internal"},
		"a server of another authority":    {source(t, member(newCA(t, "members"), cluster, now)), both, "signed by unknown authority"},
		"a node that listens":              {source(t, node(nodes, cluster, now)), both, "not valid for any names"},
		"an API listener":                  {source(t, server(ca, mtls.MemberServerName(cluster))), both, "0 URI names"},
		"every server without authorities": {source(t, member(ca, cluster, now)), nil, "signed by unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			serverTLS := mtls.ServerTLS(tc.server, nodes.Pool(), mtls.AnyOf(cluster))
			_, _, err := connect(t, serverTLS, mtls.ClientTLS(cli, tc.pool, mtls.MemberServerName(cluster), mtls.MembersOnly(cluster)))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestServerSpeaksOnlyTLS13(t *testing.T) {
	ca, now := newCA(t, "members"), time.Now()
	client := mtls.ClientTLS(source(t, member(ca, cluster, now)), ca.Pool(), mtls.MemberServerName(cluster), nil)
	client.MinVersion, client.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, _, err := connect(t, mtls.ServerTLS(source(t, member(ca, cluster, now)), ca.Pool(), mtls.AnyOf(cluster)), client); err == nil {
		t.Error("TLS 1.2 is spoken")
	}
}

func TestServerWithoutAllowPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	mtls.ServerTLS(nil, nil, nil)
}

func TestPeerWithoutCertificateIsUnauthenticated(t *testing.T) {
	if _, err := mtls.PeerIdentity(tls.ConnectionState{}); !errors.Is(err, fleet.ErrUnauthenticated) {
		t.Error(err)
	}
	unverified := tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
	if _, err := mtls.PeerIdentity(unverified); !errors.Is(err, fleet.ErrUnauthenticated) {
		t.Errorf("an unverified certificate counts: %v", err)
	}
}

func TestFirstContactIsPinned(t *testing.T) {
	api, other := newCA(t, "api"), newCA(t, "api")
	plain := func(src *mtls.Source) *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*src.Certificate()}}
	}
	forged := func(pub crypto.PublicKey) ([]byte, error) {
		leaf, err := other.SignServer([]string{"cp.example.com"}, pub, time.Now())
		return mtls.ServerChain(leaf, api.CertPEM()), err // shows the pinned authority, which did not sign the leaf
	}
	leafOnly := func(pub crypto.PublicKey) ([]byte, error) {
		return api.SignServer([]string{"cp.example.com"}, pub, time.Now())
	}
	expired := func(pub crypto.PublicKey) ([]byte, error) {
		leaf, err := api.SignServer([]string{"cp.example.com"}, pub, time.Now().Add(-366*24*time.Hour))
		return mtls.ServerChain(leaf, api.CertPEM()), err
	}
	clientOnly := func(pub crypto.PublicKey) ([]byte, error) {
		leaf, err := api.SignNode(cluster, "n1", pub, time.Now())
		return mtls.ServerChain(leaf, api.CertPEM()), err
	}
	for name, tc := range map[string]struct {
		sign func(crypto.PublicKey) ([]byte, error)
		dial string
		want string
	}{
		"accepts the pinned authority by name":    {server(api, "cp.example.com"), "cp.example.com", ""},
		"accepts the pinned authority by address": {server(api, "127.0.0.1"), "127.0.0.1", ""},
		"refuses another authority":               {server(other, "cp.example.com"), "cp.example.com", "did not show the certificate authority that the join token names"},
		"refuses a leaf of another authority":     {forged, "cp.example.com", "unknown authority"},
		"refuses a chain without the authority":   {leafOnly, "cp.example.com", "did not show the certificate authority"},
		"refuses another name":                    {server(api, "cp.example.com"), "evil.example.com", "not evil.example.com"},
		"refuses an expired leaf":                 {expired, "cp.example.com", "expired"},
		"refuses a leaf that is not for servers":  {clientOnly, "127.0.0.1", "incompatible key usage"},
	} {
		t.Run(name, func(t *testing.T) {
			client := mtls.PinnedTLS(api.Fingerprint())
			client.ServerName = tc.dial
			_, _, err := connect(t, plain(source(t, tc.sign)), client)
			if tc.want == "" && err != nil || tc.want != "" && (!errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// leaf parses the first certificate of b.
func leaf(t testing.TB, b []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatal("no PEM")
		return nil
	}
	return must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes))
}

func TestCertificatesSayWhatTheyAreFor(t *testing.T) {
	now, pub := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), newKey(t).Public()
	ca := must[*mtls.CA](t)(mtls.NewCA("ca", now, 10*365*24*time.Hour))
	type facts struct {
		URIs, Names, Addresses []string
		Usage                  []x509.ExtKeyUsage
		Life                   time.Duration
	}
	client, srv := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	for name, tc := range map[string]struct {
		cert []byte
		want facts
	}{
		"a node":   {must[[]byte](t)(ca.SignNode(cluster, "n1", pub, now)), facts{URIs: []string{"spiffe://prod/node/n1"}, Usage: []x509.ExtKeyUsage{client}, Life: 24 * time.Hour}},
		"a member": {must[[]byte](t)(ca.SignMember(cluster, "m1", pub, now)), facts{URIs: []string{"spiffe://prod/member/m1"}, Names: []string{"member.prod.edgefleet.internal"}, Usage: []x509.ExtKeyUsage{client, srv}, Life: 365 * 24 * time.Hour}},
		"an API":   {must[[]byte](t)(ca.SignServer([]string{"localhost", "cp.example.com", "127.0.0.1", "::1"}, pub, now)), facts{Names: []string{"localhost", "cp.example.com"}, Addresses: []string{"127.0.0.1", "::1"}, Usage: []x509.ExtKeyUsage{srv}, Life: 365 * 24 * time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			c := leaf(t, tc.cert)
			got := facts{Names: c.DNSNames, Usage: c.ExtKeyUsage, Life: c.NotAfter.Sub(now)}
			for _, u := range c.URIs {
				got.URIs = append(got.URIs, u.String())
			}
			for _, a := range c.IPAddresses {
				got.Addresses = append(got.Addresses, a.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if c.IsCA || !c.NotBefore.Equal(now.Add(-5*time.Minute)) || c.KeyUsage != x509.KeyUsageDigitalSignature {
				t.Errorf("ca %v, from %v, usage %v", c.IsCA, c.NotBefore, c.KeyUsage)
			}
		})
	}
}

func TestSigningRefuses(t *testing.T) {
	ca, now, pub := newCA(t, "ca"), time.Now(), newKey(t).Public()
	for name, sign := range map[string]func() ([]byte, error){
		"a node id that is none":       func() ([]byte, error) { return ca.SignNode(cluster, "n/1", pub, now) },
		"a member id that is none":     func() ([]byte, error) { return ca.SignMember(cluster, "", pub, now) },
		"a cluster id that is none":    func() ([]byte, error) { return ca.SignNode("prod/node", "n1", pub, now) },
		"no hosts":                     func() ([]byte, error) { return ca.SignServer(nil, pub, now) },
		"too many hosts":               func() ([]byte, error) { return ca.SignServer(slices.Repeat([]string{"a"}, 65), pub, now) },
		"a host that is a wildcard":    func() ([]byte, error) { return ca.SignServer([]string{"*.example.com"}, pub, now) },
		"a host with a port":           func() ([]byte, error) { return ca.SignServer([]string{"127.0.0.1:80"}, pub, now) },
		"a key type that we do not do": func() ([]byte, error) { return ca.SignNode(cluster, "n1", "key", now) },
	} {
		if _, err := sign(); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNothingOutlivesItsAuthority(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	ca := must[*mtls.CA](t)(mtls.NewCA("short", now, time.Hour))
	c := leaf(t, must[[]byte](t)(ca.SignNode(cluster, "n1", newKey(t).Public(), now)))
	if !c.NotAfter.Equal(ca.NotAfter()) {
		t.Errorf("ends at %v, its authority at %v", c.NotAfter, ca.NotAfter())
	}
	if _, err := ca.SignNode(cluster, "n1", newKey(t).Public(), now.Add(time.Hour)); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("an ended authority signs: %v", err)
	}
}

func TestAuthorityComesBackFromItsParts(t *testing.T) {
	ca, other := newCA(t, "members"), newCA(t, "other")
	again := must[*mtls.CA](t)(mtls.LoadCA(ca.CertPEM(), ca.KeyDER()))
	if again.Fingerprint() != ca.Fingerprint() || len(ca.Fingerprint()) != 64 {
		t.Errorf("%s and %s", again.Fingerprint(), ca.Fingerprint())
	}
	c := leaf(t, must[[]byte](t)(again.SignNode(cluster, "n1", newKey(t).Public(), time.Now())))
	if _, err := c.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	leafKey := newKey(t)
	leafDER := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(leafKey))
	leafCert := must[[]byte](t)(ca.SignNode(cluster, "n1", leafKey.Public(), time.Now()))
	for name, parts := range map[string][2][]byte{
		"another key":        {ca.CertPEM(), other.KeyDER()},
		"no key":             {ca.CertPEM(), nil},
		"a leaf":             {leafCert, leafDER},
		"no certificate":     {nil, ca.KeyDER()},
		"two certificates":   {mtls.ServerChain(ca.CertPEM(), other.CertPEM()), ca.KeyDER()},
		"a huge certificate": {append(ca.CertPEM(), make([]byte, 1<<20)...), ca.KeyDER()},
	} {
		if _, err := mtls.LoadCA(parts[0], parts[1]); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
