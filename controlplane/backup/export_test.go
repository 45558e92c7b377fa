package backup

import (
	"context"
	"io"
)

// Gentle are the reader and the writer that rest.
func Gentle(ctx context.Context, r io.Reader, w io.Writer) (io.Reader, io.Writer) {
	return &gentleReader{gentle{ctx: ctx}, r}, &gentleWriter{gentle{ctx: ctx}, w}
}
