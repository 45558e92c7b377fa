package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) eventQuery() *cobra.Command {
	cmd := &cobra.Command{
		Use: "query", Short: "Count attack events in groups", Args: exact(),
		Long: "Count attack events in groups. Fields: type, host, status, node, region, client_ip, method, path, point, parameter, response_status; to group by\n" +
			"also minute, hour and day. Conditions are FIELD:eq|ne|in|prefix:VALUE and hold all together; in may be repeated for more values.",
		Example: "  fleetctl event query --group-by type,status --since 7d\n  fleetctl event query --group-by client_ip --where type:eq:sqli --where path:prefix:/api/ --order-by -blocked --select count,blocked\n" +
			"  fleetctl event query --group-by hour,type --since 24h -o json",
	}
	f := cmd.Flags()
	groupBy := f.StringSlice("group-by", nil, "fields that events of a group have in common; none counts all")
	sel := f.StringSlice("select", []string{"count"}, "count, blocked, first, last")
	where := f.StringArray("where", nil, "condition FIELD:COMPARISON:VALUE, may be repeated")
	orderBy := f.StringSlice("order-by", nil, "fields or measures; with - before it the largest first")
	times := a.timeFlags(cmd)
	limit := f.Int("limit", 50, "how many groups at most")
	all := f.Bool("all", false, "all of them")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q := url.Values{"where": *where}
		set(q, "group_by", strings.Join(*groupBy, ","))
		set(q, "select", strings.Join(*sel, ","))
		set(q, "order_by", strings.Join(*orderBy, ","))
		if err := times(q); err != nil {
			return err
		}
		n, err := limitOf(cmd, *limit, *all)
		if err != nil {
			return err
		}
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		columns := append(append([]string{}, *groupBy...), *sel...)
		header := make([]string, len(columns))
		for i, c := range columns {
			header[i] = strings.ToUpper(c)
		}
		l := listing{path: s.path("events:query"), query: q, cursor: "cursor", limit: n}
		return show(cmd.Context(), a, s, l, header, func(row map[string]json.RawMessage) []any {
			cells := make([]any, len(columns))
			for i, c := range columns {
				var text string
				if json.Unmarshal(row[c], &text) != nil {
					text = string(row[c])
				}
				cells[i] = text
			}
			return cells
		})
	}
	return cmd
}

// timeFlags adds --since and --until; the function that it returns puts them into a query.
func (a *app) timeFlags(cmd *cobra.Command) func(url.Values) error {
	since := cmd.Flags().String("since", "", "not before: a time ago such as 1h or 7d, or a time such as 2026-11-21T14:00:00Z")
	until := cmd.Flags().String("until", "", "before, likewise")
	return func(q url.Values) error {
		for name, text := range map[string]string{"since": *since, "until": *until} {
			if err := a.setTime(cmd, q, name, text); err != nil {
				return err
			}
		}
		return nil
	}
}

func (a *app) eventExport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export FILE", Short: "Write attack events to a file", Args: exact("FILE"),
		Long:    "Write attack events to a file of mode 0600, the oldest first; - is the standard output. The file appears when it is complete.\nIn CSV, cells that a spreadsheet would take for a formula begin with '.",
		Example: "  fleetctl event export --since 7d events.ndjson\n  fleetctl event export --format csv --type sqli --since 24h sqli.csv",
	}
	f := cmd.Flags()
	format := f.String("format", "ndjson", "ndjson or csv")
	host := f.String("host", "", "only this host")
	kind := f.String("type", "", "only this attack type")
	status := f.String("status", "", "blocked or monitored")
	attack := f.String("attack", "", "only hits of this attack")
	times := a.timeFlags(cmd)
	completeFlag(cmd, "format", words("ndjson", "csv"))
	completeFlag(cmd, "host", a.completeHosts)
	completeFlag(cmd, "type", words(fleet.AttackTypes...))
	completeFlag(cmd, "status", words(fleet.Blocked, fleet.Monitored))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		for name, v := range map[string]string{"format": *format, "host": *host, "type": *kind, "status": *status, "attack": *attack} {
			set(q, name, v)
		}
		if err := times(q); err != nil {
			return err
		}
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		get := func(ctx context.Context, w io.Writer) error { return s.Fetch(ctx, s.path("events:export"), q, w) }
		if args[0] == "-" {
			return get(cmd.Context(), a.Out)
		}
		return toFile(cmd.Context(), args[0], get)
	}
	return cmd
}

// toFile writes beside path, and gives the file its name when it is complete.
func toFile(ctx context.Context, path string, get func(context.Context, io.Writer) error) error {
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fleet.Invalid("file", "%v", err)
	}
	if err := get(ctx, f); err != nil {
		return errors.Join(fmt.Errorf("export to %s: %w", path, err), f.Close(), os.Remove(path+".part"))
	}
	if err = errors.Join(f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".part", path)
	}
	if err != nil {
		return fleet.Invalid("file", "write %s: %v", path, err)
	}
	return nil
}
