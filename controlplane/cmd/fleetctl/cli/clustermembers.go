package cli

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) clusterTransferLeader() *cobra.Command {
	cmd := &cobra.Command{
		Use: "transfer-leader", Short: "Hand leadership to another voter", Args: exact(),
		Long: "Hand leadership to another voter, before work on the host of the leader say. Requests that arrive meanwhile wait for\n" +
			"the new leader, some ten milliseconds; none fails. A member that is stopped hands over by itself.",
		Example: "  fleetctl cluster transfer-leader --reason 'kernel upgrade'\n  fleetctl cluster transfer-leader --to m2",
	}
	in := client.LeaderTransfer{}
	cmd.Flags().StringVar((*string)(&in.To), "to", "", "the voter that is to lead; default: the one that is furthest")
	completeFlag(cmd, "to", a.completeMembers)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.session()
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, apiPath("cluster", "transfer-leader"), in, func(t client.LeaderTransferred) error {
			if t.From == t.Leader {
				return a.say("member %s leads already", t.Leader)
			}
			return a.say("member %s handed over, member %s leads", t.From, t.Leader)
		}, client.Unrepeatable())
	}
	return cmd
}

func (a *app) clusterMembers() *cobra.Command {
	return &cobra.Command{
		Use: "members", Short: "List the members and how each stands", Args: exact(),
		Long: "List the members, as the answering one sees them, without a leader too. A newcomer is a nonvoter until it is stable and\n" +
			"has caught up; one with 'nonvoter: true' in its configuration stays one.",
		Example: "  fleetctl cluster members\n  fleetctl cluster members -o json --addr 10.0.0.2:8440",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, apiPath("cluster", "members"), func(p client.Page[client.MemberStatus]) error {
				return a.showMembers(p.Items)
			})
		},
	}
}

func (a *app) showMembers(members []client.MemberStatus) error {
	t := newTable(a.Out, "MEMBER", "REGION", "ROLE", "SUFFRAGE", "HEALTH", "CONTACT", "BEHIND", "TERM", "API", "RAFT", "DNS", "FORMAT", "SOFTWARE")
	for _, m := range members {
		role, health, contact, behind, term := "follower", "-", "-", "-", "-"
		if m.Leader {
			role = "leader"
		}
		if h := m.Health; h != nil {
			if health = "ok"; !h.Healthy {
				health = "FAILING"
			}
			if s := h.Stats; s != nil {
				behind, term = fmt.Sprint(h.Behind), fmt.Sprint(s.Term)
				if s.LastContactMS != nil {
					contact = (time.Duration(*s.LastContactMS) * time.Millisecond).String()
				}
			}
		}
		t.row(m.ID, m.Region, role, m.Suffrage, health, contact, behind, term, m.API, m.Raft, m.DNS, max(1, m.Format), m.Software)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, m := range members {
		if m.Health != nil && !m.Health.Healthy {
			a.note("%s: %s", m.ID, m.Health.Detail)
		}
	}
	return nil
}

func (a *app) clusterAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add MEMBER", Short: "Admit a new member: make its token and show what to run", Args: exact("MEMBER"),
		Long: "Make a one-time token for a new member, and show what to run on its host. It receives the state as a nonvoter and votes\n" +
			"by itself once it is stable and has caught up. The token alone goes to the standard output.",
		Example: "  fleetctl cluster add m4 --region eu-west\n  fleetctl cluster add m3   # the successor of a member that was removed",
	}
	ttl := ttlFlag(cmd)
	region := cmd.Flags().String("region", "", "the region that the member's configuration must name; default: any, or none")
	completeFlag(cmd, "region", a.completeRegions)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id := fleet.MemberID(args[0])
		if err := fleet.ValidateID("member", id); err != nil {
			return err
		}
		settings := "'member: " + string(id) + "'"
		if *region != "" {
			if err := fleet.ValidateID("region", *region); err != nil {
				return err
			}
			settings += ", 'region: " + *region + "'"
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		var raw []byte
		var members client.Page[client.MemberStatus]
		if err := s.read(cmd.Context(), apiPath("cluster", "members"), nil, &raw, &members); err != nil {
			return err
		}
		api := "HOST:8440"
		for i, m := range members.Items {
			if m.ID == id {
				return fleet.NewError(fleet.ErrConflict, "member", "member %s exists: 'fleetctl cluster remove %s' first, if it is gone for good", id, id)
			}
			if i == 0 || m.Leader { // the one that certainly runs
				api = m.API
			}
		}
		if err := a.joinToken(cmd, client.JoinTokenCreate{Kind: fleet.JoinMember, Region: fleet.RegionName(*region)}, *ttl, "on the host of "+string(id)+", run what follows"); err != nil {
			return err
		}
		a.note("# with %s, an empty data_dir, and a copy of the key-encryption key at kek_file", settings)
		a.note("controlplane join --config /etc/edgefleet/controlplane.yaml --address %s --token TOKEN", api)
		a.note("controlplane run --config /etc/edgefleet/controlplane.yaml")
		return nil
	}
	return cmd
}
