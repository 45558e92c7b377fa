package events

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Held is how far a member holds a boot.
type Held struct {
	Node    fleet.NodeID `json:"node"`
	Boot    string       `json:"boot"`
	Through uint64       `json:"through"`
	// Updated is when that changed last.
	Updated time.Time `json:"updated"`
}

// Part is what a member holds of a span.
type Part struct {
	Events []fleet.Event `json:"events"`
	// Through is the last sequence number that was looked for.
	Through uint64 `json:"through"`
}

const (
	// PartNumbers bounds the sequence numbers of a part, partBytes its size in JSON.
	PartNumbers = 200
	partBytes   = 4 << 20
	heldPage    = 500
)

// Held lists the boots after one, in the order of their names, at most a page of them.
func (s *Store) Held(ctx context.Context, after Held) ([]Held, error) {
	if err := s.engine.ready(ctx); err != nil {
		return nil, fmt.Errorf("list watermarks: %w", err)
	}
	rows, err := s.marks.db.QueryContext(ctx, `SELECT node, boot, through, updated FROM marks WHERE (node, boot) > ($1, $2) ORDER BY node, boot LIMIT $3`, string(after.Node), after.Boot, heldPage)
	if err != nil {
		return nil, fmt.Errorf("list watermarks: %w", s.engine.fail(err))
	}
	defer func() { _ = rows.Close() }()
	page := []Held{}
	for rows.Next() {
		var h Held
		var updated int64
		if err := rows.Scan(&h.Node, &h.Boot, &h.Through, &updated); err != nil {
			return nil, fmt.Errorf("list watermarks: %w", s.engine.fail(err))
		}
		h.Updated = time.Unix(0, updated).UTC()
		page = append(page, h)
	}
	return page, rows.Err()
}

// Part returns the events of a span that are here, of at most PartNumbers numbers from its beginning.
func (s *Store) Part(ctx context.Context, span Span) (Part, error) {
	if span.From < 1 || span.To < span.From || fleet.ValidateID("node_id", span.Node) != nil || fleet.ValidateID("boot", span.Boot) != nil {
		return Part{}, fleet.Invalid("from", "%d to %d is not a range of sequence numbers of a boot", span.From, span.To)
	}
	if err := s.engine.ready(ctx); err != nil {
		return Part{}, fmt.Errorf("read events: %w", err)
	}
	span.To = min(span.To, span.From+PartNumbers-1)
	found := map[uint64]fleet.Event{}
	err := s.each(ctx, span, "body", func(rows *sql.Rows) error {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return err
		}
		ev, err := decodeBody(body)
		found[ev.Seq] = ev
		return err
	})
	if err != nil {
		return Part{}, err
	}
	part, size := Part{Events: []fleet.Event{}, Through: span.To}, 0
	for seq := span.From; seq <= span.To; seq++ {
		ev, ok := found[seq]
		if !ok {
			continue
		}
		r, err := rowOf(ev)
		if err != nil {
			return Part{}, err
		}
		if size += len(r.body); size > partBytes && len(part.Events) > 0 {
			part.Through = seq - 1
			break
		}
		part.Events = append(part.Events, ev)
	}
	return part, nil
}

// has counts the events of a span that are here.
func (s *Store) has(ctx context.Context, span Span) (n uint64, err error) {
	err = s.each(ctx, span, "id", func(*sql.Rows) error { n++; return nil })
	return n, err
}

// each reads a column of the events of a span, which is a part at most.
func (s *Store) each(ctx context.Context, span Span, column string, fn func(*sql.Rows) error) error {
	var w clauses
	ids := make([]string, 0, span.To-span.From+1)
	for seq := span.From; seq <= span.To; seq++ {
		ids = append(ids, w.arg(string(fleet.NewEventID(span.Node, span.Boot, seq))))
	}
	shards, release := s.engine.shards(firstDay, lastDay)
	defer release()
	for _, sh := range shards {
		err := func() error {
			rows, err := sh.db.QueryContext(ctx, "SELECT "+column+" FROM events WHERE id IN ("+strings.Join(ids, ", ")+")", w.args...)
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }()
			for rows.Next() {
				if err := fn(rows); err != nil {
					return err
				}
			}
			return rows.Err()
		}()
		if err != nil {
			return fmt.Errorf("read events of %s: %w", sh.name, s.engine.fail(err))
		}
	}
	return nil
}

// note remembers the numbers of a span that are neither stored nor skipped as missing. The watermark stays: what others
// hold does not count as held here.
func (s *Store) note(ctx context.Context, span Span) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	tx, err := s.marks.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("note missing events: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	mk, err := readMark(ctx, tx, bootKey{span.Node, span.Boot})
	if err == nil {
		err = noteMissing(ctx, tx, mk, span)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return fmt.Errorf("note missing events: %w", err)
	}
	return nil
}

// noteMissing remembers what mk does not cover of a span.
func noteMissing(ctx context.Context, tx *sql.Tx, mk mark, span Span) error {
	from := max(span.From, mk.through+1)
	for _, r := range append(mk.ahead, seqRange{span.To + 1, span.To + 1}) {
		if from > span.To {
			return nil
		}
		if to := min(r[0]-1, span.To); from <= to {
			_, err := tx.ExecContext(ctx, `INSERT INTO missing (node, boot, first, last) VALUES ($1, $2, $3, $4)
				ON CONFLICT (node, boot, first) DO UPDATE SET last = max(last, excluded.last)`, string(span.Node), span.Boot, int64(from), int64(to))
			if err != nil {
				return err
			}
		}
		from = max(from, r[1]+1)
	}
	return nil
}

// gaps lists what is remembered as missing, and how many sequence numbers that is in all.
func (s *Store) gaps(ctx context.Context, limit int) (gaps []Span, total uint64, err error) {
	if err := s.marks.db.QueryRowContext(ctx, `SELECT coalesce(sum(last - first + 1), 0) FROM missing`).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count missing events: %w", err)
	}
	rows, err := s.marks.db.QueryContext(ctx, `SELECT node, boot, first, last FROM missing ORDER BY node, boot, first LIMIT $1`, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("list missing events: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var g Span
		if err := rows.Scan(&g.Node, &g.Boot, &g.From, &g.To); err != nil {
			return nil, 0, fmt.Errorf("list missing events: %w", err)
		}
		gaps = append(gaps, g)
	}
	return gaps, total, rows.Err()
}

// closeGap forgets the part with which a gap begins.
func (s *Store) closeGap(ctx context.Context, part Span) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	tx, err := s.marks.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("forget a gap: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	var last int64
	err = tx.QueryRowContext(ctx, `DELETE FROM missing WHERE node = $1 AND boot = $2 AND first = $3 RETURNING last`, string(part.Node), part.Boot, int64(part.From)).Scan(&last)
	if err == nil && uint64(last) > part.To {
		_, err = tx.ExecContext(ctx, `INSERT INTO missing (node, boot, first, last) VALUES ($1, $2, $3, $4) ON CONFLICT (node, boot, first) DO UPDATE SET last = max(last, excluded.last)`,
			string(part.Node), part.Boot, int64(part.To+1), last)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return fmt.Errorf("forget a gap: %w", err)
	}
	return nil
}
