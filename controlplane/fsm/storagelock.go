package fsm

import (
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// maxLockText bounds the name and the holder of a lock, in bytes.
const maxLockText = 512

// lockTake grants a lock that is free, that its holder has, or whose lease was over when the command was made. Locks are
// the ACME client's own business and leave no audit entry.
func (p *processor) lockTake(b *command.LockTake) (any, error) {
	if b.Name == "" || len(b.Name) > maxLockText || b.Holder == "" || len(b.Holder) > maxLockText {
		return nil, fleet.Invalid("lock", "the name of a lock and its holder's have 1 to %d bytes", maxLockText)
	}
	now := p.header.Time
	if lease := b.Until.Sub(now); lease <= 0 || lease > fleet.MaxLockLease {
		return nil, fleet.Invalid("until", "a lease of %v; it lasts at most %v", lease.Round(time.Millisecond), fleet.MaxLockLease)
	}
	if held, ok := p.tx.StorageLock(b.Name); ok && held.Holder != b.Holder && held.Until.After(now) {
		return nil, fleet.NewError(fleet.ErrConflict, "lock", "lock %s is held until %s", b.Name, held.Until.UTC().Format(time.RFC3339))
	}
	for _, l := range p.tx.StorageLocks() {
		if !l.Until.After(now) {
			p.tx.DeleteStorageLock(l.Name) // its holder died, and nobody may ask for it again
		}
	}
	l := fleet.StorageLock{Name: b.Name, Holder: b.Holder, Until: b.Until}
	p.tx.PutStorageLock(l)
	return l, nil
}

func (p *processor) lockRelease(b *command.LockRelease) error {
	held, ok := p.tx.StorageLock(b.Name)
	if !ok || held.Holder != b.Holder {
		return fleet.NewError(fleet.ErrConflict, "lock", "lock %s was lost: its lease was over, and somebody else took it or nobody has it", b.Name)
	}
	p.tx.DeleteStorageLock(b.Name)
	return nil
}
