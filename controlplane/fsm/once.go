package fsm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// once applies a command, unless its idempotency key was applied before: then it answers with a command.Replay and
// changes nothing. The key is remembered in the transaction that applies the command, so that both are there or neither.
// A refused command is not remembered: it changed nothing, and may be judged anew.
func (p *processor) once(b command.Body) (any, error) {
	o := p.header.Once
	if o == nil {
		return p.admitted(b)
	}
	if err := checkKey(o); err != nil {
		return nil, err
	}
	if err := p.admit(); err != nil {
		return nil, err
	}
	if before, ok := p.tx.Once(o.Caller, o.Key); ok && p.header.Time.Before(before.Expires) {
		if before.Request != o.Request {
			return nil, fleet.NewError(fleet.ErrKeyReused, "Idempotency-Key", "the idempotency key %q was used for another request: repeat that one as it was, or take a new key", o.Key)
		}
		return command.Replay{Answer: before.Answer}, nil
	}
	obj, err := p.admitted(b)
	if err != nil {
		return nil, err
	}
	return obj, p.remember(o, obj)
}

func checkKey(o *command.Once) error {
	if len(o.Key) == 0 || len(o.Key) > fleet.MaxKeyLength || o.Caller == "" {
		return fleet.Invalid("Idempotency-Key", "an idempotency key of %d bytes: give 1 to %d", len(o.Key), fleet.MaxKeyLength)
	}
	return nil
}

func (p *processor) remember(o *command.Once, obj any) error {
	answer, err := encode(obj)
	if err != nil {
		return fmt.Errorf("remember key: %w", err)
	}
	sum := sha256.Sum256(answer)
	row := fleet.Once{
		Caller: o.Caller, Key: o.Key, Request: o.Request, Answer: answer, AnswerSum: hex.EncodeToString(sum[:]),
		Expires: o.Expires, Index: p.index, Seq: 1, Bytes: uint64(len(answer)),
	}
	if newest, ok := p.tx.NewestOnce(o.Caller); ok {
		row.Seq, row.Bytes = newest.Seq+1, newest.Bytes+row.Bytes
	}
	p.tx.PutOnce(row)
	for {
		oldest, _ := p.tx.OldestOnce(o.Caller)
		keys, bytes := row.Seq-oldest.Seq+1, row.Bytes-oldest.Bytes+uint64(len(oldest.Answer))
		if oldest.Seq == row.Seq || keys <= fleet.MaxKeysPerCaller && bytes <= fleet.MaxKeyBytesPerCaller {
			return nil
		}
		p.tx.DeleteOnce(oldest)
	}
}

func (p *processor) keysExpire(b *command.KeysExpire) {
	for _, o := range p.tx.OnceExpired(b.Before, b.Limit) {
		p.tx.DeleteOnce(o)
	}
}
