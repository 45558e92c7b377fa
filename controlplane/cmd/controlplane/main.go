// Command controlplane runs one member of the control plane.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "controlplane",
		Short:         "One member of the Edgefleet control plane",
		Long:          "One member of the Edgefleet control plane.\n\nRun init once on the first host, join on the others, then run on all. docs/configuration.md describes the file.",
		SilenceErrors: true, SilenceUsage: true, Version: observability.Version,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.Args = noArguments // for a command that is not there
	root.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError{c.CommandPath(), err.Error()} })
	root.AddCommand(initCommand(), joinCommand(), runCommand(), openAPICommand())
	err := root.ExecuteContext(ctx)
	if err == nil {
		return fleet.ExitOK
	}
	_, _ = fmt.Fprintf(stderr, "controlplane: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	if _, ok := errors.AsType[usageError](err); ok {
		return fleet.ExitUsage
	}
	return fleet.KindOf(err).Exit
}

// usageError is a command line that makes no sense.
type usageError struct{ command, what string }

func (e usageError) Error() string { return e.what + "; see '" + e.command + " --help'" }

func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	what := "unexpected argument"
	if c.HasSubCommands() {
		what = "unknown command"
	}
	return usageError{c.CommandPath(), fmt.Sprintf("%s %q", what, args[0])}
}

// withConfig adds --config to a command and hands it the loaded file.
func withConfig(c *cobra.Command, f func(cmd *cobra.Command, cfg controlplane.Config) error) *cobra.Command {
	path := c.Flags().StringP("config", "c", "/etc/edgefleet/controlplane.yaml", "configuration file")
	c.Args = noArguments
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
		Example: "  controlplane init --config /etc/edgefleet/controlplane.yaml",
	}
	return withConfig(c, func(cmd *cobra.Command, cfg controlplane.Config) error {
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
			"and proves to this host that it talks to the right cluster. Then start the member with run.",
		Example: "  controlplane join --config /etc/edgefleet/controlplane.yaml --address 203.0.113.1:8440 --token efm1....",
	}
	token := c.Flags().String("token", "", "member join token; default: $EDGEFLEET_JOIN_TOKEN")
	address := c.Flags().String("address", "", "API address of a member, host:port")
	return withConfig(c, func(cmd *cobra.Command, cfg controlplane.Config) error {
		if *token == "" {
			*token = os.Getenv("EDGEFLEET_JOIN_TOKEN")
		}
		cluster, err := controlplane.Join(cmd.Context(), cfg, *token, *address)
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
		return controlplane.Run(cmd.Context(), cfg, cmd.ErrOrStderr())
	})
}

func openAPICommand() *cobra.Command {
	return &cobra.Command{
		Use:     "openapi",
		Short:   "Print the description of the API",
		Example: "  controlplane openapi > docs/openapi.json",
		Args:    noArguments,
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
