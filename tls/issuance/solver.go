package issuance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/edgefleet/edgefleet/fleet"
)

// cleanUpTimeout bounds withdrawing an answer after the order is over, whatever became of the order's context.
const cleanUpTimeout = 10 * time.Second

// flow is one call of Issue as certmagic's callbacks see it: they get its context and nothing else of ours.
type flow struct {
	host   fleet.HostName
	tenant fleet.TenantID

	mu         sync.Mutex
	pending    map[string]fleet.Challenge // presented and not cleaned up, by token
	local      error                      // the first error of the presenter or the storage, which certmagic would flatten to text
	retryAfter time.Duration
}

type flowKey struct{}

func flowOf(ctx context.Context) (*flow, error) {
	f, ok := ctx.Value(flowKey{}).(*flow)
	if !ok {
		return nil, errors.New("challenge outside an order") // certmagic lost the context: an error in the program
	}
	return f, nil
}

// fail remembers err and returns it.
func (f *flow) fail(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.local == nil {
		f.local = err
	}
	return err
}

func (f *flow) failure() (retryAfter time.Duration, local error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.retryAfter, f.local
}

func (f *flow) present(ctx context.Context, p Presenter, via fleet.ChallengeType, token, response string) error {
	c := fleet.Challenge{Type: via, Host: f.host, Tenant: f.tenant, Token: token, Response: response, CreatedAt: time.Now().UTC()}
	f.mu.Lock()
	f.pending[token] = c
	f.mu.Unlock()
	if err := p.Present(ctx, c); err != nil {
		return f.fail(fmt.Errorf("present %s challenge: %w", via, err))
	}
	return nil
}

// cleanUp withdraws every answer of the flow: an order here has one name and so one challenge.
func (f *flow) cleanUp(ctx context.Context, p Presenter) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	f.mu.Lock()
	pending := f.pending
	f.pending = map[string]fleet.Challenge{}
	f.mu.Unlock()
	var errs []error
	for _, c := range pending {
		errs = append(errs, p.CleanUp(ctx, c))
	}
	return errors.Join(errs...)
}

// dnsSolver is the acmez.Solver for DNS-01.
type dnsSolver struct{ presenter Presenter }

// Present publishes the TXT value.
func (s dnsSolver) Present(ctx context.Context, c acme.Challenge) error {
	f, err := flowOf(ctx)
	if err != nil {
		return err
	}
	return f.present(ctx, s.presenter, fleet.ChallengeDNS01, c.Token, c.DNS01KeyAuthorization())
}

// CleanUp withdraws it.
func (s dnsSolver) CleanUp(ctx context.Context, _ acme.Challenge) error {
	f, err := flowOf(ctx)
	if err != nil {
		return err
	}
	return f.cleanUp(ctx, s.presenter)
}

// tokens is part of the keys under which certmagic's distributed solver leaves HTTP-01 challenges for other machines.
const tokens = "/challenge_tokens/"

// storage is certmagic's storage with HTTP-01 taken out of it: storing a challenge presents it, deleting it cleans up,
// and nothing of it is kept. The rest goes to the Storage of the Options.
type storage struct {
	certmagic.Storage
	presenter Presenter
}

// Store presents a challenge, or stores.
func (s storage) Store(ctx context.Context, key string, value []byte) error {
	f, err := flowOf(ctx)
	if err != nil {
		return err
	}
	if !strings.Contains(key, tokens) {
		if err := s.Storage.Store(ctx, key, value); err != nil {
			return f.fail(err)
		}
		return nil
	}
	var c acme.Challenge
	if err := json.Unmarshal(value, &c); err != nil {
		return f.fail(fmt.Errorf("decode challenge: %w", err))
	}
	return f.present(ctx, s.presenter, fleet.ChallengeHTTP01, c.Token, c.KeyAuthorization)
}

// Load loads; challenges are not there.
func (s storage) Load(ctx context.Context, key string) ([]byte, error) {
	if strings.Contains(key, tokens) {
		return nil, fs.ErrNotExist
	}
	f, err := flowOf(ctx)
	if err != nil {
		return nil, err
	}
	b, err := s.Storage.Load(ctx, key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, f.fail(err)
	}
	return b, err
}

// Delete cleans a challenge up, or deletes.
func (s storage) Delete(ctx context.Context, key string) error {
	if !strings.Contains(key, tokens) {
		return s.Storage.Delete(ctx, key)
	}
	f, err := flowOf(ctx)
	if err != nil {
		return err
	}
	return f.cleanUp(ctx, s.presenter)
}

// heard takes Retry-After from an answer that is an error.
func (f *flow) heard(status int, h http.Header) {
	if status < http.StatusBadRequest {
		return
	}
	after := h.Get("Retry-After")
	d := time.Duration(0)
	if seconds, err := strconv.ParseUint(after, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(after); err == nil {
		d = max(0, time.Until(at))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retryAfter = d
}
