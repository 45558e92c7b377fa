package request

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
)

// What is inflated is at most inflateRatio times what was sent, and inflateFloor bytes: text compresses to a hundredth
// at best, so what goes beyond is made to be large.
const (
	inflateRatio = 100
	inflateFloor = 64 << 10
)

// gzipMagic begins every gzip member with the only compression method there is (RFC 1952).
const gzipMagic = "\x1f\x8b\x08"

// isGzip: the body says that it is compressed, or a value begins as only gzip does.
func isGzip(n *node) bool {
	if n.media.set && n.media.gzip {
		return true
	}
	return strings.HasPrefix(n.Value.Value, gzipMagic) && (n.media.set || !n.whole())
}

// parseGzip adds what n inflates to, up to the limits. A compressed body is read as the body that it holds.
func parseGzip(b *builder, n node) error {
	s := n.Value.Value
	limit := min(b.inflate, inflateFloor+inflateRatio*len(s))
	plain, err := inflate(s, limit)
	b.inflate -= len(plain)
	c := n.child("", "", "gzip")
	c.Raw, c.Value.Value = string(plain), string(plain)
	if n.media.set {
		c.media = n.media
		c.media.gzip = false
		if n.media.gzip { // it is the body's own encoding, which rules need not name
			c.plain = n.plain
		}
	}
	if errors.Is(err, errInflated) {
		b.problem(n.Point, ReasonInflated)
		c.media.cut = true
		err = nil
	}
	if err != nil {
		c.media.cut = true
	}
	if len(plain) > 0 && !b.add(c) {
		return errStop
	}
	return err
}

var errInflated = errors.New("more than the limit")

// inflate returns what s holds, and up to limit bytes of it with an error.
func inflate(s string, limit int) ([]byte, error) {
	z, err := gzip.NewReader(strings.NewReader(s))
	if err != nil {
		return nil, fmt.Errorf("not gzip: %w", err)
	}
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(z, int64(limit)+1))
	if n > int64(limit) {
		out.Truncate(limit)
		return out.Bytes(), errInflated
	}
	if err != nil {
		return out.Bytes(), fmt.Errorf("broken gzip: %w", err)
	}
	return out.Bytes(), nil
}
