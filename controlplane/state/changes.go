package state

import "sync/atomic"

// changes is at which index of the log each table changed last, here: a member that starts from a snapshot takes the
// snapshot's index for what it does not know.
type changes struct {
	base   atomic.Uint64
	tables map[Table]*atomic.Uint64
}

func newChanges() *changes {
	c := &changes{tables: map[Table]*atomic.Uint64{}}
	for name := range schema().Tables {
		c.tables[Table(name)] = &atomic.Uint64{}
	}
	return c
}

// ChangedAt returns the log index at which one of the tables changed last, or a later one. It is never below what a view
// shows that was taken before the call.
func (s *Store) ChangedAt(tables ...Table) uint64 {
	c := s.now.Load().changes
	last := c.base.Load()
	for _, t := range tables {
		last = max(last, c.tables[t].Load())
	}
	return last
}

// wrote notes that a table is written to.
func (t *Tx) wrote(table Table) {
	t.writes++
	if t.written == nil {
		t.written = map[Table]bool{}
	}
	t.written[table] = true
}

// tell notes when the tables changed that this transaction wrote to; it comes before anybody can see it.
func (t *Tx) tell() {
	index := t.Index()
	for table := range t.written {
		t.of.changes.tables[table].Store(index)
	}
}
