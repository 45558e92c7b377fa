package state

// Reads is what was read through a tracked view, for whoever keeps something that was made of it.
type Reads struct {
	changed []<-chan struct{}
}

// Tracked returns the same view, which notes what is read through it: objects by id, and lists by index; pages and the
// audit log are not noted. It is for one goroutine.
func (v *View) Tracked() (*View, *Reads) {
	r := &Reads{changed: []<-chan struct{}{v.replaced}}
	return &View{txn: v.txn, replaced: v.replaced, reads: r}, r
}

// Changed reports whether something that was read is different in the store now, or may be.
func (r *Reads) Changed() bool {
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
