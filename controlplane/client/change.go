package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

const headerKey = "Idempotency-Key"

// Pauses before a change is sent again, doubled each time.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = time.Second
)

// tries is how many times a change may find a member that takes it and does not answer, within the client's timeout.
const tries = 3

// outcomeUnknownError is an error after which a change may have taken effect.
type outcomeUnknownError struct{ error }

// Unwrap keeps the error's own kind and adds fleet.ErrOutcomeUnknown.
func (e outcomeUnknownError) Unwrap() []error { return []error{e.error, fleet.ErrOutcomeUnknown} }

// newKey makes an idempotency key.
func newKey() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// change sends a change with an idempotency key, again and again while its outcome is unknown, each time to the next
// member first, until ctx or the client's timeout ends.
func (c *Client) change(ctx context.Context, r request) ([]byte, error) {
	if r.header.Get(headerKey) == "" {
		r.header.Set(headerKey, cmp.Or(c.key, newKey()))
	}
	whole, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	turn, unknown := *c, error(nil)
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		one, cancel := context.WithTimeout(whole, c.timeout/tries)
		raw, err := turn.try(one, r)
		cancel()
		if errors.Is(err, fleet.ErrOutcomeUnknown) {
			unknown = err
		}
		// After an unknown outcome, "not now" of another member does not make it known.
		if err == nil || unknown == nil || !errors.Is(err, fleet.ErrOutcomeUnknown) && !errors.Is(err, fleet.ErrUnavailable) {
			return raw, err
		}
		turn.addrs = slices.Concat(turn.addrs[1:], turn.addrs[:1])
		select {
		case <-whole.Done():
			if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("%w; its outcome is not known: repeat it with the idempotency key %s and it takes effect once", unknown, r.header.Get(headerKey))
		case <-time.After(pause/2 + mathrand.N(pause/2)):
		}
	}
}
