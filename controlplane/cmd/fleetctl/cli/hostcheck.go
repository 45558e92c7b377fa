package cli

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

func (a *app) hostCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check NAME", Short: "Look at the host's DNS now", Args: exact("NAME"), ValidArgsFunction: first(a.completeHosts),
		Long: `Make the control plane look at the host's DNS now instead of at its next check. The result shows a moment later in
'fleetctl host show'; with --wait it is shown here, and the exit code is 5 when there is none in time.`,
		Example: "  fleetctl host check shop.example.com\n  fleetctl host check shop.example.com --wait",
	}
	wait := cmd.Flags().Bool("wait", false, "wait for the result, and show it")
	timeout := cmd.Flags().Duration("timeout", time.Minute, "how long to wait")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !*wait {
			return a.onHost(cmd, http.MethodPost, args[0], func(h client.HostView) error {
				return a.say("the DNS of %[1]s is being looked at; see 'fleetctl host show %[1]s'", h.Name)
			}, "check")
		}
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		path, name, err := s.hostPath(args[0])
		if err != nil {
			return err
		}
		var before client.HostView
		if err := s.Do(cmd.Context(), http.MethodPost, path+"/check", nil, nil, &before); err != nil {
			return err
		}
		// Every look sets the time of the next one.
		looked := func(h client.HostView) bool {
			return !h.Observed.Routing.NextCheck.Equal(before.Observed.Routing.NextCheck)
		}
		return a.awaitHost(cmd.Context(), s, path, *timeout, fmt.Sprintf("the DNS of %s was not looked at", name), looked, a.showHost)
	}
	return cmd
}

// awaitHost reads a host again and again until done says so, and shows it.
func (a *app) awaitHost(ctx context.Context, s *session, path string, timeout time.Duration, what string, done func(client.HostView) bool, show func(client.HostView) error) error {
	var raw []byte
	err := a.wait(ctx, timeout, what, func(ctx context.Context) (bool, string, error) {
		var h client.HostView
		if err := s.read(ctx, path, nil, &raw, &h); err != nil {
			return false, "", err
		}
		return done(h), hostLine(h.Observed), nil
	})
	if err != nil {
		return err
	}
	return answer(a, raw, show)
}
