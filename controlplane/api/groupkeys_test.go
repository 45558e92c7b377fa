package api_test

import (
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestAGroupsKeysAreReplacedAfterANodeWasStolen(t *testing.T) {
	f := open(t, 2)
	f.order()
	certificate := func(order fleet.OrderID, generation uint64) command.CertificateCommit {
		return command.CertificateCommit{Order: order, Certificate: fleet.CertificateRecord{Certificate: fleet.Certificate{
			Host: "www.acme.example", Tenant: "acme", Generation: generation, SPKI: "spki", Chain: "chain", NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour),
		}}}
	}
	f.propose(certificate("o1", 1))
	var k client.GroupKeys
	f.op().call("GET", "/v1/groups/default/keys", nil).want(200).into(&k)
	if k.Number != 1 || k.Cause != fleet.EpochFirst || k.Waiting != 0 || !k.Next.Equal(k.Since.Add(fleet.EpochLife)) {
		t.Errorf("%+v", k)
	}

	// By a follower, which passes it on.
	f.at(1, f.operator).with("Edgefleet-Reason", "n7 was stolen").call("POST", "/v1/groups/default/rekey", client.GroupRekey{}).want(200)
	f.op().call("GET", "/v1/groups/default/keys", nil).want(200).into(&k)
	if k.Number != 2 || k.Cause != fleet.EpochRekey || k.Waiting != 1 || k.RekeyedAt.IsZero() {
		t.Errorf("%+v", k)
	}
	last := f.audit()[len(f.audit())-1]
	if last.Operation != "group_rekey" || last.Object != "group/default/keys" || last.Reason != "n7 was stolen" {
		t.Errorf("%+v", last)
	}
	f.op().call("POST", "/v1/groups/default/rekey", client.GroupRekey{EpochOnly: true}).want(200)
	f.op().call("GET", "/v1/groups/default/keys", nil).want(200).into(&k)
	if k.Number != 3 || k.Waiting != 1 {
		t.Errorf("%+v", k)
	}

	// The certificate that follows waits no more.
	sealed, err := f.kek.Seal([]byte("next"), nil)
	must(t, err)
	f.propose(command.OrderPut{Put: command.Put{Create: true}, Order: fleet.OrderRecord{
		Order: fleet.Order{ID: "o2", Host: "www.acme.example", Tenant: "acme", Generation: 2, State: fleet.OrderQueued}, Key: sealed, SPKI: "spki",
	}})
	f.propose(certificate("o2", 2))
	f.op().call("GET", "/v1/groups/default/keys", nil).want(200).into(&k)
	if k.Waiting != 0 {
		t.Errorf("%+v", k)
	}
}

func TestWhoMayReplaceAGroupsKeys(t *testing.T) {
	f := open(t, 1)
	tenant := f.tenant("acme", fleet.SecurityEdge)
	before := f.entries()
	f.at(0, tenant).call("POST", "/v1/groups/default/rekey", client.GroupRekey{}).want(403)
	f.at(0, tenant).call("GET", "/v1/groups/default/keys", nil).want(403)
	f.op().call("POST", "/v1/groups/nowhere/rekey", client.GroupRekey{}).want(404)
	f.op().call("GET", "/v1/groups/nowhere/keys", nil).want(404)
	if f.entries() != before {
		t.Error("a refused request left something in the log")
	}
}
