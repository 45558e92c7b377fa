package api_test

import (
	"crypto"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
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

var noHeads = []fleet.HeadReport{}

func report(id fleet.NodeID) fleet.Report {
	return fleet.Report{Node: id, Boot: "b1", Sent: time.Now().UTC(), Software: "test", Serving: true, Heads: noHeads}
}

// enrolment is a valid request of a new machine but for the token.
func enrolment(t *testing.T, token string) fleet.EnrolRequest {
	t.Helper()
	key, err := mtls.NewKey()
	must(t, err)
	csr, err := mtls.CSR(key)
	must(t, err)
	return enrolmentOf(t, token, string(csr))
}

func enrolmentOf(t *testing.T, token, csr string) fleet.EnrolRequest {
	t.Helper()
	_, hpke, err := keyring.NewHPKEKey()
	must(t, err)
	return fleet.EnrolRequest{Token: token, CSR: csr, HPKE: hpke, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Sent: time.Now().UTC()}
}

// node puts a node into the state.
func (f *fixture) node(id fleet.NodeID, last byte) {
	f.t.Helper()
	_, hpke, err := keyring.NewHPKEKey()
	must(f.t, err)
	tok := fleet.JoinToken{ID: fleet.TokenID("join-" + id), Kind: fleet.JoinNode, Group: fleet.DefaultGroup, Region: fleet.DefaultRegion, ExpiresAt: time.Now().Add(time.Minute)}
	f.propose(command.JoinTokenPut{Token: fleet.JoinTokenRecord{JoinToken: tok, Hash: make([]byte, fleet.HashBytes)}})
	f.propose(command.NodeEnrol{
		Token: tok.ID, ID: id, Spec: fleet.NodeSpec{Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, last})}},
		Identity: fleet.NodeIdentity{SPKI: "x", HPKE: hpke, NotAfter: time.Now().Add(time.Hour)},
	})
}

func TestForwardedRequestsKeepTheirSourceAndID(t *testing.T) {
	f := open(t, 2)
	a := f.at(1, f.operator).with("X-Request-Id", strings.Repeat("a", 32)).call("POST", "/v1/tenants", client.TenantCreate{ID: "red"}).want(201)
	entries := f.audit()
	e := entries[len(entries)-1]
	id := a.header.Get("X-Request-Id")
	if e.Source != "127.0.0.1" || e.RequestID != id || id == strings.Repeat("a", 32) || !strings.HasPrefix(e.Name, "token/") || e.Party != fleet.Vendor {
		t.Errorf("entry %+v, request id %s", e, id)
	}
	for i, m := range f.members {
		if !strings.Contains(m.logs.String(), id) {
			t.Errorf("the log of member %d does not have the request id", i+1)
		}
	}
	if a.header.Get("Cache-Control") != "no-store" || len(a.header.Values("Cache-Control")) != 1 {
		t.Errorf("headers %v", a.header)
	}
}

// Nobody but a member is believed what these headers say.
func spoofs() []http.Header {
	var hs []http.Header
	for _, identity := range []string{"node/n1", "member/m1", "member/m2", "node/", "token/x"} {
		hs = append(hs, http.Header{
			"Edgefleet-Forwarded-By": {"m2"}, "Edgefleet-Identity": {identity}, "Edgefleet-Source": {"198.51.100.7"}, "X-Request-Id": {strings.Repeat("f", 32)},
		})
	}
	return append(hs,
		http.Header{"Edgefleet-Identity": {"node/n1"}},
		http.Header{"edgefleet-identity": {"node/n1"}, "Edgefleet-Forwarded-By": {"m1"}},
		http.Header{"Edgefleet-Identity": {"", "node/n1"}, "Edgefleet-Forwarded-By": {"", "m1"}},
		http.Header{"Connection": {"Edgefleet-Identity"}, "Edgefleet-Identity": {"node/n1"}, "Edgefleet-Forwarded-By": {"m1"}},
	)
}

