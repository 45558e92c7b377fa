package issuance

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// cleanUpTimeout bounds withdrawing an answer after the order is over, whatever became of the order's context.
	cleanUpTimeout = 10 * time.Second
	// processing is the pause between looks at an order that the CA works on.
	processing = time.Second
)

// flow is one call of Issue.
type flow struct {
	issuer  *Issuer
	request Request
	csr     *x509.CertificateRequest
	via     fleet.ChallengeType
	// local is the first error that is ours and not the CA's.
	local error
	// ended: what the CA had of this request is over, the next attempt begins anew.
	ended bool
	with  acme.Account

	mu         sync.Mutex
	retryAfter time.Duration
	record     bool
	recorded   answer
}

type flowKey struct{}

// fail remembers err and returns it.
func (f *flow) fail(err error) error {
	if f.local == nil {
		f.local = err
	}
	return err
}

// run takes the order from where it stands to the certificate.
func (f *flow) run(ctx context.Context) ([]byte, error) {
	var err error
	if f.with, err = f.account(ctx); err != nil {
		return nil, err
	}
	d, err := f.issuer.dir(ctx)
	if err != nil {
		return nil, err
	}
	o, err := f.order(ctx, d)
	var p acme.Problem
	if errors.As(err, &p) && p.Type == acme.ProblemTypeAccountDoesNotExist {
		// The CA lost the account, as test CAs do at each start: it is made again, with the same key.
		if f.with, err = f.register(ctx, f.with.PrivateKey); err == nil {
			err = f.storeAccount(ctx, f.with)
		}
		if err != nil {
			return nil, err
		}
		o, err = f.order(ctx, d)
	}
	if err != nil {
		return nil, err
	}
	if o.Status == acme.StatusPending {
		if err := f.solve(ctx, o); err != nil {
			return nil, err
		}
	}
	if o, err = f.finalize(ctx, o); err != nil {
		return nil, err
	}
	return f.download(ctx, o)
}

// order is the order of the request: the one that is stored, the one that the CA made for a caller that could not store
// it any more, or a new one.
func (f *flow) order(ctx context.Context, d acme.Directory) (acme.Order, error) {
	r := f.request
	if r.URL != "" {
		o, err := f.issuer.client.GetOrder(ctx, f.with, acme.Order{Location: r.URL})
		if err == nil && o.Status != acme.StatusInvalid {
			return o, nil
		}
		if err != nil && !gone(err) {
			return o, err
		}
	} else if r.Asked {
		o, ok, err := f.lost(ctx)
		if err != nil {
			return o, err
		}
		if ok {
			return o, f.save(ctx, o.Location)
		}
	}
	return f.newOrder(ctx, d)
}

func (f *flow) newOrder(ctx context.Context, d acme.Directory) (acme.Order, error) {
	r := f.request
	profile, err := f.issuer.profile(d)
	if err != nil {
		return acme.Order{}, f.fail(err)
	}
	want := acme.Order{Profile: profile, Identifiers: []acme.Identifier{{Type: "dns", Value: f.csr.DNSNames[0]}}}
	if r.Replaces != "" && d.RenewalInfo != "" {
		if leaf, err := parseLeaf([]byte(r.Replaces)); err == nil {
			want.Replaces, _ = acme.ARIUniqueIdentifier(leaf) // a certificate without it is renewed as any other
		}
	}
	if err := f.save(ctx, ""); err != nil {
		return want, err
	}
	o, err := f.issuer.client.NewOrder(ctx, f.with, want)
	var p acme.Problem
	if want.Replaces != "" && errors.As(err, &p) && unreplaceable(p) {
		want.Replaces = ""
		o, err = f.issuer.client.NewOrder(ctx, f.with, want)
	}
	if err != nil {
		return o, fmt.Errorf("new order: %w", err)
	}
	if o.Location == "" {
		return o, errors.New("new order: the CA names no order URL")
	}
	return o, f.save(ctx, o.Location)
}

// unreplaceable reports whether the CA may take the order without naming what it replaces: it was replaced already, or
// the CA does not know it.
func unreplaceable(p acme.Problem) bool {
	return p.Type == acme.ProblemTypeAlreadyReplaced || p.Type == acme.ProblemTypeMalformed ||
		p.Type == acme.ProblemTypeServerInternal || p.Type == acme.ProblemTypeUnauthorized
}

func (f *flow) save(ctx context.Context, url string) error {
	if err := f.request.Save(ctx, true, url); err != nil {
		return f.fail(fmt.Errorf("store order of %s: %w", f.request.Host, err))
	}
	return nil
}

