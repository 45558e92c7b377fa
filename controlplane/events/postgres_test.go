package events_test

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/controlplane/events/storetest"
	"github.com/edgefleet/edgefleet/fleet"
)

func inPostgres(dsn string) func(*events.Options) {
	return func(o *events.Options) { o.Dir, o.Postgres = "", &events.Postgres{DSN: dsn} }
}

// One server for all: they follow each other.
func TestPostgres(t *testing.T) {
	p := storetest.StartPostgres(t)
	storetest.Run(t, func(t *testing.T, dir string) storetest.Store { return openStore(t, "", inPostgres(p.DSN(t, dir))) })
	for name, test := range map[string]func(*testing.T, *storetest.Postgres){
		"members that share it store each event once and tail all":        testShared,
		"partitions past retention are dropped":                           testPartitions,
		"that it is away is said without its password, and it comes back": testAway,
		"tables of a newer version and strings that are none are refused": testRefused,
		"a crash loses nothing on the way from a spool":                   testSpoolToPostgres,
	} {
		t.Run(name, func(t *testing.T) { test(t, p) })
	}
}

func testShared(t *testing.T, p *storetest.Postgres) {
	dsn := p.DSN(t, "shared")
	var stores []*events.Store
	for range 3 {
		stores = append(stores, openStore(t, "", inPostgres(dsn)))
	}
	tails := make([]<-chan fleet.Event, len(stores))
	for i, s := range stores {
		tails[i], _ = s.Subscribe()
	}
	const batches, size = 8, 25
	var wg sync.WaitGroup
	for i, s := range stores {
		wg.Go(func() {
			for b := range batches {
				var evs []fleet.Event
				for n := range size {
					seq := uint64(b*size + n + 1)
					if i%2 == 1 { // members get events in different orders
						seq = uint64(b*size + size - n)
					}
					evs = append(evs, storetest.Event("n1", "b1", seq, "acme", time.Duration(seq%3)*24*time.Hour))
				}
				if err := s.Put(t.Context(), evs); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i, s := range stores {
		n, err := s.Through(t.Context(), "n1", "b1")
		if err != nil || n != batches*size {
			t.Errorf("store %d: watermark %d, %v", i, n, err)
		}
		if got := len(tails[i]); got != batches*size {
			t.Errorf("store %d: %d events in the tail", i, got)
		}
	}
	if got := count(t, dsn, "SELECT count(*) FROM events"); got != batches*size {
		t.Errorf("%d events", got)
	}
}

func count(t *testing.T, dsn, query string) (n int) {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func testPartitions(t *testing.T, p *storetest.Postgres) {
	dsn, now := p.DSN(t, "retention"), storetest.Now
	s := openStore(t, "", inPostgres(dsn), func(o *events.Options) {
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
	if n := count(t, dsn, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass"); n != 1 {
		t.Errorf("%d partitions", n)
	}
	if n, err := s.Through(t.Context(), "n1", "b1"); err != nil || n != 3 {
		t.Errorf("watermark %d, %v", n, err)
	}
}

func testAway(t *testing.T, p *storetest.Postgres) {
	dsn := p.DSN(t, "away")
	p.Kill()
	s := openStore(t, "", inPostgres(dsn)) // a member starts without it
	ev := storetest.Event("n1", "b1", 1, "acme", 0)
	err := s.Put(t.Context(), []fleet.Event{ev})
	if !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "nodes keep their events") || strings.Contains(err.Error(), "p@ss") || strings.Contains(err.Error(), "p%40ss") {
		t.Errorf("%v", err)
	}
	if _, err := s.Query(t.Context(), events.Query{}); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("query: %v", err)
	}
	p.Start(t)
	eventually(t, "the store takes events", func() bool { return s.Put(t.Context(), []fleet.Event{ev}) == nil })
	p.Kill()
	if err := s.Put(t.Context(), []fleet.Event{storetest.Event("n1", "b1", 2, "acme", 0)}); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("killed while open: %v", err)
	}
	p.Start(t)
	eventually(t, "the store takes events again", func() bool {
		return s.Put(t.Context(), []fleet.Event{storetest.Event("n1", "b1", 2, "acme", 0)}) == nil
	})
	got, err := s.Get(t.Context(), "acme", ev.ID)
	if diff := cmp.Diff(ev, got); err != nil || diff != "" {
		t.Errorf("what was stored before the crash: %v %s", err, diff)
	}
}

func testRefused(t *testing.T, p *storetest.Postgres) {
	dsn := p.DSN(t, "newer")
	put(t, openStore(t, "", inPostgres(dsn)), storetest.Event("n1", "b1", 1, "acme", 0))
	if n := count(t, dsn, "WITH more AS (INSERT INTO edgefleet_schema (version) VALUES (99) RETURNING version) SELECT version FROM more"); n != 99 {
		t.Fatal(n)
	}
	s := openStore(t, "", inPostgres(dsn))
	if err := s.Put(t.Context(), nil); !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "upgrade the member") {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "postgres://edgefleet:hunter2@[::1/x", "host='x password=hunter2"} {
		if _, err := events.Open(events.Options{Postgres: &events.Postgres{DSN: bad}}); !errors.Is(err, fleet.ErrInvalid) || strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func testSpoolToPostgres(t *testing.T, p *storetest.Postgres) {
	if testing.Short() {
		t.Skip("real time")
	}
	n := startNATS(t)
	dsn := p.DSN(t, "fleet")
	startMember(t, n, "m1", 3, "", inPostgres(dsn))
	s, _ := startNode(t, n, t.TempDir(), "b1")
	for range 500 {
		s.Append(recent("", "", 0))
	}
	// One of three members is enough: the store stands for all.
	eventually(t, "the store has committed all", func() bool { return ledger(s).Stored == 500 })
	p.Kill()
	for range 500 {
		s.Append(recent("", "", 0))
	}
	eventually(t, "they are spooled", func() bool { l := ledger(s); return l.Detected == 1000 && l.Spooled == 500 })
	startMember(t, n, "m2", 3, "", inPostgres(dsn))
	p.Start(t)
	eventually(t, "the rest is stored", func() bool { return ledger(s).Stored == 1000 })
	if got := count(t, dsn, "SELECT count(*) FROM events"); got != 1000 {
		t.Errorf("%d events", got)
	}
}
