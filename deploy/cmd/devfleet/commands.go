package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/edgefleet/edgefleet/deploy/devfleet"
	"github.com/spf13/cobra"
)

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "devfleet",
		Short:         "A whole fleet on one machine, as real processes on 127.0.0.0/8",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	dir := root.PersistentFlags().String("dir", ".devfleet", "the fleet's directory")
	root.AddCommand(up(dir), status(dir), logs(dir), dns(dir), origin())
	for verb, short := range map[string]string{
		"kill":   "Send SIGKILL to a process; the worker of an edge follows",
		"pause":  "Stop a process and its children with SIGSTOP",
		"resume": "Continue a paused process",
		"start":  "Start a process that was killed",
	} {
		root.AddCommand(&cobra.Command{
			Use: verb + " NAME", Short: short, Args: cobra.ExactArgs(1),
			Example: "  devfleet " + verb + " m1\n  devfleet " + verb + " n2",
			Long:    short + ". NAME is m1 and so on for members, n1 and so on for edges, pebble, or origin.",
			RunE: func(cmd *cobra.Command, args []string) error {
				return devfleet.Control{Dir: *dir}.Do(cmd.Context(), verb, args[0])
			},
		})
	}
	return root
}

func up(dir *string) *cobra.Command {
	var o devfleet.Options
	cmd := &cobra.Command{
		Use: "up", Short: "Start a fleet, play the story, leave it running until Ctrl-C", Args: cobra.NoArgs,
		Example: "  devfleet up\n  devfleet up --once                 # play the story, stop, exit 0 only if all held\n  devfleet up --members 1 --nodes 1 --ready-file ready.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Dir, o.Out = *dir, cmd.OutOrStdout()
			return devfleet.Up(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Members, "members", 3, "number of control-plane members, 1 to 7")
	f.IntVar(&o.Nodes, "nodes", 3, "number of edge nodes, 1 to 50")
	f.IntVar(&o.Block, "address-block", 0, "second octet of every address, so that several fleets can run side by side")
	f.StringVar(&o.Consul, "consul", "", "address of a Consul agent that the members use, such as 127.0.0.1:8500")
	f.StringVar(&o.OTLP, "otlp", "", "base URL of an OpenTelemetry collector that members and edges push to, such as http://127.0.0.1:4318")
	f.StringVar(&o.ReadyFile, "ready-file", "", "write addresses and tokens here, as JSON, when the story has been played")
	f.BoolVar(&o.Short, "short", false, "play the story until the host is active only; without the attacks and the faults")
	f.BoolVar(&o.Once, "once", false, "stop when the story has been played; exit 0 only if all of it held")
	f.BoolVar(&o.Keep, "keep", false, "keep the directory after the fleet was stopped")
	return cmd
}

func status(dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the processes", Args: cobra.NoArgs,
		Example: "  devfleet status",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ps, err := devfleet.Control{Dir: *dir}.Status(cmd.Context())
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			_, _ = fmt.Fprintln(w, "NAME\tSTATE\tPID\tLAST EXIT")
			for _, p := range ps {
				pid := "-"
				if p.PID != 0 {
					pid = strconv.Itoa(p.PID)
				}
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, p.State, pid, p.Exit)
			}
			return w.Flush()
		},
	}
}

func logs(dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "logs NAME", Short: "Print the log of a process", Args: cobra.ExactArgs(1),
		Example: "  devfleet logs m1",
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := devfleet.Logs(*dir, args[0])
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			_, err = io.Copy(cmd.OutOrStdout(), f)
			return err
		},
	}
}

func dns(dir *string) *cobra.Command {
	root := &cobra.Command{Use: "dns", Short: "The customer's DNS"}
	root.AddCommand(&cobra.Command{
		Use: "set NAME TYPE VALUE...", Short: "Replace the records of one name and type", Args: cobra.MinimumNArgs(3),
		Example: "  devfleet dns set www.shop.example A 203.0.113.7\n  devfleet dns set www.shop.example CNAME label.edge.example",
		RunE: func(cmd *cobra.Command, args []string) error {
			return change(cmd.Context(), *dir, args[0], args[1], args[2:])
		},
	}, &cobra.Command{
		Use: "unset NAME TYPE", Short: "Remove the records of one name and type", Args: cobra.ExactArgs(2),
		Example: "  devfleet dns unset www.shop.example A",
		RunE: func(cmd *cobra.Command, args []string) error {
			return change(cmd.Context(), *dir, args[0], args[1], nil)
		},
	}, &cobra.Command{
		Use: "list", Short: "List the records that were set", Args: cobra.NoArgs,
		Example: "  devfleet dns list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			rs, err := devfleet.Control{Dir: *dir}.Records(cmd.Context())
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, r := range rs {
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, r.Type, r.Value)
			}
			return w.Flush()
		},
	})
	return root
}

func change(ctx context.Context, dir, name, kind string, values []string) error {
	return devfleet.Control{Dir: dir}.SetRecords(ctx, devfleet.DNSChange{Name: name, Type: kind, Values: values})
}

func origin() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: "origin", Short: "The demo origin alone", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return devfleet.RunOrigin(cmd.Context(), listen) },
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.3.2:8090", "address to listen on")
	return cmd
}
