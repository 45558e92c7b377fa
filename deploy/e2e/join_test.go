package e2e_test

import (
	"errors"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// pin is the fingerprint that ends a join token.
func pin(token string) string { return token[strings.LastIndexByte(token, '.')+1:] }

// repinned is a join token with another fingerprint.
func repinned(token, fingerprint string) string {
	return strings.TrimSuffix(token, pin(token)) + fingerprint
}

func TestAJoinTokenIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	other := newMember(t, "o1")
	other.initialize()
	other.start()
	node, member := c.must("node", "join-token"), c.must("cluster", "join-token")
	expired := c.must("node", "join-token", "--ttl", "1s")
	expiredMember := c.must("cluster", "join-token", "--ttl", "1s")
	ends := time.Now().Add(1100 * time.Millisecond)
	await(t, "the tokens expire", func() bool { return time.Now().After(ends) })
	foreign, foreignMember := other.must("node", "join-token"), other.must("cluster", "join-token")
	const fresh = "fleetctl node join-token"

	for _, tt := range []struct {
		name, token string
		code        int
		words       []string
	}{
		{"none", "", fleet.ExitFailure, []string{"has no join token", fresh, "EDGEFLEET_JOIN_TOKEN"}},
		{"garbage", "garbage", fleet.ExitFailure, []string{"not of the form efn1.", fresh}},
		{"one that is cut off", node[:len(node)-10], fleet.ExitFailure, []string{"cut off", fresh}},
		{"a member's", member, fleet.ExitFailure, []string{"control-plane member's join token", fresh}},
		{"a member's in disguise", strings.Replace(member, "efm1.", "efn1.", 1), fleet.ExitDenied, []string{"not a node join token of this cluster", fresh}},
		{"an expired one", expired, fleet.ExitDenied, []string{"expired", fresh}},
		{"another cluster's", foreign, fleet.ExitDenied, []string{c.at(8440), "certificate authority that the join token names", fresh}},
		{"another cluster's with our pin", repinned(foreign, pin(node)), fleet.ExitDenied, []string{"not a node join token of this cluster", fresh}},
	} {
		t.Run("for a node: "+tt.name, func(t *testing.T) {
			c := c.on(t)
			e := newEdge(t, "n1", c.member)
			c.unchanged(func() {
				r := e.run(tt.token)
				r.says(t, tt.code, append(tt.words, "edgesupervisor: ")...)
				hidesSecret(t, r, tt.token)
			})
			missing(t, filepath.Join(e.dir, "data", "identity", "trust.json"))
		})
	}
	for _, tt := range []struct {
		name, token string
		code        int
		words       []string
	}{
		{"none", "", fleet.ExitFailure, []string{"not a member join token", "fleetctl cluster join-token"}},
		{"garbage", "garbage", fleet.ExitFailure, []string{"not a member join token", "fleetctl cluster join-token"}},
		{"a node's", node, fleet.ExitFailure, []string{"not a member join token", "fleetctl cluster join-token"}},
		{"a node's in disguise", strings.Replace(node, "efn1.", "efm1.", 1), fleet.ExitDenied, []string{"not a member join token of this cluster", "ask an operator"}},
		{"an expired one", expiredMember, fleet.ExitDenied, []string{"expired", "ask an operator"}},
		{"another cluster's", foreignMember, fleet.ExitDenied, []string{c.at(8440), "certificate authority that the join token names", "new token"}},
		{"another cluster's with our pin", repinned(foreignMember, pin(node)), fleet.ExitDenied, []string{"not a member join token of this cluster", "ask an operator"}},
	} {
		t.Run("for a member: "+tt.name, func(t *testing.T) {
			c := c.on(t)
			m := newMember(t, "m2")
			c.unchanged(func() {
				r := m.controlplane("join", "--address", c.at(8440), "--token", tt.token)
				r.says(t, tt.code, append(tt.words, "controlplane: ")...)
				hidesSecret(t, r, tt.token)
			})
			missing(t, m.data())
		})
	}
	t.Run("an address that is none", func(t *testing.T) {
		m := newMember(t, "m2")
		m.controlplane("join", "--token", member).says(t, fleet.ExitFailure, "--address host:port")
		m.controlplane("join", "--token", member, "--address", m.at(8440)).says(t, fleet.ExitFailure, m.at(8440), "cannot be reached", "--address")
		missing(t, m.data())
	})
	t.Run("a member's that was used", func(t *testing.T) {
		c := c.on(t)
		first, second := newMember(t, "m2"), newMember(t, "m3")
		if r := first.controlplane("join", "--address", c.at(8440), "--token", member); r.code != fleet.ExitOK {
			t.Fatal(r.stderr)
		}
		c.unchanged(func() {
			second.controlplane("join", "--address", c.at(8440), "--token", member).says(t, fleet.ExitDenied, "was used already", "ask an operator for a new one")
		})
		missing(t, second.data())
	})
}

