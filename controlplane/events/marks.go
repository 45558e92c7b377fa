package events

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

const marksSchema = `
CREATE TABLE IF NOT EXISTS marks (
	node      TEXT NOT NULL,
	boot      TEXT NOT NULL,
	through   INTEGER NOT NULL,
	ahead     TEXT NOT NULL,
	gap_since INTEGER NOT NULL,
	updated   INTEGER NOT NULL,
	PRIMARY KEY (node, boot)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS missing (
	node  TEXT NOT NULL,
	boot  TEXT NOT NULL,
	first INTEGER NOT NULL,
	last  INTEGER NOT NULL,
	PRIMARY KEY (node, boot, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS born (at INTEGER NOT NULL) STRICT;
`

const (
	// keepMarks is how long the watermark of a silent boot is remembered.
	keepMarks = 365 * 24 * time.Hour
	// maxRanges bounds what is remembered above a gap; what is forgotten there is sent again.
	maxRanges = 1024
	// gapAge is how long a sequence number is missing before it counts as a gap: less is a resend on its way.
	gapAge = time.Minute
	// gapForgotten is how long a boot is silent before its gap no longer counts: its node's disk is gone.
	gapForgotten = 24 * time.Hour
)

// marks are the watermarks of all boots. They outlive the events: a boot's events may be past retention.
type marks struct {
	db  *sql.DB
	now func() time.Time
	// lock is a statement that keeps other members from the watermarks until the transaction ends; empty: they have none here.
	lock string

	mu sync.Mutex
	// born is when this store was made.
	born time.Time
	// gaps are the boots with something stored above a missing sequence number; metrics read it without the database.
	gaps map[bootKey]gap
}

type bootKey struct {
	node fleet.NodeID
	boot string
}

type gap struct{ since, updated time.Time }

// mark is one row: everything up to Through, and the ranges above the gap that follows it.
type mark struct {
	through uint64
	ahead   []seqRange
	since   time.Time
}

// seqRange is encoded as [from, to].
type seqRange [2]uint64

func openMarks(dir string, now func() time.Time) (*marks, error) {
	db, err := openDB(filepath.Join(dir, "watermarks.db"), marksSchema)
	if err != nil {
		return nil, err
	}
	m := &marks{db: db, now: now, gaps: map[bootKey]gap{}}
	if err := m.read(context.Background()); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return m, nil
}

// read loads when the store was made, which is now if it is new, and the gaps.
func (m *marks) read(ctx context.Context) error {
	if _, err := m.db.ExecContext(ctx, `INSERT INTO born SELECT CAST($1 AS BIGINT) WHERE NOT EXISTS (SELECT 1 FROM born)`, m.now().UnixNano()); err != nil {
		return fmt.Errorf("date the event store: %w", err)
	}
	var at int64
	if err := m.db.QueryRowContext(ctx, `SELECT min(at) FROM born`).Scan(&at); err != nil {
		return fmt.Errorf("date of the event store: %w", err)
	}
	rows, err := m.db.QueryContext(ctx, `SELECT node, boot, gap_since, updated FROM marks WHERE gap_since > 0`)
	if err != nil {
		return fmt.Errorf("read watermarks: %w", err)
	}
	defer func() { _ = rows.Close() }()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.born = time.Unix(0, at).UTC()
	for rows.Next() {
		var k bootKey
		var since, updated int64
		if err := rows.Scan(&k.node, &k.boot, &since, &updated); err != nil {
			return fmt.Errorf("read watermarks: %w", err)
		}
		m.gaps[k] = gap{time.Unix(0, since), time.Unix(0, updated)}
	}
	return rows.Err()
}

// madeAt is when the store was made; zero while nobody has reached it.
func (m *marks) madeAt() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.born
}

// cover adds spans in one transaction and returns how many sequence numbers were new. With missed, those are remembered as
// missing, unless the store is shared.
func (m *marks) cover(ctx context.Context, spans []Span, missed bool) (added uint64, err error) {
	byBoot := map[bootKey][]Span{}
	for _, s := range spans {
		k := bootKey{s.Node, s.Boot}
		byBoot[k] = append(byBoot[k], s)
	}
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	if m.lock != "" {
		if _, err := tx.ExecContext(ctx, m.lock); err != nil {
			return 0, err
		}
	}
	now := m.now()
	changed := map[bootKey]mark{}
	for k, spans := range byBoot {
		before, err := readMark(ctx, tx, k)
		if err != nil {
			return 0, err
		}
		after, n := before.add(spans)
		if after.through == before.through && slices.Equal(after.ahead, before.ahead) {
			continue
		}
		added += n
		for _, s := range spans {
			if missed && m.lock == "" {
				if err := noteMissing(ctx, tx, before, s); err != nil {
					return 0, err
				}
			}
		}
		after.since = before.since
		switch {
		case len(after.ahead) == 0:
			after.since = time.Time{}
		case after.through > before.through || after.since.IsZero():
			after.since = now
		}
		if err := writeMark(ctx, tx, k, after, now); err != nil {
			return 0, err
		}
		changed[k] = after
	}
	if len(changed) == 0 {
		return 0, nil
	}
	if err := tx.Commit(); err != nil {
		return 0, err
	}
	m.note(changed, now)
	return added, nil
}

