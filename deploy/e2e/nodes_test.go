package e2e_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/deploy/devfleet"
	"github.com/edgefleet/edgefleet/edgenode/identity"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// start runs the supervisor until the test ends, or stop is called.
func (e *edge) start(token string) (log *buffer, stop func()) {
	e.t.Helper()
	cmd := program("edgesupervisor", []string{"EDGEFLEET_JOIN_TOKEN=" + token}, "run", "--config", e.file())
	log = &buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	stop = func() { interrupt(e.t, cmd) }
	e.t.Cleanup(stop)
	return log, stop
}

func interrupt(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if cmd.ProcessState != nil {
		return
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	end(t, cmd, syscall.SIGKILL, 30*time.Second)
}

// n1 is the node of that name, zero if there is none.
func (m *member) n1() fleet.Node {
	m.t.Helper()
	n, err := client.Get[fleet.Node](m.t.Context(), m.client(), "/v1/nodes/n1", nil)
	if err != nil && !errors.Is(err, fleet.ErrNotFound) {
		m.t.Fatal(err)
	}
	return n
}

// nodeCA is the cluster's authority of nodes, from a snapshot and the key-encryption key: whoever has both has all.
func (m *member) nodeCA() (fleet.ClusterID, *mtls.CA) {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "edgefleet.snapshot")
	m.must("cluster", "snapshot", "save", file)
	kek, err := keyring.LoadKEK(m.kek)
	if err != nil {
		m.t.Fatal(err)
	}
	loaded, err := backup.Load(bytes.NewReader(read(m.t, file)), kek)
	if err != nil {
		m.t.Fatal(err)
	}
	cluster, _ := loaded.State.Read().Cluster()
	return cluster.ID, loaded.Keys.NodeCA
}

// away makes the node's certificate one that ended days ago, of the same key.
func (e *edge) away(m *member, days int) {
	e.t.Helper()
	dir := filepath.Join(e.dir, "data", "identity")
	block, _ := pem.Decode(read(e.t, filepath.Join(dir, "node.crt")))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		e.t.Fatal(err)
	}
	cluster, ca := m.nodeCA()
	ended, err := ca.SignNode(cluster, fleet.NodeID(e.id), leaf.PublicKey, time.Now().AddDate(0, 0, -days))
	if err != nil {
		e.t.Fatal(err)
	}
	write(e.t, filepath.Join(dir, "node.crt"), string(ended))
}

// connected reads from a node's metrics whether it has a NATS connection: 1 or 0, as it says.
func connected(t *testing.T, admin string) func(want float64) bool {
	t.Helper()
	return func(want float64) bool {
		got, ok := series(t, admin)["edgefleet_node_session_connected"]
		return ok && got == want
	}
}

func TestANodeComesBackAfterDaysAndACopyOfItLocksBoth(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	original, copied := newEdge(t, "n1", c.member), newEdge(t, "n1", c.member)
	_, stop := original.start(c.must("node", "join-token"))
	await(t, "n1 is up", func() bool { return c.n1().Observed.State == fleet.NodeUp })
	stop()
	original.away(c.member, 9)
	if err := os.CopyFS(filepath.Join(copied.dir, "data"), os.DirFS(filepath.Join(original.dir, "data"))); err != nil {
		t.Fatal(err)
	}

	original.start("")
	await(t, "n1 has a certificate again", func() bool {
		n := c.n1()
		return n.Renewal.Generation == 1 && time.Until(n.Identity.NotAfter) > 23*time.Hour
	})
	await(t, "n1 is connected", func() bool { return connected(t, original.at(9180))(1) })

	log, stop := copied.start("")
	await(t, "n1 is locked", func() bool { return c.n1().Lock != nil })
	await(t, "the copy says why", func() bool { return strings.Contains(log.String(), "node n1 is locked since") })
	if line := lineWith(c.must("node", "list"), "n1"); !strings.Contains(line, "locked") {
		t.Errorf("node list says %q", line)
	}
	if r := c.fleetctl("node", "show", "n1"); !strings.Contains(r.stdout, "key that was replaced already") {
		t.Errorf("node show says %s", r.stdout)
	}
	if r := c.fleetctl("audit", "list", "--object", "node/n1"); !strings.Contains(r.stdout, "node_lock") {
		t.Errorf("audit list says %s", r.stdout)
	}
	if !strings.Contains(c.log.String(), "node locked: its identity is on two machines") {
		t.Errorf("the member's log says nothing: %s", c.log)
	}
	await(t, "the original is cut off too", func() bool { return connected(t, original.at(9180))(0) })
	stop()
	c.must("node", "unlock", "n1", "--reason", "the copy is gone")
	await(t, "the original is answered again", func() bool { return connected(t, original.at(9180))(1) })

	// Another copy, which has the last key too, is found long before it renews: both report.
	if err := os.RemoveAll(filepath.Join(copied.dir, "data")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(copied.dir, "data", "identity"), os.DirFS(filepath.Join(original.dir, "data", "identity"))); err != nil {
		t.Fatal(err)
	}
	copied.start("")
	await(t, "n1 is locked again", func() bool {
		n := c.n1()
		return n.Lock != nil && strings.Contains(n.Lock.Reason, "report at the same time")
	})
	await(t, "both are cut off", func() bool { return connected(t, original.at(9180))(0) && connected(t, copied.at(9180))(0) })
}

