package controlplane_test

import (
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// suffrage is what a member's part is, as the cluster says; empty if it does not belong to it.
func (c *cluster) suffrage(id fleet.MemberID) string {
	p, err := client.Get[client.Page[client.MemberStatus]](c.t.Context(), c.client(), "/v1/cluster/members", nil)
	if err != nil {
		return "unknown"
	}
	for _, m := range p.Items {
		if m.ID == id {
			return m.Suffrage
		}
	}
	return ""
}

func (c *cluster) remove(id fleet.MemberID) {
	c.t.Helper()
	if err := c.client().Do(c.t.Context(), http.MethodDelete, "/v1/cluster/members/"+string(id), nil, nil, nil); err != nil {
		c.t.Fatalf("remove %s: %v", id, err)
	}
}

func TestMembersComeAndGoUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("starts four members")
	}
	c := start(t, 3)
	w := c.write("w", c.at(1), c.at(2))
	standby := newConfig(t, "standby", c.kek)
	standby.Nonvoter = true
	c.join(standby)
	c.await("the standby receives the state", func() bool {
		return c.suffrage("standby") == "nonvoter" && strings.Contains(readyz(t, c.members[3]), `"ready":true`)
	})
	w.progress()

	// The leader is removed: it hands over, and stops when it is told that it is not wanted any more.
	gone := c.members[0]
	if _, err := client.Post[client.LeaderTransferred](t.Context(), c.client(), "/v1/cluster/transfer-leader", client.LeaderTransfer{To: gone.config.Member}); err != nil {
		t.Fatal(err)
	}
	c.members = c.members[1:]
	w.progress()
	c.remove(gone.config.Member)
	if s := c.suffrage(gone.config.Member); s != "" {
		t.Errorf("the member that was removed is a %s", s)
	}
	select {
	case err := <-gone.done:
		close(gone.done)
		if !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "join it again with a new token") {
			t.Errorf("the member that was removed stopped with %v", err)
		}
	case <-time.After(patience):
		t.Error("the member that was removed does not stop")
	}
	w.progress()

	// Its certificate is good for nothing any more, and starting it again does not bring it back.
	identity := filepath.Join(gone.config.DataDir, "identity")
	src, err := mtls.OpenSource(filepath.Join(identity, "member.crt"), filepath.Join(identity, "member.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots, err := mtls.PoolFromPEM(c.cacert)
	if err != nil {
		t.Fatal(err)
	}
	old := c.must(client.New(client.Options{Addrs: []string{c.members[0].config.APIListen}, TLS: mtls.ClientTLS(src, roots, "", nil)}))
	for what, call := range map[string]func() error{
		"its announcement": func() error {
			return old.Do(t.Context(), http.MethodPost, "/v1/cluster/announce", nil, fleet.Member{ID: gone.config.Member}, nil)
		},
		"a question of it": func() error { return old.Do(t.Context(), http.MethodGet, "/v1/cluster/stats", nil, nil, nil) },
	} {
		if err := call(); !errors.Is(err, fleet.ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}

	// Its successor has its id, and a directory and a certificate of its own.
	next := newConfig(t, string(gone.config.Member), c.kek)
	c.join(next)
	c.await("the successor votes", func() bool { return c.suffrage(next.Member) == "voter" })
	if err := old.Do(t.Context(), http.MethodGet, "/v1/cluster/stats", nil, nil, nil); !errors.Is(err, fleet.ErrDenied) {
		t.Errorf("the certificate of the one before: %v", err)
	}
	w.progress()
	w.end(c)
	if s := c.suffrage("standby"); s != "nonvoter" {
		t.Errorf("the standby became a %s", s)
	}
	var healthy []fleet.MemberID
	c.await("all members are healthy", func() bool {
		p, err := client.Get[client.Page[client.MemberStatus]](t.Context(), c.client(), "/v1/cluster/members", nil)
		healthy = nil
		for _, m := range p.Items {
			if m.Health != nil && m.Health.Healthy {
				healthy = append(healthy, m.ID)
			}
		}
		return err == nil && len(healthy) == 4
	})
}

func TestANewcomerBlocksNoWritesUntilItHasTheState(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two members")
	}
	t.Parallel()
	// The one member would need both, had the newcomer a vote.
	c := startWith(t, 1, func(first *controlplane.Config) { first.Autopilot.Stabilization = time.Hour })
	newcomer := newConfig(t, "m2", c.kek)
	c.join(newcomer)
	c.await("the newcomer is well", func() bool {
		p, err := client.Get[client.Page[client.MemberStatus]](t.Context(), c.at(0), "/v1/cluster/members", nil)
		return err == nil && len(p.Items) == 2 && p.Items[1].Suffrage == "nonvoter" && p.Items[1].Health != nil && p.Items[1].Health.Healthy
	})
	c.members[1].stop(t)
	tenant(t, c.at(0), "while-it-is-away")
	if s := c.suffrage("m2"); s != "nonvoter" {
		t.Errorf("the newcomer is a %s", s)
	}

	// It is the time that it has to be well for, and nothing else, that keeps it from voting.
	first := c.members[0]
	first.stop(t)
	first.config.Autopilot.Stabilization = 10 * time.Millisecond
	c.members = nil
	c.run(first.config)
	c.await("the first leads again", func() bool { return c.suffrage("m1") == "voter" })
	tenant(t, c.at(0), "before-it-is-back")
	c.run(newcomer)
	c.await("the newcomer votes", func() bool { return c.suffrage("m2") == "voter" })
}

func TestAMemberThatIsGoneIsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("starts four members")
	}
	t.Parallel()
	c := start(t, 3)
	lead := c.leader()
	gone := c.members[(lead+1)%3]
	gone.stop(t)
	c.members = append(c.members[:(lead+1)%3], c.members[(lead+1)%3+1:]...)
	w := c.write("w", c.at(0), c.at(1))
	w.progress()

	c.join(newConfig(t, "m4", c.kek))
	c.await("the successor votes", func() bool { return c.suffrage("m4") == "voter" })
	if s := c.suffrage(gone.config.Member); s != "voter" {
		t.Errorf("the one that is gone is a %q before it is removed", s)
	}
	c.remove(gone.config.Member)
	if s := c.suffrage(gone.config.Member); s != "" {
		t.Errorf("the one that is gone is a %s", s)
	}
	w.progress()
	w.end(c)

	// Three vote again: one of the old ones may stop, for the successor counts, and the one that is gone does not.
	old := c.members[1]
	old.stop(t)
	c.members = []*running{c.members[0], c.members[2]}
	tenant(t, c.client(), "with-the-successor")

	// Its host comes back to life: it is told that it does not belong any more.
	back := c.run(gone.config)
	c.members = c.members[:2]
	select {
	case err := <-back.done:
		close(back.done)
		if !errors.Is(err, fleet.ErrDenied) {
			t.Errorf("the one that came back stopped with %v", err)
		}
	case <-time.After(patience):
		t.Error("the one that came back does not stop")
	}
}

