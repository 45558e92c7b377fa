package command

import "time"

// KeysExpire forgets idempotency keys that end before a time, the oldest first and at most Limit. Not audited: nobody
// decided anything.
type KeysExpire struct {
	Before time.Time `json:"before"`
	Limit  int       `json:"limit"`
}

// Type implements Body.
func (KeysExpire) Type() Type { return TypeKeysExpire }
