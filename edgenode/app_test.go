package edgenode_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode"
	"github.com/edgefleet/edgefleet/edgenode/identity"
	"github.com/edgefleet/edgefleet/edgenode/settings"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

const (
	node    fleet.NodeID    = "edge-1"
	cluster fleet.ClusterID = "c1"
	site    fleet.HostName  = "api.example.com"
)

// plane is a control plane that answers polls and blobs by HTTPS.
type plane struct {
	t     *testing.T
	set   fleet.HeadSet
	blobs map[fleet.Digest][]byte
	roots *x509.CertPool
	id    *identity.Identity
	// leaves receives when a worker reports that nobody should be sent to it, once.
	leaves chan struct{}
	*httptest.Server
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newPlane makes a node's identity below dir and heads that send the site to origin.
func newPlane(t *testing.T, dir, origin string) *plane {
	t.Helper()
	p := &plane{t: t, blobs: map[fleet.Digest][]byte{}, roots: x509.NewCertPool(), leaves: make(chan struct{}, 1)}
	nodes, api := must[*mtls.CA](t)(mtls.NewCA("nodes", time.Now(), time.Hour)), must[*mtls.CA](t)(mtls.NewCA("api", time.Now(), time.Hour))
	public, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := must[identity.Keys](t)(identity.NewKeys(dir))
	p.serve(api, nodes)
	block, _ := pem.Decode(keys.KeyPEM)
	key := must[any](t)(x509.ParsePKCS8PrivateKey(block.Bytes)).(*ecdsa.PrivateKey)
	cert := must[[]byte](t)(nodes.SignNode(cluster, node, key.Public(), time.Now()))
	err = identity.Save(dir, keys, fleet.EnrolResponse{
		Node: node, Group: "default", Region: "default", Cluster: cluster, Incarnation: 1, Certificate: string(cert),
		MemberCA: string(api.CertPEM()), APICA: string(api.CertPEM()), HeadKeys: [][]byte{public},
		Members: []fleet.Endpoints{{Member: "m1", API: p.Listener.Addr().String()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.id = must[*identity.Identity](t)(identity.Open(dir))
	group := must[keyring.GroupKey](t)(keyring.DeriveGroupKey(bytes.Repeat([]byte{7}, 32), "default", 1))
	envelope := must[fleet.KeyEnvelope](t)(group.SealTo(node, keys.HPKEPublic))
	p.set.Envelope = &envelope
	p.head(signer, fleet.HeadCerts, fleet.CertsBundle{Tenant: "acme", Certificates: []fleet.BundleCert{p.certificate(group)}})
	p.head(signer, fleet.HeadConfig, fleet.ConfigBundle{
		Tenant: "acme", AllowedOrigins: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Hosts: []fleet.HostConfig{{Name: site, Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: origin}}}},
	})
	return p
}

func (p *plane) serve(api, nodes *mtls.CA) {
	key := must[*ecdsa.PrivateKey](p.t)(mtls.NewKey())
	leaf := must[[]byte](p.t)(api.SignServer([]string{"127.0.0.1"}, key.Public(), time.Now()))
	pair := must[tls.Certificate](p.t)(tls.X509KeyPair(leaf, must[[]byte](p.t)(mtls.EncodeKey(key))))
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/edge/poll" {
			var asked fleet.Report
			if err := json.NewDecoder(r.Body).Decode(&asked); err == nil && !asked.Serving {
				select {
				case p.leaves <- struct{}{}:
				default:
				}
			}
			_ = json.NewEncoder(rw).Encode(p.set)
			return
		}
		_, _ = rw.Write(p.blobs[fleet.Digest(strings.TrimPrefix(r.URL.Path, "/v1/edge/blobs/"))])
	}))
	p.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: nodes.Pool()}
	p.StartTLS()
	p.t.Cleanup(p.Close)
}

func (p *plane) head(key ed25519.PrivateKey, kind fleet.HeadKind, b any) {
	p.t.Helper()
	raw := must[[]byte](p.t)(json.Marshal(b))
	tree := must[bundle.Tree](p.t)(bundle.Build(map[fleet.TenantID][]byte{"acme": raw}))
	maps.Copy(p.blobs, tree.Blobs)
	h := head.Head{Group: "default", Kind: kind, Version: fleet.Version{Incarnation: 1, Generation: 1}, Root: tree.Root}
	p.set.Heads = append(p.set.Heads, must[fleet.SignedHead](p.t)(head.Sign(h, key)))
}

