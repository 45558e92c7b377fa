package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/edgefleet/edgefleet/fleet"
)

type (
	// IncarnationStart begins a new incarnation.
	IncarnationStart struct {
		Statement fleet.SignedIncarnation `json:"statement" doc:"signed by the recovery key"`
	}
	// DrillCreate begins a drill.
	DrillCreate struct {
		Kind   fleet.DrillKind `json:"kind" doc:"leader-loss, region-loss or restore"`
		Target string          `json:"target,omitempty" maxLength:"1024" doc:"what will be lost: a member, or the members of a region with a comma between"`
		// LoseMajority declares that the loss of the quorum is what is rehearsed; else such a drill is refused.
		LoseMajority bool `json:"lose_majority,omitempty" doc:"the point of the drill is that no majority remains; without it such a drill is refused"`
	}
	// MemberCrash kills a member for a drill.
	MemberCrash struct {
		Drill string `json:"drill" maxLength:"63" doc:"the drill, which must run and name the member"`
		Check bool   `json:"check,omitempty" doc:"only say whether the member would be killed"`
	}
	// DrillUpdate writes a marker, or the result; held against the write before, it is refused if that one was lost.
	DrillUpdate struct {
		Drill fleet.Drill `json:"drill"`
	}
)

// Download writes the answer of a GET to w as it arrives, without a limit of time or size.
func (c *Client) Download(ctx context.Context, path string, w io.Writer) error {
	return c.Fetch(ctx, path, nil, w)
}

// Fetch is Download with a query.
func (c *Client) Fetch(ctx context.Context, path string, query url.Values, w io.Writer) error {
	res, err := c.send(ctx, c.stream, newRequest(http.MethodGet, path, query, nil, nil))
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it was read to its end, or is given up
	if res.StatusCode >= 300 {
		_, err := read(res)
		return err
	}
	if _, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("%w: the answer broke off: %w", fleet.ErrUnavailable, err)
	}
	return nil
}

// Upload sends the bytes of body, of the given size, and decodes the answer into out. It goes to the first address that
// can be connected to, and is never repeated.
func (c *Client) Upload(ctx context.Context, path string, header map[string]string, body io.ReadSeeker, size int64, out any) ([]byte, error) {
	var last error
	for i, addr := range c.addrs {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return nil, fmt.Errorf("read what to upload: %w", err)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, addr+path, io.NopCloser(body))
		if err != nil {
			return nil, fmt.Errorf("make request: %w", err)
		}
		req.ContentLength = size
		req.Header.Set("Authorization", "Bearer "+c.token)
		if c.reason != "" {
			req.Header.Set("Edgefleet-Reason", c.reason)
		}
		for name, value := range header {
			req.Header.Set(name, value)
		}
		res, err := c.stream.Do(req)
		if err == nil {
			defer func() { _ = res.Body.Close() }() // it was read to its end, or is given up
			raw, err := read(res)
			if err != nil || out == nil {
				return raw, err
			}
			return raw, json.Unmarshal(raw, out)
		}
		if last = err; ctx.Err() != nil || !notSent(err) {
			return nil, unreachable(ctx, c.addrs[:i+1], last)
		}
	}
	return nil, unreachable(ctx, c.addrs, last)
}
