package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// previous is the program of a member that understands the formats before ours only.
const previous = "previous/controlplane"

func buildPrevious(t *testing.T) {
	t.Helper()
	args := []string{"build", "-tags", "previous", "-o", filepath.Join(binaries, "previous") + "/"}
	if race {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "../../controlplane/cmd/controlplane")...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
}

// upgraded is a cluster of three members, all of the previous build at first.
type upgraded struct {
	t       *testing.T
	members []*member
}

func newUpgraded(t *testing.T) *upgraded {
	t.Helper()
	u := &upgraded{t: t}
	for _, id := range []string{"m1", "m2", "m3"} {
		m := newMember(t, id)
		m.build = previous
		u.members = append(u.members, m)
		if id == "m1" {
			m.configure("raft_timeout: 500ms")
			m.initialize()
			m.start()
			continue
		}
		m.kek = u.members[0].kek
		m.configure("raft_timeout: 500ms")
		if r := m.controlplane("join", "--address", u.members[0].at(8440), "--token", u.members[0].must("cluster", "join-token")); r.code != fleet.ExitOK {
			t.Fatal(r.stderr)
		}
		m.launch()
		u.await("three members vote", func() bool { return u.voters() == len(u.members) })
	}
	return u
}

// client calls any of the members as the operator; at calls one of them.
func (u *upgraded) client(addrs ...string) *client.Client {
	u.t.Helper()
	if len(addrs) == 0 {
		for _, m := range u.members {
			addrs = append(addrs, m.at(8440))
		}
	}
	first := u.members[0]
	c, err := client.New(client.Options{Addrs: addrs, CACert: read(u.t, first.path("api-ca.crt")), Token: first.token(), Timeout: 20 * time.Second})
	if err != nil {
		u.t.Fatal(err)
	}
	return c
}

func (u *upgraded) await(what string, ok func() bool) {
	u.t.Helper()
	await(u.t, what, func() bool {
		for _, m := range u.members {
			if m.cmd != nil && m.cmd.ProcessState == nil && !m.running() {
				u.t.Fatalf("member %s ended: %s", m.id, m.log)
			}
		}
		return ok()
	})
}

// status is what one member says of the cluster.
func (u *upgraded) status(m *member, query ...string) client.ClusterStatus {
	u.t.Helper()
	path := "/v1/cluster"
	if len(query) > 0 {
		path += "?" + query[0]
	}
	s, err := client.Get[client.ClusterStatus](u.t.Context(), u.client(m.at(8440)), path, nil)
	if err != nil {
		return client.ClusterStatus{} // it starts
	}
	return s
}

// voters counts those that every running member sees.
func (u *upgraded) voters() int {
	n := 0
	for i, m := range u.members {
		s, seen := u.status(m), 0
		for _, member := range s.Members {
			if member.Suffrage == "voter" && s.Leader != "" {
				seen++
			}
		}
		if n = seen; i > 0 && n != seen || seen == 0 {
			return 0
		}
	}
	return n
}

// upgrade replaces the program of one member.
func (u *upgraded) upgrade(m *member) {
	u.t.Helper()
	m.stop()
	m.build = ""
	m.launch()
	u.await("member "+m.id+" says that it is upgraded, and votes", func() bool {
		if u.voters() != len(u.members) {
			return false
		}
		for _, other := range u.members {
			s := u.status(other)
			if i := slices.IndexFunc(s.Members, func(x client.MemberStatus) bool { return string(x.ID) == m.id }); i < 0 || s.Members[i].Format != 2 {
				return false
			}
		}
		return true
	})
}

