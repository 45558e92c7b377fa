package reseal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/leader/reseal"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// cluster applies what is proposed to a real state machine, and keeps what was proposed.
type cluster struct {
	t     *testing.T
	state *state.Store
	fsm   *fsm.FSM
	kek   *keyring.KEK
	log   bytes.Buffer

	mu    sync.Mutex
	index uint64
	sizes []int
	fail  error
}

func (c *cluster) Propose(_ context.Context, h command.Header, b command.Body) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return nil, c.fail
	}
	data, err := command.Encode(h, b)
	if err != nil {
		return nil, err
	}
	if r, ok := b.(command.SecretsReseal); ok {
		c.sizes = append(c.sizes, len(r.Certificates)+len(r.Orders)+len(r.Entries)+len(r.Origins))
	}
	c.index++
	r, _ := c.fsm.Apply(&raft.Log{Index: c.index, Data: data}).(fsm.Result)
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Object, nil
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) propose(b command.Body) {
	c.t.Helper()
	_, err := c.Propose(c.t.Context(), command.Header{Time: time.Now()}, b)
	c.must(err)
}

// open makes a cluster with two keys, the first of which seals, and n hosts with an order each.
func open(t *testing.T, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, state: state.New()}
	c.fsm = fsm.New(c.state)
	path := filepath.Join(t.TempDir(), "kek")
	first, err := keyring.NewKEK()
	c.must(err)
	c.must(first.Save(path))
	c.kek, err = keyring.AddKEK(path)
	c.must(err)
	c.kek.Use(func() string {
		rec, _ := c.state.Read().Cluster()
		return rec.KEK()
	})
	c.propose(command.ClusterInit{
		Cluster: fleet.ClusterRecord{Cluster: fleet.Cluster{ID: "c1", Zone: "edge.example"}, Secrets: c.secrets(c.kek)},
		Member:  fleet.Member{ID: "m1", API: "127.0.0.1:1"},
		Token:   fleet.TokenRecord{Token: fleet.Token{ID: "op", Role: fleet.RoleOperator}, Hash: bytes.Repeat([]byte("H"), fleet.HashBytes)},
	})
	c.propose(command.TenantPut{Put: command.Put{Create: true}, ID: "acme", Spec: fleet.TenantSpec{Form: fleet.SecurityEdge, Group: fleet.DefaultGroup}})
	for i := range n {
		c.host(i)
	}
	return c
}

func (c *cluster) secrets(by keyring.Sealer) map[fleet.SecretName]fleet.Sealed {
	c.t.Helper()
	s, err := by.Seal([]byte("head key"), keyring.SecretAAD("c1", fleet.SecretHeadKey))
	c.must(err)
	return map[fleet.SecretName]fleet.Sealed{fleet.SecretHeadKey: s}
}

func name(i int) fleet.HostName { return fleet.HostName(fmt.Sprintf("h%d.example.com", i)) }

