package controlplane

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/loadtest/harness"
)

// profile takes CPU profiles of the members while a load runs, if profiles were asked for. The function that is returned
// waits for them.
func (r *run) profile(ctx context.Context, c *harness.Members, name string) (wait func() error) {
	if r.env.Profile == "" {
		return func() error { return nil }
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range c.All {
		g.Go(func() error { return r.takeProfile(ctx, m, name) })
	}
	return g.Wait
}

func (r *run) takeProfile(ctx context.Context, m *harness.Member, name string) error {
	seconds := int((r.warm() + r.measured()).Seconds())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", m.Admin(), max(seconds, 1)), http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("take a profile of %s: %w", m.ID, err)
	}
	defer func() { _ = res.Body.Close() }()
	f, err := os.Create(filepath.Join(r.env.Profile, strings.ReplaceAll(name, " ", "-")+"."+string(m.ID)+".pprof"))
	if err != nil {
		return fmt.Errorf("keep a profile: %w", err)
	}
	if _, err = io.Copy(f, res.Body); err != nil {
		_ = f.Close() // it is of no use
		return fmt.Errorf("keep a profile: %w", err)
	}
	return f.Close()
}
