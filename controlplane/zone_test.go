package controlplane_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// edgeZone is a state with two members, a tenant with two hosts, and edges in two regions.
type edgeZone struct {
	state *state.Store
	src   dns.PushSource
	index uint64
	// silent is how long the member has not heard from a leader.
	silent time.Duration
}

func newEdgeZone(t *testing.T) *edgeZone {
	t.Helper()
	z := &edgeZone{state: state.New()}
	z.src = controlplane.ZoneOf(z.state, controlplane.DNS{CAA: []string{"ca.example"}, Secondaries: []controlplane.Secondary{{Name: "ns.example.net"}, {}}}, func() time.Duration { return z.silent })
	z.write(func(tx *state.Tx) {
		tx.PutCluster(fleet.ClusterRecord{Cluster: fleet.Cluster{ID: "c", Zone: "edge.example", Incarnation: 1}})
		for i, id := range []fleet.MemberID{"m1", "m2", "m3"} {
			tx.PutMember(fleet.Member{ID: id, DNS: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 53).String()})
		}
		tx.PutTenant(fleet.Tenant{ID: "acme", Spec: fleet.TenantSpec{Group: "default"}})
		for label, h := range map[string]fleet.Host{"all": {Name: "a.example.com"}, "eu": {Name: "b.example.com", Spec: fleet.HostSpec{Regions: []fleet.RegionName{"eu"}}}} {
			h.Tenant, h.Desired.Label = "acme", label
			tx.PutHost(h)
			tx.PutLabel(fleet.Label{Label: label, Host: h.Name})
		}
		tx.PutLabel(fleet.Label{Label: "gone", Host: "gone.example.com"})
		tx.PutNode(zoneNode("n1", "eu", 1))
		tx.PutNode(zoneNode("n2", "us", 2))
	})
	return z
}

func zoneNode(id fleet.NodeID, region fleet.RegionName, last byte) fleet.Node {
	return fleet.Node{
		ID: id, Spec: fleet.NodeSpec{Group: "default", Region: region, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, last})}},
		Observed: fleet.NodeObserved{State: fleet.NodeUp, Serving: true},
	}
}

func (z *edgeZone) write(f func(*state.Tx)) {
	tx := z.state.Write()
	f(tx)
	z.index++
	tx.SetIndex(z.index)
	tx.Commit()
}

// answers is who a label is answered with.
func (z *edgeZone) answers(t *testing.T, label string, want ...string) {
	t.Helper()
	edges, ok := z.src.Label(label)
	if !ok {
		want = append(want, "unknown")
	}
	got := []string{}
	for _, e := range edges {
		for _, a := range e.Addrs {
			got = append(got, a.String())
		}
	}
	if !ok {
		got = append(got, "unknown")
	}
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("%s is answered with %q, want %q", label, got, want)
	}
}

func TestNameServersKeepTheirNamesWhenAMemberIsRemoved(t *testing.T) {
	z := newEdgeZone(t)
	server := func(name fleet.HostName, addr string) dns.NameServer {
		return dns.NameServer{Name: name, Addr: netip.MustParseAddr(addr)}
	}
	m1, m2, m3 := server("m1.ns.edge.example", "192.0.2.1"), server("m2.ns.edge.example", "192.0.2.2"), server("m3.ns.edge.example", "192.0.2.3")
	outside := dns.NameServer{Name: "ns.example.net"}
	addrs := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if d := cmp.Diff([]dns.NameServer{m1, m2, m3, outside}, z.src.Apex().Servers, addrs); d != "" {
		t.Error(d)
	}
	z.write(func(tx *state.Tx) { tx.DeleteMember("m1") })
	if d := cmp.Diff([]dns.NameServer{m2, m3, outside}, z.src.Apex().Servers, addrs); d != "" {
		t.Error(d)
	}
}

