package cli

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

const modeLong = `What the edge does with malicious requests to a host:
  off         no analysis
  monitoring  analyse and report, never block
  block       analyse, report and block`

func (a *app) modeCommand() *cobra.Command {
	return group("mode", "What happens to malicious requests", modeLong, a.modeGet(), a.modeSet())
}

func modeFlag(cmd *cobra.Command) *string {
	mode := cmd.Flags().String("mode", "", "off, monitoring or block (a new host starts in monitoring)")
	completeFlag(cmd, "mode", words(fleet.Modes...))
	return mode
}

// checkMode accepts an empty mode, which leaves the choice to the API.
func checkMode(m fleet.Mode) error {
	if m == "" {
		return nil
	}
	return m.Validate()
}

func (a *app) modeGet() *cobra.Command {
	return &cobra.Command{
		Use: "get HOST", Short: "Print the mode of a host", Example: "  fleetctl mode get shop.example.com", Args: exact("HOST"),
		ValidArgsFunction: first(a.completeHosts),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onHost(cmd, http.MethodGet, args[0], func(h client.HostView) error { return a.say("%s", h.Spec.Mode) })
		},
	}
}

func (a *app) modeSet() *cobra.Command {
	return &cobra.Command{
		Use: "set HOST off|monitoring|block", Short: "Change the mode of a host", Long: modeLong, Example: "  fleetctl mode set shop.example.com block", Args: exact("HOST", "MODE"),
		ValidArgsFunction: positions(a.completeHosts, words(fleet.Modes...)),
		RunE: func(cmd *cobra.Command, args []string) error {
			m := fleet.Mode(args[1])
			if m.Validate() != nil {
				return usagef(cmd, "%q is not a mode: use off, monitoring or block", args[1])
			}
			return a.changeHost(cmd, args[0], client.HostUpdate{Mode: &m}, func(h client.HostView) error {
				return a.say("the mode of %s is %s now; see it reach the nodes with 'fleetctl ruleset status --kind config'", h.Name, h.Spec.Mode)
			})
		},
	}
}
