package controlplane

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/audit"
	"github.com/edgefleet/edgefleet/controlplane/client"
	leaderaudit "github.com/edgefleet/edgefleet/controlplane/leader/audit"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// peerTimeout bounds one question to another member about audit segments.
const peerTimeout = 10 * time.Second

func (m *member) startAudit(ctx context.Context) error {
	var err error
	m.audit, err = audit.Open(audit.Options{Dir: m.c.path("audit"), State: m.state, Fetch: m.fetchSegment, Telemetry: m.tel})
	if err != nil {
		return err
	}
	m.parts.Start(ctx, "audit segments", m.audit.Run)
	return nil
}

// auditLoop is the leader's loop over the audit chain.
func (m *member) auditLoop() *leaderaudit.Loop {
	o := leaderaudit.Options{State: m.state, Proposer: m.raft, Voters: m.raft.voterIDs, Held: m.heldBy, Keep: m.c.AuditKeep, Now: utcNow}
	if m.keys != nil {
		o.Sign = m.keys.SignAudit
	}
	return leaderaudit.New(o)
}

// peer reaches the API of one other member with this member's certificate.
func (m *member) peer(id fleet.MemberID) (*client.Client, error) {
	other, ok := m.state.Read().Member(id)
	if !ok {
		return nil, fleet.NewError(fleet.ErrNotFound, "member", "member %s does not exist", id)
	}
	return client.New(client.Options{Addrs: []string{other.API}, TLS: mtls.ClientTLS(m.trust.source, m.trust.apiCA, "", nil), Timeout: peerTimeout})
}

// fetchSegment asks the other members for a segment, one after the other.
func (m *member) fetchSegment(ctx context.Context, s fleet.AuditSegment) ([]byte, error) {
	err := error(fleet.NewError(fleet.ErrNotFound, "digest", "there is no other member"))
	for _, other := range m.state.Read().Members() {
		if other.ID == m.c.Member {
			continue
		}
		c, asked := m.peer(other.ID)
		if asked == nil {
			var b []byte
			if b, asked = c.Raw(ctx, http.MethodGet, "/v1/cluster/audit/segments/"+string(s.Digest), nil, nil); asked == nil {
				c.Close()
				return b, nil
			}
			c.Close()
		}
		err = asked
	}
	return nil, err
}

// heldBy lists the segments, of those with entries in the state, that a member has on its disk.
func (m *member) heldBy(ctx context.Context, id fleet.MemberID) (map[fleet.Digest]bool, error) {
	held := map[fleet.Digest]bool{}
	if id == m.c.Member {
		for _, d := range m.audit.Held() {
			held[d] = true
		}
		return held, nil
	}
	c, err := m.peer(id)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	answer, err := client.Get[client.AuditHeld](ctx, c, "/v1/cluster/audit/held", nil)
	for _, d := range answer.Digests {
		held[d] = true
	}
	return held, err
}

// voterIDs lists the voting members; none when the configuration cannot be read, so that nothing leaves the state.
func (p proposer) voterIDs() []fleet.MemberID {
	suffrage, err := p.Suffrage()
	var ids []fleet.MemberID
	for id, s := range suffrage {
		if s == "voter" {
			ids = append(ids, id)
		}
	}
	if err != nil {
		return nil
	}
	slices.Sort(ids)
	return ids
}