func TestADeadMemberIsRemovedAndOneThatOnlyItsAPIIsSilentOfIsNot(t *testing.T) {
	if testing.Short() {
		t.Skip("starts four members")
	}
	t.Parallel()
	c := startWith(t, 1, func(first *controlplane.Config) {
		first.Autopilot.RemoveDead, first.Autopilot.DeadAfter, first.Autopilot.MinQuorum = true, 2*time.Second, 1
	})
	silent := newConfig(t, "m2", c.kek)
	_, port, err := net.SplitHostPort(silent.APIListen)
	if err != nil {
		t.Fatal(err)
	}
	silent.APIListen = net.JoinHostPort(newConfig(t, "m9", c.kek).Advertise, port) // where nobody looks for it
	silent.Nonvoter = true
	dead := newConfig(t, "m3", c.kek)
	dead.Nonvoter = true
	c.join(dead)
	c.join(silent)
	members := func() map[fleet.MemberID]string {
		s, err := client.Get[client.ClusterStatus](t.Context(), c.at(0), "/v1/cluster", nil)
		if err != nil {
			return nil
		}
		out := map[fleet.MemberID]string{}
		for _, m := range s.Members {
			out[m.ID] = m.Suffrage
		}
		return out
	}
	c.await("all are there", func() bool { m := members(); return m["m2"] == "nonvoter" && m["m3"] == "nonvoter" })
	c.members[1].stop(t)
	c.await("the dead one is removed", func() bool { m := members(); return m != nil && m["m3"] == "" })
	if m := members(); m["m2"] != "nonvoter" {
		t.Errorf("a member whose Raft runs was removed: %v", m)
	}
}