// certificate makes the site's certificate, self-signed.
func (p *plane) certificate(group keyring.GroupKey) fleet.BundleCert {
	p.t.Helper()
	key := must[*ecdsa.PrivateKey](p.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{string(site)}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der := must[[]byte](p.t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	cert := must[*x509.Certificate](p.t)(x509.ParseCertificate(der))
	p.roots.AddCert(cert)
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	spki := hex.EncodeToString(sum[:])
	private := must[[]byte](p.t)(x509.MarshalPKCS8PrivateKey(key))
	sealed := must[fleet.Sealed](p.t)(group.Seal(private, keyring.CertKeyAAD("acme", site, spki, 1)))
	return fleet.BundleCert{Host: site, Generation: 1, SPKI: spki, Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), Key: sealed}
}

// running is a worker in this process.
type running struct {
	t            *testing.T
	roots        *x509.CertPool
	https, admin string
	// stop drains at once, leave asks the worker to stop.
	stop, leave context.CancelFunc
	done        chan error
}

func (p *plane) worker(dir string) *running {
	p.t.Helper()
	listen := func() net.Listener { return must[net.Listener](p.t)(net.Listen("tcp", "127.0.0.1:0")) }
	https, plain, admin := listen(), listen(), listen()
	s := settings.Settings{
		DataDir: dir, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, ControlPlane: []string{p.Listener.Addr().String()},
		PollInterval: time.Second, HeartbeatInterval: time.Second, DrainTimeout: 10 * time.Second, LeaveDNS: time.Hour, WAF: settings.WAF{Paranoia: 1, BodyLimit: 128 << 10},
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	asked, leave := context.WithCancel(p.t.Context())
	r := &running{t: p.t, roots: p.roots, https: https.Addr().String(), admin: admin.Addr().String(), stop: cancel, leave: leave, done: make(chan error, 1)}
	ready := make(chan struct{})
	go func() {
		r.done <- edgenode.Run(ctx, edgenode.Options{
			Settings: s, Identity: p.id, HTTPS: https, HTTP: plain, Admin: admin, Boot: "b1", Stop: asked.Done(), Telemetry: observability.Discard(),
			Ready: func() error { close(ready); return nil },
		})
	}()
	select {
	case <-ready:
	case err := <-r.done:
		p.t.Fatal(err)
	case <-time.After(60 * time.Second):
		p.t.Fatal("the worker is not ready")
	}
	return r
}

// get asks the site for a path and returns the status and body.
func (r *running) get(path string) (int, string, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: r.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, r.https)
		},
	}}
	return fetch(r.t, client, "https://"+string(site)+path)
}

func fetch(t *testing.T, client *http.Client, url string) (int, string, error) {
	req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil))
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// converges waits until the worker serves the site.
func (r *running) converges() {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		if status, body, err := r.get("/hello"); err == nil && status == http.StatusOK && body == "origin saw /hello" {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("the worker does not converge")
		}
		<-time.After(50 * time.Millisecond)
	}
}

func TestAWorkerConvergesFiltersAndServesAgainWithoutTheControlPlane(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(rw, "origin saw ", r.URL.Path) }))
	t.Cleanup(origin.Close)
	dir := t.TempDir()
	p := newPlane(t, filepath.Join(dir, "identity"), origin.URL)
	w := p.worker(dir)
	w.converges()
	if status, _, err := w.get("/?id=1%27%20UNION%20SELECT%20password%20FROM%20users--%20"); err != nil || status != http.StatusForbidden {
		t.Errorf("an attack: %d, %v", status, err)
	}
	if status, body, err := fetch(t, http.DefaultClient, "http://"+w.admin+"/metrics"); err != nil || status != http.StatusOK || !strings.Contains(body, "edgefleet_node_head_generation") {
		t.Errorf("metrics: %d, %v", status, err)
	} else if err := observability.CheckExposition(strings.NewReader(body)); err != nil {
		t.Error(err)
	}
	w.stop()
	if err := <-w.done; err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.get("/"); err == nil {
		t.Error("a stopped worker answers")
	}
	p.Close()
	w = p.worker(dir)
	if status, body, err := w.get("/again"); err != nil || status != http.StatusOK || body != "origin saw /again" {
		t.Errorf("after a restart without the control plane: %d %q, %v", status, body, err)
	}
	w.stop()
	if err := <-w.done; err != nil {
		t.Error(err)
	}
	if spools, err := os.ReadDir(filepath.Join(dir, "spool")); err != nil || len(spools) == 0 {
		t.Errorf("the attack's event is not spooled: %v", err)
	}
}

func TestAWorkerThatIsAskedToStopServesUntilResolversHaveForgottenIt(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(rw, "origin saw ", r.URL.Path) }))
	t.Cleanup(origin.Close)
	dir := t.TempDir()
	p := newPlane(t, filepath.Join(dir, "identity"), origin.URL)
	w := p.worker(dir)
	w.converges()
	select {
	case <-p.leaves:
		t.Fatal("a worker that serves says that it does not")
	default:
	}
	w.leave()
	select {
	case <-p.leaves:
	case <-time.After(30 * time.Second):
		t.Fatal("the control plane is not told")
	}
	if status, body, err := w.get("/meanwhile"); err != nil || status != http.StatusOK || body != "origin saw /meanwhile" {
		t.Errorf("while DNS forgets it: %d %q, %v", status, body, err)
	}
	w.stop() // the second signal
	if err := <-w.done; err != nil {
		t.Error(err)
	}
	if _, _, err := w.get("/"); err == nil {
		t.Error("a stopped worker answers")
	}
}
