package fleet

import "time"

// MaxLockLease bounds how long a lock of the ACME client's storage is held without being renewed.
const MaxLockLease = 10 * time.Minute

// StorageLock is a named lock of the ACME client's storage. It is free once its lease is over, whoever holds it: a holder
// that died must not be waited for.
type StorageLock struct {
	Name string `json:"name"`
	// Holder names one acquisition of the lock.
	Holder string `json:"holder"`
	// Until is when the lease ends, by the clock of the member that granted it.
	Until time.Time `json:"until"`
}
