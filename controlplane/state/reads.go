package state

import "slices"

// Reads is what was read through a tracked view, for whoever keeps something that was made of it.
type Reads struct {
	of      *generation
	changed []<-chan struct{}
	missed  []missed
}

// missed is an object that was looked for and is not there. Its channel tells of others' comings and goings beside its
// place too, all of them if there is nothing like it: what it tells is looked at before it counts.
type missed struct {
	table   Table
	index   string
	args    []any
	changed <-chan struct{}
}

// Tracked returns the same view, which notes what is read through it: objects by id, and lists by index; pages and the
// audit log are not noted. It is for one goroutine.
func (v *View) Tracked() (*View, *Reads) {
	r := &Reads{of: v.of, changed: []<-chan struct{}{v.of.replaced}}
	return &View{txn: v.txn, of: v.of, reads: r}, r
}

// Changed reports whether something that was read is different in the store now, or may be: it has seen everything that
// any view shows by now.
func (r *Reads) Changed() bool {
	r.of.telling.RLock()
	defer r.of.telling.RUnlock()
	for i := range r.missed {
		if closed(r.missed[i].changed) {
			return true
		}
	}
	return r.found()
}

// ChangedIn is Changed for v, which must not be older than what was read: an object that is still missing there is not
// different, whatever came to be beside it. It is for one goroutine.
func (r *Reads) ChangedIn(v *View) bool {
	r.of.telling.RLock()
	defer r.of.telling.RUnlock()
	if r.found() {
		return true
	}
	for i := range r.missed {
		m := &r.missed[i]
		if !closed(m.changed) {
			continue
		}
		changed, row, err := v.txn.FirstWatch(string(m.table), m.index, m.args...)
		if err != nil || row != nil {
			return true
		}
		m.changed = changed
	}
	return false
}

// found reports whether an object or a list that was there has changed, or the whole state.
func (r *Reads) found() bool { return slices.ContainsFunc(r.changed, closed) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (r *Reads) add(changed <-chan struct{}) {
	if r != nil {
		r.changed = append(r.changed, changed)
	}
}

func (r *Reads) miss(table Table, index string, args []any, changed <-chan struct{}) {
	if r != nil {
		r.missed = append(r.missed, missed{table, index, args, changed})
	}
}
