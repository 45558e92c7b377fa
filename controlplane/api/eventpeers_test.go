package api_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestMembersFetchEventsOfEachOtherAndNobodyElseDoes(t *testing.T) {
	f := open(t, 1)
	red := f.tenant("red", "")
	now := time.Now()
	var want []fleet.Event
	for seq := range uint64(3) {
		e := eventAt(seq+1, now.Add(-time.Minute))
		want = append(want, e)
		f.happened(e, 0)
	}
	const held, part = "/v1/cluster/events/held", "/v1/cluster/events/part?node=n1&boot=b1&from=2&to=900"
	member := f.at(0, "", f.memberCert("m2"))
	var boots client.Page[events.Held]
	member.call("GET", held, nil).want(200).into(&boots)
	if len(boots.Items) != 1 || boots.Items[0].Node != "n1" || boots.Items[0].Through != 3 {
		t.Errorf("%+v", boots)
	}
	member.call("GET", held+"?node=n1&boot=b1", nil).want(200).into(&boots)
	if len(boots.Items) != 0 {
		t.Errorf("after the last: %+v", boots)
	}
	var got events.Part
	member.call("GET", part, nil).want(200).into(&got)
	if diff := cmp.Diff(events.Part{Events: want[1:], Through: 201}, got); diff != "" {
		t.Error(diff)
	}
	member.call("GET", "/v1/cluster/events/part?node=n1&boot=b1&from=3&to=2", nil).want(422)
	for _, path := range []string{held, part} {
		f.op().call("GET", path, nil).want(403)
		f.at(0, red).call("GET", path, nil).want(403)
		f.at(0, "", f.nodeCert("n1")).call("GET", path, nil).want(403)
		f.at(0, "").call("GET", path, nil).want(401)
	}
}
