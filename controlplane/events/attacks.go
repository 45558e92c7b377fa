package events

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// fragment is the part of an attack within one UTC day.
type fragment struct {
	group, day                    string
	first, last                   int64
	tenant, host, kind, parameter string
	hits, blocked                 int64
}

const fragmentColumns = "grp, day, first, last, tenant, host, type, parameter, hits, blocked"

// attackGap is fleet.AttackGap in nanoseconds.
const attackGap = int64(fleet.AttackGap)

func fragmentOf(ev fleet.Event) fragment {
	at := ev.Time.UnixNano()
	f := fragment{
		group: ev.AttackGroup(), day: dayOf(ev.Time), first: at, last: at, tenant: columnText(string(ev.Tenant)), host: columnText(string(ev.Host)),
		kind: columnText(string(ev.Type)), parameter: columnText(ev.Parameter), hits: 1,
	}
	if ev.Status == fleet.Blocked {
		f.blocked = f.hits
	}
	return f
}

// meets reports whether a hit of g is close enough to one of f: both are of one group.
func (f fragment) meets(g fragment) bool {
	return g.first <= f.last+attackGap && g.last >= f.first-attackGap
}

// join adds the hits of g to f.
func (f fragment) join(g fragment) fragment {
	if g.first < f.first {
		f.first, f.day = g.first, g.day
	}
	f.last = max(f.last, g.last)
	f.hits += g.hits
	f.blocked += g.blocked
	return f
}

func (f fragment) attack() fleet.Attack {
	first := time.Unix(0, f.first).UTC()
	return fleet.Attack{
		ID: fleet.NewAttackID(f.group, first), Tenant: fleet.TenantID(f.tenant), Host: fleet.HostName(f.host), Type: fleet.AttackType(f.kind), Parameter: f.parameter,
		First: first, Last: time.Unix(0, f.last).UTC(), Hits: uint64(max(0, f.hits)), Blocked: uint64(max(0, f.blocked)),
	}
}

// gatherHits makes fragments of hits, as few as they allow.
func gatherHits(fresh []fleet.Event) (all []fragment) {
	type key struct{ group, day string }
	byKey := map[key][]fragment{}
	for _, ev := range fresh {
		f := fragmentOf(ev)
		byKey[key{f.group, f.day}] = append(byKey[key{f.group, f.day}], f)
	}
	keys := slices.SortedFunc(maps.Keys(byKey), func(a, b key) int { return slices.Compare([]string{a.day, a.group}, []string{b.day, b.group}) })
	for _, k := range keys {
		hits := byKey[k]
		slices.SortFunc(hits, func(a, b fragment) int { return int(min(1, max(-1, a.first-b.first))) })
		f := hits[0]
		for _, h := range hits[1:] {
			if !f.meets(h) {
				all = append(all, f)
				f = h
				continue
			}
			f = f.join(h)
		}
		all = append(all, f)
	}
	return all
}

