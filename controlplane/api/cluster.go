package api

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// joinTokenLife is the longest life of a join token.
const joinTokenLife = 15 * time.Minute

// Prefixes of join tokens: efn1.<id>.<secret>.<fingerprint of the API CA>.
const (
	nodeTokenPrefix   = "efn1"
	memberTokenPrefix = "efm1"
)

func (a *API) registerCluster() {
	handle(a, op("cluster-status", http.MethodGet, "/v1/cluster", "What the answering member knows of its cluster", operators, fleet.PermClusterRead, fleet.DutyOperating).locally(), a.clusterStatus)
	handle(a, op("cluster-checks", http.MethodGet, "/v1/cluster/checks", "Check delegation, ports, clocks, disk and KEK", operators, fleet.PermClusterRead, fleet.DutyEnvironment).locally(), a.clusterChecks)
	handle(a, op("cluster-join", http.MethodPost, "/v1/cluster/join", "Exchange a member join token for an identity", public, fleet.PermPublic, fleet.DutyCloud).changes(command.TypeMemberJoin), a.memberJoin)
	handle(a, op("cluster-announce", http.MethodPost, "/v1/cluster/announce", "A running member says where it is, and asks to be taken in", membersOnly, fleet.PermMember, fleet.DutyCloud).changes(command.TypeMemberPut).answering(http.StatusOK), a.memberAnnounce)
	handle(a, op("cluster-member-remove", http.MethodDelete, "/v1/cluster/members/{id}", "Remove a member for ever; one that leads hands over first", operators, fleet.PermClusterOperate, fleet.DutyOperating).changes(command.TypeMemberRetire), a.memberRemove)
	handle(a, op("join-token-create", http.MethodPost, "/v1/join-tokens", "Make a one-time join token for a node or a member", operators, fleet.PermNodesEnrol, fleet.DutyOperating).changes(command.TypeJoinTokenPut), a.joinTokenCreate)
	handle(a, op("whoami", http.MethodGet, "/v1/whoami", "What this token may do", anyToken, fleet.PermSelf, fleet.DutyConsole), a.whoami)
	a.registerKEK()
}

// ClusterQuery asks for a member's status.
type ClusterQuery struct {
	Hash   bool `query:"hash" doc:"compute the digest of this member's state"`
	Health bool `query:"health" doc:"ask every member how it stands; one that is away takes a second"`
}

func (a *API) clusterStatus(ctx context.Context, in *ClusterQuery) (*Body[client.ClusterStatus], error) {
	v := a.view()
	rec, _ := v.Cluster()
	term, index := a.o.Consensus.Status()
	leader, _ := a.o.Consensus.Leader()
	s := client.ClusterStatus{Cluster: rec.Cluster, Member: a.o.Member, Leader: leader, Term: term, Index: index, Applied: v.Index()}
	s.Format, s.OlderMembers = command.Common(v.Members())
	members, err := a.memberStatus(v.Members(), leader)
	if err != nil {
		return nil, err
	}
	if s.Members = members; in.Health {
		a.examine(ctx, s.Members)
	}
	if in.Hash {
		if s.StateHash, err = v.Hash(); err != nil {
			return nil, err
		}
	}
	return &Body[client.ClusterStatus]{Body: s}, nil
}

func (a *API) clusterChecks(ctx context.Context, _ *ReadQuery) (*Body[client.Page[fleet.Check]], error) {
	return &Body[client.Page[fleet.Check]]{Body: client.Page[fleet.Check]{Items: a.o.Checks(ctx)}}, nil
}

func (a *API) whoami(ctx context.Context, _ *ReadQuery) (*Body[client.Whoami], error) {
	t := callerOf(ctx).token
	w := client.Whoami{Token: t, Party: t.Party(), Permissions: a.permissions(t).List()}
	if u, ok := a.view().User(t.Owner); ok {
		w.User = &u
	}
	return &Body[client.Whoami]{Body: w}, nil
}

