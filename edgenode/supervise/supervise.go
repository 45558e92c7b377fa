// Package supervise is the process that outlives workers on an edge host: it enrols the node, keeps its certificate fresh,
// holds the listening sockets, and starts the worker again when it dies.
//
// It owns the data directory's lock, the identity's files and the sockets. It parses no request and links no WAF engine, so
// that it rarely changes. With the control plane away a node that is enrolled starts and serves; only its first enrolment
// waits. While no worker runs, connections queue in the kernel.
package supervise

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/edgenode/identity"
	"github.com/edgefleet/edgefleet/edgenode/settings"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// Options configure a Supervisor.
type Options struct {
	Settings settings.Settings
	// ConfigPath is passed to the worker, which reads the same file.
	ConfigPath string
	// Token is the join token for a node that has not enrolled yet, if Settings.JoinTokenFile is empty.
	Token     string
	Telemetry *observability.Telemetry
}

// Run supervises until ctx ends; then the worker drains, and Run returns nil. An error is one that a person must act on: the
// directory is in use, a port is taken, the control plane refuses the node.
func Run(ctx context.Context, o Options) error {
	log := o.Telemetry.Logger
	if err := os.MkdirAll(o.Settings.DataDir, 0o700); err != nil {
		return fleet.Invalid("data_dir", "cannot make the data directory: %v", err)
	}
	lock, err := lockDir(o.Settings.DataDir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	worker, err := workerPath(o.Settings)
	if err != nil {
		return err
	}
	// Before enrolment, so that a taken port costs no join token.
	sockets, err := listen(ctx, o.Settings, worker)
	if err != nil {
		return err
	}
	defer closeSockets(sockets)
	id, err := ensureIdentity(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	log.InfoContext(ctx, "node identity", "node", string(id.Trust.Node), "group", string(id.Trust.Group), "region", string(id.Trust.Region),
		"cluster", string(id.Trust.Cluster), "valid_until", id.Source.Certificate().Leaf.NotAfter.UTC().Format(time.RFC3339))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { renewals{options: o, id: id}.run(ctx); return nil })
	g.Go(func() error {
		w := workers{path: worker, args: []string{"run", "--config", o.ConfigPath}, sockets: sockets, drain: o.Settings.LeaveDNS + o.Settings.DrainTimeout, instance: strings.ToLower(rand.Text()), log: log}
		w.run(ctx)
		return nil
	})
	return g.Wait()
}

// ensureIdentity opens the stored identity, or enrols.
func ensureIdentity(ctx context.Context, o Options) (*identity.Identity, error) {
	dir := o.Settings.IdentityDir()
	id, err := identity.Open(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	if err := enrol(ctx, o); err != nil {
		return nil, err
	}
	return identity.Open(dir)
}

// workerPath is the edgenode program to start.
func workerPath(s settings.Settings) (string, error) {
	path := s.Worker
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find own program: %w", err)
		}
		path = filepath.Join(filepath.Dir(self), "edgenode")
	}
	info, err := os.Stat(path)
	if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
		return "", fleet.Invalid("worker", "%s is not a program: set worker to the path of edgenode", path)
	}
	return path, nil
}
