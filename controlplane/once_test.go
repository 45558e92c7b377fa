package controlplane_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// While the leader goes away, clients repeat what they do not know the outcome of: every change is made, and made once.
func TestChangesAreMadeOnceAcrossTheLossOfTheLeader(t *testing.T) {
	if testing.Short() {
		t.Skip("it stops the leader of a real cluster")
	}
	t.Parallel()
	c := start(t, 3)
	tenant(t, c.client(), "red")
	lead := c.leader()
	const writers, each = 8, 25
	var wg sync.WaitGroup
	started, failed := make(chan struct{}, writers*each), make(chan error, writers*each)
	for w := range writers {
		cl := c.client()
		wg.Go(func() {
			for i := range each {
				spec := fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "x", AttackType: fleet.AttackCustom, Comment: fmt.Sprintf("%d-%d", w, i)}
				// Without an id: if it were applied twice, there would be two.
				if _, err := client.Post[fleet.Rule](t.Context(), cl, "/v1/tenants/red/rules", client.RuleCreate{Spec: spec}); err != nil {
					failed <- err
				}
				started <- struct{}{}
			}
		})
	}
	for range writers * each / 4 {
		<-started
	}
	c.members[lead].stop(t)
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Errorf("a change was given up: %v", err)
	}
	c.members = append(c.members[:lead], c.members[lead+1:]...)
	rules, err := client.All[fleet.Rule](t.Context(), c.client(), "/v1/tenants/red/rules", nil)
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for _, r := range rules {
		times[r.Spec.Comment]++
	}
	for w := range writers {
		for i := range each {
			if n := times[fmt.Sprintf("%d-%d", w, i)]; n != 1 {
				t.Errorf("rule %d-%d was made %d times", w, i, n)
			}
		}
	}
}