func TestForwardingHeadersOfOthersAreNotBelieved(t *testing.T) {
	f := open(t, 2)
	f.node("n1", 1)
	f.node("n2", 2)
	red := f.tenant("red", "")
	n1, n2 := f.nodeCert("n1"), f.nodeCert("n2")
	announce := f.members[0].record()
	for i := range f.members {
		for _, h := range spoofs() {
			name := fmt.Sprintf("at m%d %v", i+1, h)
			spoof := func(token string, cert ...tls.Certificate) as {
				a := f.at(i, token, cert...)
				a.header = h.Clone()
				if h.Get("Connection") != "" {
					return a.http1() // HTTP/2 has no such header
				}
				return a
			}
			for who, a := range map[string]as{"nobody": spoof(""), "a tenant": spoof(red), "an operator": spoof(f.operator)} {
				want := 403
				if who == "nobody" {
					want = 401
				}
				for _, call := range []struct {
					method, path string
					body         any
				}{
					{"POST", "/v1/edge/poll", report("n1")},
					{"GET", "/v1/edge/blobs/sha256:" + strings.Repeat("0", 64), nil},
					{"POST", "/v1/cluster/announce", announce},
				} {
					if got := a.call(call.method, call.path, call.body); got.status != want {
						t.Errorf("%s, %s: %s %s: got %d %s, want %d", name, who, call.method, call.path, got.status, got.body, want)
					}
				}
			}
			// A node stays itself, a tenant stays itself, and no one is sent away as if it came from a follower.
			if got := spoof("", n2).call("POST", "/v1/edge/poll", report("n1")); got.status != 403 {
				t.Errorf("%s: n2 reports for n1: %d %s", name, got.status, got.body)
			}
			if got := spoof("", n2).call("POST", "/v1/cluster/announce", announce); got.status != 403 {
				t.Errorf("%s: n2 announces m1: %d %s", name, got.status, got.body)
			}
			if got := spoof("", n1).call("POST", "/v1/edge/poll", report("n1")); got.status != 200 {
				t.Errorf("%s: n1 reports for itself: %d %s", name, got.status, got.body)
			}
			if got := spoof(red).call("GET", "/v1/tenants/red", nil); got.status != 200 {
				t.Errorf("%s: red reads itself: %d %s", name, got.status, got.body)
			}
			if got := spoof(red).call("GET", "/v1/tenants", nil); got.status != 403 {
				t.Errorf("%s: red reads all: %d %s", name, got.status, got.body)
			}
			drain(f.reports)
		}
	}
	before := len(f.audit())
	a := f.at(1, red)
	a.header = spoofs()[0]
	a.call("POST", "/v1/tenants/red/tokens", client.TokenCreate{}).want(201)
	for _, e := range f.audit()[before:] {
		if e.Source != "127.0.0.1" || !strings.HasPrefix(e.Name, "token/") || e.Party != fleet.Client || strings.HasPrefix(e.RequestID, "fff") {
			t.Errorf("the audit log believed a header: %+v", e)
		}
	}
}

func drain(ch chan fleet.Report) {
	for {
		select {
		case <-ch:
		default:
			return
		}
	}
}

func TestMembersAreBelieved(t *testing.T) {
	f := open(t, 2)
	f.node("n1", 1)
	m2 := f.at(0, "", f.memberCert("m2")).with("Edgefleet-Forwarded-By", "m2").with("Edgefleet-Source", "198.51.100.7").with("Edgefleet-Identity", "node/n1")
	m2.call("POST", "/v1/edge/poll", report("n1")).want(200)
	m2.call("POST", "/v1/edge/poll", report("n2")).want(403)
	// A member that passes requests on gets no rights of its own by it.
	none := f.at(0, "", f.memberCert("m2")).with("Edgefleet-Forwarded-By", "m2")
	none.call("POST", "/v1/cluster/announce", f.members[1].record()).want(401)
	none.call("GET", "/v1/tenants", nil).want(401)

	t.Run("but not once they were removed", func(*testing.T) {
		f.propose(command.MemberRetire{ID: "m2"})
		m2.call("POST", "/v1/edge/poll", report("n1")).want(503)
		// Whose request it passed on is not told that it has no right to it: it may ask another member.
		if got := f.at(0, f.operator, f.memberCert("m2")).with("Edgefleet-Forwarded-By", "m2").call("GET", "/v1/tenants", nil).want(503); !strings.Contains(got.Detail, "ask another member") {
			t.Errorf("got %s", got.Detail)
		}
		f.at(0, "", f.memberCert("m2")).call("POST", "/v1/cluster/announce", f.members[1].record()).want(403)
	})
}

func TestARequestIsPassedOnOnce(t *testing.T) {
	f := open(t, 2)
	// Each believes that the other leads.
	f.lead("m1")
	a := f.at(1, f.operator, f.memberCert("m1")).with("Edgefleet-Forwarded-By", "m1").call("POST", "/v1/tenants", client.TenantCreate{ID: "x"}).want(503)
	if !strings.Contains(a.Detail, "does not lead") {
		t.Errorf("got %s", a.Detail)
	}
}