func (m *marks) note(changed map[bootKey]mark, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, mk := range changed {
		delete(m.gaps, k)
		if !mk.since.IsZero() {
			m.gaps[k] = gap{mk.since, now}
		}
	}
}

// openGaps counts the boots of live nodes that have missed a sequence number for longer than gapAge.
func (m *marks) openGaps() (n int) {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.gaps {
		if now.Sub(g.since) > gapAge && now.Sub(g.updated) < gapForgotten {
			n++
		}
	}
	return n
}

func readMark(ctx context.Context, tx *sql.Tx, k bootKey) (mark, error) {
	var mk mark
	var ahead string
	var since int64
	err := tx.QueryRowContext(ctx, `SELECT through, ahead, gap_since FROM marks WHERE node = $1 AND boot = $2`, string(k.node), k.boot).Scan(&mk.through, &ahead, &since)
	if errors.Is(err, sql.ErrNoRows) {
		return mark{}, nil
	}
	if err != nil {
		return mark{}, err
	}
	if since > 0 {
		mk.since = time.Unix(0, since)
	}
	if err := json.Unmarshal([]byte(ahead), &mk.ahead); err != nil {
		return mark{}, fleet.NewError(fleet.ErrCorrupt, "watermark", "the watermark of node %s is damaged: %v", k.node, err)
	}
	return mk, nil
}

func writeMark(ctx context.Context, tx *sql.Tx, k bootKey, mk mark, now time.Time) error {
	ahead, err := json.Marshal(mk.ahead)
	if err != nil {
		return err
	}
	since := int64(0)
	if !mk.since.IsZero() {
		since = mk.since.UnixNano()
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO marks (node, boot, through, ahead, gap_since, updated) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (node, boot) DO UPDATE SET through = excluded.through, ahead = excluded.ahead, gap_since = excluded.gap_since, updated = excluded.updated`,
		string(k.node), k.boot, int64(mk.through), string(ahead), since, now.UnixNano())
	return err
}

// add returns the mark with spans covered, and how many sequence numbers were new.
func (mk mark) add(spans []Span) (mark, uint64) {
	all := slices.Clone(mk.ahead)
	for _, s := range spans {
		if s.From >= 1 && s.From <= s.To {
			all = append(all, seqRange{s.From, s.To})
		}
	}
	slices.SortFunc(all, func(a, b seqRange) int { return slices.Compare(a[:], b[:]) })
	out := mark{through: mk.through}
	for _, r := range all {
		last := len(out.ahead) - 1
		switch {
		case r[0] <= out.through+1:
			out.through = max(out.through, r[1])
		case last >= 0 && r[0] <= out.ahead[last][1]+1:
			out.ahead[last][1] = max(out.ahead[last][1], r[1])
		default:
			out.ahead = append(out.ahead, r)
		}
	}
	out.ahead = out.ahead[:min(len(out.ahead), maxRanges)]
	return out, out.count() - min(out.count(), mk.count())
}

func (mk mark) count() uint64 {
	n := mk.through
	for _, r := range mk.ahead {
		n += r[1] - r[0] + 1
	}
	return n
}

func (m *marks) through(ctx context.Context, node fleet.NodeID, boot string) (uint64, error) {
	var n uint64
	err := m.db.QueryRowContext(ctx, `SELECT through FROM marks WHERE node = $1 AND boot = $2`, string(node), boot).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return n, err
}

// prune forgets boots that were silent for long.
func (m *marks) prune(ctx context.Context) error {
	before := m.now().Add(-keepMarks)
	if _, err := m.db.ExecContext(ctx, `DELETE FROM marks WHERE updated < $1`, before.UnixNano()); err != nil {
		return fmt.Errorf("forget watermarks: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, g := range m.gaps {
		if g.updated.Before(before) {
			delete(m.gaps, k)
		}
	}
	return nil
}