// gone reports whether the CA does not know the order any more.
func gone(err error) bool {
	var p acme.Problem
	return errors.As(err, &p) && (p.Status == http.StatusNotFound || p.Status == http.StatusGone || p.Type == acme.ProblemTypeMalformed)
}

// solve proves control of the name.
func (f *flow) solve(ctx context.Context, o acme.Order) error {
	if len(o.Authorizations) != 1 {
		return fmt.Errorf("the CA wants %d authorizations for one name", len(o.Authorizations))
	}
	c := f.issuer.client
	a, err := c.GetAuthorization(ctx, f.with, o.Authorizations[0])
	if err != nil || a.Status == acme.StatusValid {
		return err
	}
	challenge, withdraw, err := f.present(ctx, a)
	if err != nil {
		return err
	}
	defer withdraw()
	if challenge.Status == "" || challenge.Status == acme.StatusPending {
		if _, err := c.InitiateChallenge(ctx, f.with, challenge); err != nil {
			return fmt.Errorf("initiate challenge: %w", err)
		}
	}
	if _, err = c.PollAuthorization(ctx, f.with, a); err != nil {
		return fmt.Errorf("validate: %w", err)
	}
	return nil
}

// present makes the first of the challenges answerable that can be.
func (f *flow) present(ctx context.Context, a acme.Authorization) (acme.Challenge, func(), error) {
	var late error
	for _, via := range f.request.Via {
		for _, c := range a.Challenges {
			if c.Type != string(via) {
				continue
			}
			withdraw, err := f.answer(ctx, via, c)
			if errors.Is(err, fleet.ErrTimeout) {
				late = err
				continue
			}
			return c, withdraw, err
		}
	}
	if late != nil {
		return acme.Challenge{}, nil, f.fail(late)
	}
	f.ended = true
	return acme.Challenge{}, nil, fmt.Errorf("the CA offers none of the challenges %v for %s", f.request.Via, f.request.Host)
}

func (f *flow) answer(ctx context.Context, via fleet.ChallengeType, c acme.Challenge) (withdraw func(), err error) {
	f.via = via
	response := c.KeyAuthorization
	if via == fleet.ChallengeDNS01 {
		response = c.DNS01KeyAuthorization()
	}
	p := f.issuer.o.Challenges
	answer := fleet.Challenge{Type: via, Host: f.request.Host, Tenant: f.request.Tenant, Token: c.Token, Response: response, CreatedAt: time.Now().UTC()}
	withdraw = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
		defer cancel()
		if err := p.CleanUp(ctx, answer); err != nil {
			f.issuer.o.Telemetry.Logger.WarnContext(ctx, "challenge not withdrawn", "host", string(f.request.Host), "err", err)
		}
	}
	if err := p.Present(ctx, answer); err != nil {
		withdraw()
		err = fmt.Errorf("present %s challenge: %w", via, err)
		if !errors.Is(err, fleet.ErrTimeout) {
			f.fail(err) //nolint:errcheck // remembered; it is returned below
		}
		return nil, err
	}
	return withdraw, nil
}

// finalize hands the signing request in, unless that was done, and waits for the certificate.
func (f *flow) finalize(ctx context.Context, o acme.Order) (acme.Order, error) {
	c := f.issuer.client
	for {
		switch o.Status {
		case acme.StatusValid:
			return o, nil
		case acme.StatusInvalid:
			f.ended = true
			if o.Error != nil {
				return o, fmt.Errorf("the order is invalid: %w", *o.Error)
			}
			return o, errors.New("the CA calls the order invalid and does not say why")
		case acme.StatusProcessing:
			select {
			case <-time.After(processing):
			case <-ctx.Done():
				return o, context.Cause(ctx)
			}
		default:
			done, err := c.FinalizeOrder(ctx, f.with, o, f.csr.Raw)
			if err != nil {
				return o, fmt.Errorf("finalize: %w", err)
			}
			o = done
			continue
		}
		var err error
		if o, err = c.GetOrder(ctx, f.with, o); err != nil {
			return o, fmt.Errorf("look at order: %w", err)
		}
	}
}

func (f *flow) download(ctx context.Context, o acme.Order) ([]byte, error) {
	chains, err := f.issuer.client.GetCertificateChain(ctx, f.with, o.Certificate)
	if err != nil {
		return nil, fmt.Errorf("download certificate: %w", err)
	}
	if len(chains) == 0 {
		return nil, errors.New("the CA has no certificate for the order")
	}
	if err := fits(chains[0].ChainPEM, f.csr); err != nil {
		f.ended = true
		return nil, err
	}
	return chains[0].ChainPEM, nil
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
