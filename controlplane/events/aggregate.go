package events

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/edgefleet/edgefleet/fleet"
)

// Limits of an aggregation.
const (
	// MaxGroups bounds the groups of one aggregation: their number is in the hands of attackers.
	MaxGroups    = 50_000
	maxParts     = 8
	maxValues    = 100
	maxValueSize = 4 << 10
	// aggregateTimeout bounds the time that one takes.
	aggregateTimeout = 20 * time.Second
)

// Measures are what an aggregation can select: how many events, how many of them were blocked, and the times of the first
// and the last.
var Measures = []string{"count", "blocked", "first", "last"}

// steps are the lengths of time that events can be grouped by.
var steps = map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}

// Fields are what events can be grouped by and chosen by.
var Fields = []string{"type", "host", "status", "node", "region", "client_ip", "method", "path", "point", "parameter", "response_status"}

// Steps are the lengths of time that events can be grouped by as well.
var Steps = []string{"minute", "hour", "day"}

// Condition chooses events: those whose field is (eq, in), is not (ne) or begins with (prefix) one of the values.
type Condition struct {
	Field  string   `json:"field"`
	Op     string   `json:"op"`
	Values []string `json:"values"`
}

// Order is a field or measure of the result that it is sorted by.
type Order struct {
	By   string `json:"by"`
	Desc bool   `json:"desc,omitempty"`
}

// Aggregation asks for counts of events.
type Aggregation struct {
	Tenant  fleet.TenantID `json:"-"`
	Select  []string       `json:"select"`
	GroupBy []string       `json:"group_by"`
	Where   []Condition    `json:"where"`
	OrderBy []Order        `json:"order_by"`
	// Since is the earliest event time, Until the first one too late; the last day if they are zero.
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	Limit  int       `json:"limit"`
	Cursor string    `json:"-"`
}

// AggregatePage is one page of groups. Each has the fields that were grouped by (text; response_status a number; minute,
// hour and day the time when it begins) and the measures.
type AggregatePage struct {
	Rows []map[string]any
	Next string
}

// aggregateCursor is where the next page begins. It keeps the end of the time range, so that pages belong together.
type aggregateCursor struct {
	Offset int    `json:"o"`
	Until  int64  `json:"u"`
	Of     string `json:"q"`
}

// counted is one group.
type counted struct {
	keys                        []string
	count, blocked, first, last int64
}

