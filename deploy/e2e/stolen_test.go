package e2e_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/identity"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
	"github.com/edgefleet/edgefleet/tls/sni"
)

// keyCompromise is what a certificate authority publishes of a key that somebody else has (RFC 5280 section 5.3.1).
const keyCompromise = 1

func (a *apart) stolenNode(t *testing.T) {
	a.enrol(t, "n3")
	a.up(t)
	stolen, others := a.edges[2], a.edges[:2]
	hosts := []fleet.HostName{a.host, a.late}
	defer a.explain(t, hosts)
	old := map[fleet.HostName]*x509.Certificate{}
	for _, h := range hosts {
		old[h] = a.leaf(t, others[0], h)
		await(t, "n3 serves "+string(h), func() bool {
			conn, err := a.dial(t, stolen, h, nil)
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		})
		if status, _ := a.pebbleSays(t, old[h]); status != "Valid" {
			t.Errorf("the certificate of %s is %s", h, status)
		}
	}
	// The machine is carried away; the thief copies its disk and starts it elsewhere.
	stolen.stop()
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.CopyFS(disk, os.DirFS(filepath.Join(stolen.dir, "data"))); err != nil {
		t.Fatal(err)
	}
	a.must("node", "revoke", "n3", "--yes", "--reason", "stolen from rack 3")
	await(t, "an epoch that the stolen node does not know", func() bool {
		return strings.Contains(a.fleetctl("group", "keys", "default").stdout, "evicted (node n3)")
	})
	a.must("group", "rekey", "default", "--yes", "--reason", "node n3 was stolen")
	stolen.start("")

	fresh := map[fleet.HostName]*x509.Certificate{}
	for _, h := range hosts {
		for _, e := range others {
			await(t, e.id+" serves a new certificate of "+string(h), func() bool {
				fresh[h] = a.leaf(t, e, h)
				return !same(fresh[h], old[h])
			})
		}
		if status, _ := a.pebbleSays(t, fresh[h]); status != "Valid" {
			t.Errorf("the new certificate of %s is %s", h, status)
		}
		await(t, "the old certificate of "+string(h)+" is revoked", func() bool {
			status, reason := a.pebbleSays(t, old[h])
			return status == "Revoked" && reason == keyCompromise
		})
	}
	await(t, "nothing waits for a new key", func() bool {
		return slices.Equal(strings.Fields(lineWith(a.fleetctl("group", "keys", "default").stdout, "old key")), []string{"certificates", "with", "an", "old", "key", "0"})
	})
	a.nothingNew(t, stolen, old)
	a.opensNothing(t, disk, old, fresh)
}

// explain says how the hosts are, if the test failed.
func (a *apart) explain(t *testing.T, hosts []fleet.HostName) {
	t.Helper()
	if !t.Failed() {
		return
	}
	for _, h := range hosts {
		for _, object := range []string{"host", "cert"} {
			t.Log(a.fleetctl(object, "show", "--tenant", string(dividedTenant), string(h)).stdout)
		}
	}
	t.Log(a.log)
}

// nothingNew holds that the stolen machine, which runs, has what it had and is told nothing.
func (a *apart) nothingNew(t *testing.T, stolen *runningEdge, old map[fleet.HostName]*x509.Certificate) {
	t.Helper()
	for h, was := range old {
		await(t, "the stolen machine runs", func() bool {
			conn, err := a.dial(t, stolen, h, nil)
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		})
		if got := a.leaf(t, stolen, h); !got.Equal(was) {
			t.Errorf("the stolen machine got a new certificate of %s", h)
		}
	}
	id, err := identity.Open(filepath.Join(stolen.dir, "data", "identity"))
	if err != nil {
		t.Fatal(err)
	}
	if err := poll(t, id, a.at(8440)); !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("a poll of the stolen node: %v", err)
	}
	if err := connect(t, id, a.at(8442)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a connection of the stolen node: %v", err)
	}
	if !connected(t, stolen.at(9180))(0) {
		t.Error("the stolen machine is connected, or does not run")
	}
}

// opensNothing has the thief get all that another node is sent, and open what the stolen disk's keys open of it.
func (a *apart) opensNothing(t *testing.T, disk string, old, fresh map[fleet.HostName]*x509.Certificate) {
	t.Helper()
	good, err := identity.Open(filepath.Join(a.edges[0].dir, "data", "identity"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{Addrs: []string{a.at(8440)}, TLS: mtls.ClientTLS(good.Source, good.API, "", nil), Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	set, err := client.Post[fleet.HeadSet](t.Context(), c, "/v1/edge/poll", fleet.Report{Node: good.Trust.Node, Boot: "b1", Sent: time.Now().UTC(), Heads: []fleet.HeadReport{}})
	if err != nil || set.Envelope == nil {
		t.Fatalf("%+v, %v", set, err)
	}
	fetch := func(ctx context.Context, d fleet.Digest) ([]byte, error) {
		var b bytes.Buffer
		err := c.Download(ctx, "/v1/edge/blobs/"+string(d), &b)
		return b.Bytes(), err
	}
	thief, err := identity.Open(filepath.Join(disk, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	for name, who := range map[string]struct {
		id    *identity.Identity
		state string
		had   map[fleet.HostName]*x509.Certificate
		want  map[fleet.HostName]*x509.Certificate
	}{
		"the node that it is for": {good, t.TempDir(), nil, fresh},
		"the thief":               {thief, filepath.Join(disk, "state"), old, old},
	} {
		certificates := &sni.Table{}
		s, err := config.Open(config.Options{
			Dir: who.state, Node: who.id.Trust.Node, Group: who.id.Trust.Group, Cluster: who.id.Trust.Cluster, Incarnation: who.id.Trust.Incarnation,
			HeadKeys: who.id.HeadKeys, RecoveryKey: who.id.Trust.RecoveryKey, HPKEPrivate: who.id.HPKE, Certificates: certificates, Telemetry: observability.Discard(),
		})
		if err != nil {
			t.Fatal(err)
		}
		shows := func(when string, want map[fleet.HostName]*x509.Certificate) {
			t.Helper()
			for h := range old {
				got, ok := certificates.Lookup(string(h))
				if ok != (want != nil) || ok && !got.Leaf.Equal(want[h]) {
					t.Errorf("%s: %s opens the key of %s: %v", when, name, h, ok)
				}
			}
		}
		shows("before", who.had)
		s.Apply(t.Context(), set, fetch)
		shows("after", who.want)
	}
}
