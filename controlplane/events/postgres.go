package events

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/edgefleet/edgefleet/fleet"
)

// Postgres is where a PostgreSQL is.
type Postgres struct {
	// DSN is a connection string; it holds a password and is never logged.
	DSN string
}

const (
	// connectTimeout bounds one attempt to connect, retryAfter how often that is tried while it fails.
	connectTimeout = 5 * time.Second
	retryAfter     = time.Second
	// partitionPrefix is before the day in the name of a partition.
	partitionPrefix = "events_"
	// The keys of the locks with which members keep out of each other's way; they are arbitrary.
	lockSchema = "SELECT pg_advisory_xact_lock(7236001)"
	lockMarks  = "SELECT pg_advisory_xact_lock(7236002)"
	// lockAttacks comes after the events are inserted, so that who has it waits for nobody.
	lockAttacks = "SELECT pg_advisory_xact_lock(7236003)"
)

// postgres is the engine that all members share: one table with a partition for each UTC day of event time.
type postgres struct {
	db *sql.DB
	// at says where it is, without the password.
	at  string
	log *slog.Logger
	// opened is called when the tables are there.
	opened func(ctx context.Context) error

	// opening serialises the first use; mu guards the rest.
	opening chan struct{}
	mu      sync.Mutex
	open    bool
	failed  error
	tried   time.Time
	// partitions are the days known to have one.
	partitions map[string]bool
}

func openPostgres(o Postgres, log *slog.Logger) (*postgres, error) {
	c, err := pgx.ParseConfig(o.DSN)
	if err != nil || o.DSN == "" { // err quotes what it could not read, which may be the password
		return nil, fleet.Invalid("postgres", "the connection string cannot be read: give one such as postgres://edgefleet:PASSWORD@db.example.net/edgefleet?sslmode=verify-full, with special characters of the password as %%XX")
	}
	c.ConnectTimeout = connectTimeout
	maps.Copy(c.RuntimeParams, map[string]string{
		"application_name":                    "edgefleet",
		"synchronous_commit":                  "on", // what is acknowledged is on its disk
		"statement_timeout":                   "60000",
		"lock_timeout":                        "10000",
		"idle_in_transaction_session_timeout": "60000",
	})
	if c.TLSConfig == nil && !local(c.Host) {
		log.Warn("the connection to the event store's PostgreSQL is not encrypted: set sslmode=verify-full in its connection string", "host", c.Host)
	}
	e := &postgres{
		db: stdlib.OpenDB(*c), at: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) + "/" + c.Database, log: log,
		opening: make(chan struct{}, 1), partitions: map[string]bool{},
	}
	e.db.SetMaxOpenConns(8)
	e.db.SetMaxIdleConns(4)
	e.db.SetConnMaxIdleTime(time.Minute)
	return e, nil
}

// local reports whether a host is this machine: an address of it, or the directory of a socket.
func local(host string) bool {
	ip := net.ParseIP(host)
	return strings.HasPrefix(host, "/") || host == "localhost" || ip != nil && ip.IsLoopback()
}

// ready makes or upgrades the tables, once. While that fails it is tried again every now and then.
func (e *postgres) ready(ctx context.Context) error {
	if open, _ := e.state(); open {
		return nil
	}
	select {
	case e.opening <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-e.opening }()
	if open, failed := e.state(); open || failed != nil {
		return failed
	}
	err := e.migrate(ctx)
	if err == nil {
		err = e.opened(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err = e.fail(err)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open, e.failed, e.tried = err == nil, err, time.Now()
	return err
}

// state is whether the tables are there, and the error of an attempt that was made just now.
func (e *postgres) state() (open bool, failed error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.open && time.Since(e.tried) < retryAfter {
		return false, e.failed
	}
	return e.open, nil
}

// insertAll adds many rows: one array for each column.
var insertAll = func() string {
	arrays := make([]string, 0, len(textColumns)+3)
	for i := range textColumns {
		arrays = append(arrays, "$"+strconv.Itoa(i+1)+"::text[]")
	}
	n := len(textColumns)
	arrays = append(arrays, fmt.Sprintf("$%d::bigint[], $%d::bigint[], $%d::bytea[]", n+1, n+2, n+3))
	return "INSERT INTO events (" + columns + ") SELECT * FROM unnest(" + strings.Join(arrays, ", ") + ") ON CONFLICT DO NOTHING RETURNING id"
}()

// put is one statement. Members that store the same events at the same time do it in the same order.
func (e *postgres) put(ctx context.Context, evs []fleet.Event) ([]fleet.Event, error) {
	rows, err := rowsOf(evs)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(a.texts[0], b.texts[0]) })
	rows = slices.CompactFunc(rows, func(a, b row) bool { return a.texts[0] == b.texts[0] && a.time == b.time })
	for _, r := range rows {
		if err := e.partition(ctx, r.ev.Time); err != nil {
			return nil, err
		}
	}
	if len(rows) == 0 {
		return nil, nil
	}
	tx, err := e.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	fresh, err := insertRows(ctx, tx, rows)
	if err == nil && len(fresh) > 0 {
		if _, err = tx.ExecContext(ctx, lockAttacks); err == nil {
			err = fold(ctx, tx, fresh)
		}
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		e.forget(err)
		return nil, err
	}
	return fresh, nil
}

