package faulttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// Replace removes the victim through the API while another fault is on, and lets it join again under its id, with an empty
// directory.
const Replace Fault = "removal and return"

// underFaults are those under which a member is removed; they come to any member, the one that is removed among them.
var underFaults = []Fault{Isolate, Flap, Crash, Mute, Split, Deaf, Freeze}

// callLimit bounds one request of the harness.
const callLimit = 10 * time.Second

// replace carries out Replace. The member is killed once it is removed: it would end by itself when it is told.
func (p *Processes) replace(ctx context.Context, s Step, m *realMember) error {
	under, around := s, p.members[p.ids[s.Order[0]]]
	under.Fault = s.Under
	p.note("%s: %s of %s meanwhile", m.id, under.Fault, around.id)
	var meanwhile sync.WaitGroup
	var broken error
	meanwhile.Go(func() { broken = p.inflict(ctx, under, around) })
	whatever := context.WithoutCancel(ctx)
	gone := p.forget(whatever, m.id)
	p.note("%s: is removed: %v", m.id, gone == nil)
	meanwhile.Wait()
	if err := errors.Join(broken, gone); err != nil {
		return err
	}
	p.down(m)
	if err := p.anew(m); err != nil {
		return err
	}
	if err := p.await(whatever, "the return of "+string(m.id), func(ctx context.Context) error { return p.enter(ctx, m) }); err != nil {
		return err
	}
	p.note("%s: has joined again", m.id)
	return p.up(whatever, m)
}

// others are the members but for one.
func (p *Processes) others(than fleet.MemberID) (out []*realMember) {
	for _, id := range p.ids {
		if id != than {
			out = append(out, p.members[id])
		}
	}
	return out
}

// anyone asks members for something, one after another but for the one named, until one says how it is: 503 and silence
// say nothing. It returns the answer and who gave it.
func (p *Processes) anyone(ctx context.Context, but fleet.MemberID, q request, body any) (a answer, by *realMember, err error) {
	err = p.await(ctx, q.method+" "+q.path, func(ctx context.Context) error {
		var failed error
		for _, by = range p.others(but) {
			limit, cancel := context.WithTimeout(ctx, callLimit)
			a, failed = p.call(limit, nil, by.id, p.operator, q, body)
			cancel()
			if failed == nil && a.status < http.StatusInternalServerError && a.status != http.StatusTooManyRequests {
				return nil
			}
			if failed == nil {
				failed = fmt.Errorf("%w: %s answers %d %.300s", fleet.ErrUnavailable, by.id, a.status, a.body)
			}
		}
		return failed
	})
	return a, by, err
}

// forget removes a member, if it is there. While the others do not reach each other the cluster may refuse that.
func (p *Processes) forget(ctx context.Context, id fleet.MemberID) error {
	return p.await(ctx, "the removal of "+string(id), func(ctx context.Context) error {
		a, by, err := p.anyone(ctx, id, request{method: http.MethodDelete, path: "/v1/cluster/members/" + string(id), match: "*"}, nil)
		if err == nil && a.status >= http.StatusBadRequest && a.status != http.StatusNotFound {
			err = fmt.Errorf("%w: %s answers %d %.300s", fleet.ErrUnavailable, by.id, a.status, a.body)
		}
		return err
	})
}

// joining is what a program needs that joins: a token, and who takes it in.
func (p *Processes) joining(ctx context.Context, m *realMember) ([]string, error) {
	a, by, err := p.anyone(ctx, m.id, request{method: http.MethodPost, path: "/v1/join-tokens"}, client.JoinTokenCreate{Kind: fleet.JoinMember})
	if err == nil && a.status != http.StatusCreated {
		err = fmt.Errorf("%w: %s answers %d %.300s", fleet.ErrUnavailable, by.id, a.status, a.body)
	}
	var made client.JoinTokenCreated
	if err == nil {
		err = json.Unmarshal(a.body, &made)
	}
	if err != nil {
		return nil, fmt.Errorf("a token for %s: %w", m.id, err)
	}
	return []string{"join", "--config", m.config, "--token", made.Secret, "--address", net.JoinHostPort(by.host, portAPI)}, nil
}

// enter joins once, into an empty directory. One that failed may have made a member all the same, which is then removed.
func (p *Processes) enter(ctx context.Context, m *realMember) error {
	args, err := p.joining(ctx, m)
	if err != nil {
		return err
	}
	if _, err = p.env.Tool(ctx, "join-"+string(m.id), p.binary, args...); err != nil {
		return errors.Join(fmt.Errorf("join of %s: %w", m.id, err), p.anew(m), p.forget(ctx, m.id))
	}
	return nil
}
