package supervise

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/identity"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// Waits between attempts to enrol and to renew.
const (
	enrolRetry, enrolRetryMax = time.Second, 30 * time.Second
	renewRetry, renewRetryMax = 15 * time.Second, 5 * time.Minute
	// clockCheck is how often the clock is read while renewal is not due: a host that boots with a wrong one, or that was
	// suspended, learns the time later, and timers do not follow.
	clockCheck = 10 * time.Minute
)

// maxToken bounds the join token's file, in bytes.
const maxToken = 4 << 10

func joinToken(o Options) (string, error) {
	path := o.Settings.JoinTokenFile
	if path == "" {
		return strings.TrimSpace(o.Token), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fleet.Invalid("join_token_file", "this node is not enrolled and its join token cannot be read: %v", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return "", fmt.Errorf("read join token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// tokenPin returns the fingerprint of the API's authority in a join token: efn1.<id>.<secret>.<hex sha256>.
func tokenPin(token string) (string, error) {
	const want = "give the one that `fleetctl node join-token` printed, in join_token_file or EDGEFLEET_JOIN_TOKEN"
	if token == "" {
		return "", fleet.Invalid("token", "this node is not enrolled and has no join token: %s", want)
	}
	parts := strings.Split(token, ".")
	switch {
	case parts[0] == "efm1":
		return "", fleet.Invalid("token", "this is a control-plane member's join token: %s", want)
	case len(parts) != 4 || parts[0] != "efn1":
		return "", fleet.Invalid("token", "the join token is not of the form efn1.<id>.<secret>.<fingerprint>: %s", want)
	}
	if b, err := hex.DecodeString(parts[3]); err != nil || len(b) != 32 {
		return "", fleet.Invalid("token", "the join token is cut off: %s", want)
	}
	return strings.ToLower(parts[3]), nil
}

// enrol exchanges the join token for an identity. It tries for as long as no member answers, and returns an error when one
// refuses.
func enrol(ctx context.Context, o Options) error {
	token, err := joinToken(o)
	if err != nil {
		return err
	}
	pin, err := tokenPin(token)
	if err != nil {
		return err
	}
	dir := o.Settings.IdentityDir()
	keys, err := identity.NewKeys(dir)
	if err != nil {
		return err
	}
	csr, err := csrOf(keys.KeyPEM)
	if err != nil {
		return err
	}
	client := newAPI(mtls.PinnedTLS(pin))
	defer client.close()
	for wait := enrolRetry; ; wait = min(2*wait, enrolRetryMax) {
		request := fleet.EnrolRequest{
			Token: token, Node: o.Settings.Node, CSR: string(csr), HPKE: keys.HPKEPublic, Addresses: o.Settings.Addresses, Sent: time.Now(),
		}
		var r fleet.EnrolResponse
		err := client.postAny(ctx, o.Settings.ControlPlane, "/v1/edge/enrol", request, &r)
		if err == nil {
			return identity.Save(dir, keys, r)
		}
		if refused, ok := errors.AsType[refusal](err); ok {
			return fmt.Errorf("the control plane refuses this node: %w (make a new token with `fleetctl node join-token`, and start edgesupervisor again)", refused)
		}
		o.Telemetry.Logger.WarnContext(ctx, "enrolment: no member answers, trying again", "after", wait, "err", err)
		if !pause(ctx, wait) {
			return ctx.Err()
		}
	}
}

func csrOf(keyPEM []byte) ([]byte, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, fleet.NewError(fleet.ErrCorrupt, "identity", "the stored key is not PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fleet.NewError(fleet.ErrCorrupt, "identity", "the stored key is a %T", parsed)
	}
	return mtls.CSR(key)
}

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

// renew gets a certificate for a new key; the connection proves the old one.
func (r renewals) renew(ctx context.Context) error {
	key, err := mtls.NewKey()
	if err != nil {
		return err
	}
	keyPEM, err := mtls.EncodeKey(key)
	if err != nil {
		return err
	}
	csr, err := mtls.CSR(key)
	if err != nil {
		return err
	}
	client := newAPI(mtls.ClientTLS(r.id.Source, r.id.API, "", nil))
	defer client.close()
	var answer fleet.EnrolResponse
	if err := client.postAny(ctx, r.addresses(), "/v1/edge/renew", fleet.RenewRequest{CSR: string(csr)}, &answer); err != nil {
		return err
	}
	if answer.Node != r.id.Trust.Node || answer.Cluster != r.id.Trust.Cluster {
		return fleet.NewError(fleet.ErrDenied, "identity", "the answer is for node %s of cluster %s", answer.Node, answer.Cluster)
	}
	if err := identity.Renew(r.options.Settings.IdentityDir(), keyPEM, answer); err != nil {
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

// pause waits for about d, spread so that nodes that failed together do not come back together; false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(d, 0) + rand.N(max(d, 0)/8+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