// poll asks one member, by HTTPS alone, with a node's identity; connect does so by NATS.
func poll(t *testing.T, id *identity.Identity, address string) error {
	t.Helper()
	cl, err := client.New(client.Options{Addrs: []string{address}, TLS: mtls.ClientTLS(id.Source, id.API, "", nil), Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Post[fleet.HeadSet](t.Context(), cl, "/v1/edge/poll", fleet.Report{Node: id.Trust.Node, Boot: "b1", Sent: time.Now().UTC(), Heads: []fleet.HeadReport{}})
	return err
}

func connect(t *testing.T, id *identity.Identity, address string) error {
	t.Helper()
	tc := mtls.ClientTLS(id.Source, id.Members, mtls.MemberServerName(id.Trust.Cluster), mtls.MembersOnly(id.Trust.Cluster))
	conn, err := nats.Connect("tls://"+address, nats.Secure(tc), nats.CustomInboxPrefix(id.Trust.Node.InboxPrefix()), nats.MaxReconnects(0))
	if err == nil {
		conn.Close()
	}
	return err
}

func TestARevokedNodeIsRefusedWithoutAQuorum(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole fleet takes a while")
	}
	home := t.TempDir()
	f, err := startFleet(filepath.Join(home, "home"), "--members", "3", "--nodes", "2")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
	ids := map[string]*identity.Identity{}
	for _, e := range f.Edges {
		id, err := identity.Open(filepath.Join(f.dir, "data", e.ID, "identity"))
		if err != nil {
			t.Fatal(err)
		}
		ids[e.ID] = id
	}
	good, bad := ids[f.Edges[0].ID], ids[f.Edges[1].ID]
	goodIs, badIs := connected(t, f.admin()[f.Edges[0].ID]), connected(t, f.admin()[f.Edges[1].ID])
	await(t, "both are connected", func() bool { return goodIs(1) && badIs(1) })
	op, err := client.New(client.Options{Addrs: []string{f.Members[0].API, f.Members[1].API, f.Members[2].API}, CACert: read(t, f.CACert), Token: f.Token, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Do(t.Context(), http.MethodDelete, "/v1/nodes/"+string(bad.Trust.Node), nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	await(t, "its connection is ended", func() bool { return badIs(0) })
	survivor := f.Members[2]
	await(t, "the survivor knows it", func() bool { return errors.Is(poll(t, bad, survivor.API), fleet.ErrDenied) })

	// Two of three are gone, and the third has started anew since.
	control := devfleet.Control{Dir: f.dir}
	for _, m := range []string{f.Members[0].ID, f.Members[1].ID, survivor.ID} {
		if err := control.Do(t.Context(), "kill", m); err != nil {
			t.Fatal(err)
		}
	}
	if err := control.Do(t.Context(), "start", survivor.ID); err != nil {
		t.Fatal(err)
	}
	bus := strings.Replace(survivor.API, ":8440", ":8442", 1)
	await(t, "the survivor answers the other node", func() bool { return poll(t, good, survivor.API) == nil && connect(t, good, bus) == nil })
	if err := poll(t, bad, survivor.API); !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("a poll of the revoked node: %v", err)
	}
	if err := connect(t, bad, bus); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a connection of the revoked node: %v", err)
	}
	if !badIs(0) {
		t.Error("the revoked node is connected, or gone")
	}
	if err := op.Do(t.Context(), http.MethodDelete, "/v1/nodes/"+string(good.Trust.Node), nil, nil, nil); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("there is a quorum: %v", err)
	}
}
