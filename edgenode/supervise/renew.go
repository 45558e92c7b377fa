package supervise

import (
	"context"
	"crypto/x509"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/identity"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// renewals keeps the node's certificate fresh.
type renewals struct {
	options Options
	id      *identity.Identity
}

// run renews at half of the certificate's life, and tries again until it succeeds. The node serves meanwhile in any case.
func (r renewals) run(ctx context.Context) {
	log := r.options.Telemetry.Logger
	wait, spread := renewRetry, rand.Float64()
	for {
		leaf := r.id.Source.Certificate().Leaf
		if !until(ctx, time.Now, renewAt(leaf, spread)) {
			return
		}
		if err := r.renew(ctx); err != nil {
			log.WarnContext(ctx, "node certificate not renewed, trying again", "after", wait, "valid_until", leaf.NotAfter.UTC().Format(time.RFC3339), "err", err)
			if !pause(ctx, wait) {
				return
			}
			wait = min(2*wait, renewRetryMax)
			continue
		}
		wait = renewRetry
		log.InfoContext(ctx, "node certificate renewed", "valid_until", r.id.Source.Certificate().Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
}

// renewAt is half of the certificate's life, and spread of a sixteenth of it later.
func renewAt(leaf *x509.Certificate, spread float64) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(life/2 + time.Duration(spread*float64(life)/16))
}

// until waits for a moment of the host's clock; false when ctx ended.
func until(ctx context.Context, now func() time.Time, at time.Time) bool {
	for {
		left := at.Sub(now())
		if left <= 0 {
			return ctx.Err() == nil
		}
		if !pause(ctx, min(left, clockCheck)) {
			return false
		}
	}
}

// renew gets a certificate for a new key. The key before signs the request, so that a certificate which ended while the
// machine was away is no obstacle; the connection itself proves nothing.
func (r renewals) renew(ctx context.Context) error {
	dir := r.options.Settings.IdentityDir()
	keyPEM, err := identity.NextKey(dir)
	if err != nil {
		return err
	}
	csr, err := csrOf(keyPEM)
	if err != nil {
		return err
	}
	trust := r.id.Trust
	request, err := mtls.SignRenewal(r.id.Source.Certificate(), trust.Cluster, trust.Node, csr, time.Now())
	if err != nil {
		return err
	}
	client := newAPI(mtls.ClientTLS(nil, r.id.API, "", nil))
	defer client.close()
	var answer fleet.EnrolResponse
	if err := client.postAny(ctx, r.addresses(), "/v1/edge/renew", request, &answer); err != nil {
		return err
	}
	if answer.Node != trust.Node || answer.Cluster != trust.Cluster {
		return fleet.NewError(fleet.ErrDenied, "identity", "the answer is for node %s of cluster %s", answer.Node, answer.Cluster)
	}
	if err := identity.Renew(dir, keyPEM, answer); err != nil {
		return err
	}
	return r.id.Source.Reload()
}

// addresses are all known API addresses: learned by the worker's session, told at enrolment, configured.
func (r renewals) addresses() []string {
	var out []string
	for _, list := range [][]fleet.Endpoints{identity.LearnedMembers(r.options.Settings.SessionDir()), identity.UsableMembers(r.id.Trust.Members)} {
		for _, e := range list {
			out = append(out, e.API)
		}
	}
	out = append(out, r.options.Settings.ControlPlane...)
	slices.Sort(out)
	out = slices.DeleteFunc(slices.Compact(out), func(a string) bool { return a == "" })
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}