// host adds a host whose key is being ordered.
func (c *cluster) host(i int) {
	c.t.Helper()
	c.propose(command.HostPut{Put: command.Put{Create: true}, Name: name(i), Tenant: "acme", Label: fmt.Sprint("l", i), Spec: fleet.HostSpec{Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.1"}}}})
	c.order(i, c.kek)
}

func (c *cluster) order(i int, by keyring.Sealer) {
	c.t.Helper()
	sealed, err := by.Seal([]byte(name(i)), keyring.CertKeyAAD("acme", name(i), "spki", 1))
	c.must(err)
	c.propose(command.OrderPut{Put: command.Put{Create: true}, Order: fleet.OrderRecord{
		Order: fleet.Order{ID: fleet.OrderID(fmt.Sprint("o", i)), Host: name(i), Tenant: "acme", Generation: 1, State: fleet.OrderQueued}, Key: sealed, SPKI: "spki",
	}})
}

// issue makes the certificate of a host's order.
func (c *cluster) issue(i int) {
	c.t.Helper()
	c.propose(command.CertificateCommit{Order: fleet.OrderID(fmt.Sprint("o", i)), Certificate: fleet.CertificateRecord{
		Certificate: fleet.Certificate{Host: name(i), Tenant: "acme", Generation: 1, SPKI: "spki", Chain: "pem"},
	}})
}

// entry stores a value as certmagic's storage does.
func (c *cluster) entry(key string, size int, by keyring.Sealer) {
	c.t.Helper()
	sealed, err := by.Seal(bytes.Repeat([]byte("v"), size), keyring.StorageAAD(key))
	c.must(err)
	b, err := json.Marshal(sealed)
	c.must(err)
	c.propose(command.EntryPut{Key: key, Value: b})
}

// showTo makes a certificate for a host's origin.
func (c *cluster) showTo(i int) {
	c.t.Helper()
	cert := fleet.OriginCert{Host: name(i), Tenant: "acme", Origin: "https://203.0.113.1", Generation: 1, SPKI: "spki", Chain: "pem"}
	sealed, err := c.kek.Seal([]byte(name(i)), keyring.OriginKeyAAD(cert))
	c.must(err)
	c.propose(command.OriginCertPut{Certificate: fleet.OriginCertRecord{OriginCert: cert, Key: sealed}})
}

func (c *cluster) rotate() {
	c.t.Helper()
	names := c.kek.Names()
	c.propose(command.KEKRotate{From: names[0], To: names[1], Members: []fleet.MemberID{"m1"}, Secrets: c.secrets(c.kek.With(names[1]))})
}

func (c *cluster) waiting() int {
	rec, _ := c.state.Read().Cluster()
	return c.state.Read().NotSealedBy(rec.KEK()).Count()
}

// run runs the loop until the returned function is called, which returns its error.
func (c *cluster) run() (end func() error) {
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan error, 1)
	l := &reseal.Loop{State: c.state, Sealer: c.kek, Proposer: c, Logger: slog.New(slog.NewTextHandler(&c.log, nil)), Now: time.Now}
	go func() { done <- l.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

func TestEverySecretIsSealedByTheNewKeyAfterARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 300 // more than two commands seal anew
		c := open(t, n)
		for i := range n / 2 {
			c.issue(i)
		}
		for i := range 4 {
			c.entry(fmt.Sprint("acme/large", i), 200<<10, c.kek)
		}
		const shown = 3 // certificates for origins
		for i := range shown {
			c.showTo(i)
		}
		end := c.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(c.sizes) != 0 || c.waiting() != 0 {
			t.Fatalf("before a rotation %v were sealed anew", c.sizes)
		}
		c.rotate()
		if got := c.waiting(); got != n+4+shown {
			t.Errorf("%d wait after the rotation, want %d", got, n+4+shown)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if c.waiting() != 0 {
			t.Errorf("%d wait still", c.waiting())
		}
		if total := sum(c.sizes); total != n+4+shown || slices.Max(c.sizes) > 128 || len(c.sizes) < 4 {
			t.Errorf("sealed anew in commands of %v", c.sizes)
		}
		c.opensAll(n)

		// One that was under way when the key was rotated comes late, and is seen.
		c.entry("acme/late", 10, c.kek.With(c.kek.Names()[0]))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if c.waiting() != 0 {
			t.Error("what came late waits")
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

func sum(sizes []int) (n int) {
	for _, s := range sizes {
		n += s
	}
	return n
}

// opensAll opens every secret by a file of which the first key was dropped.
func (c *cluster) opensAll(n int) {
	c.t.Helper()
	only := c.kek.With(c.kek.Names()[1])
	v := c.state.Read()
	seen := 0
	for _, r := range v.Certificates() {
		if plain, err := only.Open(r.Key, keyring.CertKeyAAD(r.Tenant, r.Host, r.SPKI, r.Generation)); err != nil || string(plain) != string(r.Host) || r.Key.Key != c.kek.Names()[1] {
			c.t.Errorf("certificate of %s: %q %v", r.Host, plain, err)
		}
		seen++
	}
	for _, r := range v.Orders() {
		if plain, err := only.Open(r.Key, keyring.CertKeyAAD(r.Tenant, r.Host, r.SPKI, r.Generation)); err != nil || string(plain) != string(r.Host) || r.Key.Key != c.kek.Names()[1] {
			c.t.Errorf("order of %s: %q %v", r.Host, plain, err)
		}
		seen++
	}
	if seen != n {
		c.t.Errorf("%d certificates and orders, want %d", seen, n)
	}
	for _, o := range v.OriginCertsOfTenant("acme") {
		if plain, err := only.Open(o.Key, keyring.OriginKeyAAD(o.OriginCert)); err != nil || string(plain) != string(o.Host) {
			c.t.Errorf("certificate of %s for %s: %q %v", o.Host, o.Origin, plain, err)
		}
	}
	for _, e := range v.EntriesBelow("acme/") {
		var s fleet.Sealed
		c.must(fleet.DecodeStrict(e.Value, &s))
		if plain, err := only.Open(s, keyring.StorageAAD(e.Key)); err != nil || len(plain) != 200<<10 {
			c.t.Errorf("%s: %d bytes, %v", e.Key, len(plain), err)
		}
	}
}

func TestASecretThatNoKeyOpensDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, 2)
		lost, err := keyring.NewKEK()
		c.must(err)
		c.entry("acme/lost", 10, lost)
		end := c.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		c.rotate()
		time.Sleep(time.Hour)
		synctest.Wait()
		left := c.state.Read().NotSealedBy(c.kek.Names()[1])
		if left.Count() != 1 || !slices.Equal(left.Keys(), lost.Names()) {
			t.Errorf("%v wait", left.Keys())
		}
		if err := end(); err != nil {
			t.Error(err)
		}
		if said := c.log.String(); strings.Count(said, "secrets cannot be sealed anew") != 1 || !strings.Contains(said, lost.Names()[0]) {
			t.Errorf("the log says %s", said)
		}
	})
}

func TestAnErrorOfProposingEndsTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, 1)
		c.rotate()
		c.fail = errors.New("no quorum")
		end := c.run()
		synctest.Wait()
		if err := end(); !errors.Is(err, c.fail) {
			t.Errorf("ended with %v", err)
		}
	})
}
