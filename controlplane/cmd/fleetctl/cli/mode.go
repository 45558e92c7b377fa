package cli

import (
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

const modeLong = `What the edge does with malicious requests to a host:
  off            no analysis
  monitoring     analyse and report, never block
  safe_blocking  analyse, report, and block what comes from graylisted addresses
  block          analyse, report and block
  inherit        as the tenant's rule of kind mode without conditions says, else monitoring

A virtual patch blocks in monitoring and safe_blocking too. Rules of kind mode with conditions set the mode of a part of a
host; 'fleetctl rule explain' says which of them decided.`

func (a *app) modeCommand() *cobra.Command {
	return group("mode", "What happens to malicious requests", modeLong, a.modeGet(), a.modeSet(), a.modeTenant())
}

func modeFlag(cmd *cobra.Command) *string {
	mode := cmd.Flags().String("mode", "", "off, monitoring, safe_blocking, block or inherit (a new host starts in monitoring)")
	completeFlag(cmd, "mode", words(hostModes()...))
	return mode
}

// hostModes are the modes that a host can have.
func hostModes() []fleet.Mode { return append(slices.Clone(fleet.Modes), fleet.ModeInherit) }

// checkMode accepts an empty mode, which leaves the choice to the API.
func checkMode(m fleet.Mode) error {
	if m == "" || m == fleet.ModeInherit {
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
		Use: "set HOST off|monitoring|safe_blocking|block|inherit", Short: "Change the mode of a host", Long: modeLong, Example: "  fleetctl mode set shop.example.com block", Args: exact("HOST", "MODE"),
		ValidArgsFunction: positions(a.completeHosts, words(hostModes()...)),
		RunE: func(cmd *cobra.Command, args []string) error {
			m := fleet.Mode(args[1])
			if m == "" || checkMode(m) != nil {
				return usagef(cmd, "%q is not a mode: use off, monitoring, safe_blocking, block or inherit", args[1])
			}
			return a.changeHost(cmd, args[0], client.HostUpdate{Mode: &m}, func(h client.HostView) error {
				return a.say("the mode of %s is %s now; see it reach the nodes with 'fleetctl ruleset status --kind config'", h.Name, h.Spec.Mode)
			})
		},
	}
}
