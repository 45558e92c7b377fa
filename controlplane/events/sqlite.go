package events

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the database/sql driver "sqlite"

	"github.com/edgefleet/edgefleet/fleet"
)

const daySuffix = ".events.db"

// daySchema keeps an event as its JSON, with what queries filter and sort by beside it. Each index serves one kind of
// query: a tenant's, an operator's, a host's. Attacks are those of the day alone.
const daySchema = `
CREATE TABLE IF NOT EXISTS events (
	id              TEXT NOT NULL UNIQUE,
	time            INTEGER NOT NULL,
	tenant          TEXT NOT NULL,
	host            TEXT NOT NULL,
	type            TEXT NOT NULL,
	status          TEXT NOT NULL,
	node            TEXT NOT NULL,
	region          TEXT NOT NULL,
	client_ip       TEXT NOT NULL,
	method          TEXT NOT NULL,
	path            TEXT NOT NULL,
	point           TEXT NOT NULL,
	parameter       TEXT NOT NULL,
	response_status INTEGER NOT NULL,
	body            BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_tenant ON events (tenant, time, id);
CREATE INDEX IF NOT EXISTS events_time ON events (time, id);
CREATE INDEX IF NOT EXISTS events_host ON events (host, time, id);
CREATE TABLE IF NOT EXISTS attacks (
	grp       TEXT NOT NULL,
	day       TEXT NOT NULL,
	first     INTEGER NOT NULL,
	last      INTEGER NOT NULL,
	tenant    TEXT NOT NULL,
	host      TEXT NOT NULL,
	type      TEXT NOT NULL,
	parameter TEXT NOT NULL,
	hits      INTEGER NOT NULL,
	blocked   INTEGER NOT NULL,
	PRIMARY KEY (grp, first)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attacks_tenant ON attacks (tenant, last, grp);
`

// sqlite is the engine of a member of its own: a file for each UTC day of event time.
type sqlite struct {
	dir string
	// files guards days: queries hold it shared, so that no file is deleted under them.
	files  sync.RWMutex
	days   map[string]*day
	closed bool
}

func openSQLite(dir string) (*sqlite, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	names, err := dayNames(dir)
	if err != nil {
		return nil, err
	}
	e := &sqlite{dir: dir, days: map[string]*day{}}
	for _, name := range names {
		d, err := openDay(dir, name)
		if err != nil {
			return nil, errors.Join(err, e.close())
		}
		e.days[name] = d
	}
	return e, nil
}

func (e *sqlite) ready(context.Context) error { return nil }

func (e *sqlite) fail(err error) error { return err }

// put is one transaction a day.
func (e *sqlite) put(ctx context.Context, evs []fleet.Event) (fresh []fleet.Event, err error) {
	byDay := map[string][]fleet.Event{}
	for _, ev := range evs {
		name := dayOf(ev.Time)
		byDay[name] = append(byDay[name], ev)
	}
	for _, name := range slices.Sorted(maps.Keys(byDay)) {
		d, err := e.day(name)
		if err != nil {
			return nil, err
		}
		added, err := d.put(ctx, byDay[name])
		if err != nil {
			return nil, fmt.Errorf("day %s: %w", name, err)
		}
		fresh = append(fresh, added...)
	}
	return fresh, nil
}

// day returns the file of a day, created if need be.
func (e *sqlite) day(name string) (*day, error) {
	e.files.Lock()
	defer e.files.Unlock()
	if e.closed {
		return nil, fleet.NewError(fleet.ErrUnavailable, "", "the event store is closed")
	}
	if d := e.days[name]; d != nil {
		return d, nil
	}
	d, err := openDay(e.dir, name)
	if err != nil {
		return nil, err
	}
	e.days[name] = d
	return d, nil
}

func (e *sqlite) shards(from, to string) (list []shard, release func()) {
	e.files.RLock()
	for _, name := range slices.Sorted(maps.Keys(e.days)) {
		if name >= from && name <= to {
			list = append(list, shard{name, e.days[name].db})
		}
	}
	return list, e.files.RUnlock
}

func (e *sqlite) prune(_ context.Context, oldest string) error {
	e.files.Lock()
	defer e.files.Unlock()
	if e.closed {
		return nil
	}
	var errs []error
	for name, d := range e.days {
		if name < oldest {
			errs = append(errs, d.remove())
			delete(e.days, name)
		}
	}
	return errors.Join(errs...)
}

func (e *sqlite) close() error {
	e.files.Lock()
	defer e.files.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	var errs []error
	for _, d := range e.days {
		errs = append(errs, d.db.Close())
	}
	return errors.Join(errs...)
}

// day is the file of one UTC day of event time.
type day struct {
	name, path string
	db         *sql.DB
}

func dayOf(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// dayNames lists the days that have a file.
func dayNames(dir string) ([]string, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), daySuffix)
		if _, err := time.Parse(time.DateOnly, name); ok && err == nil {
			names = append(names, name)
		}
	}
	return names, nil
}

func openDay(dir, name string) (*day, error) {
	path := filepath.Join(dir, name+daySuffix)
	db, err := openDB(path, daySchema)
	if err != nil {
		return nil, err
	}
	return &day{name: name, path: path, db: db}, nil
}

// openDB opens a database that syncs every commit. Idle connections are closed, so that old days hold no descriptors.
func openDB(path, schema string) (*sql.DB, error) {
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?_txlock=immediate" +
		"&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(2)
	db.SetConnMaxIdleTime(time.Minute)
	if _, err := db.Exec(schema); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return db, nil
}

// insertOne adds one row to a day's file.
var insertOne = "INSERT INTO events (" + columns + ") VALUES (?" + strings.Repeat(", ?", len(textColumns)+2) + ") ON CONFLICT (id) DO NOTHING"

// put stores events in one transaction and returns those that were not there.
func (d *day) put(ctx context.Context, evs []fleet.Event) (added []fleet.Event, err error) {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	insert, err := tx.PrepareContext(ctx, insertOne)
	if err != nil {
		return nil, err
	}
	defer func() { _ = insert.Close() }()
	for _, ev := range evs {
		r, err := rowOf(ev)
		if err != nil {
			return nil, err
		}
		res, err := insert.ExecContext(ctx, r.args()...)
		if err != nil {
			return nil, err
		}
		if n, err := res.RowsAffected(); err != nil {
			return nil, err
		} else if n > 0 {
			added = append(added, ev)
		}
	}
	if err := fold(ctx, tx, added); err != nil {
		return nil, err
	}
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	return added, nil
}

// remove closes and deletes the file.
func (d *day) remove() error {
	errs := []error{d.db.Close()}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(d.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
