package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/edgefleet/edgefleet/fleet"
)

// maxEvent bounds one server-sent event; the API's own are below fleet.MaxEventBytes.
const maxEvent = 1 << 20

// Stream reads server-sent events and gives the data of each to fn, which must not keep it. It ends with the error of
// fn, with ctx, or with ErrUnavailable when the connection ends: what happened until the next call is not repeated.
func (c *Client) Stream(ctx context.Context, path string, query url.Values, fn func(data []byte) error) error {
	res, err := c.send(ctx, c.stream, newRequest(http.MethodGet, path, query, nil, nil))
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // nothing more is wanted from it
	if res.StatusCode >= 300 {
		_, err := read(res)
		return err
	}
	err = readEvents(res.Body, fn)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// readEvents decodes the event stream format (WHATWG HTML, section 9.2): only data matters here.
func readEvents(r io.Reader, fn func(data []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	var data []byte
	pending := false
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 && pending {
			if err := fn(data); err != nil {
				return err
			}
			data, pending = data[:0], false
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		if string(field) != "data" {
			continue
		}
		if pending {
			data = append(data, '\n')
		}
		if data = append(data, bytes.TrimPrefix(value, []byte(" "))...); len(data) > maxEvent {
			return fmt.Errorf("%w: an event of more than %d bytes", fleet.ErrTooLarge, maxEvent)
		}
		pending = true
	}
	switch err := lines.Err(); {
	case err == nil:
		return fmt.Errorf("%w: the API ended the stream", fleet.ErrUnavailable)
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%w: an event of more than %d bytes", fleet.ErrTooLarge, maxEvent)
	default:
		return fmt.Errorf("%w: the stream broke: %w", fleet.ErrUnavailable, err)
	}
}
