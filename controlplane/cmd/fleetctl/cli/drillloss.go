package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// warmUp is how many writes are acknowledged before the loss, settled how many after it.
	warmUp  = 20
	settled = 50
	// markerTimeout bounds one request: a member that is dying must not hold up the measurement.
	markerTimeout = time.Second
	// markerPause is between two tries.
	markerPause = 10 * time.Millisecond
)

// toll is what a drill is to cost: the members of a region, or those that are named, and whether the quorum may go.
type toll struct {
	region   fleet.RegionName
	named    []string
	majority bool
}

// losses are the members that a drill kills, and how every member is reached by itself.
type losses struct {
	ids     []string
	each    map[fleet.MemberID]*client.Client
	options client.Options
	addrs   []string // of those that remain; of all voters, where no majority does
	// quorum says that no majority remains, which is the point.
	quorum bool
}

// victims names the members that are killed; those that have a token and never ran are none.
func (t toll) victims(c client.ClusterStatus, kind fleet.DrillKind) ([]string, error) {
	if kind == fleet.DrillLeaderLoss {
		if c.Leader == "" {
			return nil, fleet.NewError(fleet.ErrUnavailable, "leader", "there is no leader to lose: see 'fleetctl cluster status'")
		}
		return []string{string(c.Leader)}, nil
	}
	var there, regions []string
	named := t.named
	for _, m := range c.Members {
		if m.Suffrage != "voter" && m.Suffrage != "nonvoter" {
			continue
		}
		there, regions = append(there, string(m.ID)), append(regions, cmp.Or(string(m.Region), "none"))
		if t.region != "" && m.Region == t.region {
			named = append(named, string(m.ID))
		}
	}
	slices.Sort(regions)
	if len(named) == 0 {
		return nil, fleet.NewError(fleet.ErrNotFound, "region", "no member runs in region %s: the members name %s; 'region' of a member's configuration says it", t.region, list(slices.Compact(regions)))
	}
	named = slices.Sorted(slices.Values(named))
	for i, id := range named {
		if !slices.Contains(there, id) || i > 0 && named[i-1] == id {
			return nil, fleet.NewError(fleet.ErrNotFound, "members", "not each of %s is a member that runs in this cluster, named once: 'fleetctl cluster status' shows them", list(named))
		}
	}
	return named, nil
}

// plan says which members are killed, and refuses unless a majority that answers remains, or its loss is the point.
func (a *app) plan(ctx context.Context, c client.ClusterStatus, kind fleet.DrillKind, t toll) (*losses, error) {
	ids, err := t.victims(c, kind)
	if err != nil {
		return nil, err
	}
	o, _, err := a.clientOptions()
	if err != nil {
		return nil, err
	}
	o.Timeout, o.Key = markerTimeout, "" // each write has a key of its own
	l := &losses{ids: ids, each: map[fleet.MemberID]*client.Client{}, options: o}
	voters, remain := 0, 0
	var away, all []string
	for _, m := range c.Members {
		doomed := slices.Contains(ids, string(m.ID))
		if m.Suffrage != "voter" && !doomed {
			continue
		}
		o.Addrs, o.Timeout = []string{m.API}, 5*time.Second
		if l.each[m.ID], err = client.New(o); err != nil {
			return nil, err
		}
		if m.Suffrage != "voter" {
			continue
		}
		voters++
		all = append(all, m.API)
		if doomed {
			continue
		}
		if _, err := client.Get[client.ClusterStatus](ctx, l.each[m.ID], apiPath("cluster"), nil); err != nil {
			away = append(away, string(m.ID))
			continue
		}
		remain++
		l.addrs = append(l.addrs, m.API)
	}
	switch lost := 2*remain <= voters; {
	case lost && t.majority:
		l.quorum, l.addrs = true, all
	case lost && len(away) > 0:
		return nil, fleet.NewError(fleet.ErrConflict, "members", "without %s, and with %s not answering, %d of %d voters would remain, which is no majority: bring those back first", list(ids), list(away), remain, voters)
	case lost:
		return nil, fleet.NewError(fleet.ErrConflict, "members", "without %s, %d of %d voters would remain, which is no majority: the drill would be the disaster; --lose-majority says that it is meant", list(ids), remain, voters)
	}
	return l, nil
}

// loseMembers writes markers, kills members while it does, and goes on until writes are acknowledged again.
func (a *app) loseMembers(ctx context.Context, cmd *cobra.Command, s *session, kind fleet.DrillKind, t toll, yes bool) (fleet.Drill, error) {
	c, err := client.Get[client.ClusterStatus](ctx, s.Client, apiPath("cluster"), nil)
	if err != nil {
		return fleet.Drill{}, err
	}
	l, err := a.plan(ctx, c, kind, t)
	if err != nil {
		return fleet.Drill{}, err
	}
	what := "killing " + list(l.ids) + " of cluster"
	if l.quorum {
		what = "killing " + list(l.ids) + ", after which nothing can be written until they are back, of cluster"
	}
	if err := a.confirm(cmd, yes, what, string(c.ID)); err != nil {
		return fleet.Drill{}, err
	}
	w := &markers{losses: l, now: time.Now}
	l.options.Addrs = l.addrs
	if w.survivors, err = client.New(l.options); err != nil {
		return fleet.Drill{}, err
	}
	if w.drill, err = client.Post[fleet.Drill](ctx, s.Client, apiPath("drills"), client.DrillCreate{Kind: kind, Target: strings.Join(l.ids, ","), LoseMajority: l.quorum}); err != nil {
		return fleet.Drill{}, err
	}
	if err := w.run(ctx); err != nil {
		return w.drill, errors.Join(err, w.broken(ctx, err))
	}
	return w.finish(ctx)
}

