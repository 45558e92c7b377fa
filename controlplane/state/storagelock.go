package state

import "github.com/edgefleet/edgefleet/fleet"

// StorageLocks has the locks of the ACME client's storage that are held, or were by somebody who died.
const StorageLocks Table = "storage_locks"

// StorageLock returns a lock; one whose lease is over is free.
func (v *View) StorageLock(name string) (fleet.StorageLock, bool) {
	return get[fleet.StorageLock](v, StorageLocks, indexID, name)
}

// StorageLocks lists the locks.
func (v *View) StorageLocks() []fleet.StorageLock {
	return list[fleet.StorageLock](v, StorageLocks, indexID)
}

// PutStorageLock stores a lock.
func (t *Tx) PutStorageLock(l fleet.StorageLock) { put(t, StorageLocks, l) }

// DeleteStorageLock removes a lock.
func (t *Tx) DeleteStorageLock(name string) { del(t, StorageLocks, indexID, name) }