func (a *API) joinTokenCreate(ctx context.Context, in *Input[client.JoinTokenCreate]) (*Body[client.JoinTokenCreated], error) {
	life := joinTokenLife
	if in.Body.TTL != "" {
		d, err := time.ParseDuration(in.Body.TTL)
		if err != nil || d <= 0 || d > joinTokenLife {
			return nil, fleet.Invalid("ttl", "%q is not a duration of at most %s, such as 10m", in.Body.TTL, joinTokenLife)
		}
		life = d
	}
	if err := a.o.Keys.Check(); err != nil {
		return nil, err
	}
	secret, hash := newSecret()
	t := fleet.JoinToken{ID: fleet.TokenID(newID("join")), Kind: in.Body.Kind, ExpiresAt: a.o.Now().UTC().Add(life)}
	prefix := memberTokenPrefix
	if t.Kind == fleet.JoinMember {
		if err := a.require(callerOf(ctx).token, fleet.PermClusterOperate); err != nil {
			return nil, err
		}
	}
	if t.Kind == fleet.JoinMember && in.Body.Region != "" {
		if err := fleet.ValidateID("region", in.Body.Region); err != nil {
			return nil, err
		}
		t.Region = in.Body.Region
	}
	if t.Kind == fleet.JoinNode {
		prefix, t.Group, t.Region = nodeTokenPrefix, orDefault(in.Body.Group, fleet.DefaultGroup), orDefault(in.Body.Region, fleet.DefaultRegion)
		if err := a.authorizeGroup(ctx, fleet.DutyOperating, t.Group); err != nil {
			return nil, err
		}
	}
	made, err := propose[fleet.JoinToken](ctx, a, command.JoinTokenPut{Token: fleet.JoinTokenRecord{JoinToken: t, Hash: hash}})
	if err != nil {
		return nil, err
	}
	text := strings.Join([]string{prefix, string(t.ID), secret, a.o.Keys.APICA.Fingerprint()}, ".")
	return &Body[client.JoinTokenCreated]{Body: client.JoinTokenCreated{JoinToken: made, Secret: text}}, nil
}

func orDefault[T ~string](v, def T) T {
	if v == "" {
		return def
	}
	return v
}

// checkJoinToken compares a join token's secret; whether it is used or expired is decided when it is consumed.
func (a *API) checkJoinToken(token, prefix string, kind fleet.JoinKind, source string) (fleet.JoinTokenRecord, error) {
	if err := a.limiter.check(source, a.o.Now()); err != nil {
		return fleet.JoinTokenRecord{}, err
	}
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) == 4 && parts[0] == prefix {
		rec, ok := a.view().JoinToken(fleet.TokenID(parts[1]))
		if matches(rec.Hash, parts[2]) && ok && rec.Kind == kind {
			if rec.UsedBy != "" {
				return rec, fleet.NewError(fleet.ErrDenied, "token", "join token %s was used already: a token admits one %s; ask an operator for a new one", rec.ID, kind)
			}
			if !a.o.Now().Before(rec.ExpiresAt) {
				return rec, fleet.NewError(fleet.ErrDenied, "token", "join token %s expired: ask an operator for a new one", rec.ID)
			}
			return rec, nil
		}
	}
	_ = a.limiter.failed(source, "", a.o.Now()) // of no API token
	return fleet.JoinTokenRecord{}, fleet.NewError(fleet.ErrUnauthenticated, "token", "the join token is not a %s join token of this cluster: ask an operator for a new one", kind)
}

// checkClock refuses a newcomer whose clock is off: its certificates and events would be wrong.
func (a *API) checkClock(sent time.Time) error {
	if skew := a.o.Now().Sub(sent); skew.Abs() > fleet.MaxClockSkew {
		return fleet.Invalid("sent", "the newcomer's clock is off by %s (limit %s): set it by NTP and try again", skew.Round(time.Second), fleet.MaxClockSkew)
	}
	return nil
}

