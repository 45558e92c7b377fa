// Command controlplane runs one member of the control plane.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := program.Execute(ctx, command())
	stop()
	os.Exit(code)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "controlplane",
		Short: "One member of the Edgefleet control plane",
		Long:  "One member of the Edgefleet control plane.\n\nRun init once on the first host, join on the others, then run on all. docs/configuration.md describes the file.",
	}
	root.AddCommand(initCommand(), joinCommand(), runCommand(), recoverCommand(), kekCommand(), openAPICommand())
	return root
}

// withConfig adds --config to a command and hands it the loaded file.
func withConfig(c *cobra.Command, f func(cmd *cobra.Command, cfg controlplane.Config) error) *cobra.Command {
	path := c.Flags().StringP("config", "c", "/etc/edgefleet/controlplane.yaml", "configuration file")
	c.Args = program.NoArguments
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := controlplane.LoadConfig(*path)
		if err != nil {
			return err
		}
		return f(cmd, cfg)
	}
	return c
}

func initCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "init",
		Short: "Make a new cluster of one member: CAs, keys, the first operator token",
		Long: "Make a new cluster of one member in an empty data directory: its certificate authorities and keys, and the first\n" +
			"operator token. The key-encryption key is made if kek_file does not exist. Run it once, on one host.",
		Example: "  controlplane init --config /etc/edgefleet/controlplane.yaml\n" +
			"  controlplane init --config /etc/edgefleet/controlplane.yaml --from-snapshot edgefleet.snapshot --recovery-key recovery.key",
	}
	from := c.Flags().String("from-snapshot", "", "bring back the cluster of this snapshot, with its key-encryption key, instead of making a new one")
	flags := addRebirthFlags(c)
	return withConfig(c, func(cmd *cobra.Command, cfg controlplane.Config) error {
		if *from != "" {
			return initFromSnapshot(cmd, cfg, *from, flags)
		}
		out, err := controlplane.Init(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), `cluster %s is initialised.

operator token (shown this once; also in %s, mode 0600):
  %s

next:
  1. keep %s offline: it signs a new incarnation after a restore. Then delete it here.
  2. copy %s to the other members and to your escrow: backups are useless without it.
  3. start this member:  controlplane run --config ...
  4. talk to it:         export FLEETCTL_ADDR=%s FLEETCTL_CACERT=%s FLEETCTL_TOKEN=...
`, out.Cluster, out.TokenFile, out.Token, out.RecoveryFile, out.KEKFile, cfg.APIListen, out.CACert)
		return err
	})
}

func joinCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "join",
		Short: "Get an identity in an existing cluster by a member join token",
		Long: "Get an identity in an existing cluster, in an empty data directory. The token comes from 'fleetctl cluster join-token'\n" +
			"and proves to this host that it talks to the right cluster. Without --address, members are looked for by retry_join\n" +
			"until one is found. Then start the member with run.",
		Example: "  controlplane join --config /etc/edgefleet/controlplane.yaml --address 203.0.113.1:8440 --token efm1....\n" +
			"  EDGEFLEET_JOIN_TOKEN=efm1.... controlplane join          # by retry_join",
	}
	token := c.Flags().String("token", "", "member join token; default: $EDGEFLEET_JOIN_TOKEN")
	address := c.Flags().String("address", "", "API address of a member, host:port; default: retry_join of the configuration")
	return withConfig(c, func(cmd *cobra.Command, cfg controlplane.Config) error {
		if *token == "" {
			*token = os.Getenv("EDGEFLEET_JOIN_TOKEN")
		}
		var cluster fleet.ClusterID
		var err error
		if *address == "" && len(cfg.RetryJoin) > 0 {
			cluster, err = controlplane.JoinDiscovered(cmd.Context(), cfg, *token, func(line string) { cmd.PrintErrln("join: " + line) })
		} else {
			cluster, err = controlplane.Join(cmd.Context(), cfg, *token, *address)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "member %s joined cluster %s; start it with 'controlplane run'\n", cfg.Member, cluster)
		return err
	})
}

func runCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "run",
		Short:   "Run this member until SIGTERM",
		Example: "  controlplane run --config /etc/edgefleet/controlplane.yaml",
	}
	return withConfig(c, func(cmd *cobra.Command, cfg controlplane.Config) error {
		go program.Headroom(cmd.Context())
		return controlplane.Run(cmd.Context(), cfg, cmd.ErrOrStderr())
	})
}

func openAPICommand() *cobra.Command {
	return &cobra.Command{
		Use:     "openapi",
		Short:   "Print the description of the API",
		Example: "  controlplane openapi > docs/openapi.json",
		Args:    program.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := api.OpenAPI()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", b)
			return err
		},
	}
}