func TestAnswersFollowTheState(t *testing.T) {
	z := newEdgeZone(t)
	z.answers(t, "all", "198.51.100.1", "198.51.100.2")
	z.answers(t, "eu", "198.51.100.1")
	z.answers(t, "gone")
	z.answers(t, "never")
	if !z.src.Issued("gone") || z.src.Issued("never") {
		t.Error("labels of hosts that are gone stay known, others are not")
	}
	if got := slices.Sorted(z.src.Labels()); !slices.Equal(got, []string{"all", "eu"}) {
		t.Errorf("labels %q", got)
	}

	// A cordon is seen at once, before the leader has advanced a set.
	cordoned := zoneNode("n2", "us", 2)
	cordoned.Spec.Cordoned = true
	z.write(func(tx *state.Tx) { tx.PutNode(cordoned) })
	z.answers(t, "all", "198.51.100.1")
	// It returns when its set says so.
	z.write(func(tx *state.Tx) {
		tx.PutNode(zoneNode("n2", "us", 2))
		tx.PutDNSSet(fleet.DNSSet{Key: "default", Group: "default", Nodes: []fleet.NodeID{"n1"}, Out: []fleet.DNSOut{{Node: "n2"}}})
	})
	z.answers(t, "all", "198.51.100.1")
	z.write(func(tx *state.Tx) {
		tx.PutDNSSet(fleet.DNSSet{Key: "default", Group: "default", Nodes: []fleet.NodeID{"n1", "n2"}})
	})
	z.answers(t, "all", "198.51.100.1", "198.51.100.2")
	// A withdrawn region as well; hosts that are bound to it stay unless it is forced.
	z.write(func(tx *state.Tx) {
		tx.PutRegion(fleet.Region{Name: "eu", Withdrawn: &fleet.RegionWithdrawal{}})
	})
	z.answers(t, "all", "198.51.100.2")
	z.answers(t, "eu", "198.51.100.1")
	z.write(func(tx *state.Tx) {
		tx.PutRegion(fleet.Region{Name: "eu", Withdrawn: &fleet.RegionWithdrawal{Forced: true}})
	})
	z.answers(t, "eu")
}

func TestTheSerialNeverGoesBack(t *testing.T) {
	z := newEdgeZone(t)
	last := z.src.Apex().Serial
	grown := func() {
		t.Helper()
		if s := z.src.Apex().Serial; int32(s-last) <= 0 {
			t.Errorf("serial %d after %d", s, last)
		} else {
			last = s
		}
	}
	for range 3 {
		z.write(func(tx *state.Tx) { tx.PutNode(zoneNode("n1", "eu", 1)) })
		grown()
	}
	// The quorum was lost: a member that was behind begins the next incarnation, at a lower index.
	z.index = 0
	z.write(func(tx *state.Tx) {
		tx.PutCluster(fleet.ClusterRecord{Cluster: fleet.Cluster{ID: "c", Zone: "edge.example", Incarnation: 2}})
	})
	grown()
}

func TestChallengesAreAnsweredByWhoKnowsTheNewest(t *testing.T) {
	z := newEdgeZone(t)
	z.write(func(tx *state.Tx) {
		for _, c := range []fleet.Challenge{
			{Host: "a.example.com", Type: fleet.ChallengeDNS01, Token: "t1", Response: "v1"},
			{Host: "a.example.com", Type: fleet.ChallengeDNS01, Token: "t2", Response: "v2"},
			{Host: "a.example.com", Type: fleet.ChallengeHTTP01, Token: "t3", Response: "v3"},
			{Host: "a.example.co", Type: fleet.ChallengeDNS01, Token: "t4", Response: "v4"},
			{Host: "b.example.com", Type: fleet.ChallengeDNS01, Token: "t5", Response: "v5"},
		} {
			tx.PutChallenge(c)
		}
	})
	values, ok, current := z.src.DCV("all")
	if d := cmp.Diff([]string{"v1", "v2"}, values); d != "" || !ok || !current {
		t.Error(d, ok, current)
	}
	z.silent = time.Minute
	if _, _, current := z.src.DCV("all"); current {
		t.Error("a member that has heard of nobody for a minute answers a challenge")
	}
	z.answers(t, "all", "198.51.100.1", "198.51.100.2")
}