func (a *API) memberJoin(ctx context.Context, in *Input[client.MemberJoin]) (*Body[client.MemberJoined], error) {
	c := callerOf(ctx)
	rec, err := a.checkJoinToken(in.Body.Token, memberTokenPrefix, fleet.JoinMember, c.source)
	if err != nil {
		return nil, err
	}
	if err := a.checkClock(in.Body.Sent); err != nil {
		return nil, err
	}
	if err := a.o.Keys.Check(); err != nil {
		return nil, err
	}
	m := in.Body.Member
	m.Join = rec.ID
	if format, _ := command.Common(a.view().Members()); max(1, m.Format) < format {
		return nil, fleet.NewError(fleet.ErrConflict, "format", "the controlplane of member %s understands log format %d, and the cluster uses %d: install the release that the other members run", m.ID, max(1, m.Format), format)
	}
	if err := checkMember(m); err != nil {
		return nil, err
	}
	if rec.Region != "" && m.Region != rec.Region {
		return nil, fleet.Invalid("region", "the join token is for a member of region %s: set 'region: %s' in the configuration of member %s, or ask for a token without a region", rec.Region, rec.Region, m.ID)
	}
	pub, err := mtls.ParseCSR([]byte(in.Body.CSR))
	if err != nil {
		return nil, err
	}
	apiPub, err := mtls.ParseCSR([]byte(in.Body.APICSR))
	if err != nil {
		return nil, err
	}
	cluster, _ := a.view().Cluster()
	now := a.o.Now()
	cert, err := a.o.Keys.MemberCA.SignJoined(cluster.ID, m.ID, rec.ID, pub, now)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(m.API)
	apiCert, err := a.o.Keys.APICA.SignServer([]string{host, "localhost"}, apiPub, now)
	if err != nil {
		return nil, err
	}
	if err := a.unseat(ctx, m.ID); err != nil {
		return nil, err
	}
	if _, err := propose[fleet.Member](ctx, a, command.MemberJoin{Token: rec.ID, Member: m}); err != nil {
		return nil, err
	}
	return &Body[client.MemberJoined]{Body: client.MemberJoined{
		Cluster: cluster.Cluster, Certificate: string(cert),
		APICertificate: string(mtls.ServerChain(apiCert, []byte(cluster.APICA))), Members: a.view().Members(),
	}}, nil
}

// unseat makes sure that a newcomer has no vote. One that was removed from the state keeps it in Raft for as long as no
// leader took it: the one that began to may have gone. A member that comes back under that id, with an empty directory,
// would vote at once, though it forgot what it had acknowledged, and what was committed with it could be lost.
func (a *API) unseat(ctx context.Context, id fleet.MemberID) error {
	if _, err := a.o.Consensus.ReadIndex(ctx); err != nil { // a new leader may not know yet that the id is taken
		return err
	}
	return a.o.Consensus.Remove(ctx, id, func() error {
		if _, taken := a.view().Member(id); taken {
			return fleet.NewError(fleet.ErrConflict, "member", "member id %s is taken: choose another, or remove that member if it is gone for good", id)
		}
		return nil
	})
}

func checkMember(m fleet.Member) error {
	if err := fleet.ValidateID("member", m.ID); err != nil {
		return err
	}
	if m.Region != "" {
		if err := fleet.ValidateID("region", m.Region); err != nil {
			return err
		}
	}
	for field, addr := range map[string]string{"raft": m.Raft, "api": m.API, "nats": m.NATS, "nats_route": m.NATSRoute, "dns": m.DNS} {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" || port == "0" {
			return fleet.Invalid(field, "%q is not a host:port by which other members reach this one: set advertise", addr)
		}
	}
	return nil
}

func (a *API) memberAnnounce(ctx context.Context, in *Input[fleet.Member]) (*Body[Empty], error) {
	m := in.Body
	if m.ID != callerOf(ctx).member {
		return nil, fleet.NewError(fleet.ErrDenied, "id", "a member announces itself only")
	}
	if err := checkMember(m); err != nil {
		return nil, err
	}
	known, ok := a.view().Member(m.ID)
	if !ok { // the member would give up, so a new leader must not say it before it has everything
		if _, err := a.o.Consensus.ReadIndex(ctx); err != nil {
			return nil, err
		}
		known, ok = a.view().Member(m.ID)
	}
	if !ok {
		return nil, removedError(m.ID)
	}
	m.Meta, m.Join = known.Meta, known.Join
	if m != known {
		if _, err := propose[fleet.Member](ctx, a, command.MemberPut{Member: m}); err != nil {
			return nil, err
		}
	}
	return &Body[Empty]{}, a.o.Consensus.Admit(ctx, m.ID, m.Raft, func() error {
		if _, ok := a.view().Member(m.ID); !ok {
			return removedError(m.ID)
		}
		return nil
	})
}

func removedError(id fleet.MemberID) error {
	return fleet.NewError(fleet.ErrDenied, "id", "member %s was removed from the cluster: join it again with a new token and an empty data directory", id)
}

// IDPath names an object by its id.
type IDPath struct {
	ID string `path:"id" maxLength:"63" doc:"id"`
}
