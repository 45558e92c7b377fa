package harness

import (
	"context"
	"crypto/tls"
	"fmt"
	"path/filepath"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/observability"
)

// seedLimit bounds the making of a large state.
const seedLimit = 3 * time.Minute

// Seed gives a member that was initialised and does not run a larger state: it opens the member's log as the member
// would, has the state filled behind the log's back, and takes a snapshot, which the member then starts from. Through
// the API it would take an hour.
func (m *Member) Seed(ctx context.Context, fill func(*state.Store) error) error {
	ctx, cancel := context.WithTimeout(ctx, seedLimit)
	defer cancel()
	certs, err := m.cluster.env.Certificates(m.cluster.name+"-seed", m.Host)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(certs.Cert, certs.Key)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	store := state.New()
	node, err := consensus.Open(consensus.Options{ //nolint:contextcheck // a member lives longer than its start
		Dir: filepath.Join(m.Data(), "raft"), Member: m.ID, Bind: m.Raft(), FSM: fsm.New(store), Telemetry: observability.Discard(),
		TrailingLogs: 1, // what the log says must not be all that others get
		ServerTLS:    &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13},
		ClientTLS:    &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
	})
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", m.ID, err)
	}
	if err = Until(ctx, seedLimit, 20*time.Millisecond, node.Barrier); err == nil {
		if err = fill(store); err == nil {
			err = node.Snapshot()
		}
	}
	if closeErr := node.Close(context.WithoutCancel(ctx)); err == nil && closeErr != nil {
		err = fmt.Errorf("close the log of %s: %w", m.ID, closeErr)
	}
	return err
}