func TestCertificates(t *testing.T) {
	f := open(t, 2)
	f.node("n1", 1)
	f.propose(command.NodeRevoke{ID: "n1"})
	f.node("n2", 2)
	sign := func(s func(k crypto.PublicKey) ([]byte, error)) tls.Certificate {
		return f.certificate(func(k any) ([]byte, error) { return s(k) })
	}
	now := time.Now()
	for i := range f.members {
		for name, test := range map[string]struct {
			cert   tls.Certificate
			node   fleet.NodeID
			status int
		}{
			"of a node":                                 {f.nodeCert("n2"), "n2", 200},
			"of a revoked node":                         {f.nodeCert("n1"), "n1", 403},
			"of a node that is not there":               {f.nodeCert("n3"), "n3", 403},
			"of a node of another cluster":              {sign(func(k crypto.PublicKey) ([]byte, error) { return f.keys.NodeCA.SignNode("c-other", "n2", k, now) }), "n2", 401},
			"of a node, signed by the members' CA":      {sign(func(k crypto.PublicKey) ([]byte, error) { return f.keys.MemberCA.SignNode("c-test", "n2", k, now) }), "n2", 401},
			"of a member":                               {f.memberCert("m1"), "n2", 403},
			"of a member, signed by the nodes' CA":      {sign(func(k crypto.PublicKey) ([]byte, error) { return f.keys.NodeCA.SignMember("c-test", "m1", k, now) }), "n2", 401},
			"without an identity, of the nodes' CA":     {sign(func(k crypto.PublicKey) ([]byte, error) { return f.keys.NodeCA.SignServer([]string{"x"}, k, now) }), "n2", 0},
			"of a node, but it reports for another one": {f.nodeCert("n2"), "n1", 403},
		} {
			t.Run(fmt.Sprintf("%s at m%d", name, i+1), func(t *testing.T) {
				a := f.at(i, "", test.cert)
				a.f = &fixture{t: t}
				if test.status == 0 {
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+a.addr+"/v1/openapi.json", nil)
					must(t, err)
					if res, err := a.http.Do(req); err == nil {
						_ = res.Body.Close()
						t.Errorf("got %s, want no connection", res.Status)
					}
					return
				}
				a.call("POST", "/v1/edge/poll", report(test.node)).want(test.status)
			})
			drain(f.reports)
		}
	}
}

func TestAConnectionDoesNotOutliveItsCertificate(t *testing.T) {
	f := open(t, 1)
	f.node("n1", 1)
	// Certificates are valid 24 hours: this one ends in a second.
	cert := f.certificate(func(k any) ([]byte, error) {
		return f.keys.NodeCA.SignNode("c-test", "n1", k, time.Now().Add(time.Second-24*time.Hour))
	})
	a := f.at(0, "", cert)
	a.call("POST", "/v1/edge/poll", report("n1")).want(200)
	await(t, "the certificate ends", func() bool { return time.Now().After(cert.Leaf.NotAfter) })
	if got := a.call("POST", "/v1/edge/poll", report("n1")).want(401); got.Field != "certificate" {
		t.Errorf("got %s", got.body)
	}
}

