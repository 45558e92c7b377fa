package hosts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/tls/issuance"
)

// bareClients order at one time: the CA makes each wait a second for its validation.
const bareClients = 64

// bareLimit bounds all of their orders, bareAccounts the making of their accounts.
const (
	bareLimit    = time.Minute
	bareAccounts = 20 * time.Second
)

// bareOrders is how many orders a second the CA itself takes.
func (r *run) bareOrders(ctx context.Context, w *world) (float64, error) {
	r.env.Say("orders at the CA by bare clients")
	ctx, cancel := context.WithTimeout(ctx, bareLimit)
	defer cancel()
	registering, registered := context.WithTimeout(ctx, bareAccounts)
	defer registered()
	clients := make([]*orderer, harness.Pick(r.env, bareClients, 16, 2))
	for i := range clients {
		var err error
		if clients[i], err = newOrderer(registering, w); err != nil {
			return 0, err
		}
	}
	var mu sync.Mutex
	next := 0
	out, err := harness.Load{
		Workers: len(clients), Warm: harness.Pick(r.env, 3*time.Second, time.Second, time.Second), For: harness.Pick(r.env, 15*time.Second, 3*time.Second, 3*time.Second),
		Do: func(ctx context.Context, worker, _ int) error {
			mu.Lock()
			next++
			name := fmt.Sprintf("www.order%06d.example", next)
			mu.Unlock()
			return clients[worker].order(ctx, w, fleet.HostName(name))
		},
	}.Run(ctx)
	if err != nil {
		return 0, err
	}
	if out.Count == 0 {
		return 0, errors.Join(fleet.NewError(fleet.ErrUnavailable, "orders", "no order succeeded, %d failed", out.Errors), out.First)
	}
	return out.Rate(), nil
}

// orderer is an ACME client with an account, and nothing around it.
type orderer struct {
	client  *acme.Client
	account acme.Account
}

func newOrderer(ctx context.Context, w *world) (*orderer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make account key: %w", err)
	}
	o := &orderer{client: &acme.Client{Directory: w.ca.Directory, HTTPClient: w.ca.HTTP, UserAgent: "loadtest"}}
	o.account, err = o.client.NewAccount(ctx, acme.Account{PrivateKey: key, TermsOfServiceAgreed: true})
	if err != nil {
		return nil, fmt.Errorf("make account: %w", err)
	}
	return o, nil
}

// order gets a certificate for a name by DNS-01.
func (o *orderer) order(ctx context.Context, w *world, host fleet.HostName) error {
	_, csr, _, err := issuance.NewKeyAndCSR(host)
	if err != nil {
		return err
	}
	order, err := o.client.NewOrder(ctx, o.account, acme.Order{Profile: "tlsserver", Identifiers: []acme.Identifier{{Type: "dns", Value: string(host)}}})
	if err != nil {
		return fmt.Errorf("new order: %w", err)
	}
	for _, url := range order.Authorizations {
		a, err := o.client.GetAuthorization(ctx, o.account, url)
		if err != nil {
			return fmt.Errorf("authorization: %w", err)
		}
		for _, c := range a.Challenges {
			if c.Type != acme.ChallengeTypeDNS01 {
				continue
			}
			if err := w.names.Set("_acme-challenge."+string(host), "TXT", c.DNS01KeyAuthorization()); err != nil {
				return err
			}
			if _, err := o.client.InitiateChallenge(ctx, o.account, c); err != nil {
				return fmt.Errorf("challenge: %w", err)
			}
		}
		if _, err := o.client.PollAuthorization(ctx, o.account, a); err != nil {
			return fmt.Errorf("validation: %w", err)
		}
	}
	if order, err = o.client.FinalizeOrder(ctx, o.account, order, csr); err != nil {
		return fmt.Errorf("finalize: %w", err)
	}
	if _, err := o.client.GetCertificateChain(ctx, o.account, order.Certificate); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	return nil
}
