package harness

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// TakeProfiles takes CPU profiles of members and nodes for some time while a load runs, if profiles were asked for; name is
// the load's. The function that is returned waits for them.
func (e *Env) TakeProfiles(ctx context.Context, name string, d time.Duration, members []*Member, nodes []*Node) (wait func() error) {
	if e.Profile == "" {
		return func() error { return nil }
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range members {
		g.Go(func() error { return e.takeProfile(ctx, m.Admin(), name+"."+string(m.ID), d) })
	}
	for _, n := range nodes {
		g.Go(func() error { return e.takeProfile(ctx, n.Admin(), name+"."+string(n.ID), d) })
	}
	return g.Wait
}

func (e *Env) takeProfile(ctx context.Context, admin, name string, d time.Duration) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", admin, max(int(d.Seconds()), 1)), http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("take the profile %s: %w", name, err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := os.MkdirAll(e.Profile, 0o700); err != nil {
		return fmt.Errorf("keep a profile: %w", err)
	}
	f, err := os.Create(filepath.Join(e.Profile, strings.ReplaceAll(name, " ", "-")+".pprof"))
	if err != nil {
		return fmt.Errorf("keep a profile: %w", err)
	}
	if _, err = io.Copy(f, res.Body); err != nil {
		_ = f.Close() // it is of no use
		return fmt.Errorf("keep a profile: %w", err)
	}
	return f.Close()
}
