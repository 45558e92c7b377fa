package controlplane_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
)

func (c *cluster) recoveryKey() []byte {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.members[0].config.DataDir, "recovery.key"))
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *cluster) snapshot() []byte {
	c.t.Helper()
	var b bytes.Buffer
	c.await("a snapshot is saved", func() bool {
		b.Reset()
		return c.client().Download(c.t.Context(), "/v1/cluster/snapshot", &b) == nil
	})
	return b.Bytes()
}

// lead waits until the cluster has a leader, and returns its status with the hash of the state.
func (c *cluster) lead() client.ClusterStatus {
	c.t.Helper()
	var s client.ClusterStatus
	c.await("there is a leader", func() bool {
		var err error
		s, err = client.Get[client.ClusterStatus](c.t.Context(), c.client(), "/v1/cluster", map[string][]string{"hash": {"true"}})
		return err == nil && s.Leader != ""
	})
	return s
}

func (c *cluster) addTenant(id fleet.TenantID) {
	c.t.Helper()
	c.await("tenant "+string(id)+" is there", func() bool {
		_, err := client.Post[fleet.Tenant](c.t.Context(), c.client(), "/v1/tenants", client.TenantCreate{ID: id})
		return err == nil || errors.Is(err, fleet.ErrConflict)
	})
}

func (c *cluster) has(id fleet.TenantID) bool {
	_, err := client.Get[fleet.Tenant](c.t.Context(), c.client(), "/v1/tenants/"+string(id), nil)
	return err == nil
}

func TestAMemberRecoversAloneAndOthersJoinIt(t *testing.T) {
	if testing.Short() {
		t.Skip("starts four members")
	}
	t.Parallel()
	c := start(t, 3)
	c.addTenant("acme")
	key := c.recoveryKey()
	first := c.members[0].config
	peers, err := controlplane.ParsePeers("m1=" + first.RaftListen)
	if err != nil {
		t.Fatal(err)
	}
	b := controlplane.Rebirth{RecoveryKey: key, Now: time.Now()}
	if _, err := controlplane.Recover(first, peers, b); !errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a running member: %v", err)
	}
	for _, m := range c.members {
		m.stop(t)
	}
	// What is refused changes nothing.
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := head.EncodeRecoveryKey(stranger)
	if err != nil {
		t.Fatal(err)
	}
	no := errors.New("the operator says no")
	for name, tt := range map[string]struct {
		peers string
		b     controlplane.Rebirth
		want  error
	}{
		"without itself":           {"m2=127.0.0.1:1", b, fleet.ErrInvalid},
		"with an address of old":   {"m1=127.0.0.1:1", b, fleet.ErrInvalid},
		"with a stranger":          {"m1=" + first.RaftListen + ",m9=127.0.0.1:1", b, fleet.ErrInvalid},
		"with another key":         {"m1=" + first.RaftListen, controlplane.Rebirth{RecoveryKey: wrong, Now: time.Now()}, fleet.ErrDenied},
		"with an old incarnation":  {"m1=" + first.RaftListen, controlplane.Rebirth{RecoveryKey: key, Incarnation: 1, Now: time.Now()}, fleet.ErrInvalid},
		"without the operator's y": {"m1=" + first.RaftListen, controlplane.Rebirth{RecoveryKey: key, Now: time.Now(), Confirm: func(controlplane.Plan) error { return no }}, no},
	} {
		peers, err := controlplane.ParsePeers(tt.peers)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := controlplane.Recover(first, peers, tt.b); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var plan controlplane.Plan
	b.Confirm = func(p controlplane.Plan) error { plan = p; return nil }
	if _, err := controlplane.Recover(first, peers, b); err != nil {
		t.Fatal(err)
	}
	if len(plan.Lost) != 2 || !plan.Signed || plan.Index == 0 {
		t.Errorf("%+v", plan)
	}
	c.members = nil
	c.run(first)
	s := c.lead()
	if s.Incarnation != plan.Incarnation || s.Incarnation < 1_600_000_000 || len(s.Members) != 1 || !c.has("acme") {
		t.Errorf("%+v", s)
	}
	c.addTenant("after")

	// The log goes on across a restart, and a newcomer gets all of it.
	c.members[0].stop(t)
	c.members = nil
	c.run(first)
	c.lead()
	c.join(newConfig(t, "m4", c.kek))
	c.await("the newcomer has the same state", func() bool {
		one, err := client.Get[client.ClusterStatus](t.Context(), c.at(0), "/v1/cluster", map[string][]string{"hash": {"true"}})
		if err != nil {
			return false
		}
		other, err := client.Get[client.ClusterStatus](t.Context(), c.at(1), "/v1/cluster", map[string][]string{"hash": {"true"}})
		return err == nil && len(one.Members) == 2 && one.Applied == other.Applied && one.StateHash == other.StateHash
	})
	if !c.has("after") {
		t.Error("a write after the recovery is lost")
	}
}

func TestAClusterComesBackFromItsSnapshotOnAnEmptyHost(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three members")
	}
	t.Parallel()
	c := start(t, 1)
	c.addTenant("acme")
	key, file := c.recoveryKey(), c.snapshot()
	e, err := snapshot.Verify(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	c.addTenant("late")
	c.members[0].stop(t)
	cluster := e.Cluster

	fresh := newConfig(t, "m7", c.kek)
	b := controlplane.Rebirth{RecoveryKey: key, Now: time.Now()}
	other := fresh
	other.KEKFile = filepath.Join(t.TempDir(), "kek")
	if _, err := controlplane.InitFromSnapshot(other, bytes.NewReader(file), b); !errors.Is(err, fleet.ErrNotFound) || !strings.Contains(err.Error(), "escrow") {
		t.Errorf("without the KEK: %v", err)
	}
	if _, err := controlplane.Init(t.Context(), newConfig(t, "m9", other.KEKFile)); err != nil { // which makes another KEK
		t.Fatal(err)
	}
	if _, err := controlplane.InitFromSnapshot(other, bytes.NewReader(file), b); !errors.Is(err, fleet.ErrDenied) {
		t.Errorf("with another KEK: %v", err)
	}
	if _, err := controlplane.InitFromSnapshot(fresh, bytes.NewReader(file[:len(file)-9]), b); !errors.Is(err, fleet.ErrCorrupt) {
		t.Errorf("half a snapshot: %v", err)
	}
	if _, err := os.Stat(fresh.DataDir); !os.IsNotExist(err) {
		t.Errorf("something is left in the data directory: %v", err)
	}
	out, err := controlplane.InitFromSnapshot(fresh, bytes.NewReader(file), b)
	if err != nil {
		t.Fatal(err)
	}
	if out.Envelope.StateHash != e.StateHash || out.Incarnation < 1_600_000_000 || out.Initialized.Cluster != cluster {
		t.Errorf("%+v", out)
	}
	c.members = nil
	c.run(fresh)
	s := c.lead() // with the operator token and the CA certificate of before
	if s.ID != cluster || s.Incarnation != out.Incarnation || len(s.Members) != 1 || s.Index <= e.Index {
		t.Errorf("%+v", s)
	}
	if !c.has("acme") || c.has("late") {
		t.Error("the state is not the snapshot's")
	}
	c.token = out.Token
	c.addTenant("new")
	c.join(newConfig(t, "m8", c.kek))
	c.await("two members vote", func() bool {
		s, err := client.Get[client.ClusterStatus](t.Context(), c.client(), "/v1/cluster", nil)
		return err == nil && len(s.Members) == 2 && s.Members[0].Suffrage == "voter" && s.Members[1].Suffrage == "voter"
	})
}
