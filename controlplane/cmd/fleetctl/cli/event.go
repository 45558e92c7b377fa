package cli

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) eventCommand() *cobra.Command {
	return group("event", "Attack events", "", a.eventList(), a.eventShow(), a.eventTail(), a.eventQuery(), a.eventExport())
}

func (a *app) eventList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List attack events, newest first", Args: exact(),
		Example: "  fleetctl event list --since 1h --status blocked\n  fleetctl event list --host shop.example.com --type sqli --all -o json",
	}
	f := cmd.Flags()
	host := f.String("host", "", "only this host")
	kind := f.String("type", "", "only this attack type")
	status := f.String("status", "", "blocked or monitored")
	attack := f.String("attack", "", "only hits of this attack")
	since := f.String("since", "", "not before: a time ago such as 1h or 7d, or a time such as 2026-11-21T14:00:00Z")
	limit := f.Int("limit", 50, "how many at most")
	all := f.Bool("all", false, "all of them")
	completeFlag(cmd, "host", a.completeHosts)
	completeFlag(cmd, "type", words(fleet.AttackTypes...))
	completeFlag(cmd, "status", words(fleet.Blocked, fleet.Monitored))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q := url.Values{}
		for name, v := range map[string]string{"host": *host, "type": *kind, "status": *status, "attack": *attack} {
			if v != "" {
				q.Set(name, v)
			}
		}
		if err := a.setTime(cmd, q, "since", *since); err != nil {
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
		header := []string{"TIME", "HOST", "TYPE", "STATUS", "CLIENT", "METHOD", "PATH", "RULES", "EVENT"}
		l := listing{path: s.path("events"), query: q, cursor: "cursor", limit: n}
		return show(cmd.Context(), a, s, l, header, func(e fleet.Event) []any {
			return []any{a.age(e.Time), e.Host, e.Type, e.Status, e.ClientIP, e.Method, e.Path, ruleIDs(e), e.ID}
		})
	}
	return cmd
}

// setTime sets a parameter to the time that a flag gives; an empty one is not set.
func (a *app) setTime(cmd *cobra.Command, q url.Values, name, text string) error {
	if text == "" {
		return nil
	}
	t, err := a.parseTime(cmd, text)
	if err == nil {
		q.Set(name, t.UTC().Format(time.RFC3339))
	}
	return err
}

// limitOf is how many items --limit and --all ask for; 0 means all.
func limitOf(cmd *cobra.Command, limit int, all bool) (int, error) {
	switch {
	case all && cmd.Flags().Changed("limit"):
		return 0, usagef(cmd, "give --limit or --all, not both")
	case all:
		return 0, nil
	case limit < 1:
		return 0, usagef(cmd, "--limit %d is no number of items: give 1 and up, or --all", limit)
	}
	return limit, nil
}

// parseTime reads a time, or how long ago it was; days are understood too.
func (a *app) parseTime(cmd *cobra.Command, text string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < 0 {
		return time.Time{}, usagef(cmd, "%q is neither a time ago such as 1h or 7d nor a time such as 2026-11-21T14:00:00Z", text)
	}
	return a.Now().Add(-d), nil
}

func ruleIDs(e fleet.Event) string {
	ids := make([]string, len(e.Rules))
	for i, r := range e.Rules {
		ids[i] = r.ID
	}
	return list(ids)
}

func (a *app) eventShow() *cobra.Command {
	return &cobra.Command{
		Use: "show EVENT", Short: "Show an attack event", Example: "  fleetctl event show n1:0123456789abcdef:17", Args: exact("EVENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, _, _, err := fleet.ParseEventID(fleet.EventID(args[0])); err != nil {
				return err
			}
			s, err := a.tenantSession(cmd)
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, s.path("events", args[0]), a.showEvent)
		},
	}
}

func (a *app) showEvent(e fleet.Event) error {
	t := newTable(a.Out)
	t.row("event", e.ID)
	t.row("time", e.Time.UTC().Format(time.RFC3339)+" ("+a.age(e.Time)+")")
	t.row("host", e.Host)
	t.row("request", e.Method+" "+e.Path+" "+e.Protocol)
	t.row("client", e.ClientIP+" port "+strconv.Itoa(int(e.ClientPort)))
	t.row("attack type", e.Type)
	t.row("status", string(e.Status)+" in mode "+string(e.Mode))
	t.row("answered", e.ResponseStatus)
	t.row("point", e.Point)
	t.row("parameter", e.Parameter)
	for _, p := range e.Payloads {
		t.row("payload", p)
	}
	for _, r := range e.Rules {
		t.row("rule", strings.TrimSpace(r.ID+" "+r.Severity+" "+r.Message))
	}
	t.row("anomaly score", e.Score)
	t.row("masked points", list(e.MaskedPoints))
	t.row("node", string(e.NodeID)+" in region "+string(e.Region)+", version "+e.Software)
	t.row("ruleset", "generation "+strconv.FormatUint(e.Ruleset.Generation, 10))
	t.row("request id", e.RequestID)
	t.row("trace id", e.TraceID)
	return t.flush()
}
