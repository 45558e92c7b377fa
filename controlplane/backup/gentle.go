package backup

import (
	"context"
	"io"
	"time"
)

const (
	// gentleShare of the time a scheduled backup is at rest: the member serves requests meanwhile, and nobody waits for it.
	gentleShare = 0.75
	// longestRest bounds one rest: after a call that the place of the backups held up there is no work to make up for.
	longestRest = 100 * time.Millisecond
)

// gentle rests between the calls of who encodes or decodes a state, until ctx ends.
type gentle struct {
	ctx   context.Context //nolint:containedctx // of one stream, which io.Reader and io.Writer have no place for
	since time.Time
}

func (g *gentle) rest() error {
	if !g.since.IsZero() {
		work := time.Since(g.since)
		pause := time.NewTimer(min(time.Duration(float64(work)*gentleShare/(1-gentleShare)), longestRest))
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-g.ctx.Done():
		}
	}
	g.since = time.Now()
	return g.ctx.Err()
}

// gentleWriter writes to w with rests.
type gentleWriter struct {
	gentle
	w io.Writer
}

// Write implements io.Writer.
func (g *gentleWriter) Write(p []byte) (int, error) {
	if err := g.rest(); err != nil {
		return 0, err
	}
	return g.w.Write(p)
}

// gentleReader reads from r with rests.
type gentleReader struct {
	gentle
	r io.Reader
}

// Read implements io.Reader.
func (g *gentleReader) Read(p []byte) (int, error) {
	if err := g.rest(); err != nil {
		return 0, err
	}
	return g.r.Read(p)
}
