package spool

import (
	"context"
	"maps"
	"slices"

	"github.com/edgefleet/edgefleet/fleet"
)

// Reason is why an event was dropped.
type Reason string

// The reasons for which events are dropped.
const (
	// DropQueue: events came faster than the disk took them.
	DropQueue Reason = "queue"
	// DropFull: the spool is at its size limit.
	DropFull Reason = "full"
	// DropDisk: the disk refused the write.
	DropDisk Reason = "disk"
	// DropInvalid: the event breaks a limit that clipping cannot mend, such as a tenant that is no id.
	DropInvalid Reason = "invalid"
	// DropDamaged: the record was spooled and its bytes changed on disk, or it is another node's.
	DropDamaged Reason = "damaged"
	// DropClosed: the spool was closed.
	DropClosed Reason = "closed"
)

// Reasons lists the reasons.
var Reasons = []Reason{DropQueue, DropFull, DropDisk, DropInvalid, DropDamaged, DropClosed}

// Ledger accounts for one tenant's events since this spool was opened, those taken over from earlier workers included:
// Detected = Stored + Spooled + the sum of Dropped. An event enters it when its fate is known, milliseconds after Append.
type Ledger struct {
	// Tenant is empty for damaged records, which do not say whose they were.
	Tenant fleet.TenantID `json:"tenant"`
	// Detected is all.
	Detected uint64 `json:"detected"`
	// Stored is what a majority of members holds.
	Stored uint64 `json:"stored"`
	// Spooled is what is synced to this node's disk and not stored yet.
	Spooled uint64 `json:"spooled"`
	// Dropped is what was lost, by reason.
	Dropped map[Reason]uint64 `json:"dropped,omitempty"`
}

// Ledger returns the accounts sorted by tenant.
func (s *Spool) Ledger() []Ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Ledger
	for _, t := range slices.Sorted(maps.Keys(s.ledger)) {
		l := *s.ledger[t]
		l.Dropped = maps.Clone(l.Dropped)
		all = append(all, l)
	}
	return all
}

// ledger holds the accounts by tenant; the spool's mutex guards it.
type ledger map[fleet.TenantID]*Ledger

func (l ledger) of(t fleet.TenantID) *Ledger {
	a := l[t]
	if a == nil {
		a = &Ledger{Tenant: t, Dropped: map[Reason]uint64{}}
		l[t] = a
	}
	return a
}

// dropped accounts for an event that was never spooled.
func (l ledger) dropped(t fleet.TenantID, r Reason) {
	a := l.of(t)
	a.Detected++
	a.Dropped[r]++
}

func (s *Spool) drop(ctx context.Context, t fleet.TenantID, r Reason) {
	s.mu.Lock()
	s.ledger.dropped(t, r)
	s.mu.Unlock()
	s.met.drop(ctx, r)
}
