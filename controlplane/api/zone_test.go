package api_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// edgeNode enrols a node of a region, which serves.
func (f *fixture) edgeNode(id fleet.NodeID, region fleet.RegionName, addr string) {
	f.t.Helper()
	f.propose(command.JoinTokenPut{Token: fleet.JoinTokenRecord{JoinToken: fleet.JoinToken{ID: fleet.TokenID("join-" + string(id)), Kind: fleet.JoinNode, Group: fleet.DefaultGroup, Region: region, ExpiresAt: time.Now().UTC().Add(10 * time.Minute)}, Hash: make([]byte, fleet.HashBytes)}})
	f.propose(command.NodeEnrol{Token: fleet.TokenID("join-" + string(id)), ID: id, Spec: fleet.NodeSpec{Addresses: []netip.Addr{netip.MustParseAddr(addr)}}})
	f.propose(command.NodesReport{Reports: []command.NodeReport{{ID: id, Observed: fleet.NodeObserved{State: fleet.NodeUp, Serving: true}}}})
}

func TestARegionIsWithdrawnAndRestored(t *testing.T) {
	f := open(t, 1)
	f.edgeNode("n1", "eu", "198.51.100.1")
	f.edgeNode("n2", "us", "198.51.100.2")
	inDNS := func(want map[fleet.RegionName]int) {
		t.Helper()
		var p client.Page[client.RegionStatus]
		f.op().call("GET", "/v1/regions", nil).want(200).into(&p)
		got := map[fleet.RegionName]int{}
		for _, r := range p.Items {
			got[r.Name] = r.InDNS
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	inDNS(map[fleet.RegionName]int{"eu": 1, "us": 1})
	before := len(f.audit())
	f.op().call("POST", "/v1/regions/eu/withdraw", client.RegionWithdraw{}).want(200)
	inDNS(map[fleet.RegionName]int{"eu": 0, "us": 1})
	if p := f.op().call("POST", "/v1/regions/us/withdraw", client.RegionWithdraw{}).want(409); !strings.Contains(p.Detail, "no healthy node of group default is left") {
		t.Error(p.Detail)
	}
	f.op().call("POST", "/v1/regions/us/withdraw", client.RegionWithdraw{Force: true}).want(200)
	inDNS(map[fleet.RegionName]int{"eu": 1, "us": 0}) // eu is not forced, and nothing else is left
	f.op().call("POST", "/v1/regions/us/restore", nil).want(200)
	f.op().call("POST", "/v1/regions/us/restore", nil).want(409)
	f.op().call("POST", "/v1/regions/mars/withdraw", client.RegionWithdraw{}).want(404)
	f.op().call("GET", "/v1/regions/mars", nil).want(404)
	f.op().call("GET", "/v1/dns/zone", nil).want(200)
	f.op().call("GET", "/v1/dns/checks", nil).want(200)
	var budget client.CertBudget
	f.op().call("GET", "/v1/certs/budget", nil).want(200).into(&budget)
	if len(budget.Authorities) != 1 || budget.Authorities[0].State != "ok" {
		t.Errorf("%+v", budget)
	}
	if got := len(f.audit()) - before; got != 3 {
		t.Errorf("%d audit entries for three changes", got)
	}
	customer := f.tenant("acme", fleet.SecurityEdge)
	f.at(0, customer).call("GET", "/v1/regions", nil).want(403)
	f.at(0, customer).call("POST", "/v1/regions/eu/withdraw", client.RegionWithdraw{}).want(403)
	f.at(0, customer).call("GET", "/v1/dns/zone", nil).want(403)
	f.at(0, customer).call("GET", "/v1/certs/budget", nil).want(403)
}