// hidesSecret holds a message against the secret part of a join token.
func hidesSecret(t *testing.T, r result, token string) {
	t.Helper()
	if parts := strings.Split(token, "."); len(parts) > 2 {
		r.hides(t, parts[2])
	}
}

func TestAReplayedJoinTokenIsRefusedAndTheFirstNodeStays(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	token := c.must("node", "join-token")
	first := newEdge(t, "n1", c.member)
	cmd := program("edgesupervisor", []string{"EDGEFLEET_JOIN_TOKEN=" + token}, "run", "--config", first.file())
	log := &buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		end(t, cmd, syscall.SIGKILL, 30*time.Second)
	})
	await(t, "n1 is up", func() bool {
		n, err := client.Get[fleet.Node](t.Context(), c.client(), "/v1/nodes/n1", nil)
		return err == nil && n.Observed.State == fleet.NodeUp
	})
	before := c.decided()

	second := newEdge(t, "n2", c.member)
	second.run(token).says(t, fleet.ExitDenied, "was used already", "fleetctl node join-token", "start edgesupervisor again")
	missing(t, filepath.Join(second.dir, "data", "identity", "trust.json"))

	// A second supervisor on the same directory is one that runs already, not a reason to enrol.
	first.run(token).says(t, fleet.ExitConflict, "another edgesupervisor", "stop it", "data_dir")

	// The name of a node that lives is taken, and asking for it costs no token.
	fresh := c.must("node", "join-token")
	twin := newEdge(t, "n1", c.member)
	twin.run(fresh).says(t, fleet.ExitConflict, "node id n1 is taken", "choose another")
	if after := c.decided(); after != before {
		t.Errorf("the state changed:\n%s\nto:\n%s", before, after)
	}
	if _, err := c.enrol(fresh, "n3", time.Now()); err != nil {
		t.Errorf("the token of the refused node: %v", err)
	}
}

// node is an enrolled identity without a program.
type node struct {
	fleet.EnrolResponse
	client *client.Client
	source *mtls.Source
}

// enrol exchanges a join token for an identity, at the time that the newcomer's clock shows.
func (c cluster) enrol(token string, id fleet.NodeID, sent time.Time) (*node, error) {
	c.t.Helper()
	key, err := mtls.NewKey()
	c.ok(err)
	keyPEM, err := mtls.EncodeKey(key)
	c.ok(err)
	csr, err := mtls.CSR(key)
	c.ok(err)
	_, hpke, err := keyring.NewHPKEKey()
	c.ok(err)
	first, err := client.New(client.Options{Addrs: []string{c.at(8440)}, TLS: mtls.PinnedTLS(pin(token))})
	c.ok(err)
	n := &node{}
	n.EnrolResponse, err = client.Post[fleet.EnrolResponse](c.t.Context(), first, "/v1/edge/enrol", fleet.EnrolRequest{
		Token: token, Node: id, CSR: string(csr), HPKE: hpke, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, id[len(id)-1]})}, Sent: sent,
	})
	if err != nil {
		return nil, err
	}
	dir := c.t.TempDir()
	cert, keyFile := filepath.Join(dir, "node.crt"), filepath.Join(dir, "node.key")
	c.ok(mtls.WriteIdentity(cert, keyFile, []byte(n.Certificate), keyPEM))
	source, err := mtls.OpenSource(cert, keyFile)
	c.ok(err)
	n.source = source
	roots, err := mtls.PoolFromPEM([]byte(n.APICA))
	c.ok(err)
	n.client, err = client.New(client.Options{Addrs: []string{c.at(8440)}, TLS: mtls.ClientTLS(source, roots, "", nil)})
	c.ok(err)
	return n, nil
}

