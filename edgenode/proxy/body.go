package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

var errBodyTooLarge = errors.New("request body over the limit")

// body is a request's body on its way to the judge and the origin. It bounds the size of the whole and the time of each
// read, and remembers why reading failed, because then the client is at fault and not the origin.
//
// The transport may still be reading when the handler has returned, so deadlines are set only until finish: after it,
// they are those of the connection's next request.
type body struct {
	source  io.Reader
	control *http.ResponseController
	// progress bounds one read.
	progress time.Duration
	// left is how many bytes may still be read from source.
	left int64
	// prefix is what was read for the judge and not yet by the origin.
	prefix []byte

	failed atomic.Pointer[error]

	mu   sync.Mutex
	done bool
}

func newBody(r *http.Request, control *http.ResponseController, l Limits) *body {
	return &body{source: r.Body, control: control, progress: l.ProgressTimeout, left: l.BodyBytes}
}

// inspect reads at most limit bytes ahead, by deadline, and reports whether the body goes on behind them.
func (b *body) inspect(limit int, deadline time.Time) (_ []byte, truncated bool, _ error) {
	// One byte more tells a body of exactly limit bytes from a longer one.
	read, err := io.ReadAll(io.LimitReader(readerFunc(func(p []byte) (int, error) { return b.fetch(p, deadline) }), int64(limit)+1))
	if err != nil {
		return nil, false, err
	}
	b.prefix = read
	return read[:min(len(read), limit)], len(read) > limit, nil
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if len(b.prefix) > 0 {
		n := copy(p, b.prefix)
		b.prefix = b.prefix[n:]
		return n, nil
	}
	return b.fetch(p, time.Now().Add(b.progress))
}

// Close implements io.Closer. It does nothing: the server closes the source when the handler has returned.
func (b *body) Close() error { return nil }

func (b *body) fetch(p []byte, deadline time.Time) (int, error) {
	if f := b.failed.Load(); f != nil {
		return 0, *f
	}
	b.setDeadline(deadline)
	n, err := b.source.Read(p)
	b.setDeadline(time.Time{})
	b.left -= int64(n)
	if b.left < 0 {
		n, err = 0, errBodyTooLarge
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.failed.Store(&err)
	}
	return n, err
}

func (b *body) setDeadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.done {
		_ = b.control.SetReadDeadline(t) // fails only on a connection that is gone, as the read will
	}
}

// finish is called when the handler returns. It leaves a deadline for what the server itself reads of the rest.
func (b *body) finish() {
	b.setDeadline(time.Now().Add(b.progress))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = true
}

// err is why reading failed; nil if it did not.
func (b *body) err() error {
	if b == nil {
		return nil
	}
	if f := b.failed.Load(); f != nil {
		return *f
	}
	return nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