func TestAChallengeTakesLateEdgesOutOfDNSForItsHost(t *testing.T) {
	z := newEdgeZone(t)
	z.write(func(tx *state.Tx) {
		for i, label := range []string{"other", "past"} {
			h := fleet.Host{Name: fleet.HostName(label + ".example.com"), Tenant: "acme", Desired: fleet.HostDesired{Label: label}}
			tx.PutHost(h)
			tx.PutLabel(fleet.Label{Label: label, Host: h.Name})
			if i == 1 {
				tx.PutChallenge(fleet.Challenge{Host: h.Name, Type: fleet.ChallengeHTTP01, Token: "t", Out: &fleet.ChallengeOut{Nodes: []fleet.NodeID{"n2"}, Until: time.Now().Add(-time.Second)}})
			}
		}
	})
	out := func(ids ...fleet.NodeID) {
		z.write(func(tx *state.Tx) {
			tx.PutChallenge(fleet.Challenge{Host: "a.example.com", Type: fleet.ChallengeHTTP01, Token: "t", Out: &fleet.ChallengeOut{Nodes: ids, Until: time.Now().Add(time.Hour)}})
		})
	}
	out("n2")
	z.answers(t, "all", "198.51.100.1")
	z.answers(t, "other", "198.51.100.1", "198.51.100.2")
	// Nobody ended it, but its time is over.
	z.answers(t, "past", "198.51.100.1", "198.51.100.2")
	// More than half of a set never leave it.
	out("n1", "n2")
	z.answers(t, "all", "198.51.100.1", "198.51.100.2")
	z.write(func(tx *state.Tx) { tx.DeleteChallenge("a.example.com", fleet.ChallengeHTTP01, "t") })
	z.answers(t, "all", "198.51.100.1", "198.51.100.2")
}

func TestAConfigurationOfTheZoneIsHeldAgainstItsLimits(t *testing.T) {
	good := controlplane.DNS{Bake: time.Second}
	for _, tc := range []struct {
		name  string
		d     controlplane.DNS
		field string
	}{
		{"the least", good, ""},
		{"no bake", controlplane.DNS{}, "dns.bake"},
		{"a CAA value of two lines", controlplane.DNS{Bake: time.Second, CAA: []string{"a\nb"}}, "dns.caa"},
		{"a secondary without a key", controlplane.DNS{Bake: time.Second, Secondaries: []controlplane.Secondary{{Address: "192.0.2.1:53"}}}, "dns.secondaries.tsig_key_file"},
		{"a secondary without a port", controlplane.DNS{Bake: time.Second, Secondaries: []controlplane.Secondary{{Address: "192.0.2.1", TSIGKeyFile: "/k"}}}, "dns.secondaries.address"},
		{"a secondary of a bad name", controlplane.DNS{Bake: time.Second, Secondaries: []controlplane.Secondary{{Address: "192.0.2.1:53", TSIGKeyFile: "/k", Name: "x"}}}, "dns.secondaries.name"},
		{"too many secondaries", controlplane.DNS{Bake: time.Second, Secondaries: make([]controlplane.Secondary, 17)}, "dns.secondaries"},
		{"a push without a key", controlplane.DNS{Bake: time.Second, Push: controlplane.Push{Server: "192.0.2.1:53", Every: time.Minute}}, "dns.push.tsig_key_file"},
		{"a push to a name", controlplane.DNS{Bake: time.Second, Push: controlplane.Push{Server: "ns.example:53", TSIGKeyFile: "/k", Every: time.Minute}}, "dns.push.server"},
		{"a push all the time", controlplane.DNS{Bake: time.Second, Push: controlplane.Push{Server: "192.0.2.1:53", TSIGKeyFile: "/k", Every: time.Millisecond}}, "dns.push.every"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := controlplane.ValidateDNS(tc.d)
			got := ""
			if err != nil {
				got = fleet.AsError(err).Field
			}
			if got != tc.field {
				t.Errorf("field %q, want %q: %v", got, tc.field, err)
			}
		})
	}
}
