package controlplane

import (
	"context"

	"github.com/edgefleet/edgefleet/loadtest/harness"
)

// profile takes CPU profiles of the members while a load runs, if profiles were asked for. The function that is returned
// waits for them.
func (r *run) profile(ctx context.Context, c *harness.Members, name string) (wait func() error) {
	return r.env.TakeProfiles(ctx, name, r.warm()+r.measured(), c.All, nil)
}
