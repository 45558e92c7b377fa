package fleet

import (
	"errors"
	"fmt"
)

// Sentinel errors. Everything that crosses the API wraps exactly one of them; KindOf and the table below turn it
// into an HTTP status and an exit code.
var (
	// ErrInvalid: the input cannot be accepted as it is; the message says which field and what is wanted.
	ErrInvalid = errors.New("invalid")
	// ErrUnauthenticated: no or unknown credentials.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrDenied: known, but not allowed.
	ErrDenied = errors.New("denied")
	// ErrNotFound: the object does not exist, or the caller may not know that it does.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the object changed, exists already, or is in a state that forbids this.
	ErrConflict = errors.New("conflict")
	// ErrChanged is an ErrConflict: the object is not at the revision that the caller had read.
	ErrChanged = fmt.Errorf("%w: changed meanwhile", ErrConflict)
	// ErrKeyReused: an idempotency key stands for another request already.
	ErrKeyReused = errors.New("idempotency key reused")
	// ErrOutcomeUnknown is wrapped beside ErrUnavailable or ErrTimeout when a change may or may not have taken effect.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrNoCondition: a change that must say which revision it is made of does not.
	ErrNoCondition = errors.New("precondition required")
	// ErrTooLarge: over a size or count limit.
	ErrTooLarge = errors.New("too large")
	// ErrRateLimited: too many requests; try again later.
	ErrRateLimited = errors.New("rate limited")
	// ErrUnavailable: no quorum, no leader, or a part that is needed is away; nothing was changed or the outcome is unknown.
	ErrUnavailable = errors.New("unavailable")
	// ErrSealed: this member has no key-encryption key, so it can neither seal nor sign.
	ErrSealed = errors.New("sealed")
	// ErrCorrupt: stored bytes do not match their digest or format.
	ErrCorrupt = errors.New("corrupt")
	// ErrStale: a head, epoch or revision lower than one already seen.
	ErrStale = errors.New("stale")
	// ErrTimeout: a deadline passed while waiting.
	ErrTimeout = errors.New("timeout")
)

// ErrNotLeader stands beside ErrUnavailable: the member that was asked does not lead, and nothing was proposed, so that
// the request may be passed on to the leader as it is. It is no kind of its own: people see that the service is away.
var ErrNotLeader = errors.New("not the leader")

// Exit codes of fleetctl (see fleetctl --help).
const (
	ExitOK          = 0
	ExitFailure     = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitDenied      = 4
	ExitTimeout     = 5
	ExitConflict    = 6
	ExitRolledBack  = 7
	ExitInterrupted = 130
)

// Kind is one row of the error table.
type Kind struct {
	// Name is the stable machine-readable code, used in API problems.
	Name string
	// Status is the HTTP status.
	Status int
	// Exit is the exit code of fleetctl.
	Exit int

	err error
}

var kinds = []Kind{
	{"invalid", 422, ExitFailure, ErrInvalid},
	{"unauthenticated", 401, ExitDenied, ErrUnauthenticated},
	{"denied", 403, ExitDenied, ErrDenied},
	{"not_found", 404, ExitNotFound, ErrNotFound},
	{"changed", 412, ExitConflict, ErrChanged}, // before conflict, which it is too
	{"key_reused", 422, ExitConflict, ErrKeyReused},
	{"precondition_required", 428, ExitFailure, ErrNoCondition},
	{"conflict", 409, ExitConflict, ErrConflict},
	{"too_large", 413, ExitFailure, ErrTooLarge},
	{"rate_limited", 429, ExitFailure, ErrRateLimited},
	{"unavailable", 503, ExitFailure, ErrUnavailable},
	{"sealed", 503, ExitFailure, ErrSealed},
	{"corrupt", 500, ExitFailure, ErrCorrupt},
	{"stale", 409, ExitConflict, ErrStale},
	{"timeout", 504, ExitTimeout, ErrTimeout},
}

var internal = Kind{"internal", 500, ExitFailure, errors.New("internal")}

// KindOf classifies err; what wraps no sentinel is internal (500, exit 1).
func KindOf(err error) Kind {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k
		}
	}
	return internal
}

// KindNamed returns the row with the given name, internal if there is none.
func KindNamed(name string) Kind {
	for _, k := range kinds {
		if k.Name == name {
			return k
		}
	}
	return internal
}

// Error carries an error across a process boundary: the sentinel by name, the field it is about, the message.
type Error struct {
	Kind    string `json:"kind"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

// Error returns the message alone: it is written for people.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the sentinel, so that errors.Is works on both sides of the wire.
func (e *Error) Unwrap() error { return KindNamed(e.Kind).err }

// NewError makes an Error of the kind of sentinel.
func NewError(sentinel error, field, format string, args ...any) *Error {
	return &Error{Kind: KindOf(sentinel).Name, Field: field, Message: fmt.Sprintf(format, args...)}
}

// Invalid is an ErrInvalid about one field.
func Invalid(field, format string, args ...any) error {
	return NewError(ErrInvalid, field, format, args...)
}

// AsError turns any error into its wire form.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return &Error{Kind: e.Kind, Field: e.Field, Message: err.Error()}
	}
	return &Error{Kind: KindOf(err).Name, Message: err.Error()}
}
