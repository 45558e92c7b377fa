package events

import (
	"context"
	"database/sql"

	"github.com/edgefleet/edgefleet/fleet"
)

// engine keeps events and watermarks. The statements are the same for each; what differs is how the tables are divided,
// made and filled.
type engine interface {
	// ready returns nil when the engine can be used; it makes or upgrades the tables the first time.
	ready(ctx context.Context) error
	// put stores events durably, each day's in one transaction at most, and returns those that were not there.
	put(ctx context.Context, evs []fleet.Event) ([]fleet.Event, error)
	// shards lists, oldest first, the databases with events of the days from…to (included). They stay until release.
	shards(from, to string) (list []shard, release func())
	// prune deletes the days before oldest.
	prune(ctx context.Context, oldest string) error
	// fail says what an error of the database means to the caller.
	fail(err error) error
	close() error
}

// shard is a database with the tables of some days: SQLite's of one, PostgreSQL's of all.
type shard struct {
	name string
	db   *sql.DB
}

// firstDay and lastDay are before and after every day.
const (
	firstDay = ""
	lastDay  = "9999"
	// allDays is the name of a shard that is not of one day.
	allDays = "all days"
)
