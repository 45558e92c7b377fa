package api_test

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// bound puts a node into the state whose last certificate, of the key that is returned, began at a time.
func (f *fixture) bound(id fleet.NodeID, last byte, began time.Time) tls.Certificate {
	f.t.Helper()
	cert := f.certificate(func(k any) ([]byte, error) { return f.keys.NodeCA.SignNode("c-test", id, k, began) })
	spki, err := mtls.SPKI(cert.Leaf.PublicKey)
	must(f.t, err)
	_, hpke, err := keyring.NewHPKEKey()
	must(f.t, err)
	tok := fleet.JoinToken{ID: fleet.TokenID("join-" + id), Kind: fleet.JoinNode, Group: fleet.DefaultGroup, Region: fleet.DefaultRegion, ExpiresAt: time.Now().Add(time.Minute)}
	f.propose(command.JoinTokenPut{Token: fleet.JoinTokenRecord{JoinToken: tok, Hash: make([]byte, fleet.HashBytes)}})
	f.propose(command.NodeEnrol{
		Token: tok.ID, ID: id, Spec: fleet.NodeSpec{Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, last})}},
		Identity: fleet.NodeIdentity{SPKI: spki, HPKE: hpke, NotAfter: cert.Leaf.NotAfter},
	})
	return cert
}

// renewal is a node's request, and the key that it asks for.
func renewal(t *testing.T, last tls.Certificate, id fleet.NodeID) (fleet.RenewRequest, []byte) {
	t.Helper()
	key, err := mtls.NewKey()
	must(t, err)
	csr, err := mtls.CSR(key)
	must(t, err)
	r, err := mtls.SignRenewal(&last, "c-test", id, csr, time.Now())
	must(t, err)
	keyPEM, err := mtls.EncodeKey(key)
	must(t, err)
	return r, keyPEM
}

// renewed is the certificate that a member answered.
func renewed(t *testing.T, a answer, keyPEM []byte) tls.Certificate {
	t.Helper()
	var r fleet.EnrolResponse
	a.want(200).into(&r)
	cert, err := tls.X509KeyPair([]byte(r.Certificate), keyPEM)
	must(t, err)
	return cert
}

const day = 24 * time.Hour

func TestANodeThatWasAwayForDaysComesBackByItsKey(t *testing.T) {
	f := open(t, 2)
	cert := f.bound("n1", 1, time.Now().Add(-40*day))
	if res, err := f.at(0, "", cert).http.Get("https://" + f.members[0].addr + "/v1/openapi.json"); err == nil {
		t.Error("a connection with a certificate that ended")
		_ = res.Body.Close()
	}
	for i := range f.members { // through the leader and through a follower
		r, key := renewal(t, cert, "n1")
		cert = renewed(t, f.at(i, "").call("POST", "/v1/edge/renew", r), key)
		f.at(i, "", cert).call("POST", "/v1/edge/poll", report("n1")).want(200)
	}
	entries := f.audit()
	if e := entries[len(entries)-1]; e.Operation != "node_rotate" || e.Name != "node/n1" || e.Source != "127.0.0.1" {
		t.Errorf("%+v", e)
	}
}

