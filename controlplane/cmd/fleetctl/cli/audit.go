package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "Who changed what", "Every change is an audit entry; each holds the hash of the one before, and the control plane signs the chain, so that none can be changed or removed unseen.",
		a.auditList(), a.auditVerify(), a.auditExport(), a.auditKey())
}

// auditFilters are the flags that select entries, by the API's names of the parameters.
func auditFilters(cmd *cobra.Command) map[string]*string {
	f := cmd.Flags()
	return map[string]*string{
		"actor":      f.String("actor", "", "only what this actor did, such as token/tok-1 or leader/hosts"),
		"object":     f.String("object", "", "only what was done to this object, such as host/shop.example.com"),
		"operation":  f.String("operation", "", "only this operation, such as host_put"),
		"request_id": f.String("request-id", "", "only what this request did: X-Request-Id of an answer"),
	}
}

func (a *app) auditList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List audit entries, oldest first; a tenant sees its own", Args: exact(),
		Long:    "List audit entries, oldest first. A tenant sees its own; an operator sees all, or with --tenant those of one. With -o json and --follow one entry a line.",
		Example: "  fleetctl audit list --newest -n 20\n  fleetctl audit list --object host/shop.example.com --since 7d --all\n  fleetctl audit list --follow",
	}
	filters := auditFilters(cmd)
	f := cmd.Flags()
	since := f.String("since", "", "not before: a time ago such as 1h or 7d, or a time such as 2026-11-21T14:00:00Z")
	until := f.String("until", "", "before: a time as in --since")
	after := f.Uint64("after", 0, "entries behind this number; with --newest, those before it")
	newest := f.Bool("newest", false, "newest first")
	follow := f.Bool("follow", false, "show entries as they come, until Ctrl-C")
	limit := f.IntP("limit", "n", 50, "how many at most")
	all := f.Bool("all", false, "all of them")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q := url.Values{}
		for name, v := range filters {
			set(q, name, *v)
		}
		for name, v := range map[string]string{"since": *since, "until": *until} {
			if v == "" {
				continue
			}
			t, err := a.parseTime(cmd, v)
			if err != nil {
				return err
			}
			q.Set(name, t.UTC().Format(time.RFC3339))
		}
		if *after > 0 {
			q.Set("cursor", strconv.FormatUint(*after, 10))
		}
		n, err := limitOf(cmd, *limit, *all)
		if err != nil {
			return err
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		set(q, "tenant", a.flags.tenant)
		l := listing{path: apiPath("audit"), query: q, cursor: "cursor", limit: n}
		switch {
		case *follow && *newest:
			return usagef(cmd, "give --follow or --newest, not both")
		case *follow:
			return a.auditFollow(cmd.Context(), s, l, *after)
		case *newest:
			q.Set("newest", "true")
		}
		header := []string{"SEQ", "TIME", "WHO", "PARTY", "OPERATION", "OBJECT", "TENANT", "REASON"}
		return show(cmd.Context(), a, s, l, header, func(e fleet.AuditEntry) []any {
			return []any{e.Seq, a.age(e.Time), e.Name, e.Party, e.Operation, e.Object, e.Tenant, e.Reason}
		})
	}
	return cmd
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

// followEvery is the pause between two looks at the end of the audit log.
const followEvery = time.Second

// auditFollow shows entries behind after, or else behind the newest, as they come.
func (a *app) auditFollow(ctx context.Context, s *session, l listing, after uint64) error {
	if after == 0 {
		page, err := client.Get[client.Page[fleet.AuditEntry]](ctx, s.Client, l.path, url.Values{"newest": {"true"}, "limit": {"1"}})
		if err != nil {
			return err
		}
		for _, e := range page.Items {
			after = e.Seq
		}
	}
	l.limit = 0
	for {
		l.query.Set("cursor", strconv.FormatUint(after, 10))
		err := l.each(ctx, s, func(items []json.RawMessage) error {
			for _, item := range items {
				var e fleet.AuditEntry
				if err := json.Unmarshal(item, &e); err != nil {
					return fleet.NewError(fleet.ErrCorrupt, "audit", "an audit entry after %d cannot be read: %v", after, err)
				}
				after = e.Seq
				if err := a.auditLine(item, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followEvery):
		}
	}
}

func (a *app) auditLine(raw json.RawMessage, e fleet.AuditEntry) error {
	if a.json() {
		return write(a.Out, append(raw[:len(raw):len(raw)], '\n'))
	}
	return write(a.Out, fmt.Appendf(nil, "%8d  %s  %-24s  %-18s  %s  %s\n", e.Seq, e.Time.UTC().Format(time.RFC3339), clean(e.Name), clean(e.Operation), clean(e.Object), clean(e.Reason)))
}

func (a *app) auditKey() *cobra.Command {
	return &cobra.Command{
		Use: "key [FILE]", Short: "Show the key that exports are verified with", Args: atMost("FILE"),
		Long: "Show the audit key (Ed25519, public half, PEM), or write it to FILE. Give it to auditors once, by a way of its own, and tell them the fingerprint:\n" +
			"an export that is verified with the key that came with it proves nothing about who made it.",
		Example: "  fleetctl audit key audit-key.pem\n  fleetctl audit verify audit.ndjson --key audit-key.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			k, err := client.Get[client.AuditKey](cmd.Context(), s.Client, apiPath("audit", "key"), nil)
			switch {
			case err != nil:
				return err
			case len(args) > 0:
				if err := replaceFile(args[0], writing([]byte(k.PEM))); err != nil {
					return fleet.Invalid("file", "write %s: %v", args[0], err)
				}
				a.note("the audit key of cluster %s is in %s; its fingerprint is %s", k.Cluster, args[0], k.Fingerprint)
				return nil
			case a.json():
				return a.printValue(k)
			}
			a.note("audit key of cluster %s, fingerprint %s", k.Cluster, k.Fingerprint)
			return write(a.Out, []byte(k.PEM))
		},
	}
}
