// Package cli is fleetctl: commands over the public API for operators and customers.
//
// It owns arguments, the context file, tables, messages and exit codes; what objects mean is the API's business. It
// keeps nothing between calls but the context file. When no member answers, a command says which addresses it tried and
// exits 1; waiting commands go on waiting until their own timeout.
package cli

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

// Options are the surroundings of one run; all are needed.
type Options struct {
	// Args are the arguments without the program's name.
	Args []string
	// In, Out and Err are the standard streams; files that are terminals get questions and live lines.
	In       io.Reader
	Out, Err io.Writer
	// Getenv reads the environment.
	Getenv func(string) string
	// Now is the clock that ages in tables are held against.
	Now func() time.Time
}

// app is one run.
type app struct {
	Options
	flags flags
	// seen is what stale answers of this run include.
	seen *client.Freshness
}

// flags are the global flags.
type flags struct {
	addr                                                           []string
	token, tokenFile, cacert, context, tenant, reason, output, key string
	stale                                                          bool
	maxAge                                                         time.Duration
}

const long = `fleetctl manages an Edgefleet: its members, nodes, tenants, hosts, rules and events.

Settings come from flags, else from the environment, else from the current context of the context file
(see 'fleetctl context --help'). A customer's token implies the tenant; operators name it with --tenant.

Environment:
  FLEETCTL_ADDR     API addresses of the members, separated by commas
  FLEETCTL_TOKEN    API token
  FLEETCTL_CACERT   file with the API's CA certificate (api-ca.crt of the cluster)
  FLEETCTL_TENANT   tenant
  FLEETCTL_CONFIG   context file; default ~/.config/fleetctl/config.yaml

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 denied, 5 timeout, 6 conflict, 130 interrupted.`

// Run runs one command and returns the exit code. Cancelling ctx is an interrupt.
func Run(ctx context.Context, o Options) int {
	a := &app{Options: o}
	err := a.root().ExecuteContext(ctx) //nolint:contextcheck // cobra gives ctx to the commands
	if err == nil {
		a.sayFreshness()
	}
	return a.finish(ctx, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "fleetctl", Short: "Manage an Edgefleet", Long: long,
		SilenceUsage: true, SilenceErrors: true, Args: unknownCommand,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.checkFlags(cmd) },
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(a.Args)
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(flagError)
	a.globalFlags(root)
	root.AddCommand(
		a.clusterCommand(), a.tenantCommand(), a.tokenCommand(), a.userCommand(), a.roleCommand(), a.accessCommand(), a.approvalCommand(), a.hostCommand(), a.certCommand(), a.originCommand(), a.modeCommand(), a.ruleCommand(), a.rulesetCommand(),
		a.eventCommand(), a.attackCommand(), a.nodeCommand(), a.groupCommand(), a.regionCommand(), a.dnsCommand(), a.auditCommand(), a.drillCommand(), a.contextCommand(), a.whoamiCommand(), a.versionCommand(),
	)
	return root
}

func (a *app) globalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringSliceVar(&a.flags.addr, "addr", nil, "API addresses, host:port or https URL, tried in order")
	f.StringVar(&a.flags.token, "token", "", "API token; visible to others on this machine, so prefer --token-file or FLEETCTL_TOKEN")
	f.StringVar(&a.flags.tokenFile, "token-file", "", "file that holds the API token")
	f.StringVar(&a.flags.cacert, "cacert", "", "file with the API's CA certificate, PEM")
	f.StringVar(&a.flags.context, "context", "", "context of the context file to use")
	f.StringVar(&a.flags.tenant, "tenant", "", "tenant; a customer's token implies it")
	f.StringVar(&a.flags.key, "idempotency-key", "", "repeat a change whose outcome was not known, with the key that the error named: it takes effect once")
	f.StringVar(&a.flags.reason, "reason", "", "why, kept with a change in the audit log")
	f.BoolVar(&a.flags.stale, "stale", false, "list and show: let any member answer from its own state, without a leader too")
	f.DurationVar(&a.flags.maxAge, "max-age", 0, "with --stale, which it implies: refuse what a member heard of longer ago, such as 10s")
	f.StringVarP(&a.flags.output, "output", "o", "table", "table or json")
	for name, fn := range map[string]cobra.CompletionFunc{
		"output": words("table", "json"), "tenant": a.completeTenants, "context": a.completeContexts,
	} {
		// It fails for a flag that does not exist only.
		_ = root.RegisterFlagCompletionFunc(name, fn)
	}
}

func (a *app) checkFlags(cmd *cobra.Command) error {
	if o := a.flags.output; o != "table" && o != "json" {
		a.flags.output = "table"
		return usagef(cmd, "%q is not an output: use -o table or -o json", o)
	}
	if a.flags.token != "" && a.flags.tokenFile != "" {
		return usagef(cmd, "give --token or --token-file, not both")
	}
	return a.checkStale(cmd)
}

// group is a command that only has subcommands.
func group(use, short, long string, subs ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Long: long, Args: unknownCommand}
	g.RunE = func(cmd *cobra.Command, _ []string) error {
		return usagef(cmd, "%s needs a command: one of %s", cmd.CommandPath(), list(names(cmd)))
	}
	g.AddCommand(subs...)
	return g
}
