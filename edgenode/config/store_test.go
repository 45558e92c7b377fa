package config_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/sni"
)

const (
	node  fleet.NodeID    = "edge-1"
	group fleet.GroupName = "default"
)

// control is a control plane as far as a store sees it.
type control struct {
	t        *testing.T
	key      ed25519.PrivateKey
	priv     []byte
	pub      []byte
	blobs    map[fleet.Digest][]byte
	mu       sync.Mutex
	fetched  []fleet.Digest
	fetchErr error
}

func newControl(t *testing.T) *control {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &control{t: t, key: key, blobs: map[fleet.Digest][]byte{}}
	if c.priv, c.pub, err = keyring.NewHPKEKey(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *control) fetch(_ context.Context, d fleet.Digest) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fetchErr != nil {
		return nil, c.fetchErr
	}
	c.fetched = append(c.fetched, d)
	b, ok := c.blobs[d]
	if !ok {
		return nil, fleet.ErrNotFound
	}
	return b, nil
}

// head signs a head of the bundles, which may be raw bytes.
func (c *control) head(kind fleet.HeadKind, generation uint64, bundles map[fleet.TenantID]any) fleet.SignedHead {
	c.t.Helper()
	encoded := map[fleet.TenantID][]byte{}
	for tenant, b := range bundles {
		raw, ok := b.([]byte)
		if !ok {
			var err error
			if raw, err = json.Marshal(b); err != nil {
				c.t.Fatal(err)
			}
		}
		encoded[tenant] = raw
	}
	tree, err := bundle.Build(encoded)
	if err != nil {
		c.t.Fatal(err)
	}
	maps.Copy(c.blobs, tree.Blobs)
	return c.sign(head.Head{Group: group, Kind: kind, Version: fleet.Version{Incarnation: 1, Generation: generation}, Root: tree.Root})
}

