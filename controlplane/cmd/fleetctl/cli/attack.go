package cli

import (
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) attackCommand() *cobra.Command {
	return group("attack", "Attacks: hits by type, parameter and host, none more than an hour after the one before", "", a.attackList(), a.attackShow())
}

func (a *app) attackList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List attacks, the latest hit first", Args: exact(),
		Example: "  fleetctl attack list --since 24h\n  fleetctl attack list --host shop.example.com --type sqli --all -o json",
	}
	f := cmd.Flags()
	host := f.String("host", "", "only this host")
	kind := f.String("type", "", "only this attack type")
	since := f.String("since", "", "last hit not before: a time ago such as 1h or 7d, or a time such as 2026-11-21T14:00:00Z")
	limit := f.Int("limit", 50, "how many at most")
	all := f.Bool("all", false, "all of them")
	completeFlag(cmd, "host", a.completeHosts)
	completeFlag(cmd, "type", words(fleet.AttackTypes...))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q := url.Values{}
		if *host != "" {
			q.Set("host", *host)
		}
		if *kind != "" {
			q.Set("type", *kind)
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
		l := listing{path: s.path("attacks"), query: q, cursor: "cursor", limit: n}
		return show(cmd.Context(), a, s, l, []string{"LAST", "LASTED", "HOST", "TYPE", "PARAMETER", "HITS", "BLOCKED", "ATTACK"}, func(at fleet.Attack) []any {
			return []any{a.age(at.Last), span(at.Last.Sub(at.First)), at.Host, at.Type, at.Parameter, at.Hits, at.Blocked, at.ID}
		})
	}
	return cmd
}

func (a *app) attackShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ATTACK", Short: "Show an attack", Args: exact("ATTACK"),
		Long:    "Show an attack. 'fleetctl event list --attack ATTACK' lists its hits.",
		Example: "  fleetctl attack show 0123456789abcdef01234567-dhx3k2v8q9s0",
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, _, err := fleet.ParseAttackID(fleet.AttackID(args[0])); err != nil {
				return err
			}
			s, err := a.tenantSession(cmd)
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, s.path("attacks", args[0]), func(at fleet.Attack) error {
				t := newTable(a.Out)
				t.row("attack", at.ID)
				t.row("host", at.Host)
				t.row("type", at.Type)
				t.row("parameter", at.Parameter)
				t.row("first hit", at.First.UTC().Format(time.RFC3339)+" ("+a.age(at.First)+")")
				t.row("last hit", at.Last.UTC().Format(time.RFC3339)+" ("+a.age(at.Last)+")")
				t.row("hits", at.Hits)
				t.row("blocked", at.Blocked)
				return t.flush()
			})
		},
	}
}
