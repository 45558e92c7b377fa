package state

import (
	"math"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/edgefleet/edgefleet/fleet"
)

// Indexes of the idempotency keys: each caller's in order, and all in the order of the log.
const (
	indexCaller = "caller"
	indexLog    = "log"
)

func keysTable() *memdb.TableSchema {
	return table(Keys, compound("Caller", "Key"),
		&memdb.IndexSchema{Name: indexCaller, Unique: true, Indexer: &memdb.CompoundIndex{Indexes: []memdb.Indexer{field("Caller"), &memdb.UintFieldIndex{Field: "Seq"}}}},
		&memdb.IndexSchema{Name: indexLog, Unique: true, Indexer: &memdb.UintFieldIndex{Field: "Index"}},
	)
}

// Once returns what a caller's idempotency key stands for.
func (v *View) Once(caller, key string) (fleet.Once, bool) {
	return get[fleet.Once](v, Keys, indexID, caller, key)
}

// OldestOnce returns the oldest remembered key of a caller.
func (v *View) OldestOnce(caller string) (fleet.Once, bool) {
	return firstOf(caller, rows[fleet.Once](v.txn.LowerBound(string(Keys), indexCaller, caller, uint64(0))))
}

// NewestOnce returns the newest remembered key of a caller.
func (v *View) NewestOnce(caller string) (fleet.Once, bool) {
	return firstOf(caller, rows[fleet.Once](v.txn.ReverseLowerBound(string(Keys), indexCaller, caller, uint64(math.MaxUint64))))
}

func firstOf(caller string, rows func(func(fleet.Once) bool)) (first fleet.Once, ok bool) {
	rows(func(o fleet.Once) bool {
		if o.Caller == caller {
			first, ok = o, true
		}
		return false
	})
	return first, ok
}

// OnceExpired lists at most limit keys that end at a time or before, the oldest first.
func (v *View) OnceExpired(at time.Time, limit int) []fleet.Once {
	var out []fleet.Once
	for o := range rows[fleet.Once](v.txn.Get(string(Keys), indexLog)) {
		if len(out) >= limit || o.Expires.After(at) {
			break
		}
		out = append(out, o)
	}
	return out
}

// PutOnce remembers an idempotency key.
func (t *Tx) PutOnce(o fleet.Once) { put(t, Keys, o) }

// DeleteOnce forgets an idempotency key.
func (t *Tx) DeleteOnce(o fleet.Once) { del(t, Keys, indexID, o.Caller, o.Key) }