func TestWhoDoesNotComeBackIsToldWhatToDo(t *testing.T) {
	f := open(t, 1)
	n1, n2 := f.bound("n1", 1, time.Now().Add(-2*day)), f.bound("n2", 2, time.Now().Add(-92*day))
	n3 := f.bound("n3", 3, time.Now())
	f.propose(command.NodeRevoke{ID: "n3"})
	ask := func(cert tls.Certificate, id fleet.NodeID, change func(*fleet.RenewRequest)) answer {
		r, _ := renewal(t, cert, id)
		if change != nil {
			change(&r)
		}
		return f.at(0, "").call("POST", "/v1/edge/renew", r)
	}
	const anew = "fleetctl node join-token"
	for name, test := range map[string]struct {
		got    answer
		status int
		says   string
	}{
		"after three months":             {ask(n2, "n2", nil), 403, "more than 90 days ago"},
		"revoked":                        {ask(n3, "n3", nil), 403, "was revoked"},
		"another node's name":            {ask(n1, "n2", nil), 401, anew},
		"a node that never was":          {ask(f.nodeCert("n9"), "n9", nil), 403, anew},
		"no node's name":                 {ask(n1, "N 1", nil), 422, "node"},
		"with a wrong clock":             {ask(n1, "n1", func(r *fleet.RenewRequest) { r.Sent = r.Sent.Add(-time.Hour) }), 422, "NTP"},
		"with a key of its own":          {ask(f.certificate(func(k any) ([]byte, error) { return f.keys.MemberCA.SignNode("c-test", "n1", k, time.Now()) }), "n1", nil), 401, anew},
		"another cluster's":              {ask(f.certificate(func(k any) ([]byte, error) { return f.keys.NodeCA.SignNode("c-other", "n1", k, time.Now()) }), "n1", nil), 401, anew},
		"with another's signature":       {ask(n1, "n1", func(r *fleet.RenewRequest) { r.Signature = sign(t, n3, *r) }), 401, anew},
		"with a signature for other key": {ask(n1, "n1", func(r *fleet.RenewRequest) { r.CSR = csr(t) }), 401, anew},
		"with a certificate that is cut": {ask(n1, "n1", func(r *fleet.RenewRequest) { r.Certificate = r.Certificate[:99] }), 422, "certificate in PEM"},
		"with a broken signature":        {ask(n1, "n1", func(r *fleet.RenewRequest) { r.Signature = []byte("x") }), 401, anew},
	} {
		if test.got.status != test.status || !strings.Contains(test.got.Detail, test.says) {
			t.Errorf("%s: got %d %s, want %d with %q", name, test.got.status, test.got.body, test.status, test.says)
		}
	}
	if n, _ := f.members[0].state.Read().Node("n1"); n.Lock != nil || n.Renewal.Generation != 0 {
		t.Errorf("a stranger changed n1: %+v %+v", n.Renewal, n.Lock)
	}
}

// sign signs r with the key of another certificate.
func sign(t *testing.T, with tls.Certificate, r fleet.RenewRequest) []byte {
	t.Helper()
	forged, err := mtls.SignRenewal(&with, "c-test", r.Node, []byte(r.CSR), r.Sent)
	must(t, err)
	return forged.Signature
}

func TestForgersOfRenewalsAreSlowedDown(t *testing.T) {
	f := open(t, 1)
	cert := f.bound("n1", 1, time.Now())
	r, _ := renewal(t, cert, "n1")
	r.Signature = []byte("x")
	status := 0
	for range 30 {
		status = f.at(0, "").call("POST", "/v1/edge/renew", r).status
	}
	if status != 429 {
		t.Errorf("got %d after 30 forgeries, want 429", status)
	}
}

func TestALostAnswerIsNoSecondMachine(t *testing.T) {
	f := open(t, 2)
	cert := f.bound("n1", 1, time.Now())
	r, key := renewal(t, cert, "n1")
	f.at(0, "").call("POST", "/v1/edge/renew", r).want(200) // its answer is lost, and the member dies
	f.lead("m2")
	again, err := mtls.SignRenewal(&cert, "c-test", "n1", []byte(r.CSR), time.Now())
	must(t, err)
	next := renewed(t, f.at(1, "").call("POST", "/v1/edge/renew", again), key)
	r, key = renewal(t, next, "n1")
	next = renewed(t, f.at(1, "").call("POST", "/v1/edge/renew", r), key)
	f.at(0, "", next).call("POST", "/v1/edge/poll", report("n1")).want(200)
}

