package faulttest_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/edgefleet/edgefleet/controlplane/faulttest"
)

var (
	seeds = flag.Int("seeds", 3, "how many seeded histories to run")
	first = flag.Uint64("seed", 1, "the first seed")
)

// checkLimit bounds the search for an order of one history that explains it; it is real time.
const checkLimit = time.Minute

func TestHistoriesOfConcurrentClientsStayLinearizableUnderFaults(t *testing.T) {
	for i := range *seeds {
		seed := *first + uint64(i) //nolint:gosec // a small number
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			runHistory(t, faulttest.NewPlan(seed))
		})
	}
}

func runHistory(t *testing.T, p faulttest.Plan) {
	t.Helper()
	var history *faulttest.History
	var story []string
	dir := t.TempDir()
	defer func() { // a bubble that fails ends the test around it
		if t.Failed() {
			t.Logf("seed %d reproduces the plan: go test ./controlplane/faulttest -seeds 1 -seed %d\n%s", p.Seed, p.Seed, strings.Join(story, "\n"))
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		c, err := faulttest.NewCluster(p.Size, dir, rand.New(rand.NewPCG(p.Seed, 2)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			story = c.Story()
		}()
		if history, err = p.Run(c); err != nil {
			t.Error(err)
			return
		}
		standings, err := c.Rest()
		if err != nil {
			t.Error(err)
			return
		}
		faulttest.CheckFleet(t, c.Ledger, standings)
	})
	if history != nil {
		checkHistory(t, history)
		known, open := history.Counts()
		again, before := history.Repeated()
		t.Logf("seed %d: %d members, %d operations with a known outcome, %d without; %d changes were done again, %d of them had been done", p.Seed, p.Size, known, open, again, before)
		if known < 15 {
			t.Errorf("only %d operations have a known outcome: the history proves nothing", known)
		}
	}
}

func checkHistory(t *testing.T, h *faulttest.History) {
	t.Helper()
	for _, s := range h.Strange() {
		t.Errorf("an answer that no client may get: %s", s)
	}
	switch result, info := h.Linearizable(checkLimit); result {
	case porcupine.Ok:
	case porcupine.Unknown:
		t.Errorf("no verdict within %s", checkLimit)
	case porcupine.Illegal:
		dir, err := os.MkdirTemp("", "faulttest-") //nolint:usetesting // it is looked at after the test
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "history.html")
		if err := faulttest.Visualize(info, file); err != nil {
			t.Error(err)
		}
		t.Errorf("the history is not linearizable: open %s", file)
	}
}
