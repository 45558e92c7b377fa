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
// fn, with ctx, or with ErrUnavailable when the connection ends; Follow goes on then.
func (c *Client) Stream(ctx context.Context, path string, query url.Values, fn func(data []byte) error) error {
	return c.stream1(ctx, newRequest(http.MethodGet, path, query, nil, nil), dataOf(fn))
}

// sse is one server-sent event. A bare one has no data: it only says from where to go on.
type sse struct {
	id, event string
	data      []byte
	bare      bool
}

// dataOf is for who does not go on.
func dataOf(fn func(data []byte) error) func(sse) error {
	return func(e sse) error {
		if e.bare {
			return nil
		}
		return fn(e.data)
	}
}

func (c *Client) stream1(ctx context.Context, r request, fn func(sse) error) error {
	res, err := c.send(ctx, c.stream, r)
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

// readEvents decodes the event stream format (WHATWG HTML, section 9.2).
func readEvents(r io.Reader, fn func(sse) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	var e sse
	pending, said := false, ""
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 {
			if pending || e.id != said {
				e.bare, said = !pending, e.id
				if err := fn(e); err != nil {
					return err
				}
			}
			e, pending = sse{id: e.id, data: e.data[:0]}, false
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "id":
			e.id = string(value)
		case "event":
			e.event = string(value)
		case "data":
			if pending {
				e.data = append(e.data, '\n')
			}
			if e.data = append(e.data, value...); len(e.data) > maxEvent {
				return fmt.Errorf("%w: an event of more than %d bytes", fleet.ErrTooLarge, maxEvent)
			}
			pending = true
		}
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
