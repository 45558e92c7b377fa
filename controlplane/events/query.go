package events

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Limits of a query.
const (
	DefaultLimit = 50
	MaxLimit     = 100
)

// Query selects events; zero fields select all.
type Query struct {
	// Tenant is required of callers that act for a tenant; empty means every tenant.
	Tenant fleet.TenantID
	Host   fleet.HostName
	Type   fleet.AttackType
	Status fleet.BlockStatus
	// Since is the earliest event time, Until the first one too late.
	Since, Until time.Time
	// Attack selects the hits of one attack.
	Attack fleet.AttackID
	// Cursor is Page.Next of the page before; the other fields must be the same.
	Cursor string
	// Limit bounds the page; DefaultLimit if 0, at most MaxLimit.
	Limit int
	// Ascending returns the oldest first.
	Ascending bool
}

// Page is one page of events, newest first unless the query said otherwise.
type Page struct {
	Events []fleet.Event `json:"events"`
	// Next continues after this page; empty on the last one.
	Next string `json:"next,omitempty"`
}

// cursor is the place of the last event of a page.
type cursor struct {
	Time      int64         `json:"t"`
	ID        fleet.EventID `json:"i"`
	Ascending bool          `json:"a,omitempty"`
}

func (q Query) validate() (Query, cursor, error) {
	if q.Limit == 0 {
		q.Limit = DefaultLimit
	}
	if q.Limit < 0 || q.Limit > MaxLimit {
		return q, cursor{}, fleet.Invalid("limit", "a page of %d events: give 1 to %d", q.Limit, MaxLimit)
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && q.Until.Before(q.Since) {
		return q, cursor{}, fleet.Invalid("until", "the end of the time range is before its start")
	}
	c, err := decodeCursor(q.Cursor)
	if err == nil && q.Cursor != "" && c.Ascending != q.Ascending {
		err = fleet.Invalid("cursor", "the cursor is of a query in the other order")
	}
	return q, c, err
}

func encodeCursor(c cursor) (string, error) { return writeCursor(c) }

func decodeCursor(s string) (cursor, error) {
	c, err := readCursor[cursor](s)
	if err == nil && s != "" && (c.Time < 0 || c.ID == "") {
		err = errCursor()
	}
	return c, err
}

func errCursor() error {
	return fleet.Invalid("cursor", "not a cursor of this query: use next of the page before, or leave it out")
}

// writeCursor makes an opaque cursor of the place where a page ended.
func writeCursor(place any) (string, error) {
	b, err := json.Marshal(place)
	return base64.RawURLEncoding.EncodeToString(b), err
}

// readCursor reads what writeCursor made; an empty cursor is the zero place.
func readCursor[T any](s string) (place T, err error) {
	if s == "" {
		return place, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if len(s) > 512 || err != nil || fleet.DecodeStrict(b, &place) != nil {
		return *new(T), errCursor()
	}
	return place, nil
}

// Query returns the page of events that q selects.
func (s *Store) Query(ctx context.Context, q Query) (Page, error) {
	q, c, err := q.validate()
	if err != nil {
		return Page{}, err
	}
	if err := s.engine.ready(ctx); err != nil {
		return Page{}, fmt.Errorf("query events: %w", err)
	}
	hits, err := s.hitsOf(ctx, &q)
	if err != nil {
		return Page{}, err
	}
	shards, release := s.engine.shards(q.days(c))
	defer release()
	if !q.Ascending {
		slices.Reverse(shards)
	}
	page := Page{Events: []fleet.Event{}}
	for _, sh := range shards {
		// One more than the page holds shows whether there is another page.
		evs, err := sh.query(ctx, q, hits, c, q.Limit+1-len(page.Events))
		if err != nil {
			return Page{}, fmt.Errorf("query events of %s: %w", sh.name, s.engine.fail(err))
		}
		if page.Events = append(page.Events, evs...); len(page.Events) <= q.Limit {
			continue
		}
		page.Events = page.Events[:q.Limit]
		last := page.Events[q.Limit-1]
		page.Next, err = encodeCursor(cursor{last.Time.UnixNano(), last.ID, q.Ascending})
		return page, err
	}
	return page, nil
}

// hitsOf is the attack whose hits q selects, if it does; its tenant and days are those of q then.
func (s *Store) hitsOf(ctx context.Context, q *Query) (*fleet.Attack, error) {
	if q.Attack == "" {
		return nil, nil
	}
	a, err := s.Attack(ctx, q.Tenant, q.Attack)
	if err != nil {
		return nil, err
	}
	q.Tenant = a.Tenant
	if a.First.After(q.Since) {
		q.Since = a.First
	}
	if end := a.Last.Add(time.Nanosecond); q.Until.IsZero() || end.Before(q.Until) {
		q.Until = end
	}
	return &a, nil
}

// days are those that may hold events of q after the cursor.
func (q Query) days(c cursor) (from, to string) {
	from, to = firstDay, lastDay
	if !q.Since.IsZero() {
		from = dayOf(q.Since)
	}
	if !q.Until.IsZero() {
		to = dayOf(q.Until)
	}
	if at := dayOf(time.Unix(0, c.Time)); c.ID != "" && q.Ascending {
		from = max(from, at)
	} else if c.ID != "" {
		to = min(to, at)
	}
	return from, to
}

// clauses are the conditions of a statement.
type clauses struct {
	where []string
	args  []any
}

// add takes a condition with a ? for each value.
func (c *clauses) add(set bool, clause string, values ...any) {
	if !set {
		return
	}
	for _, v := range values {
		clause = strings.Replace(clause, "?", c.arg(v), 1)
	}
	c.where = append(c.where, clause)
}

// arg is the placeholder of a value.
func (c *clauses) arg(v any) string {
	c.args = append(c.args, v)
	return "$" + strconv.Itoa(len(c.args))
}

func (c *clauses) String() string {
	if len(c.where) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.where, " AND ")
}

// filter is what q selects on the columns.
func (q Query) filter() (c clauses) {
	c.add(q.Tenant != "", "tenant = ?", columnText(string(q.Tenant)))
	c.add(q.Host != "", "host = ?", columnText(string(q.Host)))
	c.add(q.Type != "", "type = ?", columnText(string(q.Type)))
	c.add(q.Status != "", "status = ?", columnText(string(q.Status)))
	c.add(!q.Since.IsZero(), "time >= ?", q.Since.UnixNano())
	c.add(!q.Until.IsZero(), "time < ?", q.Until.UnixNano())
	return c
}

func (sh shard) query(ctx context.Context, q Query, hits *fleet.Attack, c cursor, limit int) ([]fleet.Event, error) {
	w, direction := q.filter(), "DESC"
	if hits != nil {
		w.add(true, "host = ? AND type = ? AND parameter = ? AND time >= ? AND time <= ?",
			columnText(string(hits.Host)), columnText(string(hits.Type)), columnText(hits.Parameter), hits.First.UnixNano(), hits.Last.UnixNano())
	}
	if q.Ascending {
		direction = "ASC"
	}
	// The time by itself too: partitions are chosen by it.
	w.add(c.ID != "" && q.Ascending, "time >= ? AND (time, id) > (?, ?)", c.Time, c.Time, string(c.ID))
	w.add(c.ID != "" && !q.Ascending, "time <= ? AND (time, id) < (?, ?)", c.Time, c.Time, string(c.ID))
	at := w.arg(limit)
	rows, err := sh.db.QueryContext(ctx, "SELECT body FROM events"+w.String()+" ORDER BY time "+direction+", id "+direction+" LIMIT "+at, w.args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var evs []fleet.Event
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return nil, err
		}
		ev, err := decodeBody(body)
		if err != nil {
			return nil, err
		}
		evs = append(evs, ev)
	}
	return evs, rows.Err()
}

// Get returns one event; an event of another tenant is ErrNotFound too. An empty tenant means any.
func (s *Store) Get(ctx context.Context, tenant fleet.TenantID, id fleet.EventID) (fleet.Event, error) {
	notFound := fleet.NewError(fleet.ErrNotFound, "event", "there is no event %.200q", string(id))
	if _, _, _, err := fleet.ParseEventID(id); err != nil {
		return fleet.Event{}, notFound
	}
	if err := s.engine.ready(ctx); err != nil {
		return fleet.Event{}, fmt.Errorf("get event: %w", err)
	}
	shards, release := s.engine.shards(firstDay, lastDay)
	defer release()
	for _, sh := range slices.Backward(shards) {
		var body []byte
		err := sh.db.QueryRowContext(ctx, `SELECT body FROM events WHERE id = $1`, string(id)).Scan(&body)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return fleet.Event{}, fmt.Errorf("get event: %w", s.engine.fail(err))
		}
		ev, err := decodeBody(body)
		if err == nil && tenant != "" && ev.Tenant != tenant {
			return fleet.Event{}, notFound
		}
		return ev, err
	}
	return fleet.Event{}, notFound
}