func (c cluster) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func TestAClockThatIsOffByMinutes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	nodeToken, memberToken := c.must("node", "join-token"), c.must("cluster", "join-token")
	for name, sent := range map[string]func() time.Time{
		"ahead":  func() time.Time { return time.Now().Add(5 * time.Minute) },
		"behind": func() time.Time { return time.Now().Add(-5 * time.Minute) },
		"unset":  func() time.Time { return time.Time{} },
	} {
		t.Run("enrolment and join are refused: "+name, func(t *testing.T) {
			c := c.on(t)
			c.unchanged(func() {
				_, err := c.enrol(nodeToken, "n1", sent())
				c.refusedForItsClock(err, name)
				c.refusedForItsClock(c.join(memberToken, sent()), name)
			})
		})
	}
	t.Run("the tokens were not used up", func(t *testing.T) {
		c := c.on(t)
		_, err := c.enrol(nodeToken, "n1", time.Now())
		c.ok(err)
		c.ok(c.join(memberToken, time.Now()))
	})
	t.Run("a report from a node whose clock went off makes cluster check warn", func(t *testing.T) {
		c := c.on(t)
		n, err := c.enrol(c.must("node", "join-token"), "n2", time.Now())
		c.ok(err)
		report := fleet.Report{Node: "n2", Boot: "b1", Software: "test", Serving: true, Heads: []fleet.HeadReport{}}
		check := func(sent time.Time) string {
			report.Sent = sent
			_, err := client.Post[fleet.HeadSet](t.Context(), n.client, "/v1/edge/poll", report)
			c.ok(err)
			return c.fleetctl("cluster", "check").stdout
		}
		await(t, "the check warns", func() bool {
			out := check(time.Now().Add(-5 * time.Minute))
			return strings.Contains(out, "the clock of n2 is off by 5m") && strings.Contains(out, "NTP")
		})
		await(t, "the check is content again", func() bool { return !strings.Contains(check(time.Now()), "the clock of n2") })
	})
	t.Run("a node reports for itself only", func(t *testing.T) {
		c := c.on(t)
		n, err := c.enrol(c.must("node", "join-token"), "n4", time.Now())
		c.ok(err)
		err = n.client.Do(t.Context(), http.MethodPost, "/v1/edge/poll", nil, fleet.Report{Node: "n1", Sent: time.Now(), Heads: []fleet.HeadReport{}}, nil)
		if !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "for itself only") {
			t.Errorf("got %v", err)
		}
	})
}

func (c cluster) refusedForItsClock(err error, name string) {
	c.t.Helper()
	words := []string{"clock is off by", "limit 1m0s", "NTP"}
	if name != "unset" {
		words = append(words, "5m0s")
	}
	if !errors.Is(err, fleet.ErrInvalid) {
		c.t.Fatalf("got %v, want a refusal", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			c.t.Errorf("the message lacks %q: %v", w, err)
		}
	}
}

// join asks for a member's identity, at the time that the newcomer's clock shows.
func (c cluster) join(token string, sent time.Time) error {
	c.t.Helper()
	var csrs []string
	for range 2 {
		key, err := mtls.NewKey()
		c.ok(err)
		csr, err := mtls.CSR(key)
		c.ok(err)
		csrs = append(csrs, string(csr))
	}
	first, err := client.New(client.Options{Addrs: []string{c.at(8440)}, TLS: mtls.PinnedTLS(pin(token))})
	c.ok(err)
	ip := loopback()
	return first.Do(c.t.Context(), http.MethodPost, "/v1/cluster/join", nil, client.MemberJoin{
		Token: token, CSR: csrs[0], APICSR: csrs[1], Sent: sent,
		Member: fleet.Member{ID: "m9", Raft: ip + ":8441", API: ip + ":8440", NATS: ip + ":8442", NATSRoute: ip + ":8443", DNS: ip + ":8053", Format: command.Format},
	}, nil)
}