// markers writes one number after the other into the record of the drill, each on condition that the one before is
// there: a write that was acknowledged and lost is found by the next.
type markers struct {
	*losses
	survivors   *client.Client
	drill       fleet.Drill
	acked, lost int
	// last is when a write was acknowledged last, gap the longest time between two since the loss.
	last time.Time
	gap  time.Duration
	now  func() time.Time
}

func (w *markers) run(ctx context.Context) error {
	for _, id := range w.ids { // before anything dies: all of them, or none
		if err := w.crash(ctx, id, true); err != nil {
			return err
		}
	}
	for w.acked < warmUp {
		if err := w.write(ctx); err != nil {
			return err
		}
	}
	w.gap = 0
	killed := make(chan error, len(w.ids)) // room for all of them, whoever still listens
	for _, id := range w.ids {
		go func() { killed <- w.crash(ctx, id, false) }()
	}
	dying, target := len(w.ids), 0
	for dying > 0 || w.acked < target {
		select {
		case err := <-killed:
			if err != nil {
				return err
			}
			dying, target = dying-1, w.acked+settled
		default:
		}
		if err := w.write(ctx); err != nil {
			return err
		}
	}
	return nil
}

// crash kills a member, or asks whether it would let itself be killed. One that dies before it answers has done so.
func (w *markers) crash(ctx context.Context, id string, check bool) error {
	err := w.each[fleet.MemberID(id)].Do(ctx, http.MethodPost, apiPath("cluster", "members", id, "crash"), nil, client.MemberCrash{Drill: w.drill.ID, Check: check}, nil, client.Unrepeatable())
	if !check && errors.Is(err, fleet.ErrOutcomeUnknown) {
		return nil
	}
	return err
}

// write makes one acknowledged write, however many tries it takes.
func (w *markers) write(ctx context.Context) error {
	next := w.drill
	next.Marker++
	for ctx.Err() == nil {
		var got fleet.Drill
		err := w.survivors.Do(ctx, http.MethodPatch, apiPath("drills", next.ID), nil, client.DrillUpdate{Drill: next}, &got, client.IfMatch(next))
		if err == nil {
			w.acknowledged(got)
			return nil
		}
		if errors.Is(err, fleet.ErrDenied) || errors.Is(err, fleet.ErrUnauthenticated) || errors.Is(err, fleet.ErrInvalid) {
			return err
		}
		// Whether it was written is not known: what is there says it.
		now, err := client.Get[fleet.Drill](ctx, w.survivors, apiPath("drills", next.ID), nil)
		switch {
		case errors.Is(err, fleet.ErrNotFound): // the whole record, with everything that was acknowledged
			w.lost += int(w.drill.Marker) + 1 //nolint:gosec // a count of this run
			return fleet.NewError(fleet.ErrCorrupt, "drill", "drill %s was acknowledged and does not exist any more: %d writes are lost", next.ID, w.lost)
		case err != nil:
			pause(ctx, markerPause)
			continue
		case now.Marker == next.Marker:
			w.acknowledged(now)
			return nil
		case now.Marker < w.drill.Marker: // acknowledged, and gone
			w.lost += int(w.drill.Marker - now.Marker) //nolint:gosec // a count of this run
		}
		w.drill, next = now, now
		next.Marker++
	}
	return fleet.NewError(fleet.ErrTimeout, "timeout", "no write was acknowledged for %s: the fleet did not come back in time; see 'fleetctl cluster status'", w.now().Sub(w.last).Round(time.Millisecond))
}

func (w *markers) acknowledged(d fleet.Drill) {
	at := w.now()
	if !w.last.IsZero() {
		w.gap = max(w.gap, at.Sub(w.last))
	}
	w.drill, w.last = d, at
	w.acked++
}

// finish records the result, when the members that were killed are back or the time is over.
func (w *markers) finish(ctx context.Context) (fleet.Drill, error) {
	d := w.drill
	d.State, d.RTO, d.Acknowledged, d.Lost = fleet.DrillPassed, w.gap.Milliseconds(), w.acked, w.lost
	if w.lost > 0 {
		d.State, d.RPO = fleet.DrillFailed, d.RTO
	}
	back := 0
	for _, id := range w.ids {
		for ctx.Err() == nil {
			if _, err := client.Get[client.ClusterStatus](ctx, w.each[fleet.MemberID(id)], apiPath("cluster"), nil); err == nil {
				back++
				break
			}
			pause(ctx, 20*markerPause)
		}
	}
	d.Detail = fmt.Sprintf("%d of %d killed members are back", back, len(w.ids))
	if w.quorum {
		d.Detail += "; the quorum was lost, which was the point"
	}
	return w.record(ctx, d)
}

// broken records that a drill was broken off.
func (w *markers) broken(ctx context.Context, why error) error {
	d := w.drill
	text := why.Error()
	d.State, d.Acknowledged, d.Lost, d.Detail = fleet.DrillFailed, w.acked, w.lost, text[:min(len(text), 500)]
	_, err := w.record(ctx, d)
	return err
}

// record writes the result, also when the time is over.
func (w *markers) record(ctx context.Context, d fleet.Drill) (fleet.Drill, error) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for {
		out, last := fleet.Drill{}, d
		err := w.survivors.Do(end, http.MethodPatch, apiPath("drills", d.ID), nil, client.DrillUpdate{Drill: d}, &out, client.IfMatch(d))
		if err == nil {
			return out, nil
		}
		if now, gone := client.Get[fleet.Drill](end, w.survivors, apiPath("drills", d.ID), nil); gone == nil {
			if now.State != fleet.DrillRunning {
				return now, nil
			}
			d.Meta = now.Meta // a marker may have arrived late
		}
		if !pause(end, markerPause) {
			return last, fmt.Errorf("record drill %s: %w", d.ID, err)
		}
	}
}
