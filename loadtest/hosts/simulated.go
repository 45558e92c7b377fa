package hosts

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/identity"
	"github.com/edgefleet/edgefleet/edgenode/session"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
	"github.com/edgefleet/edgefleet/tls/sni"
)

// simulated is a node without a process of its own and without visitors: its identity, session, state on disk, keys and
// certificate table are a node's.
type simulated struct {
	table   *sni.Table
	session *session.Session
}

// simulate enrols n nodes; run keeps them until its context ends.
func (r *run) simulate(ctx context.Context, w *world, n int) ([]*simulated, error) {
	out := make([]*simulated, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(callers)
	for i := range out {
		g.Go(func() (err error) {
			out[i], err = r.simulateOne(ctx, w, i)
			return err
		})
	}
	return out, g.Wait()
}

func (r *run) simulateOne(ctx context.Context, w *world, i int) (*simulated, error) {
	dir := filepath.Join(r.env.Dir, "simulated", fmt.Sprint(i))
	keys, err := identity.NewKeys(dir)
	if err != nil {
		return nil, err
	}
	key, err := mtls.ParseKey(keys.KeyPEM)
	if err != nil {
		return nil, err
	}
	csr, err := mtls.CSR(key)
	if err != nil {
		return nil, err
	}
	token, err := client.Post[client.JoinTokenCreated](ctx, w.client, "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinNode})
	if err != nil {
		return nil, fmt.Errorf("make a join token: %w", err)
	}
	answer, err := client.Post[fleet.EnrolResponse](ctx, w.client, "/v1/edge/enrol", fleet.EnrolRequest{
		Token: token.Secret, Node: fleet.NodeID(fmt.Sprintf("s%d", i)), CSR: string(csr), HPKE: keys.HPKEPublic,
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{127, 250, byte(i >> 8), byte(i)})}, Sent: time.Now(), //nolint:gosec // a hundred
	})
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	if err := identity.Save(dir, keys, answer); err != nil {
		return nil, err
	}
	id, err := identity.Open(dir)
	if err != nil {
		return nil, err
	}
	s := &simulated{table: &sni.Table{}}
	trust, tel := id.Trust, observability.Discard()
	store, err := config.Open(config.Options{ //nolint:contextcheck // counters live as long as the node
		Dir: filepath.Join(dir, "state"), Node: trust.Node, Group: trust.Group, Cluster: trust.Cluster, Incarnation: trust.Incarnation, HeadKeys: id.HeadKeys,
		RecoveryKey: trust.RecoveryKey, HPKEPrivate: id.HPKE, Certificates: s.table, Telemetry: tel,
	})
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	s.session, err = session.New(session.Options{ //nolint:contextcheck // as above
		Node: trust.Node, Group: trust.Group, Cluster: trust.Cluster, Boot: "b1", Dir: filepath.Join(dir, "session"), Members: trust.Members,
		Source: id.Source, MemberRoots: id.Members, APIRoots: id.API, Store: store, Serving: func() bool { return false }, Telemetry: tel,
	})
	return s, err
}
