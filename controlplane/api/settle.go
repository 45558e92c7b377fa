package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// settleTimeout is how long the end of a token waits for the other members.
const settleTimeout = 3 * time.Second

func (a *API) registerSettle() {
	handle(a, op("cluster-settle", http.MethodPost, "/v1/cluster/settle", "Wait until this member's state includes an index, and end what ended with it", membersOnly, fleet.PermMember, fleet.DutyAccess).locally().answering(http.StatusOK), a.settleHere)
	handle(a, op("cluster-token-uses", http.MethodPost, "/v1/cluster/token-uses", "A member tells the leader when tokens were used", membersOnly, fleet.PermMember, fleet.DutyAccess).answering(http.StatusOK), a.tokenUses)
}

func (a *API) settleHere(ctx context.Context, in *Input[client.Settle]) (*Body[Empty], error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		ws := a.o.State.Watch(state.Applied)
		if a.view().Index() >= in.Body.Index {
			a.sweep()
			return &Body[Empty]{}, nil
		}
		if ws.WatchCtx(ctx) != nil {
			return nil, fleet.NewError(fleet.ErrTimeout, "index", "member %s has not applied index %d yet", a.o.Member, in.Body.Index)
		}
	}
}

// settle returns when every member that can be reached includes index: from then on, none accepts what ended there. A
// member that did not confirm in time accepts it for reads of stale data at most, until it hears from the leader again.
func (a *API) settle(ctx context.Context, index uint64) client.Settled {
	a.sweep()
	ctx, cancel := context.WithTimeout(ctx, a.settleTimeout)
	defer cancel()
	out := client.Settled{Confirmed: []fleet.MemberID{a.o.Member}, Unconfirmed: []fleet.MemberID{}}
	suffrage, err := a.o.Consensus.Suffrage()
	if err != nil {
		a.o.Telemetry.Logger.WarnContext(ctx, "members of the Raft configuration", "err", err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range a.view().Members() {
		if m.ID == a.o.Member || suffrage[m.ID] == "" && err == nil {
			continue
		}
		wg.Go(func() {
			err := a.peer(ctx, m, "/v1/cluster/settle", client.Settle{Index: index})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				a.o.Telemetry.Logger.WarnContext(ctx, "a member did not confirm the end of a token", "member", m.ID, "index", index, "err", err)
				out.Unconfirmed = append(out.Unconfirmed, m.ID)
				return
			}
			out.Confirmed = append(out.Confirmed, m.ID)
		})
	}
	wg.Wait()
	slices.Sort(out.Confirmed)
	slices.Sort(out.Unconfirmed)
	return out
}

// peer posts to another member, as a member.
func (a *API) peer(ctx context.Context, to fleet.Member, path string, in any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+to.API+path, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := a.o.Forward.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%w: member %s: %w", fleet.ErrUnavailable, to.ID, err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%w: member %s answered %s: %.200s", fleet.ErrUnavailable, to.ID, res.Status, answer)
	}
	return err
}

// uses remembers when tokens were used since it was last written down.
type uses struct {
	mu   sync.Mutex
	seen map[fleet.TokenID]time.Time
}

// maxUses bounds the tokens in one report.
const maxUses = 10_000

// usesGrain is how exactly the last use of a token is known.
const usesGrain = 5 * time.Minute

func (u *uses) saw(id fleet.TokenID, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, known := u.seen[id]; known || len(u.seen) < maxUses {
		u.seen[id] = at
	}
}

func (u *uses) take() map[fleet.TokenID]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen := u.seen
	u.seen = map[fleet.TokenID]time.Time{}
	return seen
}

// WriteUses writes down when tokens were used at this member: in one command, if there is something new to say. What
// cannot be told now is kept for the next time.
func (a *API) WriteUses(ctx context.Context) error {
	seen, v := a.uses.take(), a.view()
	var b client.TokenUses
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		if rec, ok := v.Token(id); ok && seen[id].Sub(rec.LastUsedAt) >= usesGrain {
			b.Uses = append(b.Uses, client.TokenUse{ID: id, At: seen[id].UTC().Truncate(time.Second)})
		}
	}
	if len(b.Uses) == 0 {
		return nil
	}
	leader, self := a.o.Consensus.Leader()
	m, known := v.Member(leader)
	var err error
	switch {
	case self:
		err = a.proposeUses(ctx, b)
	case known:
		err = a.peer(ctx, m, "/v1/cluster/token-uses", b)
	default:
		err = fleet.NewError(fleet.ErrUnavailable, "", "there is no leader")
	}
	if err != nil {
		for id, at := range seen {
			a.uses.saw(id, at)
		}
	}
	return err
}

func (a *API) tokenUses(ctx context.Context, in *Input[client.TokenUses]) (*Body[Empty], error) {
	return &Body[Empty]{}, a.proposeUses(ctx, in.Body)
}

func (a *API) proposeUses(ctx context.Context, in client.TokenUses) error {
	if len(in.Uses) > maxUses {
		return fleet.NewError(fleet.ErrTooLarge, "uses", "%d uses; the limit is %d", len(in.Uses), maxUses)
	}
	var b command.TokensUsed
	now := a.o.Now()
	for _, u := range in.Uses {
		if u.At.Before(now.Add(fleet.MaxClockSkew)) {
			b.Uses = append(b.Uses, command.TokenUse{ID: u.ID, At: u.At})
		}
	}
	h := command.Header{Time: now.UTC(), Actor: fleet.Actor{Name: cmp.Or(callerOf(ctx).identity(), "member/"+string(a.o.Member)), Party: fleet.Vendor}}
	_, err := a.o.Consensus.Propose(ctx, h, b)
	return err
}