// fold enters hits that are new into the attacks of their days, in the transaction that stores them. What is there
// afterwards is the same in whatever order and batches they come.
func fold(ctx context.Context, tx *sql.Tx, fresh []fleet.Event) error {
	for _, f := range gatherHits(fresh) {
		near, err := fragments(ctx, tx, `SELECT `+fragmentColumns+` FROM attacks WHERE grp = $1 AND day = $2 AND first <= $3 AND last >= $4`,
			f.group, f.day, f.last+attackGap, f.first-attackGap)
		if err != nil {
			return err
		}
		for _, n := range near {
			f = f.join(n)
			if _, err := tx.ExecContext(ctx, `DELETE FROM attacks WHERE grp = $1 AND first = $2`, n.group, n.first); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO attacks (`+fragmentColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			f.group, f.day, f.first, f.last, f.tenant, f.host, f.kind, f.parameter, f.hits, f.blocked)
		if err != nil {
			return err
		}
	}
	return nil
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func fragments(ctx context.Context, db querier, query string, args ...any) (all []fragment, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var f fragment
		if err := rows.Scan(&f.group, &f.day, &f.first, &f.last, &f.tenant, &f.host, &f.kind, &f.parameter, &f.hits, &f.blocked); err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, rows.Err()
}

// AttackQuery selects attacks; zero fields but the tenant select all.
type AttackQuery struct {
	Tenant fleet.TenantID
	Host   fleet.HostName
	Type   fleet.AttackType
	// Since is the earliest last hit, Until the first one too late.
	Since, Until time.Time
	// Cursor is AttackPage.Next of the page before; the other fields must be the same.
	Cursor string
	// Limit bounds the page; DefaultLimit if 0, at most MaxLimit.
	Limit int
}

// AttackPage is one page of attacks, that with the latest hit first.
type AttackPage struct {
	Attacks []fleet.Attack
	Next    string
}

// attackCursor is the place of the last attack of a page.
type attackCursor struct {
	Last  int64  `json:"l"`
	Group string `json:"g"`
}

// Attacks returns a page of attacks.
func (s *Store) Attacks(ctx context.Context, q AttackQuery) (AttackPage, error) {
	plain, _, err := Query{Tenant: q.Tenant, Since: q.Since, Until: q.Until, Limit: q.Limit}.validate()
	if err != nil {
		return AttackPage{}, err
	}
	if q.Tenant == "" {
		return AttackPage{}, fleet.Invalid("tenant", "attacks are of one tenant: say which")
	}
	c, err := readCursor[attackCursor](q.Cursor)
	if err != nil {
		return AttackPage{}, err
	}
	if err := s.engine.ready(ctx); err != nil {
		return AttackPage{}, fmt.Errorf("query attacks: %w", err)
	}
	shards, release := s.engine.shards(firstDay, lastDay)
	defer release()
	l := attackList{q: q, c: c, limit: plain.Limit, shards: shards}
	for _, sh := range slices.Backward(shards) {
		if err := l.read(ctx, sh); err != nil {
			return AttackPage{}, fmt.Errorf("query attacks of %s: %w", sh.name, s.engine.fail(err))
		}
		if l.page.Next != "" {
			break
		}
	}
	if l.page.Attacks == nil {
		l.page.Attacks = []fleet.Attack{}
	}
	return l.page, nil
}

// attackList reads one page.
type attackList struct {
	q      AttackQuery
	c      attackCursor
	limit  int
	shards []shard
	page   AttackPage
}

// read adds the attacks that end in a shard, until the page is full.
func (l *attackList) read(ctx context.Context, sh shard) error {
	for {
		var w clauses
		w.add(true, "tenant = ?", columnText(string(l.q.Tenant)))
		w.add(l.q.Host != "", "host = ?", columnText(string(l.q.Host)))
		w.add(l.q.Type != "", "type = ?", columnText(string(l.q.Type)))
		w.add(!l.q.Since.IsZero(), "last >= ?", l.q.Since.UnixNano())
		w.add(!l.q.Until.IsZero(), "last < ?", l.q.Until.UnixNano())
		w.add(l.c.Group != "", "(last, grp) < (?, ?)", l.c.Last, l.c.Group)
		found, err := fragments(ctx, sh.db, "SELECT "+fragmentColumns+" FROM attacks"+w.String()+" ORDER BY last DESC, grp DESC LIMIT "+w.arg(MaxLimit), w.args...)
		if err != nil {
			return err
		}
		for _, f := range found {
			later, err := neighbours(ctx, l.shards, f, 1)
			if err != nil {
				return err
			}
			if len(later) == 0 { // else it was seen, or is not asked for, as part of what goes on after midnight
				if len(l.page.Attacks) == l.limit {
					l.page.Next, err = writeCursor(l.c)
					return err
				}
				if f, err = extend(ctx, l.shards, f, -1); err != nil {
					return err
				}
				l.page.Attacks = append(l.page.Attacks, f.attack())
			}
			l.c = attackCursor{f.last, f.group}
		}
		if len(found) < MaxLimit {
			return nil
		}
	}
}

// neighbours are the fragments of the day before (-1) or after (1) that are the same attack as f.
func neighbours(ctx context.Context, shards []shard, f fragment, direction int64) ([]fragment, error) {
	edge := f.last
	if direction < 0 {
		edge = f.first
	}
	day, next := dayOf(time.Unix(0, edge)), dayOf(time.Unix(0, edge+direction*attackGap))
	if day == next {
		return nil, nil
	}
	for _, sh := range shards {
		if sh.name != allDays && sh.name != next {
			continue
		}
		return fragments(ctx, sh.db, "SELECT "+fragmentColumns+" FROM attacks WHERE grp = $1 AND day = $2 AND first <= $3 AND last >= $4",
			f.group, next, f.last+attackGap, f.first-attackGap)
	}
	return nil, nil
}

// extend adds what came before (-1) or after (1) f, over as many midnights as there are.
func extend(ctx context.Context, shards []shard, f fragment, direction int64) (fragment, error) {
	for {
		more, err := neighbours(ctx, shards, f, direction)
		if err != nil || len(more) == 0 {
			return f, err
		}
		for _, m := range more {
			f = f.join(m)
		}
	}
}

// Attack returns the attack with a hit of that group at that time; one of another tenant is ErrNotFound too.
func (s *Store) Attack(ctx context.Context, tenant fleet.TenantID, id fleet.AttackID) (fleet.Attack, error) {
	notFound := fleet.NewError(fleet.ErrNotFound, "attack", "there is no attack %.100q", string(id))
	group, at, err := fleet.ParseAttackID(id)
	if err != nil {
		return fleet.Attack{}, notFound
	}
	if err := s.engine.ready(ctx); err != nil {
		return fleet.Attack{}, fmt.Errorf("get attack: %w", err)
	}
	shards, release := s.engine.shards(firstDay, lastDay)
	defer release()
	f, err := s.attackAt(ctx, shards, group, at)
	if err != nil {
		return fleet.Attack{}, fmt.Errorf("get attack: %w", s.engine.fail(err))
	}
	if f.hits == 0 || tenant != "" && f.tenant != string(tenant) {
		return fleet.Attack{}, notFound
	}
	return f.attack(), nil
}

// attackAt is the whole attack around a moment; none has no hits.
func (s *Store) attackAt(ctx context.Context, shards []shard, group string, at time.Time) (fragment, error) {
	for _, sh := range shards {
		if sh.name != allDays && sh.name != dayOf(at) {
			continue
		}
		found, err := fragments(ctx, sh.db, "SELECT "+fragmentColumns+" FROM attacks WHERE grp = $1 AND day = $2 AND first <= $3 AND last >= $4", group, dayOf(at), at.UnixNano(), at.UnixNano())
		if err != nil || len(found) == 0 {
			return fragment{}, err
		}
		f, err := extend(ctx, shards, found[0], -1)
		if err != nil {
			return fragment{}, err
		}
		return extend(ctx, shards, f, 1)
	}
	return fragment{}, nil
}
