package api_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// drill begins one that loses the named members.
func (f *fixture) drill(kind fleet.DrillKind, target string) fleet.Drill {
	f.t.Helper()
	var d fleet.Drill
	f.op().call("POST", "/v1/drills", client.DrillCreate{Kind: kind, Target: target, LoseMajority: kind != fleet.DrillRestore}).want(201).into(&d)
	return d
}

func TestAMemberIsKilledForADrillThatNamesItOnly(t *testing.T) {
	f := open(t, 3)
	ask := func(i int, id string, d string, check bool) answer {
		return f.at(i, f.operator).call("POST", "/v1/cluster/members/"+id+"/crash", client.MemberCrash{Drill: d, Check: check})
	}
	runs := f.drill(fleet.DrillRegionLoss, "m1,m2")
	other := f.drill(fleet.DrillLeaderLoss, "m3")
	restore := f.drill(fleet.DrillRestore, "m2")
	var ended fleet.Drill
	done := f.drill(fleet.DrillLeaderLoss, "m2")
	done.State = fleet.DrillPassed
	f.op().with("If-Match", strconv.Quote(strconv.FormatUint(done.Revision, 10))).call("PATCH", "/v1/drills/"+done.ID, client.DrillUpdate{Drill: done}).want(200).into(&ended)
	if ended.EndedAt.IsZero() {
		t.Errorf("a drill that ended has no end: %+v", ended)
	}
	old := fleet.Drill{ID: "drill-old", Kind: fleet.DrillLeaderLoss, State: fleet.DrillRunning, Target: "m2"}
	f.log.mu.Lock()
	_, err := f.log.propose(command.Header{Time: time.Now().Add(-11 * time.Minute).UTC(), Actor: fleet.Actor{Name: "test", Party: fleet.Vendor}}, command.DrillPut{Put: command.Put{Create: true}, Drill: old})
	f.log.mu.Unlock()
	must(t, err)
	for name, tt := range map[string]struct {
		at     int
		id, d  string
		status int
	}{
		"another member than the one that is asked": {0, "m2", runs.ID, 409},
		"one that takes no part in drills":          {2, "m3", other.ID, 403},
		"for a drill that does not name it":         {1, "m2", other.ID, 409},
		"for one that ended":                        {1, "m2", ended.ID, 409},
		"for a restore":                             {1, "m2", restore.ID, 409},
		"for one that was broken off":               {1, "m2", old.ID, 409},
		"for none":                                  {1, "m2", "drill-none", 409},
	} {
		if got := ask(tt.at, tt.id, tt.d, false); got.status != tt.status {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	ask(1, "m2", runs.ID, true).want(200)
	var tenant client.TokenCreated
	f.op().call("POST", "/v1/tenants", client.TenantCreate{ID: "acme"}).want(201)
	f.op().call("POST", "/v1/tenants/acme/tokens", client.TokenCreate{}).want(201).into(&tenant)
	f.at(1, tenant.Secret).call("POST", "/v1/cluster/members/m2/crash", client.MemberCrash{Drill: runs.ID}).want(403)
	for i, m := range f.members {
		if n := m.crashes.Load(); n != 0 {
			t.Errorf("m%d was killed %d times", i+1, n)
		}
	}
	// A member that is behind hears of the drill in time.
	f.lag(1, true)
	late := f.drill(fleet.DrillRegionLoss, "m2")
	answered := make(chan answer, 1)
	go func() { answered <- ask(1, "m2", late.ID, false) }()
	f.lag(1, false)
	(<-answered).want(200)
	ask(0, "m1", runs.ID, false).want(200)
	if f.members[0].crashes.Load() != 1 || f.members[1].crashes.Load() != 1 || f.members[2].crashes.Load() != 0 {
		t.Error("not m1 and m2 were killed, once each")
	}
}

func TestADrillThatLeavesNoMajorityHasToSaySo(t *testing.T) {
	f := open(t, 3)
	for name, tt := range map[string]struct {
		in     client.DrillCreate
		status int
		field  string
	}{
		"one of three members":                      {client.DrillCreate{Kind: fleet.DrillRegionLoss, Target: "m2"}, 201, ""},
		"two of three":                              {client.DrillCreate{Kind: fleet.DrillRegionLoss, Target: "m1,m2"}, 409, "target"},
		"two of three, which is meant":              {client.DrillCreate{Kind: fleet.DrillRegionLoss, Target: "m1,m2", LoseMajority: true}, 201, ""},
		"names that are no members take nothing":    {client.DrillCreate{Kind: fleet.DrillRegionLoss, Target: "m8,m9,m10"}, 201, ""},
		"a restore loses nobody":                    {client.DrillCreate{Kind: fleet.DrillRestore, Target: "m1,m2,m3"}, 201, ""},
		"a restore is not meant to lose a majority": {client.DrillCreate{Kind: fleet.DrillRestore, LoseMajority: true}, 422, "lose_majority"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := f.op().call("POST", "/v1/drills", tt.in).want(tt.status); got.Field != tt.field {
				t.Errorf("field %q: %s", got.Field, got.body)
			}
		})
	}
	alone := open(t, 1)
	alone.op().call("POST", "/v1/drills", client.DrillCreate{Kind: fleet.DrillLeaderLoss, Target: "m1"}).want(409)
}
