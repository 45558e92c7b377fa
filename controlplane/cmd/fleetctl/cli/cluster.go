package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "The members of the control plane", "", a.clusterStatus(), a.clusterMembers(), a.clusterCheck(), a.clusterAdd(), a.clusterJoinToken(), a.clusterRemove(),
		a.clusterTransferLeader(), a.clusterSnapshot(), a.clusterBackups(), a.clusterIncarnation(), a.clusterKEK())
}

func (a *app) clusterStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show the members, the leader and the Raft log", Args: exact(),
		Long:    "Show what the answering member knows of its cluster. --hash also shows the digest of its state: members at the same index have the same.",
		Example: "  fleetctl cluster status\n  fleetctl cluster status --hash --addr 10.0.0.2:8440",
	}
	hash := cmd.Flags().Bool("hash", false, "compute the digest of the member's state")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.session()
		if err != nil {
			return err
		}
		q := url.Values{"health": {"true"}}
		if *hash {
			q.Set("hash", "true")
		}
		raw, err := s.Raw(cmd.Context(), http.MethodGet, apiPath("cluster"), q, nil)
		if err != nil {
			return err
		}
		return answer(a, raw, a.showCluster)
	}
	return cmd
}

func (a *app) showCluster(c client.ClusterStatus) error {
	leader := string(c.Leader)
	if leader == "" {
		leader = "none: writes fail until a majority of the voters is back"
	}
	t := newTable(a.Out)
	t.row("cluster", c.ID)
	t.row("zone", c.Zone)
	t.row("incarnation", c.Incarnation)
	t.row("answered by", c.Member)
	t.row("leader", leader)
	t.row("term", c.Term)
	t.row("log index", logEnd(c))
	t.row("applied", c.Applied)
	t.row("log format", logFormat(c))
	if c.StateHash != "" {
		t.row("state hash", c.StateHash)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if err := a.say(""); err != nil {
		return err
	}
	return a.showMembers(c.Members)
}

// logEnd is where the log of the answering member ends: of two logs, the one of the higher term reaches further.
func logEnd(c client.ClusterStatus) string {
	for _, m := range c.Members {
		if m.ID == c.Member && m.Health != nil && m.Health.Stats != nil {
			return fmt.Sprintf("%d, of term %d", c.Index, m.Health.Stats.LastTerm)
		}
	}
	return fmt.Sprint(c.Index)
}

// logFormat is the format of the log, and who keeps it from being newer.
func logFormat(c client.ClusterStatus) string {
	if len(c.OlderMembers) == 0 {
		return strconv.Itoa(c.Format)
	}
	return fmt.Sprintf("%d: members that understand no newer one: %s", c.Format, join(c.OlderMembers))
}

func (a *app) clusterCheck() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Check delegation, ports, clocks, disk and keys; exit 1 if one fails", Example: "  fleetctl cluster check", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			var raw []byte
			var checks client.Page[fleet.Check]
			if err := s.read(cmd.Context(), apiPath("cluster", "checks"), nil, &raw, &checks); err != nil {
				return err
			}
			return a.showChecks(raw, checks)
		},
	}
}

// showChecks lists checks; one that failed is the exit code.
func (a *app) showChecks(raw []byte, checks client.Page[fleet.Check]) error {
	err := answer(a, raw, func(p client.Page[fleet.Check]) error {
		t := newTable(a.Out, "CHECK", "STATE", "DETAIL")
		for _, c := range p.Items {
			t.row(c.Name, c.State, c.Detail)
		}
		return t.flush()
	})
	if err == nil && slices.ContainsFunc(checks.Items, func(c fleet.Check) bool { return c.State == fleet.CheckFail }) {
		return exitCode(fleet.ExitFailure)
	}
	return err
}

func (a *app) clusterJoinToken() *cobra.Command {
	cmd := &cobra.Command{
		Use: "join-token", Short: "Make a one-time token that admits one member", Args: exact(),
		Long:    "Make a one-time token that admits one member. It is printed this one time, alone on the standard output.",
		Example: "  fleetctl cluster join-token --ttl 5m",
	}
	ttl := ttlFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.joinToken(cmd, client.JoinTokenCreate{Kind: fleet.JoinMember}, *ttl, "start the new member with 'controlplane join'")
	}
	return cmd
}

func ttlFlag(cmd *cobra.Command) *time.Duration {
	return cmd.Flags().Duration("ttl", 0, "life of the token, at most and by default 15m")
}

// joinToken makes a join token. The token alone goes to the standard output, so that scripts can take it.
func (a *app) joinToken(cmd *cobra.Command, in client.JoinTokenCreate, ttl time.Duration, next string) error {
	s, err := a.session()
	if err != nil {
		return err
	}
	if cmd.Flags().Changed("ttl") {
		if ttl <= 0 {
			return usagef(cmd, "--ttl %s is not a life: give 1s to 15m", ttl)
		}
		in.TTL = ttl.String()
	}
	return call(cmd.Context(), a, s, http.MethodPost, apiPath("join-tokens"), in, func(t client.JoinTokenCreated) error {
		a.note("it admits one %s and ends %s: %s", t.Kind, a.age(t.ExpiresAt), next)
		return a.say("%s", t.Secret)
	})
}

func (a *app) clusterRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove MEMBER", Short: "Remove a member from the cluster for ever", Args: exact("MEMBER"),
		ValidArgsFunction: first(a.completeMembers),
		Long: "Remove a member that will not come back: from then on its certificates are refused. One that leads hands over first. A\n" +
			"member that is removed while it runs stops by itself. To replace a member, remove it and add its successor, which may\n" +
			"have the same id, with 'fleetctl cluster add'. While a majority of those that remain cannot be reached, it is refused.",
		Example: "  fleetctl cluster remove m3 --yes",
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.confirm(cmd, *yes, "removing member", args[0]); err != nil {
			return err
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		return a.remove(cmd.Context(), s, apiPath("cluster", "members", args[0]), nil, "member "+args[0]+" is removed")
	}
	return cmd
}
