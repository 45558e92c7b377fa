package api_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestAHostsOriginsSayWhichNodesPassOverThem(t *testing.T) {
	f := open(t, 1)
	acme := f.at(0, f.tenant("acme", fleet.SecurityEdge))
	acme.call("POST", "/v1/tenants/acme/hosts", client.HostCreate{Name: "www.acme.example", Origins: []fleet.Origin{{URL: "https://203.0.113.1"}, {URL: "https://203.0.113.2"}}}).want(201)
	for _, id := range []fleet.NodeID{"n1", "n2"} {
		join := fleet.TokenID("j-" + string(id))
		f.propose(command.JoinTokenPut{Token: fleet.JoinTokenRecord{JoinToken: fleet.JoinToken{ID: join, Kind: fleet.JoinNode, Group: "default", Region: "eu", ExpiresAt: time.Now().Add(time.Minute)}, Hash: make([]byte, fleet.HashBytes)}})
		f.propose(command.NodeEnrol{Token: join, ID: id, Spec: fleet.NodeSpec{Addresses: []netip.Addr{netip.MustParseAddr("198.51.100." + string(id[1]))}}, Identity: fleet.NodeIdentity{HPKE: []byte("hpke")}})
	}
	since := time.Now().UTC().Truncate(time.Second)
	f.said = func(h fleet.HostName) (map[fleet.NodeID][]fleet.OriginOut, []fleet.NodeID) {
		return map[fleet.NodeID][]fleet.OriginOut{
			"n1":      {{Host: h, Server: "203.0.113.2:443", Reason: "dial", Since: since}, {Host: h, Server: "203.0.113.9:443", Reason: "tls", Since: since}},
			"foreign": {{Host: h, Server: "203.0.113.1:443", Reason: "tls", Since: since}},
		}, []fleet.NodeID{"foreign", "n1"}
	}
	var got client.OriginViews
	acme.call("GET", "/v1/tenants/acme/hosts/www.acme.example/origins", nil).want(200).into(&got)
	if diff := cmp.Diff([]fleet.NodeID{"n1"}, got.Nodes); diff != "" {
		t.Errorf("nodes that were not heard of, or do not serve the host: %s", diff)
	}
	want := []client.OriginView{{Origin: fleet.Origin{URL: "https://203.0.113.1"}}, {Origin: fleet.Origin{URL: "https://203.0.113.2"}, Out: []client.OriginOutage{{Node: "n1", Server: "203.0.113.2:443", Reason: "dial", Since: since}}}}
	if diff := cmp.Diff(want, got.Origins); diff != "" {
		t.Error(diff)
	}
}
