package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// blobAttempts is how often the bus is asked for a blob before HTTPS is: any member of the queue group may answer, and
// one that lags does not have it yet. blobPause grows with each attempt.
const (
	blobAttempts = 4
	blobPause    = 100 * time.Millisecond
)

// transfer is a blob on its way. Its bytes stay when the transport or the member changes.
type transfer struct {
	digest fleet.Digest
	// size is -1 until a member says it.
	size int64
	data []byte
}

func (t *transfer) done() bool { return t.size >= 0 && int64(len(t.data)) == t.size }

// expect takes the size that a member states.
func (t *transfer) expect(size int64) error {
	if size > fleet.MaxBundleBytes {
		return fleet.NewError(fleet.ErrTooLarge, "blob", "blob %s has %d bytes; the limit is %d", t.digest.Short(), size, fleet.MaxBundleBytes)
	}
	if size < 0 || t.size >= 0 && size != t.size {
		t.reset()
		return fleet.NewError(fleet.ErrCorrupt, "blob", "members disagree about the size of blob %s", t.digest.Short())
	}
	t.size = size
	return nil
}

// add takes the next bytes.
func (t *transfer) add(b []byte) error {
	if int64(len(t.data)+len(b)) > t.size {
		t.reset()
		return fleet.NewError(fleet.ErrCorrupt, "blob", "blob %s is longer than announced", t.digest.Short())
	}
	t.data = append(t.data, b...)
	return nil
}

// verify checks the whole; a difference starts the transfer anew.
func (t *transfer) verify() error {
	if fleet.DigestOf(t.data) != t.digest {
		t.reset()
		return fleet.NewError(fleet.ErrCorrupt, "blob", "what was sent for blob %s has another digest", t.digest.Short())
	}
	return nil
}

func (t *transfer) reset() { t.size, t.data = -1, nil }

// fetch gets a blob, by the bus or else by HTTPS from any member.
func (s *Session) fetch(ctx context.Context, d fleet.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	t := &transfer{digest: d, size: -1}
	err := s.fetchBus(ctx, t)
	count(ctx, s.blobs, "nats", err)
	if err == nil {
		return t.data, nil
	}
	if errors.Is(err, fleet.ErrTooLarge) || ctx.Err() != nil {
		return nil, err
	}
	second := s.https.blob(ctx, s.members.api(), t)
	count(ctx, s.blobs, "https", second)
	if second != nil {
		return nil, errors.Join(err, second)
	}
	return t.data, nil
}

func (s *Session) fetchBus(ctx context.Context, t *transfer) error {
	var err error
	for attempt := range blobAttempts {
		if attempt > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(blobPause << attempt):
			}
		}
		if err = s.fetchChunks(ctx, t); err == nil || errors.Is(err, fleet.ErrTooLarge) || errors.Is(err, errNotConnected) {
			return err
		}
	}
	return err
}

// fetchChunks asks for one chunk after the other.
func (s *Session) fetchChunks(ctx context.Context, t *transfer) error {
	for !t.done() {
		if err := s.fetchChunk(ctx, t); err != nil {
			return fmt.Errorf("blob %s by nats: %w", t.digest.Short(), err)
		}
	}
	return t.verify()
}

func (s *Session) fetchChunk(ctx context.Context, t *transfer) error {
	body, err := json.Marshal(fleet.BlobRequest{Offset: int64(len(t.data))})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	reply, err := s.bus.Request(ctx, fleet.BlobSubject(t.digest), body)
	if err != nil {
		return err
	}
	if kind := reply.Header.Get(fleet.BlobErrorHeader); kind != "" {
		return fmt.Errorf("a member answered %.64q: %w", kind, fleet.ErrUnavailable)
	}
	size, err := strconv.ParseInt(reply.Header.Get(fleet.BlobSizeHeader), 10, 64)
	if err != nil {
		return fleet.NewError(fleet.ErrCorrupt, "blob", "the answer has no size")
	}
	if err := t.expect(size); err != nil {
		return err
	}
	if len(reply.Data) == 0 && size > 0 || len(reply.Data) > fleet.BlobChunkBytes {
		return fleet.NewError(fleet.ErrCorrupt, "blob", "a chunk of %d bytes", len(reply.Data))
	}
	return t.add(reply.Data)
}
