package controlplane_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// machine is an edge host in so far as the API knows it: its identity.
type machine struct {
	fleet.EnrolResponse
	source *mtls.Source
	csr    string
}

// enrol makes a machine a node, through one member.
func (c *cluster) enrol(id fleet.NodeID, address string, member int) machine {
	c.t.Helper()
	t := c.t
	tok, err := client.Post[client.JoinTokenCreated](t.Context(), c.client(), "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinNode})
	check(t, err)
	key, err := mtls.NewKey()
	check(t, err)
	csr, err := mtls.CSR(key)
	check(t, err)
	_, hpke, err := keyring.NewHPKEKey()
	check(t, err)
	pin := tok.Secret[strings.LastIndex(tok.Secret, ".")+1:]
	cl := c.must(client.New(client.Options{Addrs: []string{c.members[member].config.APIListen}, TLS: mtls.PinnedTLS(pin)}))
	m := machine{csr: string(csr)}
	m.EnrolResponse, err = client.Post[fleet.EnrolResponse](t.Context(), cl, "/v1/edge/enrol", fleet.EnrolRequest{
		Token: tok.Secret, Node: id, CSR: string(csr), HPKE: hpke, Addresses: []netip.Addr{netip.MustParseAddr(address)}, Sent: time.Now().UTC(),
	})
	check(t, err)
	keyPEM, err := mtls.EncodeKey(key)
	check(t, err)
	dir := t.TempDir()
	crt, keyFile := filepath.Join(dir, "node.crt"), filepath.Join(dir, "node.key")
	check(t, mtls.WriteIdentity(crt, keyFile, []byte(m.Certificate), keyPEM))
	m.source, err = mtls.OpenSource(crt, keyFile)
	check(t, err)
	return m
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node calls one member with the machine's certificate.
func (c *cluster) node(m machine, member int) *client.Client {
	c.t.Helper()
	pool, err := mtls.PoolFromPEM([]byte(m.APICA))
	check(c.t, err)
	return c.must(client.New(client.Options{Addrs: []string{c.members[member].config.APIListen}, TLS: mtls.ClientTLS(m.source, pool, "", nil), Timeout: 10 * time.Second}))
}

func reportOf(id fleet.NodeID) fleet.Report {
	return fleet.Report{Node: id, Boot: "b1", Sent: time.Now().UTC(), Software: "test", Serving: true, Heads: []fleet.HeadReport{}}
}

func TestANodeTalksToTheAPIOfAnyMember(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two members")
	}
	t.Parallel()
	c := start(t, 2)
	lead := c.leader()
	follower := 1 - lead
	tenant(t, c.client(), "red")
	m := c.enrol("n1", "192.0.2.1", follower)
	for _, member := range []int{follower, lead} {
		cl := c.node(m, member)
		renewal, err := mtls.SignRenewal(m.source.Certificate(), m.Cluster, "n1", []byte(m.csr), time.Now())
		check(t, err)
		if _, err := client.Post[fleet.EnrolResponse](t.Context(), cl, "/v1/edge/renew", renewal); err != nil {
			t.Error(err)
		}
		c.await("heads of every kind", func() bool {
			set, err := client.Post[fleet.HeadSet](t.Context(), cl, "/v1/edge/poll", reportOf("n1"))
			return err == nil && len(set.Heads) == len(fleet.HeadKinds) && set.Envelope != nil
		})
	}
	// A node that reaches a follower by HTTPS only is heard by the leader all the same.
	c.await("the leader knows that the node is up", func() bool {
		_, err := client.Post[fleet.HeadSet](t.Context(), c.node(m, follower), "/v1/edge/poll", reportOf("n1"))
		n, showErr := client.Get[fleet.Node](t.Context(), c.client(), "/v1/nodes/n1", nil)
		return err == nil && showErr == nil && n.Observed.State == fleet.NodeUp
	})
	check(t, c.client().Do(t.Context(), http.MethodDelete, "/v1/nodes/n1", nil, nil, nil))
	for member := range c.members {
		c.await("the revocation is known", func() bool {
			_, err := client.Post[fleet.HeadSet](t.Context(), c.node(m, member), "/v1/edge/poll", reportOf("n1"))
			return errors.Is(err, fleet.ErrDenied)
		})
	}
}

func TestAnEventOfANodeIsSeenAsItHappens(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	op := c.client()
	tenant(t, op, "red")
	made, err := client.Post[client.TokenCreated](t.Context(), op, "/v1/tenants/red/tokens", client.TokenCreate{})
	check(t, err)
	m := c.enrol("n1", "192.0.2.1", 0)
	events := make(chan fleet.Event, 16)
	ended := make(chan error, 1)
	go func() {
		ended <- c.client(made.Secret).Stream(t.Context(), "/v1/tenants/red/events:tail", nil, func(data []byte) error {
			var e fleet.Event
			if err := json.Unmarshal(data, &e); err != nil {
				return err
			}
			events <- e
			return nil
		})
	}()
	pool, err := mtls.PoolFromPEM([]byte(m.MemberCA))
	check(t, err)
	nc, err := nats.Connect("tls://"+m.Members[0].NATS, nats.Secure(mtls.ClientTLS(m.source, pool, mtls.MemberServerName(m.Cluster), nil)),
		nats.CustomInboxPrefix(m.Node.InboxPrefix()), nats.RetryOnFailedConnect(true), nats.ReconnectWait(50*time.Millisecond), nats.MaxReconnects(-1))
	check(t, err)
	defer nc.Close()
	seq := uint64(0)
	c.await("an event arrives", func() bool { // each try is another event: the stream may begin after the first
		seq++
		e := fleet.Event{
			ID: fleet.NewEventID("n1", "b1", seq), NodeID: "n1", Boot: "b1", Seq: seq, Time: time.Now().UTC(), Tenant: "red", Host: "api.example.com",
			Type: fleet.AttackSQLi, Status: fleet.Blocked,
		}
		b, err := json.Marshal(fleet.EventMessage{Event: e})
		check(t, err)
		msg := nats.NewMsg(m.Node.EventSubject())
		msg.Data = b
		msg.Header.Set(nats.MsgIdHdr, string(e.ID))
		_ = nc.PublishMsg(msg) // tried again
		return len(events) > 0
	})
	if e := <-events; e.Tenant != "red" || e.NodeID != "n1" {
		t.Errorf("event %+v", e)
	}
	got, err := client.All[fleet.Event](t.Context(), c.client(made.Secret), "/v1/tenants/red/events", url.Values{"limit": {"1"}})
	if err != nil || len(got) == 0 {
		t.Errorf("%d events, %v", len(got), err)
	}
	// An open stream does not keep a member from stopping.
	began := time.Now()
	c.members[0].stop(t)
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("the member took %s to stop", d)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("the stream ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("the stream goes on")
	}
}

func TestAHostWhoseDNSCannotBeLookedUpIsDeletedByForceOnly(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	op := c.client()
	tenant(t, op, "red")
	made, err := client.Post[client.TokenCreated](t.Context(), op, "/v1/tenants/red/tokens", client.TokenCreate{})
	check(t, err)
	red := c.client(made.Secret)
	_, err = client.Post[client.HostView](t.Context(), red, "/v1/tenants/red/hosts", client.HostCreate{Name: "a.example.com", Origins: []fleet.Origin{{URL: "https://203.0.113.9"}}})
	check(t, err)
	force := url.Values{"force": {"true"}}
	const path = "/v1/tenants/red/hosts/a.example.com"
	// The only resolver here is the edge's own DNS server, which knows nothing of example.com.
	if err := red.Do(t.Context(), http.MethodDelete, path, nil, nil, nil, client.IfMatchAny()); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("got %v", err)
	}
	if err := red.Do(t.Context(), http.MethodDelete, path, force, nil, nil, client.IfMatchAny()); !errors.Is(err, fleet.ErrDenied) {
		t.Errorf("by force: got %v", err)
	}
	if err := op.Do(t.Context(), http.MethodDelete, path, force, nil, nil, client.IfMatchAny()); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("by force, without a reason: got %v", err)
	}
	why := c.must(client.New(client.Options{Addrs: []string{c.members[0].config.APIListen}, CACert: c.cacert, Token: c.token, Reason: "the customer is gone", Timeout: 10 * time.Second}))
	check(t, why.Do(t.Context(), http.MethodDelete, path, force, nil, nil, client.IfMatchAny()))
}

func TestTheAPITalksTLS13Only(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	conn, err := tls.Dial("tcp", c.members[0].config.APIListen, &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true}) //nolint:gosec // it must fail
	if err == nil {
		_ = conn.Close()
		t.Error("the API talks TLS 1.2")
	}
}
