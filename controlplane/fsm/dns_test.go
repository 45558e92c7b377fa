package fsm_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func (d dice) zone() command.Body {
	if d.IntN(2) == 0 {
		return command.RegionPut{Name: pick[fleet.RegionName](d, "eu", "us", "Bad"), Withdraw: d.IntN(2) == 0, Force: d.IntN(2) == 0, IfRevision: d.put().IfRevision}
	}
	return command.DNSSetsPut{Sets: []fleet.DNSSet{dnsSet(d.group(), pick[fleet.RegionName](d, "eu", "us"))}, Gone: []string{pick(d, "default", "default/us")}}
}

func dnsSet(g fleet.GroupName, regions ...fleet.RegionName) fleet.DNSSet {
	return fleet.DNSSet{Key: fleet.DNSSetKey(g, regions), Group: g, Regions: regions, Nodes: []fleet.NodeID{"n1"}}
}

func serving(id fleet.NodeID) command.NodeReport {
	return command.NodeReport{ID: id, Observed: fleet.NodeObserved{State: fleet.NodeUp, Serving: true}}
}

func TestRegionsAreWithdrawnAndRestored(t *testing.T) {
	inUS := command.NodePut{ID: "n2", Spec: with(nodeSpec("198.51.100.2"), func(s *fleet.NodeSpec) { s.Region = "us" })}
	two := []command.Body{enrol("j2", "n2", "198.51.100.2"), inUS, command.NodesReport{Reports: []command.NodeReport{serving("n1"), serving("n2")}}}
	withdraw := command.RegionPut{Name: "eu", Withdraw: true}
	state1 := func(withdrawn, forced bool) func(*testing.T, *state.View) {
		return func(t *testing.T, v *state.View) {
			t.Helper()
			r, _ := v.Region("eu")
			if (r.Withdrawn != nil) != withdrawn || withdrawn && (r.Withdrawn.Forced != forced || r.Withdrawn.Reason != "test" || !r.Withdrawn.At.Equal(noon)) {
				t.Errorf("%+v", r.Withdrawn)
			}
			if got := len(v.Withdrawn()); (got == 1) != withdrawn {
				t.Errorf("%d regions are withdrawn", got)
			}
		}
	}
	run(t, []testCase{
		{name: "a region is withdrawn while another serves", given: two, when: withdraw, object: "region/eu", then: state1(true, false)},
		{name: "not the last one", given: two[2:], when: withdraw, refused: fleet.ErrConflict, says: "no healthy node of group default is left"},
		{name: "not where the others are out already", given: append(two, command.RegionPut{Name: "us", Withdraw: true}), when: withdraw, refused: fleet.ErrConflict, says: "force"},
		{name: "not where the others are cordoned", given: append(two, command.NodePut{ID: "n2", Spec: with(inUS.Spec, func(s *fleet.NodeSpec) { s.Cordoned = true })}), when: withdraw, refused: fleet.ErrConflict},
		{name: "not where the others are down", given: two[:2], when: withdraw, refused: fleet.ErrConflict},
		{name: "not where hosts are bound to it", given: append(two, command.DNSSetsPut{Sets: []fleet.DNSSet{dnsSet("default", "eu")}}), when: withdraw, refused: fleet.ErrConflict, says: "bound to eu"},
		{name: "hosts that are bound to another do not matter", given: append(two, command.DNSSetsPut{Sets: []fleet.DNSSet{dnsSet("default", "eu", "us")}}), when: withdraw, object: "region/eu"},
		{name: "by force", when: command.RegionPut{Name: "eu", Withdraw: true, Force: true}, object: "region/eu", then: state1(true, true)},
		{name: "a region without nodes is not there", when: command.RegionPut{Name: "mars", Withdraw: true}, refused: fleet.ErrNotFound, says: "no node is in region mars"},
		{name: "a bad name is refused", when: command.RegionPut{Name: "Bad", Withdraw: true}, refused: fleet.ErrInvalid},
		{name: "it is restored", given: append(two, withdraw), when: command.RegionPut{Name: "eu"}, object: "region/eu", then: state1(false, false)},
		{name: "it is restored once", given: append(two, withdraw, command.RegionPut{Name: "eu"}), when: command.RegionPut{Name: "eu"}, refused: fleet.ErrConflict, says: "is not withdrawn"},
		{name: "one that was never withdrawn is not restored", when: command.RegionPut{Name: "eu"}, refused: fleet.ErrConflict, says: "is not withdrawn"},
		{name: "one that changed meanwhile is refused", given: append(two, withdraw), when: command.RegionPut{Name: "eu", IfRevision: 1}, refused: fleet.ErrChanged},
	})
}

func TestSetsOfNodesInDNS(t *testing.T) {
	set := dnsSet("default", "eu")
	has := func(want ...string) func(*testing.T, *state.View) {
		return func(t *testing.T, v *state.View) {
			t.Helper()
			var got []string
			for _, s := range v.DNSSets() {
				got = append(got, s.Key)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		}
	}
	run(t, []testCase{
		{name: "a set is stored", when: command.DNSSetsPut{Sets: []fleet.DNSSet{set}}, entries: -1, then: has("default/eu")},
		{name: "a set that was read before it changed is passed over", given: []command.Body{command.DNSSetsPut{Sets: []fleet.DNSSet{set}}}, when: command.DNSSetsPut{Sets: []fleet.DNSSet{with(set, func(s *fleet.DNSSet) { s.Nodes = nil })}}, entries: -1, then: func(t *testing.T, v *state.View) {
			if s, _ := v.DNSSet("default/eu"); len(s.Nodes) != 1 {
				t.Errorf("%+v", s)
			}
		}},
		{name: "a set is forgotten", given: []command.Body{command.DNSSetsPut{Sets: []fleet.DNSSet{set, dnsSet("default")}}}, when: command.DNSSetsPut{Gone: []string{"default/eu"}}, entries: -1, then: has("default")},
		{name: "a set of another name is refused", when: command.DNSSetsPut{Sets: []fleet.DNSSet{set, with(set, func(s *fleet.DNSSet) { s.Key = "default/us" })}}, refused: fleet.ErrInvalid},
	})
}

func TestThereIsALimitOfSets(t *testing.T) {
	w := city(t)
	var sets []fleet.DNSSet
	for i := range fleet.MaxDNSSets + 5 {
		sets = append(sets, dnsSet("default", fleet.RegionName(fmt.Sprintf("r%d", i))))
	}
	w.must(t, command.DNSSetsPut{Sets: sets})
	if got := len(w.state.Read().DNSSets()); got != fleet.MaxDNSSets {
		t.Errorf("%d sets, limit %d", got, fleet.MaxDNSSets)
	}
}

func TestAWeightIsHeldAgainstItsLimits(t *testing.T) {
	weigh := func(w int) command.Body {
		return command.NodePut{ID: "n1", Spec: with(nodeSpec("198.51.100.1"), func(s *fleet.NodeSpec) { s.Weight = w })}
	}
	run(t, []testCase{
		{name: "a weight is stored", when: weigh(100), object: "node/n1"},
		{name: "one that is too great is refused", when: weigh(101), refused: fleet.ErrInvalid, says: "1 to 100"},
		{name: "one below zero is refused", when: weigh(-1), refused: fleet.ErrInvalid},
	})
}
