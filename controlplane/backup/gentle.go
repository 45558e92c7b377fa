package backup

import (
	"context"
	"io"

	"github.com/edgefleet/edgefleet/controlplane/pacing"
)

// gentle rests between the calls of who encodes or decodes the state of a scheduled backup, until ctx ends: the member
// serves requests meanwhile, and nobody waits for the backup.
type gentle struct {
	ctx  context.Context //nolint:containedctx // of one stream, which io.Reader and io.Writer have no place for
	pace pacing.Pace
}

func (g *gentle) rest() error {
	g.pace.Rest(g.ctx.Done())
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
