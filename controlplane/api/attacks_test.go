package api_test

import (
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestAttacksAreOfTheTenantAndLeadToTheirHits(t *testing.T) {
	f := open(t, 1)
	red, blue := f.tenant("red", ""), f.tenant("blue", "")
	now := time.Now()
	for seq := range uint64(3) {
		f.happened(eventAt(seq+1, now.Add(-time.Duration(seq)*time.Minute)), 0)
	}
	var list client.Page[fleet.Attack]
	f.at(0, red).call("GET", "/v1/tenants/red/attacks", nil).want(200).into(&list)
	if len(list.Items) != 1 || list.Items[0].Hits != 3 || list.Items[0].Tenant != "red" {
		t.Fatalf("%+v", list)
	}
	path := "/attacks/" + string(list.Items[0].ID)
	var one fleet.Attack
	f.at(0, red).call("GET", "/v1/tenants/red"+path, nil).want(200).into(&one)
	if one != list.Items[0] {
		t.Errorf("%+v", one)
	}
	var hits client.Page[fleet.Event]
	f.at(0, red).call("GET", "/v1/tenants/red/events?attack="+string(one.ID), nil).want(200).into(&hits)
	if len(hits.Items) != 3 {
		t.Errorf("%d hits", len(hits.Items))
	}
	f.at(0, blue).call("GET", "/v1/tenants/red"+path, nil).want(404)
	f.at(0, blue).call("GET", "/v1/tenants/blue"+path, nil).want(404)
	f.at(0, blue).call("GET", "/v1/tenants/blue/events?attack="+string(one.ID), nil).want(404)
	f.at(0, red).call("GET", "/v1/tenants/red/attacks?cursor=x", nil).want(422)
	if got := f.at(0, blue).call("GET", "/v1/tenants/blue/attacks", nil).want(200).body; string(got) != "{\"items\":[]}\n" {
		t.Errorf("%s", got)
	}
}