// insertRows adds rows and returns the events that were not there.
func insertRows(ctx context.Context, tx *sql.Tx, rows []row) (fresh []fleet.Event, err error) {
	texts := make([][]string, len(textColumns))
	times, statuses, bodies := make([]int64, len(rows)), make([]int64, len(rows)), make([][]byte, len(rows))
	for i, r := range rows {
		for c, t := range r.texts {
			texts[c] = append(texts[c], t)
		}
		times[i], statuses[i], bodies[i] = r.time, r.status, r.body
	}
	args := make([]any, 0, len(texts)+3)
	for _, t := range texts {
		args = append(args, t)
	}
	got, err := tx.QueryContext(ctx, insertAll, append(args, times, statuses, bodies)...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = got.Close() }()
	added := map[string]bool{}
	for got.Next() {
		var id string
		if err := got.Scan(&id); err != nil {
			return nil, err
		}
		added[id] = true
	}
	for _, r := range rows {
		if added[r.texts[0]] {
			fresh = append(fresh, r.ev)
		}
	}
	return fresh, got.Err()
}

// partition makes the partition of the day of at, unless it is known to be there.
func (e *postgres) partition(ctx context.Context, at time.Time) error {
	name := dayOf(at)
	e.mu.Lock()
	known := e.partitions[name]
	e.mu.Unlock()
	if known {
		return nil
	}
	from := at.UTC().Truncate(24 * time.Hour)
	err := e.locked(ctx, fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s PARTITION OF events FOR VALUES FROM (%d) TO (%d)",
		partitionPrefix, strings.ReplaceAll(name, "-", ""), from.UnixNano(), from.Add(24*time.Hour).UnixNano()))
	if err != nil {
		return fmt.Errorf("make the partition of %s: %w", name, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.partitions[name] = true
	return nil
}

// forget looks at the partitions anew after an error that a missing one causes: somebody dropped it.
func (e *postgres) forget(err error) {
	const noPartition = "23514"
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == noPartition {
		e.mu.Lock()
		defer e.mu.Unlock()
		clear(e.partitions)
	}
}

// locked runs statements that change tables, one member at a time.
func (e *postgres) locked(ctx context.Context, statements ...string) error {
	tx, err := e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	for _, s := range append([]string{lockSchema}, statements...) {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (e *postgres) shards(string, string) (list []shard, release func()) {
	return []shard{{allDays, e.db}}, func() {}
}

// prune drops partitions.
func (e *postgres) prune(ctx context.Context, oldest string) error {
	rows, err := e.db.QueryContext(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		day, err := time.Parse("20060102", strings.TrimPrefix(name, partitionPrefix))
		if err == nil && dayOf(day) < oldest {
			names = append(names, name)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, name := range names {
		if err := e.locked(ctx, "DROP TABLE IF EXISTS "+name); err != nil {
			return fmt.Errorf("drop partition %s: %w", name, err)
		}
	}
	if _, err := e.db.ExecContext(ctx, `DELETE FROM attacks WHERE day < $1`, oldest); err != nil {
		return fmt.Errorf("delete old attacks: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.partitions)
	return nil
}

// fail tells apart that PostgreSQL is away, or refuses members, from what is wrong with a statement.
func (e *postgres) fail(err error) error {
	var pg *pgconn.PgError
	var known *fleet.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.As(err, &known):
		return err
	case errors.As(err, &pg) && !slices.Contains([]string{"08", "25", "28", "3D", "40", "42", "53", "55", "57", "58"}, pg.Code[:min(2, len(pg.Code))]):
		return err
	}
	return fleet.NewError(fleet.ErrUnavailable, "", "the event store, PostgreSQL at %s, cannot be used: %v; nothing is acknowledged, and nodes keep their events until it can", e.at, err)
}

func (e *postgres) close() error { return e.db.Close() }