func (c *control) sign(h head.Head) fleet.SignedHead {
	c.t.Helper()
	s, err := head.Sign(h, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

func (c *control) groupKey(epoch uint64) keyring.GroupKey {
	c.t.Helper()
	k, err := keyring.DeriveGroupKey([]byte("a master secret of thirty-two by"), group, epoch)
	if err != nil {
		c.t.Fatal(err)
	}
	return k
}

func (c *control) envelope(epoch uint64) *fleet.KeyEnvelope {
	c.t.Helper()
	e, err := c.groupKey(epoch).SealTo(node, c.pub)
	if err != nil {
		c.t.Fatal(err)
	}
	return &e
}

// certificate makes a bundle entry whose key is sealed in epoch.
func (c *control) certificate(tenant fleet.TenantID, host fleet.HostName, generation, epoch uint64) fleet.BundleCert {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(int64(generation)), DNSNames: []string{string(host)}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		c.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		c.t.Fatal(err)
	}
	sum := sha256.Sum256(public)
	spki := hex.EncodeToString(sum[:])
	sealed, err := c.groupKey(epoch).Seal(der, keyring.CertKeyAAD(tenant, host, spki, generation))
	if err != nil {
		c.t.Fatal(err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	return fleet.BundleCert{Host: host, Generation: generation, SPKI: spki, Chain: string(chain), Key: sealed}
}

// edge is an open store with its certificate table.
type edge struct {
	*config.Store
	table *sni.Table
}

func (c *control) open(dir string) edge {
	c.t.Helper()
	table := &sni.Table{}
	s, err := config.Open(config.Options{
		Dir: dir, Node: node, Group: group, HeadKeys: []ed25519.PublicKey{c.key.Public().(ed25519.PublicKey)},
		HPKEPrivate: c.priv, Certificates: table, Telemetry: observability.Discard(),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return edge{s, table}
}

func (c *control) apply(e edge, envelope *fleet.KeyEnvelope, heads ...fleet.SignedHead) []fleet.HeadReport {
	c.t.Helper()
	return e.Apply(c.t.Context(), fleet.HeadSet{Heads: heads, Envelope: envelope}, c.fetch)
}

func hosts(tenant fleet.TenantID, names ...fleet.HostName) fleet.ConfigBundle {
	b := fleet.ConfigBundle{Tenant: tenant}
	for _, n := range names {
		b.Hosts = append(b.Hosts, fleet.HostConfig{Name: n, Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.10"}}})
	}
	return b
}

func oneTenant(b any) map[fleet.TenantID]any { return map[fleet.TenantID]any{"acme": b} }

func ruleset(pattern string) fleet.RulesetBundle {
	return fleet.RulesetBundle{Tenant: "acme", Rules: []fleet.BundleRule{{ID: "r1", Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: pattern, AttackType: fleet.AttackVPatch}}}}
}

// served is what a snapshot and the table say, in comparable form.
func served(e edge) map[string]any {
	snap := e.Snapshot()
	out := map[string]any{"certificates": e.table.Len(), "challenges": len(snap.Challenges), "validations": len(snap.Validations)}
	for name, h := range snap.Hosts {
		out[string(name)] = []any{h.Tenant, h.Mode, h.Origins, h.Rules != nil}
	}
	for kind, v := range snap.Versions {
		out[string(kind)] = v.Generation
	}
	return out
}

// all applies a full set at generation 1.
func (c *control) all(e edge) []fleet.HeadReport {
	certs := fleet.CertsBundle{
		Tenant: "acme", Certificates: []fleet.BundleCert{c.certificate("acme", "api.example.com", 1, 5)},
		Challenges: []fleet.BundleChallenge{
			{Host: "new.example.com", Token: "tok", Response: "tok.print"}, {Host: "closed.example.com", Token: "tok2", Response: "tok2.print", Type: fleet.ChallengeTLSALPN01},
		},
	}
	return c.apply(e, c.envelope(5),
		c.head(fleet.HeadConfig, 1, oneTenant(hosts("acme", "api.example.com"))),
		c.head(fleet.HeadRuleset, 1, oneTenant(ruleset("evil"))),
		c.head(fleet.HeadCerts, 1, oneTenant(certs)))
}

func TestAppliedHeadsAreServedAndSurviveARestart(t *testing.T) {
	c, dir := newControl(t), t.TempDir()
	e := c.open(dir)
	if got := served(e); got["certificates"] != 0 || len(e.Reports()) != 0 {
		t.Fatalf("a new store serves %v", got)
	}
	reports := c.all(e)
	if len(reports) != 3 {
		t.Fatalf("reports %+v", reports)
	}
	for i, r := range reports {
		if r.Reason != "" || r.Kind != fleet.HeadKinds[i] || r.AppliedAt.IsZero() {
			t.Errorf("report %+v", r)
		}
	}
	want := served(e)
	if want["config"] != uint64(1) || want["certificates"] != 1 || want["challenges"] != 1 || want["validations"] != 1 {
		t.Fatalf("served %v", want)
	}
	if _, ok := e.table.Lookup("api.example.com"); !ok {
		t.Error("no certificate for the host")
	}
	again := c.open(dir)
	if diff := cmp.Diff(want, served(again)); diff != "" {
		t.Errorf("after a restart: %s", diff)
	}
	if diff := cmp.Diff(reports, again.Reports(), cmpopts.IgnoreFields(fleet.HeadReport{}, "AppliedAt")); diff != "" {
		t.Errorf("reports after a restart: %s", diff)
	}
}

func TestApplyingTheSameSetTwiceFetchesAndChangesNothing(t *testing.T) {
	c := newControl(t)
	e := c.open(t.TempDir())
	set := fleet.HeadSet{Heads: []fleet.SignedHead{c.head(fleet.HeadConfig, 1, oneTenant(hosts("acme", "api.example.com")))}}
	first := e.Apply(t.Context(), set, c.fetch)
	snap, fetched := e.Snapshot(), len(c.fetched)
	second := e.Apply(t.Context(), set, c.fetch)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	if e.Snapshot() != snap || len(c.fetched) != fetched {
		t.Error("the second application published or fetched")
	}
}

func TestOnlyBlobsThatAreNotOnDiskAreFetched(t *testing.T) {
	c := newControl(t)
	e := c.open(t.TempDir())
	bundles := map[fleet.TenantID]any{}
	for _, tenant := range []fleet.TenantID{"a", "b", "c", "d"} {
		bundles[tenant] = hosts(tenant, fleet.HostName(tenant+".example.com"))
	}
	c.apply(e, nil, c.head(fleet.HeadConfig, 1, bundles))
	c.fetched = nil
	bundles["b"] = hosts("b", "other.example.com")
	c.apply(e, nil, c.head(fleet.HeadConfig, 2, bundles))
	if len(c.fetched) != 3 {
		t.Errorf("fetched %d blobs, want root, manifest and bundle", len(c.fetched))
	}
	if got := served(e); got["other.example.com"] == nil || got["a.example.com"] == nil || got["b.example.com"] != nil {
		t.Errorf("served %v", got)
	}
}

func TestABadHeadIsRefusedAndDisturbsNothing(t *testing.T) {
	c := newControl(t)
	foreign := newControl(t)
	foreign.blobs = c.blobs
	manyHosts := hosts("acme")
	for range fleet.MaxHostsPerTenant + 1 {
		manyHosts.Hosts = append(manyHosts.Hosts, fleet.HostConfig{})
	}
	wrongKey := c.certificate("acme", "api.example.com", 2, 5)
	wrongKey.Key = c.certificate("acme", "api.example.com", 2, 5).Key
	moved := c.certificate("other", "api.example.com", 2, 5)
	otherName := c.certificate("acme", "b.example.com", 2, 5)
	certs := func(b fleet.BundleCert) map[fleet.TenantID]any {
		return oneTenant(fleet.CertsBundle{Tenant: "acme", Certificates: []fleet.BundleCert{b}})
	}
	tests := []struct {
		name, reason string
		head         func() fleet.SignedHead
	}{
		{"a rule that does not compile", "tenant acme", func() fleet.SignedHead { return c.head(fleet.HeadRuleset, 2, oneTenant(ruleset("("))) }},
		{"a rule without a pattern", "pattern", func() fleet.SignedHead { return c.head(fleet.HeadRuleset, 2, oneTenant(ruleset(""))) }},
		{"a signature of another cluster", "not signed", func() fleet.SignedHead {
			return foreign.head(fleet.HeadConfig, 2, oneTenant(hosts("acme", "b.example.com")))
		}},
		{"a head of another group", "this is node edge-1", func() fleet.SignedHead {
			return c.sign(head.Head{Group: "others", Kind: fleet.HeadConfig, Version: fleet.Version{Incarnation: 1, Generation: 2}, Root: fleet.DigestOf(nil)})
		}},
		{"too many hosts", "the limit is 5000", func() fleet.SignedHead { return c.head(fleet.HeadConfig, 2, oneTenant(manyHosts)) }},
		{"an unknown field", "unknown field", func() fleet.SignedHead {
			return c.head(fleet.HeadConfig, 2, oneTenant([]byte(`{"tenant":"acme","x":1}`)))
		}},
		{"a bundle of another tenant", `names tenant "b"`, func() fleet.SignedHead { return c.head(fleet.HeadConfig, 2, oneTenant(hosts("b", "b.example.com"))) }},
		{"one bad tenant of two", "tenant bad", func() fleet.SignedHead {
			return c.head(fleet.HeadConfig, 2, map[fleet.TenantID]any{"acme": hosts("acme", "new.example.com"), "bad": []byte("{")})
		}},
		{"a host in two tenants", "two tenants", func() fleet.SignedHead {
			return c.head(fleet.HeadConfig, 2, map[fleet.TenantID]any{"acme": hosts("acme", "x.example.com"), "b": hosts("b", "x.example.com")})
		}},
		{"a host twice", "twice", func() fleet.SignedHead {
			return c.head(fleet.HeadConfig, 2, oneTenant(hosts("acme", "x.example.com", "x.example.com")))
		}},
		{"an origin that is a metadata service", "metadata", func() fleet.SignedHead {
			b := hosts("acme", "x.example.com")
			b.Hosts[0].Origins[0].URL = "http://169.254.169.254"
			return c.head(fleet.HeadConfig, 2, oneTenant(b))
		}},
		{"a key that does not match its chain", "does not open", func() fleet.SignedHead { return c.head(fleet.HeadCerts, 2, certs(wrongKey)) }},
		{"a key moved from another tenant", "does not open", func() fleet.SignedHead { return c.head(fleet.HeadCerts, 2, certs(moved)) }},
		{"a certificate for another name", "does not open", func() fleet.SignedHead {
			otherName.Host = "api.example.com"
			return c.head(fleet.HeadCerts, 2, certs(otherName))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := c.open(t.TempDir())
			c.all(e)
			before, snap := served(e), e.Snapshot()
			reports := c.apply(e, nil, tt.head())
			if len(reports) != 1 || !strings.Contains(reports[0].Reason, tt.reason) || strings.Contains(reports[0].Reason, "\n") {
				t.Fatalf("reports %+v, want a reason with %q", reports, tt.reason)
			}
			if e.Snapshot() != snap {
				t.Errorf("what is served changed: %s", cmp.Diff(before, served(e)))
			}
			for _, r := range e.Reports() {
				if r.Kind == reports[0].Kind && r.Reason == "" {
					t.Error("the refusal is not in the heartbeat's reports")
				}
			}
		})
	}
}

func TestAnOversizedBundleIsRefused(t *testing.T) {
	c := newControl(t)
	e := c.open(t.TempDir())
	signed := c.head(fleet.HeadConfig, 1, oneTenant(hosts("acme", "api.example.com")))
	huge := make([]byte, fleet.MaxBundleBytes+1)
	reports := e.Apply(t.Context(), fleet.HeadSet{Heads: []fleet.SignedHead{signed}}, func(context.Context, fleet.Digest) ([]byte, error) { return huge, nil })
	if len(reports) != 1 || !strings.Contains(reports[0].Reason, "limit") {
		t.Errorf("reports %+v", reports)
	}
}

func TestAnOlderGenerationIsAnsweredAndChangesNoReport(t *testing.T) {
	c := newControl(t)
	e := c.open(t.TempDir())
	old := c.head(fleet.HeadConfig, 1, oneTenant(hosts("acme", "old.example.com")))
	c.apply(e, nil, c.head(fleet.HeadConfig, 2, oneTenant(hosts("acme", "new.example.com"))))
	before := e.Reports()
	reports := c.apply(e, nil, old)
	if len(reports) != 1 || !strings.Contains(reports[0].Reason, "not newer") {
		t.Errorf("reports %+v", reports)
	}
	if diff := cmp.Diff(before, e.Reports()); diff != "" {
		t.Error(diff)
	}
	conflict := c.apply(e, nil, c.head(fleet.HeadConfig, 2, oneTenant(hosts("acme", "evil.example.com"))))
	if len(conflict) != 1 || !strings.Contains(conflict[0].Reason, "two heads") {
		t.Errorf("the same generation with another root: %+v", conflict)
	}
}

func TestARefusedHeadKeepsItsTimeUntilSomethingChanges(t *testing.T) {
	c := newControl(t)
	e := c.open(t.TempDir())
	bad := c.head(fleet.HeadRuleset, 1, oneTenant(ruleset("(")))
	first, second := c.apply(e, nil, bad), c.apply(e, nil, bad)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	good := c.apply(e, nil, c.head(fleet.HeadRuleset, 2, oneTenant(ruleset("x"))))
	if len(good) != 1 || good[0].Reason != "" || e.Reports()[0].Reason != "" {
		t.Errorf("reports %+v", e.Reports())
	}
}

func TestAFailedFetchIsNoRefusal(t *testing.T) {
	c := newControl(t)
	e := c.open(t.TempDir())
	signed := c.head(fleet.HeadConfig, 1, oneTenant(hosts("acme", "api.example.com")))
	c.fetchErr = errors.New("no route")
	if reports := c.apply(e, nil, signed); len(reports) != 0 || len(e.Reports()) != 0 {
		t.Errorf("reports %+v", reports)
	}
	wrong := func(context.Context, fleet.Digest) ([]byte, error) { return []byte("something else"), nil }
	if reports := e.Apply(t.Context(), fleet.HeadSet{Heads: []fleet.SignedHead{signed}}, wrong); len(reports) != 0 {
		t.Errorf("bytes with another digest: reports %+v", reports)
	}
	c.fetchErr = nil
	if reports := c.apply(e, nil, signed); len(reports) != 1 || reports[0].Reason != "" {
		t.Errorf("reports %+v", reports)
	}
}

func TestCertificatesWaitForTheirGroupKey(t *testing.T) {
	c, dir := newControl(t), t.TempDir()
	e := c.open(dir)
	certs := c.head(fleet.HeadCerts, 1, oneTenant(fleet.CertsBundle{Tenant: "acme", Certificates: []fleet.BundleCert{c.certificate("acme", "api.example.com", 1, 6)}}))
	if reports := c.apply(e, c.envelope(5), certs); len(reports) != 0 {
		t.Fatalf("reports %+v", reports)
	}
	if reports := c.apply(e, c.envelope(6), certs); len(reports) != 1 || reports[0].Reason != "" {
		t.Fatalf("reports %+v", reports)
	}
	// The next epoch's key comes ahead of the certificates that need it, and is kept across a restart.
	c.apply(e, c.envelope(7))
	e = c.open(dir)
	next := c.head(fleet.HeadCerts, 2, oneTenant(fleet.CertsBundle{Tenant: "acme", Certificates: []fleet.BundleCert{c.certificate("acme", "api.example.com", 2, 7)}}))
	if reports := c.apply(e, nil, next); len(reports) != 1 || reports[0].Reason != "" {
		t.Errorf("reports %+v", reports)
	}
}

func TestTheNewestCertificateOfAHostIsServed(t *testing.T) {
	c := newControl(t)
	e := c.open(t.TempDir())
	list := []fleet.BundleCert{c.certificate("acme", "api.example.com", 9, 5), c.certificate("acme", "api.example.com", 8, 5)}
	c.apply(e, c.envelope(5), c.head(fleet.HeadCerts, 1, oneTenant(fleet.CertsBundle{Tenant: "acme", Certificates: list})))
	cert, ok := e.table.Lookup("api.example.com")
	if !ok || cert.Leaf.SerialNumber.Int64() != 9 {
		t.Errorf("serves %v", cert)
	}
}

func TestNoPrivateKeyReachesTheDisk(t *testing.T) {
	c, dir := newControl(t), t.TempDir()
	e := c.open(dir)
	c.all(e)
	cert, _ := e.table.Lookup("api.example.com")
	key := cert.PrivateKey.(*ecdsa.PrivateKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), string(der)) || strings.Contains(string(b), string(scalar)) || strings.Contains(string(b), "PRIVATE KEY") {
			t.Errorf("%s holds a private key", path)
		}
		if info, _ := d.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
