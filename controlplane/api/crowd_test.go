package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// fullHouse has nodes take all places of the first member's crowd, by polls that do not end before release.
func fullHouse(t *testing.T, places int) (f *fixture, release func()) {
	t.Helper()
	f = open(t, 1)
	for i := range places + 1 {
		f.node(fleet.NodeID(fmt.Sprintf("n%d", i)), byte(i+1)) //nolint:gosec // few
	}
	f.members[0].api.LimitNodes(places)
	for len(f.reports) < cap(f.reports) { // nobody takes them, so that a poll waits
		f.reports <- fleet.Report{}
	}
	statuses := make(chan int, places)
	for i := range places {
		id := fleet.NodeID(fmt.Sprintf("n%d", i))
		go func() { statuses <- f.at(0, "", f.nodeCert(id)).call("POST", "/v1/edge/poll", report(id)).status }()
	}
	await(t, "every place is taken", func() bool { return f.members[0].api.OpenNodes() == places })
	return f, func() {
		t.Helper()
		for range cap(f.reports) + places {
			<-f.reports
		}
		for range places {
			if status := <-statuses; status != http.StatusOK {
				t.Errorf("a node that had a place got %d", status)
			}
		}
	}
}

func TestAStampedeOfNodesLeavesRoomForOperators(t *testing.T) {
	const places = 4
	f, release := fullHouse(t, places)
	late := f.at(0, "", f.nodeCert("n4"))
	refused := map[string]answer{
		"a poll":       late.call("POST", "/v1/edge/poll", report("n4")),
		"a blob":       late.call("GET", "/v1/edge/blobs/sha256:"+strings.Repeat("0", 64), nil),
		"an enrolment": f.at(0, "").call("POST", "/v1/edge/enrol", enrolment(t, "efn1.a.b.c")),
		"a renewal":    f.at(0, "").call("POST", "/v1/edge/renew", map[string]string{}),
	}
	for name, got := range refused {
		after, err := strconv.Atoi(got.header.Get("Retry-After"))
		if got.status != http.StatusServiceUnavailable || got.Kind != "unavailable" || err != nil || after < 1 || after > 5 || !strings.Contains(got.Detail, "room for 4") {
			t.Errorf("%s: %d, Retry-After %q: %s", name, got.status, got.header.Get("Retry-After"), got.body)
		}
	}
	f.op().call("POST", "/v1/tenants", client.TenantCreate{ID: "acme"}).want(201)
	f.op().call("GET", "/v1/nodes", nil).want(200)
	rec := httptest.NewRecorder()
	f.members[0].tel.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if want := "edgefleet_api_nodes_refused_total " + strconv.Itoa(len(refused)); !strings.Contains(rec.Body.String(), want) {
		t.Errorf("the metrics lack %q", want)
	}
	release()
	await(t, "every place is free", func() bool { return f.members[0].api.OpenNodes() == 0 })
	late.call("POST", "/v1/edge/poll", report("n4")).want(200)
}

func TestOneNodeDoesNotTakeEveryPlace(t *testing.T) {
	f := open(t, 1)
	f.node("n1", 1)
	f.node("n2", 2)
	f.members[0].api.LimitNodes(16)
	for len(f.reports) < cap(f.reports) {
		f.reports <- fleet.Report{}
	}
	statuses := make(chan int, 3)
	poll := func(id fleet.NodeID) {
		statuses <- f.at(0, "", f.nodeCert(id)).call("POST", "/v1/edge/poll", report(id)).status
	}
	go poll("n1")
	go poll("n1")
	await(t, "it has its share", func() bool { return f.members[0].api.OpenNodes() == 2 })
	f.at(0, "", f.nodeCert("n1")).call("POST", "/v1/edge/poll", report("n1")).want(503)
	go poll("n2")
	await(t, "another one finds a place", func() bool { return f.members[0].api.OpenNodes() == 3 })
	for range cap(f.reports) + 3 {
		<-f.reports
	}
	for range 3 {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("got %d", status)
		}
	}
}
