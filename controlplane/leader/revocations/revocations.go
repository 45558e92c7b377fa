// Package revocations is the leader's loop that has certificate authorities revoke certificates: those of which somebody
// asked for it, and those whose private key was on a node that was stolen, each as soon as its successor is served.
//
// It owns when and how often it is tried. What is to be revoked is in the state (package fsm puts it there, in one step
// with the successor), and so is how often it failed: a new leader goes on, and revoking twice does no harm. While the
// authority is away, it is tried again, until the certificate ends; then the revocation is forgotten.
package revocations

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// idle is how often it is looked for certificates that ended.
	idle = time.Hour
	// pause bounds how often hosts are looked at, which change all the time.
	pause = time.Second
	// maxProblem bounds what is kept of the authority's words.
	maxProblem = 512
)

// waits are the pauses after the first failed attempts; the last is that of all others.
var waits = []time.Duration{time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour}

// Authority revokes certificates; issuance.Issuer is one.
type Authority interface {
	// Revoke revokes the certificate of a chain (PEM); one that is revoked already is no error.
	Revoke(ctx context.Context, chain []byte, reason fleet.RevocationReason) error
}

// Loop is the loop.
type Loop struct {
	State    *state.Store
	Proposer leader.Proposer
	// Authority is the one with that directory; the first one if the directory is not known.
	Authority func(directory string) Authority
	Logger    *slog.Logger
	Now       func() time.Time
}

// Run blocks until ctx ends or a proposal fails.
func (l *Loop) Run(ctx context.Context) error {
	watch := func() func(context.Context) error { return l.State.Watch(state.Revocations, state.Hosts).WatchCtx }
	return leader.Follow(ctx, pause, watch, l.step)
}

// step does what is due and returns how long there will be nothing to do, unless something changes.
func (l *Loop) step(ctx context.Context) (time.Duration, error) {
	v, wait := l.State.Read(), idle
	for _, r := range v.Revocations() {
		now := l.Now()
		h, exists := v.Host(r.Host)
		switch {
		case !now.Before(r.NotAfter):
			if err := l.propose(ctx, command.RevocationPut{ID: r.ID, Forget: true}); err != nil {
				return 0, err
			}
		case r.State == fleet.RevocationDone || !r.Served(h, exists):
		case r.NextAttempt.After(now):
			wait = min(wait, r.NextAttempt.Sub(now))
		default:
			next, err := l.revoke(ctx, r)
			if err != nil {
				return 0, err
			}
			wait = min(wait, next)
		}
	}
	return wait, nil
}

// revoke makes one attempt; what it returns is when the next is due.
func (l *Loop) revoke(ctx context.Context, r fleet.RevocationRecord) (time.Duration, error) {
	err := l.Authority(r.Authority).Revoke(ctx, []byte(r.Chain), r.Reason)
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	log := l.Logger.With("host", string(r.Host), "tenant", string(r.Tenant), "serial", r.Serial, "generation", r.Generation, "reason", string(r.Reason))
	if err == nil {
		log.InfoContext(ctx, "certificate revoked")
		return idle, l.propose(ctx, command.RevocationPut{ID: r.ID, Revoked: true, Attempts: r.Attempts})
	}
	wait := waits[min(r.Attempts, len(waits)-1)]
	wait += time.Duration(rand.Int64N(int64(wait/4) + 1))
	log.WarnContext(ctx, "certificate not revoked", "attempts", r.Attempts+1, "err", err)
	text := err.Error()
	return wait, l.propose(ctx, command.RevocationPut{ID: r.ID, Attempts: r.Attempts + 1, NextAttempt: l.Now().Add(wait), Problem: text[:min(len(text), maxProblem)]})
}

// propose commits b. What changed or went away in the meantime is no error: the next step sees it.
func (l *Loop) propose(ctx context.Context, b command.RevocationPut) error {
	_, err := l.Proposer.Propose(ctx, leader.Header("revocations", l.Now()), b)
	if err == nil || errors.Is(err, fleet.ErrNotFound) || errors.Is(err, fleet.ErrConflict) {
		return nil
	}
	return fmt.Errorf("store revocation %s: %w", b.ID, err)
}
