package state

// Reads is what was read through a tracked view, for whoever keeps something that was made of it.
type Reads struct {
	of      *generation
	changed []<-chan struct{}
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
	for _, c := range r.changed {
		select {
		case <-c:
			return true
		default:
		}
	}
	return false
}

func (r *Reads) add(changed <-chan struct{}) {
	if r != nil {
		r.changed = append(r.changed, changed)
	}
}