// load writes until stop, which returns what was acknowledged.
func (u *upgraded) load() (stop func() []fleet.TenantID) {
	ctx, cancel := context.WithCancel(u.t.Context())
	u.t.Cleanup(cancel)
	var mu sync.Mutex
	var done sync.WaitGroup
	var acknowledged []fleet.TenantID
	for w := range 2 {
		cl := u.client()
		done.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fleet.TenantID(fmt.Sprintf("load-%d-%d", w, i))
				if _, err := client.Post[fleet.Tenant](context.WithoutCancel(ctx), cl, "/v1/tenants", client.TenantCreate{ID: id}); err == nil {
					mu.Lock()
					acknowledged = append(acknowledged, id)
					mu.Unlock()
				}
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	return func() []fleet.TenantID {
		cancel()
		done.Wait()
		return acknowledged
	}
}

// twice makes the same change twice under one idempotency key, and returns the second outcome.
func (u *upgraded) twice(id fleet.TenantID) error {
	u.t.Helper()
	var err error
	for range 2 {
		_, err = u.client().Raw(u.t.Context(), http.MethodPost, "/v1/tenants", nil, client.TenantCreate{ID: id}, client.Key("key-of-"+string(id)))
	}
	return err
}

func TestTheControlPlaneIsUpgradedMemberByMember(t *testing.T) {
	if testing.Short() {
		t.Skip("three members, each started twice")
	}
	t.Parallel()
	buildPrevious(t)
	u := newUpgraded(t)
	m1, m2, m3 := u.members[0], u.members[1], u.members[2]
	n, err := cluster{member: m1}.enrol(m1.must("node", "join-token"), "n1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stop := u.load()

	u.upgrade(m2)
	m1.must("cluster", "transfer-leader", "--to", "m2")
	u.await("the upgraded member leads", func() bool { return u.status(m1).Leader == "m2" })
	if s := u.status(m2); s.Format != 1 || !slices.Equal(s.OlderMembers, []fleet.MemberID{"m1", "m3"}) {
		t.Errorf("in between: format %d, older %v", s.Format, s.OlderMembers)
	}
	if r := run(t, "fleetctl", append(m1.env(), "FLEETCTL_ADDR="+m2.at(8440)), "cluster", "status"); !strings.Contains(r.stdout, "members that understand no newer one: m1,m3") {
		t.Errorf("cluster status says %s", r.stdout)
	}
	m1.fleetctl("node", "unlock", "n1").says(t, fleet.ExitConflict, "node_unlock needs log format 2", "the members m1, m3 understand 1", "upgrade them")
	if err := u.twice("held"); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("an idempotency key was remembered, which two members do not understand: %v", err)
	}
	u.renew(n, "node_renew")
	u.snapshot("", fleet.ExitOK)

	// One of the old ones is killed, and catches up with what the new one wrote.
	if err := m3.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = m3.cmd.Wait() // killed
	m3.launch()
	u.await("the member that was killed is back", func() bool { return u.voters() == len(u.members) && u.status(m3).Applied >= u.status(m2).Applied })

	u.upgrade(m3)
	u.upgrade(m1)
	u.await("every member understands the new format", func() bool {
		return !slices.ContainsFunc(u.members, func(m *member) bool { return u.status(m).Format != 2 })
	})
	m1.fleetctl("node", "unlock", "n1").says(t, fleet.ExitConflict, "nothing to unlock")
	if err := u.twice("open"); err != nil {
		t.Errorf("an idempotency key is not remembered: %v", err)
	}
	u.renew(n, "node_rotate")
	u.agree(stop())
	u.snapshot("this member is older than the cluster: upgrade it", fleet.ExitFailure)

	// There is no way back, and it is said.
	m3.stop()
	m3.build = previous
	r := m3.controlplane("run")
	if r.code == fleet.ExitOK || !strings.Contains(r.stderr, "this member is older than the cluster: upgrade it") {
		t.Errorf("the previous build on a new log: %d %s", r.code, r.stderr)
	}
}

// renew renews a node's certificate, which leaves an audit entry of that name.
func (u *upgraded) renew(n *node, operation string) {
	u.t.Helper()
	key, err := mtls.NewKey()
	if err != nil {
		u.t.Fatal(err)
	}
	csr, err := mtls.CSR(key)
	if err != nil {
		u.t.Fatal(err)
	}
	request, err := mtls.SignRenewal(n.source.Certificate(), n.Cluster, n.Node, csr, time.Now())
	if err != nil {
		u.t.Fatal(err)
	}
	answer, err := client.Post[fleet.EnrolResponse](u.t.Context(), u.client(), "/v1/edge/renew", request)
	if err != nil {
		u.t.Fatal(err)
	}
	keyPEM, err := mtls.EncodeKey(key)
	if err != nil {
		u.t.Fatal(err)
	}
	dir := u.t.TempDir()
	cert, keyFile := filepath.Join(dir, "node.crt"), filepath.Join(dir, "node.key")
	if err := mtls.WriteIdentity(cert, keyFile, []byte(answer.Certificate), keyPEM); err != nil {
		u.t.Fatal(err)
	}
	if n.source, err = mtls.OpenSource(cert, keyFile); err != nil {
		u.t.Fatal(err)
	}
	if r := u.members[0].fleetctl("audit", "list", "--object", "node/"+string(n.Node)); !strings.Contains(r.stdout, operation) {
		u.t.Errorf("no %s in the audit log: %s", operation, r.stdout)
	}
}

// snapshot has the previous build read a snapshot of the cluster, which leads on an upgraded member.
func (u *upgraded) snapshot(says string, code int) {
	u.t.Helper()
	first, file := u.members[0], filepath.Join(u.t.TempDir(), "edgefleet.snapshot")
	first.must("cluster", "snapshot", "save", file)
	other := newMember(u.t, "m1")
	other.build, other.kek = previous, first.kek
	other.configure()
	r := other.controlplane("init", "--from-snapshot", file, "--recovery-key", first.path("recovery.key"), "--yes")
	if r.code != code || !strings.Contains(r.stderr, says) {
		u.t.Errorf("the previous build reads a snapshot: %d %s", r.code, r.stderr)
	}
}

// agree holds every member's state against what was acknowledged, and against the others'.
func (u *upgraded) agree(acknowledged []fleet.TenantID) {
	u.t.Helper()
	tenants, err := client.All[fleet.Tenant](u.t.Context(), u.client(), "/v1/tenants", nil)
	if err != nil {
		u.t.Fatal(err)
	}
	there := map[fleet.TenantID]bool{}
	for _, tenant := range tenants {
		there[tenant.ID] = true
	}
	for _, id := range acknowledged {
		if !there[id] {
			u.t.Errorf("the acknowledged tenant %s is lost", id)
		}
	}
	if len(acknowledged) < 50 {
		u.t.Errorf("%d writes were acknowledged: there was no load", len(acknowledged))
	}
	u.await("all members have the same state", func() bool {
		var hashes, at []string
		for _, m := range u.members {
			s := u.status(m, "hash=true")
			hashes, at = append(hashes, s.StateHash), append(at, fmt.Sprint(s.Applied))
		}
		return len(slices.Compact(hashes)) == 1 && hashes[0] != "" && len(slices.Compact(at)) == 1
	})
}