// Aggregate returns the page of groups that a asks for.
func (s *Store) Aggregate(ctx context.Context, a Aggregation) (AggregatePage, error) {
	a, at, err := a.complete(s.o.Now())
	if err != nil {
		return AggregatePage{}, err
	}
	if err := s.engine.ready(ctx); err != nil {
		return AggregatePage{}, fmt.Errorf("count events: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, aggregateTimeout)
	defer cancel()
	shards, release := s.engine.shards(dayOf(a.Since), dayOf(a.Until))
	defer release()
	groups := map[string]*counted{}
	for _, sh := range shards {
		if err := sh.count(bounded, a, groups); err != nil {
			if bounded.Err() != nil && ctx.Err() == nil {
				return AggregatePage{}, fleet.NewError(fleet.ErrTooLarge, "time_range", "counting these events takes longer than %s: give a shorter time range, or more conditions", aggregateTimeout)
			}
			return AggregatePage{}, fmt.Errorf("count events of %s: %w", sh.name, s.engine.fail(err))
		}
	}
	all := slices.SortedFunc(maps.Values(groups), a.compare)
	page := AggregatePage{Rows: []map[string]any{}}
	for _, g := range all[min(at.Offset, len(all)):min(at.Offset+a.Limit, len(all))] {
		page.Rows = append(page.Rows, a.row(g))
	}
	if at.Offset += a.Limit; at.Offset < len(all) {
		page.Next, err = writeCursor(at)
	}
	return page, err
}

// complete checks a and fills in what it leaves open.
func (a Aggregation) complete(now time.Time) (Aggregation, aggregateCursor, error) {
	at, err := readCursor[aggregateCursor](a.Cursor)
	of := a.digest()
	if err == nil && a.Cursor != "" && (at.Of != of || at.Offset < 1 || at.Offset > MaxGroups) {
		err = errCursor()
	}
	if err != nil {
		return a, at, err
	}
	at.Of = of
	a.Limit = cmp.Or(a.Limit, DefaultLimit)
	if len(a.Select) == 0 {
		a.Select = []string{"count"}
	}
	if a.Until.IsZero() {
		a.Until = now.Add(fleet.MaxClockSkew)
	}
	if at.Until != 0 {
		a.Until = time.Unix(0, at.Until)
	}
	at.Until = a.Until.UnixNano()
	if a.Since.IsZero() {
		a.Since = a.Until.Add(-24 * time.Hour)
	}
	if len(a.OrderBy) == 0 && !slices.ContainsFunc(a.GroupBy, func(f string) bool { return steps[f] > 0 }) {
		a.OrderBy = []Order{{By: a.Select[0], Desc: true}}
	}
	return a, at, a.validate()
}

// digest tells a cursor of another aggregation.
func (a Aggregation) digest() string {
	b, err := json.Marshal(a)
	if err != nil {
		return "" // of text, numbers and times of a request: cannot be
	}
	sum := sha256.Sum256(append([]byte(a.Tenant+"\n"), b...))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

func (a Aggregation) validate() error {
	if a.Limit < 1 || a.Limit > MaxLimit {
		return fleet.Invalid("limit", "a page of %d groups: give 1 to %d", a.Limit, MaxLimit)
	}
	if !a.Since.Before(a.Until) {
		return fleet.Invalid("time_range", "it ends before it begins")
	}
	if len(a.Select) > len(Measures) || len(a.GroupBy) > maxParts || len(a.Where) > maxParts || len(a.OrderBy) > maxParts {
		return fleet.Invalid("group_by", "too many parts: at most %d fields, conditions and orders, and each measure once", maxParts)
	}
	for _, m := range a.Select {
		if !slices.Contains(Measures, m) {
			return fleet.Invalid("select", "%.50q is not one of %s", m, strings.Join(Measures, ", "))
		}
	}
	for i, f := range a.GroupBy {
		if !slices.Contains(Fields, f) && steps[f] == 0 || slices.Contains(a.GroupBy[:i], f) {
			return fleet.Invalid("group_by", "%.50q is not one of %s, or is there twice", f, strings.Join(append(slices.Clone(Fields), Steps...), ", "))
		}
	}
	for _, o := range a.OrderBy {
		if !slices.Contains(a.GroupBy, o.By) && !slices.Contains(Measures, o.By) {
			return fleet.Invalid("order_by", "%.50q is neither grouped by nor one of %s", o.By, strings.Join(Measures, ", "))
		}
	}
	for _, c := range a.Where {
		if err := c.validate(); err != nil {
			return err
		}
	}
	return nil
}

func (c Condition) validate() error {
	if !slices.Contains(Fields, c.Field) {
		return fleet.Invalid("where", "%.50q is not one of %s", c.Field, strings.Join(Fields, ", "))
	}
	if !slices.Contains([]string{"eq", "in", "ne", "prefix"}, c.Op) || c.Op == "prefix" && c.Field == "response_status" {
		return fleet.Invalid("where", "%.50q is no comparison for %s: use eq, in, ne or, of text, prefix", c.Op, c.Field)
	}
	if len(c.Values) == 0 || len(c.Values) > maxValues || c.Op != "in" && len(c.Values) > 1 {
		return fleet.Invalid("where", "%d values for %s %s: give one, or with in up to %d", len(c.Values), c.Field, c.Op, maxValues)
	}
	for _, v := range c.Values {
		if len(v) > maxValueSize {
			return fleet.Invalid("where", "a value of %d bytes: at most %d", len(v), maxValueSize)
		}
		if _, err := strconv.ParseInt(v, 10, 32); c.Field == "response_status" && err != nil {
			return fleet.Invalid("where", "%.50q is not a response status such as 403", v)
		}
	}
	return nil
}

// clause is the condition in SQL. Fields and operators are of the tables above; values are arguments.
func (c Condition) clause(w *clauses) string {
	values := make([]string, 0, len(c.Values))
	for _, v := range c.Values {
		if n, err := strconv.ParseInt(v, 10, 32); c.Field == "response_status" && err == nil {
			values = append(values, w.arg(n))
			continue
		}
		values = append(values, w.arg(columnText(v)))
	}
	switch c.Op {
	case "prefix":
		return fmt.Sprintf("substr(%s, 1, %d) = %s", c.Field, utf8.RuneCountInString(columnText(c.Values[0])), values[0])
	case "ne":
		return c.Field + " <> " + values[0]
	}
	return c.Field + " IN (" + strings.Join(values, ", ") + ")"
}

// count adds the groups of a shard.
func (sh shard) count(ctx context.Context, a Aggregation, groups map[string]*counted) error {
	var w clauses
	w.add(true, "tenant = ?", columnText(string(a.Tenant)))
	w.add(true, "time >= ?", a.Since.UnixNano())
	w.add(true, "time < ?", a.Until.UnixNano())
	for _, c := range a.Where {
		w.where = append(w.where, c.clause(&w))
	}
	keys, by := "", ""
	for i, f := range a.GroupBy {
		if step := steps[f]; step > 0 {
			f = fmt.Sprintf("(time / %d) * %d", step, step)
		}
		keys += "CAST(" + f + " AS TEXT), "
		by += ", " + strconv.Itoa(i+1)
	}
	text := "SELECT " + keys + "count(*), coalesce(sum(CASE WHEN status = 'blocked' THEN 1 ELSE 0 END), 0), coalesce(min(time), 0), coalesce(max(time), 0) FROM events" + w.String()
	if by != "" {
		text += " GROUP BY " + by[2:] + " LIMIT " + strconv.Itoa(MaxGroups+1)
	}
	rows, err := sh.db.QueryContext(ctx, text, w.args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		g := counted{keys: make([]string, len(a.GroupBy))}
		into := make([]any, 0, len(g.keys)+4)
		for i := range g.keys {
			into = append(into, &g.keys[i])
		}
		if err := rows.Scan(append(into, &g.count, &g.blocked, &g.first, &g.last)...); err != nil {
			return err
		}
		if g.count == 0 {
			continue // a day without such events
		}
		if err := merge(groups, g); err != nil {
			return err
		}
	}
	return rows.Err()
}

func merge(groups map[string]*counted, g counted) error {
	key := strings.Join(g.keys, "\x00") // columns have no NUL
	old := groups[key]
	if old == nil {
		if len(groups) >= MaxGroups {
			return fleet.NewError(fleet.ErrTooLarge, "group_by", "more than %d groups: give a shorter time range, more conditions, or fewer fields", MaxGroups)
		}
		groups[key] = &g
		return nil
	}
	old.count += g.count
	old.blocked += g.blocked
	old.first = min(old.first, g.first)
	old.last = max(old.last, g.last)
	return nil
}

// measure is a measure of g by its name.
func (g *counted) measure(name string) int64 {
	return map[string]int64{"count": g.count, "blocked": g.blocked, "first": g.first, "last": g.last}[name]
}

func (a Aggregation) compare(x, y *counted) int {
	for _, o := range a.OrderBy {
		d := 0
		if i := slices.Index(a.GroupBy, o.By); i >= 0 {
			d = compareKeys(o.By, x.keys[i], y.keys[i])
		} else {
			d = cmp.Compare(x.measure(o.By), y.measure(o.By))
		}
		if o.Desc {
			d = -d
		}
		if d != 0 {
			return d
		}
	}
	for i, f := range a.GroupBy {
		if d := compareKeys(f, x.keys[i], y.keys[i]); d != 0 {
			return d
		}
	}
	return 0
}

// compareKeys compares numbers and times as numbers.
func compareKeys(field, a, b string) int {
	if steps[field] > 0 || field == "response_status" {
		if d := cmp.Compare(len(a), len(b)); d != 0 {
			return d
		}
	}
	return strings.Compare(a, b)
}

// row is a group as the caller gets it.
func (a Aggregation) row(g *counted) map[string]any {
	out := map[string]any{}
	for i, f := range a.GroupBy {
		n, err := strconv.ParseInt(g.keys[i], 10, 64)
		switch {
		case steps[f] > 0 && err == nil:
			out[f] = time.Unix(0, n).UTC()
		case f == "response_status" && err == nil:
			out[f] = n
		default:
			out[f] = g.keys[i]
		}
	}
	for _, m := range a.Select {
		switch m {
		case "first", "last":
			out[m] = time.Unix(0, g.measure(m)).UTC()
		default:
			out[m] = g.measure(m)
		}
	}
	return out
}
