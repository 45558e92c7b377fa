package events

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the database/sql driver "sqlite"

	"github.com/edgefleet/edgefleet/fleet"
)

const daySuffix = ".events.db"

// daySchema keeps an event as its JSON, with what queries filter and sort by beside it. Each index serves one kind of
// query: a tenant's, an operator's, a host's.
const daySchema = `
CREATE TABLE IF NOT EXISTS events (
	id     TEXT NOT NULL UNIQUE,
	time   INTEGER NOT NULL,
	tenant TEXT NOT NULL,
	host   TEXT NOT NULL,
	type   TEXT NOT NULL,
	status TEXT NOT NULL,
	body   BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_tenant ON events (tenant, time, id);
CREATE INDEX IF NOT EXISTS events_time ON events (time, id);
CREATE INDEX IF NOT EXISTS events_host ON events (host, time, id);
`

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

// put stores events in one transaction and returns those that were not there.
func (d *day) put(ctx context.Context, evs []fleet.Event) (added []fleet.Event, err error) {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	insert, err := tx.PrepareContext(ctx, `INSERT INTO events (id, time, tenant, host, type, status, body)
		VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = insert.Close() }()
	for _, ev := range evs {
		body, err := json.Marshal(ev)
		if err != nil {
			return nil, err
		}
		res, err := insert.ExecContext(ctx, string(ev.ID), ev.Time.UnixNano(), string(ev.Tenant), string(ev.Host), string(ev.Type), string(ev.Status), body)
		if err != nil {
			return nil, err
		}
		if n, err := res.RowsAffected(); err != nil {
			return nil, err
		} else if n > 0 {
			added = append(added, ev)
		}
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
