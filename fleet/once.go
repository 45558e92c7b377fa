package fleet

import (
	"encoding/json"
	"time"
)

// Limits of idempotency keys.
const (
	// KeyLife is how long a key is remembered.
	KeyLife = 24 * time.Hour
	// MaxKeyLength bounds a key, in bytes.
	MaxKeyLength = 128
	// MaxKeysPerCaller and MaxKeyBytesPerCaller bound what is remembered for one caller; the oldest go first.
	MaxKeysPerCaller     = 65_536
	MaxKeyBytesPerCaller = 32 << 20
)

// Once is a change that takes effect once, however often it is asked for: what its idempotency key stands for, and what
// was answered.
type Once struct {
	Caller string `json:"caller"`
	Key    string `json:"key"`
	// Request is the SHA-256 of the request, in hex; AnswerSum that of Answer.
	Request string `json:"request"`
	// Answer is the object that the change answered, without the secrets that were shown with it; empty for none.
	Answer    json.RawMessage `json:"answer,omitempty"`
	AnswerSum string          `json:"answer_sum"`
	Expires   time.Time       `json:"expires"`
	// Index is the log entry that made the change. Seq counts the caller's keys, Bytes their answers up to this one.
	Index uint64 `json:"index"`
	Seq   uint64 `json:"seq"`
	Bytes uint64 `json:"bytes"`
}
