package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/ca"
	"github.com/edgefleet/edgefleet/loadtest/controlplane"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/hosts"
	"github.com/edgefleet/edgefleet/loadtest/log"
	"github.com/edgefleet/edgefleet/loadtest/report"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/observability/program"
)

// scenario is what can be run. A scenario adds checks to the report; an error means that it could not go on.
type scenario struct {
	name, about string
	parts       []string
	run         func(ctx context.Context, e *harness.Env, rep *report.Report) error
	// short bounds a short run.
	short time.Duration
}

// scenarios lists them all.
var scenarios = []scenario{
	{controlplane.Name, controlplane.About, controlplane.Parts, controlplane.Run, shortLimit},
	{hosts.Name, hosts.About, hosts.Parts(), hosts.Run, 3 * shortLimit},
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "loadtest",
		Short: "Load scenarios with counted results",
		Long: "Load scenarios with counted results, on this machine, with the real programs.\n\n" +
			"Exit codes: 0 all checks hold, 1 some do not or the scenario could not go on, 2 the command line makes no sense.",
	}
	root.AddCommand(list(), run(), member(), tlsServer(), authority())
	return root
}

func list() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the scenarios and their parts", Args: program.NoArguments,
		Example: "  loadtest list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			_, _ = fmt.Fprintln(w, "SCENARIO\tPARTS\tABOUT")
			for _, s := range scenarios {
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", s.name, strings.Join(s.parts, ","), s.about)
			}
			return w.Flush()
		},
	}
}

// runLimit bounds a scenario, shortLimit a short one that starts its processes once.
const (
	runLimit   = 30 * time.Minute
	shortLimit = 50 * time.Second
)

func run() *cobra.Command {
	var o harness.Options
	var format, out string
	cmd := &cobra.Command{
		Use: "run SCENARIO", Short: "Run a scenario and hold its numbers against their bounds",
		Long: "Run a scenario and hold its numbers against their bounds. The report goes to standard output, progress to standard\n" +
			"error. Everything that is started ends with this command.",
		Example: "  loadtest run controlplane\n  loadtest run controlplane --short -o json\n  loadtest run controlplane --only etcd,api\n" +
			"  loadtest run controlplane --out loadtest/results/controlplane.json",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, s := range scenarios {
				names = append(names, s.name+"\t"+s.about)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := pick(args, o.Only)
			if err != nil {
				return program.Usage(cmd, "%v", err)
			}
			if format != "table" && format != "json" {
				return program.Usage(cmd, "-o %s: use table or json", format)
			}
			o.Progress = cmd.ErrOrStderr()
			rep, err := measure(cmd.Context(), s, o)
			if err != nil && rep == nil {
				return err
			}
			return errors.Join(err, publish(rep, format, out, cmd.OutOrStdout()))
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Short, "short", false, "end within 50 seconds (hosts: 150): shorter loads, fewer rounds, a smaller state")
	f.BoolVar(&o.Smoke, "smoke", false, "as small as it gets: shows that the scenario works, the numbers mean nothing")
	_ = f.MarkHidden("smoke") // fails for an unknown flag only
	f.StringVarP(&format, "output", "o", "table", "table or json")
	f.StringVar(&out, "out", "", "write the report, as JSON, to this file too")
	f.StringSliceVar(&o.Only, "only", nil, "run only these parts (see list)")
	f.StringVar(&o.Dir, "dir", "", "where data is kept while the scenario runs (default: the system's temporary directory)")
	f.StringVar(&o.Binaries, "binaries", "", "directory of the programs (default: that of this one)")
	f.BoolVar(&o.Keep, "keep", false, "leave data and logs behind")
	f.StringVar(&o.Profile, "profile", "", "write CPU profiles of members and nodes under load to this directory")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)) // fails for an unknown flag only
	return cmd
}

// pick finds the scenario and checks the parts.
func pick(args, only []string) (scenario, error) {
	names := make([]string, 0, len(scenarios))
	for _, s := range scenarios {
		names = append(names, s.name)
		if len(args) != 1 || s.name != args[0] {
			continue
		}
		for _, part := range only {
			if !slices.Contains(s.parts, part) {
				return s, fmt.Errorf("%s has no part %q: it has %s", s.name, part, strings.Join(s.parts, ", "))
			}
		}
		return s, nil
	}
	return scenario{}, fmt.Errorf("name one scenario: %s", strings.Join(names, ", "))
}

