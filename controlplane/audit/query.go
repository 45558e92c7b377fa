package audit

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// Query selects entries; what is empty selects all.
type Query struct {
	Tenant                              fleet.TenantID
	Actor, Operation, Object, RequestID string
	// Since and Until bound the time: not before, and before.
	Since, Until time.Time
	// After is the entry behind which the page begins; with Newest, the entry before which, going back; 0: at the end.
	After  uint64
	Newest bool
	Limit  int
}

// Page is one page: of a query that selects few, it may hold less than Limit, even none, and go on at Next.
type Page struct {
	Entries []fleet.AuditEntry
	// Next is After of the next page; 0 when there is none.
	Next uint64
}

// maxReads bounds the segments that one page reads.
const maxReads = 16

func (q Query) match(e fleet.AuditEntry) bool {
	return (q.Tenant == "" || e.Tenant == q.Tenant) && (q.Actor == "" || e.Name == q.Actor) && (q.Operation == "" || e.Operation == q.Operation) &&
		(q.Object == "" || e.Object == q.Object) && (q.RequestID == "" || e.RequestID == q.RequestID) &&
		(q.Since.IsZero() || !e.Time.Before(q.Since)) && (q.Until.IsZero() || e.Time.Before(q.Until))
}

// may reports whether a segment may hold what is asked for.
func (q Query) may(x *index) bool {
	return x.may(termTenant, string(q.Tenant)) && x.may(termActor, q.Actor) && x.may(termOperation, q.Operation) && x.may(termObject, q.Object) &&
		x.may(termRequest, q.RequestID) && (q.Since.IsZero() || !x.last.Before(q.Since)) && (q.Until.IsZero() || x.first.Before(q.Until))
}

// List answers a query over segments and state.
func (l *Log) List(ctx context.Context, q Query) (Page, error) {
	v := l.o.State.Read()
	if q.Newest {
		return l.back(ctx, v, q)
	}
	return l.forward(ctx, v, q)
}

// add takes e into the page if it is asked for; false when the page is full, which Next then says.
func (p *Page) add(q Query, e fleet.AuditEntry) bool {
	if !q.match(e) {
		return true
	}
	if len(p.Entries) == q.Limit {
		p.Next = p.Entries[q.Limit-1].Seq
		return false
	}
	p.Entries = append(p.Entries, e)
	return true
}

func (l *Log) forward(ctx context.Context, v *state.View, q Query) (Page, error) {
	var p Page
	if q.After == math.MaxUint64 {
		return p, nil
	}
	reads, first := 0, v.AuditFirst()
	for s := range v.AuditSegments(q.After + 1) {
		if s.From >= first {
			break
		}
		if x := l.index(s); s.To <= q.After || x != nil && !q.may(x) {
			continue
		}
		if reads++; reads > maxReads {
			p.Next = s.From - 1
			return p, nil
		}
		entries, err := l.read(ctx, s)
		if err != nil {
			return p, err
		}
		for _, e := range entries {
			if e.Seq > q.After && !p.add(q, e) {
				return p, nil
			}
		}
	}
	for e := range v.AuditFrom(q.Tenant, max(q.After+1, first)) {
		if !p.add(q, e) {
			break
		}
	}
	return p, nil
}

func (l *Log) back(ctx context.Context, v *state.View, q Query) (Page, error) {
	var p Page
	if q.After == 0 {
		q.After = math.MaxUint64
	}
	before := q.After - 1
	for e := range v.AuditBack(q.Tenant, before) {
		if !p.add(q, e) {
			return p, nil
		}
	}
	reads, first := 0, v.AuditFirst()
	for s := range v.AuditSegmentsBack(before) {
		if x := l.index(s); s.From >= first || x != nil && !q.may(x) {
			continue
		}
		if reads++; reads > maxReads {
			p.Next = s.To + 1
			return p, nil
		}
		entries, err := l.read(ctx, s)
		if err != nil {
			return p, err
		}
		for _, e := range slices.Backward(entries) {
			if e.Seq <= before && !p.add(q, e) {
				return p, nil
			}
		}
	}
	return p, nil
}
