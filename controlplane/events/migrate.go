package events

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// migrations are numbered from 0001 without a gap; one that was released is never changed.
//
//go:embed migrations/*.sql
var migrations embed.FS

// oldestPostgres is the first version with all that the migrations need.
const oldestPostgres = 130000

// migrate brings the tables to the version of this binary, all in one transaction. A newer version is refused: this
// binary does not know what it means.
func (e *postgres) migrate(ctx context.Context) error {
	files, err := fs.Glob(migrations, "migrations/*.sql") // sorted
	if err != nil {
		return err
	}
	tx, err := e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	if err := checkServer(ctx, tx); err != nil {
		return err
	}
	for _, s := range []string{lockSchema, `CREATE TABLE IF NOT EXISTS edgefleet_schema (version bigint PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())`} {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	var at int
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM edgefleet_schema`).Scan(&at); err != nil {
		return err
	}
	if at > len(files) {
		return fleet.NewError(fleet.ErrUnavailable, "", "the event store's tables have version %d and this member knows up to %d: upgrade the member", at, len(files))
	}
	for i, name := range files[at:] {
		text, err := fs.ReadFile(migrations, name)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, string(text)); err != nil {
			return fmt.Errorf("migration %s: %w", strings.TrimPrefix(name, "migrations/"), err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO edgefleet_schema (version) VALUES ($1)`, at+i+1); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if at < len(files) {
		e.log.InfoContext(ctx, "upgraded the tables of the event store", "from", at, "to", len(files))
	}
	return nil
}

// checkServer refuses a server that would lose what is acknowledged, or is too old.
func checkServer(ctx context.Context, tx *sql.Tx) error {
	var version, fsync string
	err := errors.Join(tx.QueryRowContext(ctx, "SHOW server_version_num").Scan(&version), tx.QueryRowContext(ctx, "SHOW fsync").Scan(&fsync))
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(version); err != nil || n < oldestPostgres {
		return fleet.NewError(fleet.ErrUnavailable, "", "the event store's PostgreSQL has version number %s: it must be %d or newer", version, oldestPostgres)
	}
	if fsync != "on" {
		return fleet.NewError(fleet.ErrUnavailable, "", "the event store's PostgreSQL runs with fsync = %s and may lose what was acknowledged: set fsync = on", fsync)
	}
	return nil
}
