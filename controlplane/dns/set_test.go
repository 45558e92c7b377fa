package dns_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/fleet"
)

var (
	noon = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)
	bake = 15 * time.Second
)

// edges makes nodes of a text such as "a b:down c:cordoned d@us:idle".
func edges(text string) (nodes []fleet.Node) {
	for word := range strings.FieldsSeq(text) {
		word, state, _ := strings.Cut(word, ":")
		id, region, _ := strings.Cut(word, "@")
		n := fleet.Node{ID: fleet.NodeID(id), Observed: fleet.NodeObserved{State: fleet.NodeUp, Serving: true}}
		n.Spec.Region = fleet.RegionName(region)
		switch state {
		case "down":
			n.Observed.State = fleet.NodeDown
		case "idle":
			n.Observed.Serving = false
		case "cordoned":
			n.Spec.Cordoned = true
		case "locked":
			n.Lock = &fleet.NodeLock{}
		case "revoked":
			n.Identity.RevokedAt = noon
		case "new":
			n.Observed.State = fleet.NodeEnrolled
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// inDNS writes a set as who is in it, who is out and why ("*" for one that bakes), and whether it is held.
func inDNS(s fleet.DNSSet) string {
	var words []string
	for _, id := range s.Nodes {
		words = append(words, string(id))
	}
	for _, o := range s.Out {
		w := fmt.Sprintf("-%s:%s", o.Node, o.Why)
		if !o.Returns.IsZero() {
			w = fmt.Sprintf("-%s*%s", o.Node, o.Returns.Sub(noon))
		}
		words = append(words, w)
	}
	if s.Held != nil {
		words = append(words, fmt.Sprintf("held(%d/%d since %s)", s.Held.Healthy, s.Held.Should, s.Held.Since.Sub(noon)))
	}
	return strings.Join(words, " ")
}

func answered(nodes []fleet.Node) string {
	var words []string
	for _, n := range nodes {
		words = append(words, string(n.ID))
	}
	return strings.Join(words, " ")
}

func TestASetFollowsItsNodes(t *testing.T) {
	us := dns.Withdrawn{"us": {At: noon}}
	type step struct {
		after time.Duration
		nodes string
		out   dns.Withdrawn
		// set is what the set is then, answers who is answered with before the leader looks, and then.
		set, before, answers string
	}
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"nodes that were never in join at once", []step{{0, "a b:new c:revoked", nil, "a", "a", "a"}, {time.Second, "a b", nil, "a b", "a", "a b"}}},
		{"one that goes down leaves, and bakes when it is back", []step{
			{0, "a b c", nil, "a b c", "a b c", "a b c"},
			{1 * time.Second, "a b:down c", nil, "a c -b:down", "a c", "a c"},
			{2 * time.Second, "a b c", nil, "a c -b*17s", "a c", "a c"},
			{16 * time.Second, "a b c", nil, "a c -b*17s", "a c", "a c"},
			{17 * time.Second, "a b c", nil, "a b c", "a c", "a b c"},
		}},
		{"one that fails while it bakes begins anew", []step{
			{0, "a b c", nil, "a b c", "a b c", "a b c"},
			{1 * time.Second, "a b:idle c", nil, "a c -b:not_serving", "a c", "a c"},
			{2 * time.Second, "a b c", nil, "a c -b*17s", "a c", "a c"},
			{9 * time.Second, "a b:down c", nil, "a c -b:down", "a c", "a c"},
			{10 * time.Second, "a b c", nil, "a c -b*25s", "a c", "a c"},
		}},
		{"more than half go at once: the last good set stays", []step{
			{0, "a b c d:down", nil, "a b c", "a b c", "a b c"},
			{1 * time.Second, "a b:down c:down d:down", nil, "a b c held(1/4 since 1s)", "a b c", "a b c"},
			{9 * time.Second, "a:down b:down c:down d:down", nil, "a b c held(0/4 since 1s)", "a b c", "a b c"},
			{10 * time.Second, "a:down b c:down d", nil, "b d -a:down -c:down", "a b c", "b d"},
		}},
		{"more than half go one after the other: those left stay", []step{
			{0, "a b c d", nil, "a b c d", "a b c d", "a b c d"},
			{1 * time.Second, "a:down b c d", nil, "b c d -a:down", "b c d", "b c d"},
			{2 * time.Second, "a:down b:down c d", nil, "c d -a:down -b:down", "c d", "c d"},
			{3 * time.Second, "a:down b:down c:down d", nil, "c d -a:down -b:down held(1/4 since 3s)", "d", "c d"},
			{4 * time.Second, "a:down b:down c:down d:down", nil, "c d -a:down -b:down held(0/4 since 3s)", "c d", "c d"},
		}},
		{"a cordoned node is out at once, and bakes", []step{
			{0, "a b", nil, "a b", "a b", "a b"},
			{1 * time.Second, "a b:cordoned", nil, "a -b:cordoned", "a", "a"},
			{2 * time.Second, "a b", nil, "a -b*17s", "a", "a"},
		}},
		{"a locked one as well", []step{{0, "a b", nil, "a b", "a b", "a b"}, {1 * time.Second, "a b:locked", nil, "a -b:locked", "a", "a"}}},
		{"a cordon of everybody is not honoured", []step{{0, "a", nil, "a", "a", "a"}, {time.Second, "a:cordoned", nil, "-a:cordoned", "a", "a"}}},
		{"nobody bakes where nobody else serves", []step{
			{0, "a", nil, "a", "a", "a"},
			{1 * time.Second, "a:cordoned", nil, "-a:cordoned", "a", "a"},
			{2 * time.Second, "a", nil, "a", "a", "a"},
		}},
		{"a region is withdrawn and restored", []step{
			{0, "a@eu b@us", nil, "a b", "a b", "a b"},
			{1 * time.Second, "a@eu b@us", us, "a -b:region_withdrawn", "a", "a"},
			{2 * time.Second, "a@eu b@us", nil, "a -b*17s", "a", "a"},
		}},
		{"a region that is all there is stays", []step{{0, "b@us", us, "", "b", "b"}}},
		{"unless it is forced", []step{{0, "b@us", dns.Withdrawn{"us": {Forced: true}}, "", "", ""}}},
		{"a set that begins when most are down has all", []step{{0, "a b:down c:down", nil, "a b c held(1/3 since 0s)", "a b c", "a b c"}}},
		{"a revoked node is forgotten", []step{{0, "a b", nil, "a b", "a b", "a b"}, {1, "a b:revoked", nil, "a", "a", "a"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var set fleet.DNSSet
			known := false
			for i, s := range tc.steps {
				nodes := edges(s.nodes)
				if got := answered(dns.Serving(set, known, nodes, s.out)); got != s.before {
					t.Errorf("step %d: answered with %q, want %q", i, got, s.before)
				}
				next, wake := dns.Advance(set, known, nodes, s.out, bake, noon.Add(s.after))
				if got := inDNS(next); got != s.set {
					t.Errorf("step %d: %q, want %q", i, got, s.set)
				}
				if waits := strings.Contains(s.set, "*"); waits == wake.IsZero() {
					t.Errorf("step %d: it is looked at again at %s", i, wake)
				}
				if again, _ := dns.Advance(next, true, nodes, s.out, bake, noon.Add(s.after)); cmp.Diff(next, again) != "" {
					t.Errorf("step %d: looking again changes it: %s", i, cmp.Diff(next, again))
				}
				if got := answered(dns.Serving(next, true, nodes, s.out)); got != s.answers {
					t.Errorf("step %d: then answered with %q, want %q", i, got, s.answers)
				}
				set, known = next, true
			}
		})
	}
}

// TestWhateverHappensToNodes holds over random histories: somebody is answered with as long as somebody can be, nobody
// who was taken out by people is while others are wanted, and the order of the nodes does not matter.
func TestWhateverHappensToNodes(t *testing.T) {
	states := []string{"", "", "", ":down", ":idle", ":cordoned", ":locked", ":revoked", ":new"}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var set fleet.DNSSet
		known := false
		for step := range 40 {
			var words []string
			for _, id := range []string{"a", "b", "c", "d", "e"} {
				words = append(words, id+[]string{"@eu", "@us"}[r.IntN(2)]+states[r.IntN(len(states))])
			}
			text := strings.Join(words, " ")
			nodes := edges(text)
			var out dns.Withdrawn
			if r.IntN(3) == 0 {
				out = dns.Withdrawn{"us": {At: noon}}
			}
			now := noon.Add(time.Duration(step*7) * time.Second)
			answers := dns.Serving(set, known, nodes, out)
			anybody, wanted := false, false
			for _, n := range nodes {
				why, ok := n.WantedInDNS(out)
				anybody = anybody || ok
				wanted = wanted || ok && why == "" && n.Healthy()
			}
			if anybody && len(answers) == 0 {
				t.Fatalf("seed %d, step %d: nobody of %s", seed, step, text)
			}
			for _, n := range answers {
				if why, ok := n.WantedInDNS(out); !ok || why != "" && wanted {
					t.Fatalf("seed %d, step %d: %s of %s, which is out: %q", seed, step, n.ID, text, why)
				}
			}
			next, _ := dns.Advance(set, known, nodes, out, bake, now)
			slices.Reverse(nodes)
			if other, _ := dns.Advance(set, known, nodes, out, bake, now); cmp.Diff(next, other) != "" {
				t.Fatalf("seed %d, step %d: the order of nodes matters: %s", seed, step, cmp.Diff(next, other))
			}
			set, known = next, true
		}
	}
}
