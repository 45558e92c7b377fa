// Package reseal is the leader's loop that seals secrets anew after the key-encryption key was rotated, so that the key
// before can be dropped.
//
// It owns neither the keys (tls/keyring) nor the decision to rotate (package api). A secret that this leader cannot open
// waits, and the log says so; the others go on. The next leader goes on where this one stopped.
package reseal

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

const (
	// batch is how many secrets one command seals anew, a few hundred bytes each.
	batch = 128
	// batchBytes bounds the values of certmagic's storage in one command; a larger one stands alone.
	batchBytes = 256 << 10
	// pause bounds how often everything that is sealed is looked at: certificates and orders change all the time.
	pause = 5 * time.Second
)

// Loop is the loop.
type Loop struct {
	State    *state.Store
	Sealer   keyring.Sealer
	Proposer leader.Proposer
	Logger   *slog.Logger
	Now      func() time.Time
}

// Run blocks until ctx ends; an error is one of proposing.
func (l *Loop) Run(ctx context.Context) error {
	said := 0
	for {
		ws := l.State.Watch(state.Clusters, state.Certificates, state.Orders, state.Entries, state.OriginCerts)
		stuck, err := l.all(ctx)
		if err != nil {
			return err
		}
		if stuck.n != said && stuck.n > 0 {
			l.Logger.WarnContext(ctx, "secrets cannot be sealed anew: put the key that seals them back into kek_file", "secrets", stuck.n, "err", stuck.err)
		}
		said = stuck.n
		if ws.WatchCtx(ctx) != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// failure counts secrets that could not be opened, and keeps why the last was not.
type failure struct {
	n   int
	err error
}

// all seals anew what waits.
func (l *Loop) all(ctx context.Context) (failure, error) {
	for {
		b, failed := l.next(l.State.Read())
		n := len(b.Certificates) + len(b.Orders) + len(b.Entries) + len(b.Origins)
		if n == 0 || ctx.Err() != nil {
			return failed, nil
		}
		if _, err := l.Proposer.Propose(ctx, leader.Header("reseal", l.Now()), b); err != nil {
			return failed, fmt.Errorf("seal %d secrets anew: %w", n, err)
		}
	}
}

// next is what is to be sealed anew now, as much as one command takes.
func (l *Loop) next(v *state.View) (b command.SecretsReseal, failed failure) {
	c, _ := v.Cluster()
	b.KEK = c.KEK()
	n, size := 0, 0
	again := func(s fleet.Sealed, aad []byte, what string) (fleet.Sealed, bool) {
		if n == batch || size > batchBytes {
			return fleet.Sealed{}, false
		}
		sealed, err := l.again(s, aad)
		if err != nil {
			failed = failure{failed.n + 1, fmt.Errorf("seal %s anew: %w", what, err)}
			return sealed, false
		}
		n, size = n+1, size+len(sealed.Ciphertext)
		return sealed, true
	}
	waiting := v.NotSealedBy(b.KEK)
	for _, r := range waiting.Certificates {
		if key, ok := again(r.Key, keyring.CertKeyAAD(r.Tenant, r.Host, r.SPKI, r.Generation), "the key of "+string(r.Host)); ok {
			b.Certificates = append(b.Certificates, command.CertificateReseal{Host: r.Host, Generation: r.Generation, Key: key})
		}
	}
	for _, o := range waiting.Orders {
		if key, ok := again(o.Key, keyring.CertKeyAAD(o.Tenant, o.Host, o.SPKI, o.Generation), "the key of order "+string(o.ID)); ok {
			b.Orders = append(b.Orders, command.OrderReseal{ID: o.ID, Key: key})
		}
	}
	for _, o := range waiting.Origins {
		if key, ok := again(o.Key, keyring.OriginKeyAAD(o.OriginCert), "the key of "+string(o.Host)+" for "+o.Origin); ok {
			b.Origins = append(b.Origins, command.OriginCertReseal{Host: o.Host, Origin: o.Origin, Generation: o.Generation, Key: key})
		}
	}
	for _, e := range waiting.Entries {
		var was fleet.Sealed
		if err := fleet.DecodeStrict(e.Value, &was); err != nil {
			continue // it is not sealed: NotSealedBy does not list it
		}
		sealed, ok := again(was, keyring.StorageAAD(e.Key), e.Key)
		if !ok {
			continue
		}
		value, err := json.Marshal(sealed)
		if err != nil {
			failed = failure{failed.n + 1, fmt.Errorf("encode %s: %w", e.Key, err)}
			continue
		}
		b.Entries = append(b.Entries, command.EntryReseal{Key: e.Key, Was: fleet.DigestOf(e.Value), Value: value})
	}
	return b, failed
}

// again seals anew what s holds.
func (l *Loop) again(s fleet.Sealed, aad []byte) (fleet.Sealed, error) {
	plain, err := l.Sealer.Open(s, aad)
	if err != nil {
		return fleet.Sealed{}, err
	}
	defer clear(plain)
	return l.Sealer.Seal(plain, aad)
}
