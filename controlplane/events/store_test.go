package events_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/controlplane/events/storetest"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

func openStore(t testing.TB, dir string, change ...func(*events.Options)) *events.Store {
	t.Helper()
	o := events.Options{Dir: dir, Now: func() time.Time { return storetest.Now }}
	for _, c := range change {
		c(&o)
	}
	s, err := events.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T, dir string) storetest.Store { return openStore(t, dir) })
}

func put(t testing.TB, s *events.Store, evs ...fleet.Event) {
	t.Helper()
	if err := s.Put(t.Context(), evs); err != nil {
		t.Fatal(err)
	}
}

func TestACrashLosesNothingThatWasPut(t *testing.T) {
	// The files are copied while the store is open, as a killed process leaves them: with a WAL and no checkpoint.
	dir, copied := t.TempDir(), t.TempDir()
	s := openStore(t, dir)
	for seq := range uint64(50) {
		put(t, s, storetest.Event("n1", "b1", seq+1, "acme", time.Duration(seq%3)*24*time.Hour))
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasSuffix(n.Name(), "-shm") {
			continue // shared memory dies with the machine
		}
		b, err := os.ReadFile(filepath.Join(dir, n.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, n.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	after := openStore(t, copied)
	page, err := after.Query(t.Context(), events.Query{Limit: 100})
	if err != nil || len(page.Events) != 50 {
		t.Errorf("%d events, %v", len(page.Events), err)
	}
	if n, err := after.Through(t.Context(), "n1", "b1"); err != nil || n != 50 {
		t.Errorf("watermark %d, %v", n, err)
	}
}

func TestSkippedNumbersCountForTheWatermark(t *testing.T) {
	s := openStore(t, t.TempDir())
	put(t, s, storetest.Event("n1", "b1", 10, "acme", 0))
	for _, step := range []struct {
		from, to, added, through uint64
	}{{1, 4, 4, 4}, {1, 6, 2, 6}, {1, 6, 0, 6}, {9, 9, 1, 6}, {7, 20, 12, 20}, {0, 30, 0, 20}, {25, 24, 0, 20}} {
		n, err := s.Skip(t.Context(), events.Span{Node: "n1", Boot: "b1", From: step.from, To: step.to})
		if err != nil || n != step.added {
			t.Errorf("%+v: %d skipped, %v", step, n, err)
		}
		if got, err := s.Through(t.Context(), "n1", "b1"); err != nil || got != step.through {
			t.Errorf("%+v: watermark %d, %v", step, got, err)
		}
	}
}

func TestOldDaysAreDeletedAndTheirWatermarksKept(t *testing.T) {
	dir, now := t.TempDir(), storetest.Now
	s := openStore(t, dir, func(o *events.Options) {
		o.Retention = 48 * time.Hour
		o.Now = func() time.Time { return now }
	})
	put(t, s, storetest.Event("n1", "b1", 1, "acme", 0), storetest.Event("n1", "b1", 2, "acme", 24*time.Hour))
	now = now.Add(48 * time.Hour)
	put(t, s, storetest.Event("n1", "b1", 3, "acme", 0))
	page, err := s.Query(t.Context(), events.Query{})
	if err != nil || len(page.Events) != 2 || page.Events[1].Seq == 2 {
		t.Errorf("%+v, %v", page, err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "2026-11-04*")); len(files) != 0 {
		t.Errorf("still there: %v", files)
	}
	if n, err := s.Through(t.Context(), "n1", "b1"); err != nil || n != 3 {
		t.Errorf("watermark %d, %v", n, err)
	}
}

func TestAGapIsShownAfterAMinuteAndForgottenWithItsNode(t *testing.T) {
	tel, now := observability.Discard(), storetest.Now
	s := openStore(t, t.TempDir(), func(o *events.Options) { o.Telemetry, o.Now = tel, func() time.Time { return now } })
	gaps := func() string { return scrape(t, tel, "edgefleet_events_watermark_gaps") }
	put(t, s, storetest.Event("n1", "b1", 2, "acme", 0))
	now = now.Add(50 * time.Second)
	if got := gaps(); got != "0" {
		t.Errorf("after 50 s: %s", got)
	}
	now = now.Add(20 * time.Second)
	if got := gaps(); got != "1" {
		t.Errorf("after 70 s: %s", got)
	}
	put(t, s, storetest.Event("n1", "b1", 1, "acme", 0))
	if got := gaps(); got != "0" {
		t.Errorf("filled: %s", got)
	}
	put(t, s, storetest.Event("n1", "b1", 4, "acme", 0))
	now = now.Add(25 * time.Hour)
	if got := gaps(); got != "0" {
		t.Errorf("of a node that is gone: %s", got)
	}
	if diff := tel.Undeclared(); len(diff) != 0 {
		t.Error(diff)
	}
}

func TestASubscriberSeesNewEventsOnce(t *testing.T) {
	tel := observability.Discard()
	s := openStore(t, t.TempDir(), func(o *events.Options) { o.Telemetry = tel })
	put(t, s, storetest.Event("n1", "b1", 1, "acme", 0))
	ch, cancel := s.Subscribe()
	other, _ := s.Subscribe()
	put(t, s, storetest.Event("n1", "b1", 1, "acme", 0), storetest.Event("n1", "b1", 2, "acme", 0))
	put(t, s, storetest.Event("n1", "b1", 2, "acme", 0))
	if ev := <-ch; ev.Seq != 2 || len(ch) != 0 {
		t.Errorf("event %d, and %d more", ev.Seq, len(ch))
	}
	cancel()
	cancel()
	if _, open := <-ch; open {
		t.Error("cancelled and still open")
	}
	var many []fleet.Event
	for seq := range uint64(400) {
		many = append(many, storetest.Event("n1", "b2", seq+1, "acme", 0))
	}
	put(t, s, many...)
	if got := scrape(t, tel, "edgefleet_events_tail_skipped_total"); got != "145" || len(other) != 256 {
		t.Errorf("%s skipped, %d waiting", got, len(other))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 256 {
		<-other
	}
	if _, open := <-other; open {
		t.Error("closed and still open")
	}
	late, cancel := s.Subscribe()
	cancel()
	if _, open := <-late; open {
		t.Error("subscribed to a closed store")
	}
}

func TestAClosedStoreAndBadOptionsAreRefused(t *testing.T) {
	s := openStore(t, t.TempDir())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), []fleet.Event{storetest.Event("n1", "b1", 1, "acme", 0)}); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if _, err := events.Open(events.Options{}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("%v", err)
	}
	if _, err := events.Open(events.Options{Dir: t.TempDir(), Retention: time.Hour}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

func BenchmarkPut(b *testing.B) {
	s := openStore(b, b.TempDir())
	seq := uint64(0)
	batch := make([]fleet.Event, 500)
	for b.Loop() {
		for i := range batch {
			seq++
			batch[i] = storetest.Event("n1", "b1", seq, "acme", time.Duration(seq)*time.Microsecond%time.Minute)
		}
		put(b, s, batch...)
	}
	b.ReportMetric(float64(seq)/b.Elapsed().Seconds(), "events/s")
}
