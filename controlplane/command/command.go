// Package command defines the replicated log: every change to the control plane's state is one of these commands.
//
// It owns their numbers and encoding, not their meaning (package fsm). Commands are for ever: numbers are appended,
// never reused, and a change of a body's meaning is a new command. testdata holds a golden file per command and
// version. Policy is decided outside: a command records a result, with the time and random bytes it was made with.
package command

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// format is the version of the envelope: one byte, then the type as uvarint, then {"header":…,"body":…} as JSON.
const format = 1

// MaxBytes bounds one encoded command.
const MaxBytes = 4 << 20

// Header says when, by whom and why; it is the same for every command.
type Header struct {
	// Time is the proposer's clock; the state machine has no other.
	Time time.Time `json:"time"`
	fleet.Actor
	RequestID string `json:"request_id,omitempty"`
	Reason    string `json:"reason,omitempty"`
	// Approval is the approval that the command carries out: it counts once.
	Approval fleet.ApprovalID `json:"approval,omitempty"`
	// Once makes the command take effect once, with every other one of the same caller and key.
	Once *Once `json:"once,omitempty"`
}

// Once is the idempotency key of a command.
type Once struct {
	Caller string `json:"caller"`
	Key    string `json:"key"`
	// Request is the SHA-256 of what was asked for, in hex: the same key with another is refused.
	Request string `json:"request"`
	// Expires is when the key may be forgotten.
	Expires time.Time `json:"expires"`
}

// Replay is the answer of a command whose key was applied before: the object of that time, as JSON.
type Replay struct {
	Answer json.RawMessage
}

// Body is one of the commands below.
type Body interface {
	// Type is the command's number.
	Type() Type
}

type payload struct {
	Header Header          `json:"header"`
	Body   json.RawMessage `json:"body"`
}

// Encode makes the log entry of a command.
func Encode(h Header, b Body) ([]byte, error) {
	body, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", b.Type(), err)
	}
	p, err := json.Marshal(payload{h, body})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", b.Type(), err)
	}
	out := binary.AppendUvarint([]byte{format}, uint64(b.Type()))
	if out = append(out, p...); len(out) > MaxBytes {
		return nil, fleet.NewError(fleet.ErrTooLarge, "command", "%s has %d bytes; the limit is %d", b.Type(), len(out), MaxBytes)
	}
	return out, nil
}

// Decode reads a log entry. An entry that this version does not know is ErrCorrupt: the member must halt, not skip.
func Decode(entry []byte) (Header, Body, error) {
	if len(entry) < 2 || entry[0] != format {
		return Header{}, nil, fleet.NewError(fleet.ErrCorrupt, "command", "log entry has an unknown format; this member is older than the cluster, or its log is damaged")
	}
	n, size := binary.Uvarint(entry[1:])
	empty, ok := bodies[Type(n)]
	if size <= 0 || n > 1<<16 || !ok {
		return Header{}, nil, unknown(n)
	}
	var p payload
	if err := fleet.DecodeStrict(entry[1+size:], &p); err != nil {
		return Header{}, nil, fmt.Errorf("%w: decode command %d: %w", fleet.ErrCorrupt, n, err)
	}
	b := empty()
	if err := checkFormat(b.Type(), p.Header); err != nil {
		return Header{}, nil, err
	}
	if err := fleet.DecodeStrict(p.Body, b); err != nil {
		return Header{}, nil, fmt.Errorf("%w: decode %s: %w", fleet.ErrCorrupt, b.Type(), err)
	}
	return p.Header, b, nil
}