func TestACopiedIdentityLocksBothUntilAnOperatorDecides(t *testing.T) {
	f := open(t, 2)
	original := f.bound("n1", 1, time.Now())
	stolen := original
	r, key := renewal(t, original, "n1")
	original = renewed(t, f.at(0, "").call("POST", "/v1/edge/renew", r), key)
	r, _ = renewal(t, stolen, "n1")
	if got := f.at(1, "").call("POST", "/v1/edge/renew", r).want(403); !strings.Contains(got.Detail, "fleetctl node unlock n1") || !strings.Contains(got.Detail, "key that was replaced") {
		t.Errorf("got %s", got.body)
	}
	entries := f.audit()
	if e := entries[len(entries)-1]; e.Operation != "node_lock" || e.Name != "node/n1" {
		t.Errorf("%+v", e)
	}
	if !strings.Contains(f.members[0].logs.String(), "node locked: its identity is on two machines") {
		t.Error("the log says nothing")
	}
	for i := range f.members { // both are refused, by every member
		for _, cert := range []tls.Certificate{original, stolen} {
			f.at(i, "", cert).call("POST", "/v1/edge/poll", report("n1")).want(403)
			r, _ := renewal(t, cert, "n1")
			f.at(i, "").call("POST", "/v1/edge/renew", r).want(403)
		}
	}
	var n fleet.Node
	f.op().call("GET", "/v1/nodes/n1", nil).want(200).into(&n)
	if n.Lock == nil || n.Lock.Reason == "" {
		t.Errorf("the node is shown as %+v", n)
	}
	f.at(0, f.tenant("red", "")).call("POST", "/v1/nodes/n1/unlock", nil).want(403)
	f.op().call("POST", "/v1/nodes/n1/unlock", nil).want(200)
	f.op().call("POST", "/v1/nodes/n1/unlock", nil).want(409)
	f.op().call("POST", "/v1/nodes/n9/unlock", nil).want(404)
	r, key = renewal(t, original, "n1")
	original = renewed(t, f.at(1, "").call("POST", "/v1/edge/renew", r), key)
	f.at(0, "", original).call("POST", "/v1/edge/poll", report("n1")).want(200)
	// The copy is as bad as before.
	r, _ = renewal(t, stolen, "n1")
	f.at(0, "").call("POST", "/v1/edge/renew", r).want(403)
	f.at(0, "", original).call("POST", "/v1/edge/poll", report("n1")).want(403)
}

func TestNodesRenewWhileTheControlPlaneIsUpgraded(t *testing.T) {
	f := open(t, 2)
	cert := f.bound("n1", 1, time.Now())
	older := f.members[1].record()
	older.Format = 1
	f.propose(command.MemberPut{Member: older})
	r, key := renewal(t, cert, "n1")
	renewed(t, f.at(0, "").call("POST", "/v1/edge/renew", r), key)
	entries := f.audit()
	if e := entries[len(entries)-1]; e.Operation != "node_renew" {
		t.Errorf("%+v", e)
	}
	f.at(0, "").call("POST", "/v1/edge/renew", r).want(200) // its answer was lost
	r, _ = renewal(t, cert, "n1")
	if got := f.at(0, "").call("POST", "/v1/edge/renew", r).want(503); !strings.Contains(got.Detail, "[m2] are upgraded") {
		t.Errorf("got %s", got.body)
	}
	f.propose(command.MemberPut{Member: f.members[1].record()})
	f.at(0, "").call("POST", "/v1/edge/renew", r).want(403)
	if n, _ := f.members[0].state.Read().Node("n1"); n.Lock == nil {
		t.Error("the copy was not noticed")
	}
}

func TestAnOlderMemberDoesNotJoinANewerCluster(t *testing.T) {
	f := open(t, 1)
	var tok client.JoinTokenCreated
	f.op().call("POST", "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinMember}).want(201).into(&tok)
	m := fleet.Member{ID: "m9", API: "192.0.2.9:1", Raft: "192.0.2.9:2", NATS: "192.0.2.9:3", NATSRoute: "192.0.2.9:4", DNS: "192.0.2.9:5"}
	in := client.MemberJoin{Token: tok.Secret, Member: m, CSR: csr(t), APICSR: csr(t), Sent: time.Now().UTC()}
	if got := f.at(0, "").call("POST", "/v1/cluster/join", in).want(409); !strings.Contains(got.Detail, "install the release that the other members run") {
		t.Errorf("got %s", got.body)
	}
	in.Member.Format = command.Format
	f.at(0, "").call("POST", "/v1/cluster/join", in).want(201)
}