// measure runs a scenario. With an error the report, if any, holds what was measured before.
func measure(ctx context.Context, s scenario, o harness.Options) (rep *report.Report, err error) {
	limit := runLimit
	if o.Short {
		limit = s.short
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fleet.NewError(fleet.ErrTimeout, "", "%s did not end within %s: the machine is busy, or something hangs", s.name, limit))
	defer cancel()
	e, err := harness.Open(o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	rep = &report.Report{Scenario: s.name, Short: o.Short, Started: time.Now().UTC(), Commit: observability.Version, Machine: report.ThisMachine(e.Dir)}
	err = s.run(ctx, e, rep)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	rep.Finish(time.Now())
	if err != nil {
		rep.Holds = false
	}
	return rep, err
}

// publish writes the report and is an error unless all of it holds.
func publish(rep *report.Report, format, path string, w io.Writer) error {
	var err error
	if path != "" {
		err = writeFile(rep, path)
	}
	if format == "json" {
		err = errors.Join(err, rep.WriteJSON(w))
	} else {
		err = errors.Join(err, rep.WriteTable(w))
	}
	if err == nil && !rep.Holds {
		failing := 0
		for _, c := range rep.Checks {
			if !c.Holds {
				failing++
			}
		}
		err = fmt.Errorf("%d of %d checks do not hold", failing, len(rep.Checks))
	}
	return err
}

func writeFile(rep *report.Report, path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return rep.WriteJSON(f)
}

// member is a process of the bare log; run starts it.
func member() *cobra.Command {
	var o log.Options
	cmd := &cobra.Command{
		Use: "member", Short: "A member of the bare log", Args: program.NoArguments, Hidden: true,
		Example: "  loadtest member --dir DIR --member b1 --bind 127.0.0.1:8441 --ca ca.crt --cert tls.crt --key tls.key",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return log.Run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "directory of the log")
	f.StringVar(&o.Member, "member", "", "id")
	f.StringVar(&o.Bind, "bind", "", "address of the Raft port")
	f.StringVar(&o.CA, "ca", "", "certificate authority")
	f.StringVar(&o.Cert, "cert", "", "certificate")
	f.StringVar(&o.Key, "key", "", "its key")
	return cmd
}

// tlsServer is a process that only makes handshakes; run starts it.
func tlsServer() *cobra.Command {
	var listen, cert, key string
	cmd := &cobra.Command{
		Use: "tlsserver", Short: "A server of crypto/tls that only makes handshakes", Args: program.NoArguments, Hidden: true,
		Example: "  loadtest tlsserver --listen 127.0.0.1:8443 --cert tls.crt --key tls.key",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return hosts.ServeTLS(cmd.Context(), listen, cert, key)
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "", "address")
	f.StringVar(&cert, "cert", "", "certificate")
	f.StringVar(&key, "key", "", "its key")
	return cmd
}

// authority is the process of the test CA; run starts it.
func authority() *cobra.Command {
	var o ca.Options
	cmd := &cobra.Command{
		Use: "ca", Short: "The certificate authority of the scenario hosts: Pebble", Args: program.NoArguments, Hidden: true,
		Example: "  loadtest ca --listen 127.0.0.1:14000 --management 127.0.0.1:15000 --cert tls.crt --key tls.key --resolver 127.0.0.1:53",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ca.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Listen, "listen", "", "address of the ACME server")
	f.StringVar(&o.Management, "management", "", "address of its roots")
	f.StringVar(&o.Cert, "cert", "", "certificate")
	f.StringVar(&o.Key, "key", "", "its key")
	f.StringVar(&o.Resolver, "resolver", "", "name server to ask")
	f.IntVar(&o.HTTPPort, "http-port", 80, "where names are proved by HTTP")
	f.IntVar(&o.TLSPort, "tls-port", 443, "where names are proved in a handshake")
	f.DurationVar(&o.Validity, "validity", 90*24*time.Hour, "how long certificates last")
	return cmd
}