func TestTheLifeOfANode(t *testing.T) {
	f := open(t, 2)
	f.tenant("red", "")
	var tok client.JoinTokenCreated
	f.op().call("POST", "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinNode}).want(201).into(&tok)
	key, err := mtls.NewKey()
	must(t, err)
	csr, err := mtls.CSR(key)
	must(t, err)
	req := enrolment(t, tok.Secret)
	req.Node, req.CSR = "n1", string(csr)
	late := req
	late.Sent = late.Sent.Add(-2 * time.Minute)
	f.at(1, "").call("POST", "/v1/edge/enrol", late).want(422)
	var got fleet.EnrolResponse
	f.at(1, "").call("POST", "/v1/edge/enrol", req).want(201).into(&got)
	f.at(0, "").call("POST", "/v1/edge/enrol", req).want(403) // the token admits one
	keyPEM, err := mtls.EncodeKey(key)
	must(t, err)
	cert, err := tls.X509KeyPair([]byte(got.Certificate), keyPEM)
	must(t, err)

	for i := range f.members { // through the leader and through a follower
		node := f.at(i, "", cert)
		r, key := renewal(t, cert, "n1")
		cert = renewed(t, node.call("POST", "/v1/edge/renew", r), key)
		node = f.at(i, "", cert)
		var set fleet.HeadSet
		node.call("POST", "/v1/edge/poll", report("n1")).want(200).into(&set)
		if set.Envelope == nil || len(set.Members) != 2 {
			t.Errorf("head set %+v", set)
		}
		if r := <-f.reports; r.Node != "n1" {
			t.Errorf("report of %s", r.Node)
		}
		big := report("n1")
		big.Software = strings.Repeat("x", 1000)
		node.call("POST", "/v1/edge/poll", big).want(413)
		f.at(i, f.operator).call("POST", "/v1/edge/poll", report("n1")).want(403)
	}
	blob(t, f, cert)

	f.op().call("DELETE", "/v1/nodes/n1", nil).want(200)
	for i := range f.members {
		for _, call := range []struct{ method, path string }{{"POST", "/v1/edge/poll"}, {"GET", "/v1/edge/blobs/sha256:" + strings.Repeat("0", 64)}} {
			f.at(i, "", cert).call(call.method, call.path, json.RawMessage(`{}`)).want(403)
		}
	}
}

func blob(t *testing.T, f *fixture, cert tls.Certificate) {
	t.Helper()
	must(t, f.members[1].library.Refresh(f.members[1].state.Read()))
	root := f.members[1].library.Root(fleet.DefaultGroup, fleet.HeadConfig)
	node := f.at(1, "", cert)
	path := "/v1/edge/blobs/" + string(root)
	whole := node.call("GET", path, nil).want(200)
	if whole.header.Get("Content-Type") != "application/octet-stream" || len(whole.body) < 10 {
		t.Fatalf("blob: %v %q", whole.header, whole.body)
	}
	tail := node.with("Range", "bytes=7-").call("GET", path, nil).want(206)
	if string(tail.body) != string(whole.body[7:]) || tail.header.Get("Content-Range") != fmt.Sprintf("bytes 7-%d/%d", len(whole.body)-1, len(whole.body)) {
		t.Errorf("tail: %v %q", tail.header, tail.body)
	}
	for _, r := range []string{fmt.Sprintf("bytes=%d-", len(whole.body)), "bytes=2147483647-"} {
		if a := node.with("Range", r).call("GET", path, nil).want(416); a.header.Get("Content-Range") != fmt.Sprintf("bytes */%d", len(whole.body)) {
			t.Errorf("%s: %v", r, a.header)
		}
	}
	for _, r := range []string{"bytes=-5", "bytes=1-2", "bytes=--", "bytes=99999999999999999999-", "lines=1-"} {
		if a := node.with("Range", r).call("GET", path, nil).want(200); len(a.body) != len(whole.body) {
			t.Errorf("%s: %d bytes", r, len(a.body))
		}
	}
	node.call("GET", "/v1/edge/blobs/sha256:"+strings.Repeat("0", 64), nil).want(404)
	node.call("GET", "/v1/edge/blobs/sha256:nothex", nil).want(422)
	f.at(1, "").call("GET", path, nil).want(401)
	f.at(1, f.operator).call("GET", path, nil).want(403)
}

func TestAPollIsForTheLeaderFirst(t *testing.T) {
	f := open(t, 2)
	f.node("n1", 1)
	node := f.at(1, "", f.nodeCert("n1"))
	node.call("POST", "/v1/edge/poll", report("n1")).want(200)
	for name, gone := range map[string]func(){
		"without a leader":          func() { f.lead("") },
		"with an unknown leader":    func() { f.lead("m9") },
		"with a leader that is off": func() { f.lead("m1"); _ = f.members[0].server.Close() },
	} {
		gone()
		before := f.members[1].logs.String()
		node.call("POST", "/v1/edge/poll", report("n1")).want(200)
		if strings.Count(f.members[1].logs.String(), "panicked") != strings.Count(before, "panicked") {
			t.Error(name)
		}
	}
}

// A follower that is behind must not refuse what the leader made a moment ago.
func TestWhatAFollowerDoesNotKnowYetIsForTheLeader(t *testing.T) {
	f := open(t, 2)
	f.lag(1, true)
	red := f.tenant("red", "")
	f.node("n1", 1)
	f.at(1, red).call("GET", "/v1/tenants/red", nil).want(200)
	f.at(1, "", f.nodeCert("n1")).call("POST", "/v1/edge/poll", report("n1")).want(200)
	f.at(1, red).call("GET", "/v1/tenants/red?consistency=stale", nil).want(401)
	f.at(1, red+"x").call("GET", "/v1/tenants/red", nil).want(401)
	f.lag(1, false)
	f.at(1, red).call("GET", "/v1/tenants/red?consistency=stale", nil).want(200)
}
