package command

import "time"

type (
	// LockTake takes a lock of the ACME client's storage, or extends the lease of one that is held. It is refused while
	// somebody else's lease lasts at the time of the header.
	LockTake struct {
		Name   string    `json:"name"`
		Holder string    `json:"holder"`
		Until  time.Time `json:"until"`
	}
	// LockRelease gives a lock back. It is refused if somebody else has it.
	LockRelease struct {
		Name   string `json:"name"`
		Holder string `json:"holder"`
	}
)

// Type implements Body.
func (LockTake) Type() Type { return TypeLockTake }

// Type implements Body.
func (LockRelease) Type() Type { return TypeLockRelease }
