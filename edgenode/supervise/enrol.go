package supervise

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
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
	key, err := mtls.ParseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	return mtls.CSR(key)
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
