package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strconv"

	"github.com/edgefleet/edgefleet/fleet"
)

// pageSize is the largest page that the API gives.
const pageSize = 100

// listing is a list of the API.
type listing struct {
	path  string
	query url.Values
	// cursor is the parameter that takes next of the page before; empty: the list has one page.
	cursor string
	// limit is how many items are wanted; 0 means all.
	limit int
}

// each gives every page's items to fn.
func (l listing) each(ctx context.Context, s *session, fn func(items []json.RawMessage) error) error {
	q := url.Values{}
	maps.Copy(q, l.query)
	left := l.limit
	for {
		if l.cursor != "" {
			q.Set("limit", strconv.Itoa(pageSize))
			if l.limit > 0 {
				q.Set("limit", strconv.Itoa(min(left, pageSize)))
			}
		}
		raw, err := s.Raw(ctx, http.MethodGet, l.path, q, nil)
		if err != nil {
			return err
		}
		var page struct {
			Items []json.RawMessage `json:"items"`
			Next  string            `json:"next"`
		}
		if err := json.Unmarshal(raw, &page); err != nil {
			return fleet.NewError(fleet.ErrCorrupt, "", "the API's list cannot be read (%v): is this fleetctl as new as the members?", err)
		}
		if err := fn(page.Items); err != nil {
			return err
		}
		left -= len(page.Items)
		if page.Next == "" || l.cursor == "" || l.limit > 0 && left <= 0 {
			return nil
		}
		if page.Next == q.Get(l.cursor) {
			return fleet.NewError(fleet.ErrCorrupt, "", "the pages of %s do not end", l.path)
		}
		q.Set(l.cursor, page.Next)
	}
}

// show prints the list: one JSON object with all items as they came, or a table.
func show[T any](ctx context.Context, a *app, s *session, l listing, header []string, row func(T) []any) error {
	var items []json.RawMessage
	err := l.each(ctx, s, func(page []json.RawMessage) error {
		items = append(items, page...)
		return nil
	})
	if err != nil {
		return err
	}
	if a.json() {
		raw := make([][]byte, len(items))
		for i, item := range items {
			raw[i] = item
		}
		return a.printJSON([]byte(`{"items":[` + string(bytes.Join(raw, []byte(","))) + "]}\n"))
	}
	t := newTable(a.Out, header...)
	for _, item := range items {
		var v T
		if err := json.Unmarshal(item, &v); err != nil {
			return fleet.NewError(fleet.ErrCorrupt, "", "the API's answer cannot be read (%v): is this fleetctl as new as the members?", err)
		}
		t.row(row(v)...)
	}
	return t.flush()
}
