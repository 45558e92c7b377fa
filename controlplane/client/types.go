package client

import (
	"net/netip"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Bodies of requests and answers that are not domain objects themselves. Pages have the object list under items and
// an opaque cursor under next, empty on the last page.
type (
	// Page is one page of a list.
	Page[T any] struct {
		Items []T    `json:"items" doc:"the objects, in the order of their ids"`
		Next  string `json:"next,omitempty" doc:"cursor of the next page; absent on the last"`
	}

	// TenantCreate makes a tenant.
	TenantCreate struct {
		ID             fleet.TenantID  `json:"id" doc:"1 to 63 of a-z, 0-9 and '-'" example:"acme"`
		Name           string          `json:"name,omitempty" doc:"for people"`
		Form           fleet.Form      `json:"form,omitempty" doc:"security_edge, hybrid or on_premise; default security_edge"`
		Group          fleet.GroupName `json:"group,omitempty" doc:"node group that serves the tenant; default default"`
		AllowedOrigins []netip.Prefix  `json:"allowed_origins,omitempty" doc:"private address ranges that origins of this tenant may have"`
	}
	// TenantUpdate changes what is set.
	TenantUpdate struct {
		Name           *string         `json:"name,omitempty"`
		AllowedOrigins *[]netip.Prefix `json:"allowed_origins,omitempty"`
	}

	// JoinTokenCreate makes a join token.
	JoinTokenCreate struct {
		Kind   fleet.JoinKind   `json:"kind" doc:"node or member"`
		Group  fleet.GroupName  `json:"group,omitempty" doc:"node group; default default"`
		Region fleet.RegionName `json:"region,omitempty" doc:"region of a node, default default; or the one that the configuration of a member must name"`
		TTL    string           `json:"ttl,omitempty" doc:"life of the token, at most 15m" example:"10m"`
	}
	// JoinTokenCreated shows a join token's secret, once.
	JoinTokenCreated struct {
		fleet.JoinToken
		Secret string `json:"token,omitempty" doc:"the join token; it is shown this one time"`
		Note   string `json:"note,omitempty" doc:"why there is no secret, when a repeated request is answered again"`
	}

	// HostCreate protects a host.
	HostCreate struct {
		Name    string             `json:"name" doc:"DNS name to protect" example:"api.example.com"`
		Origins []fleet.Origin     `json:"origins" doc:"where requests are forwarded"`
		Mode    fleet.Mode         `json:"mode,omitempty" doc:"off, monitoring, safe_blocking, block or inherit; default monitoring"`
		Regions []fleet.RegionName `json:"regions,omitempty" doc:"regions that serve the host; default all"`
		// TLS is how clients reach the host, Forwarding how its requests reach the origins.
		TLS        *fleet.HostTLS    `json:"tls,omitempty" doc:"how clients reach the host; default: TLS 1.2 or newer, for everybody"`
		Forwarding *fleet.Forwarding `json:"forwarding,omitempty" doc:"how requests reach the origins; default: by turns, with the nodes' own limits"`
		// Certificate is where the host's certificate comes from.
		Certificate string `json:"certificate,omitempty" enum:",acme,own,none" doc:"acme: ordered and renewed by the edge (default); own: uploaded; none: another CDN in front has the visitors' TLS"`
	}
	// HostUpdate changes what is set.
	HostUpdate struct {
		Origins *[]fleet.Origin     `json:"origins,omitempty"`
		Mode    *fleet.Mode         `json:"mode,omitempty"`
		Regions *[]fleet.RegionName `json:"regions,omitempty"`
		// TLS and Forwarding replace what is there, whole.
		TLS        *fleet.HostTLS    `json:"tls,omitempty" doc:"replaces what is there, whole"`
		Forwarding *fleet.Forwarding `json:"forwarding,omitempty" doc:"replaces what is there, whole"`
		// Certificate is where the host's certificate comes from.
		FailPolicy  *fleet.FailPolicy `json:"fail_policy,omitempty" doc:"what becomes of requests that could not be judged, by cause; replaces what is there, whole"`
		Certificate *string           `json:"certificate,omitempty" enum:"acme,own,none" doc:"acme: ordered and renewed by the edge; own: uploaded; none: another CDN in front has the visitors' TLS"`
	}
	// HostView is a host and the DNS records that its owner sets.
	HostView struct {
		fleet.Host
		Records []fleet.Record `json:"records"`
		// Advice is what the conditions that are not true ask for.
		Advice []fleet.HostAdvice `json:"advice,omitempty"`
		// Services are the origins that are Consul services, with the servers that they stand for.
		Services []fleet.ResolvedOrigin `json:"services,omitempty"`
	}

	// RuleCreate makes a rule.
	RuleCreate struct {
		ID   fleet.RuleID   `json:"id,omitempty" doc:"default: made by the control plane"`
		Spec fleet.RuleSpec `json:"spec"`
	}
	// RuleTest asks which rules a request would match, without sending it anywhere.
	RuleTest struct {
		Spec   *fleet.RuleSpec     `json:"spec,omitempty" doc:"test this rule; default: the tenant's stored rules"`
		Method string              `json:"method,omitempty" doc:"default GET"`
		URL    string              `json:"url" doc:"absolute URL" example:"https://api.example.com/?q=x"`
		Header map[string][]string `json:"header,omitempty"`
		Body   string              `json:"body,omitempty" maxLength:"65536"`
	}
	// RuleMatch is one rule that the request matches.
	RuleMatch struct {
		Rule       fleet.RuleID     `json:"rule,omitempty"`
		AttackType fleet.AttackType `json:"attack_type"`
		Point      fleet.Point      `json:"point"`
		Parameter  string           `json:"parameter,omitempty"`
	}

	// RulesetStatus is the convergence receipt of a tenant's rules, or of a group's heads.
	RulesetStatus struct {
		Group   fleet.GroupName `json:"group"`
		Kind    fleet.HeadKind  `json:"kind"`
		Version fleet.Version   `json:"version"`
		Root    fleet.Digest    `json:"root"`
		// Committed is when the leader committed the version.
		Committed time.Time `json:"committed"`
		// Pending: the state has moved on and its next version is being made; nothing counts as live until then.
		Pending bool `json:"pending,omitempty"`
		// Live of Nodes nodes run it; nodes that are down do not count as live.
		Live  int `json:"live"`
		Nodes int `json:"nodes"`
		// P50 and P99 are seconds from commit to the nodes' swap, over the nodes that run it.
		P50 float64 `json:"p50_seconds"`
		P99 float64 `json:"p99_seconds"`
		// Waiting lists the nodes that do not run it, with their reason if they refused.
		Waiting []WaitingNode `json:"waiting,omitempty"`
	}
	// WaitingNode is a node that does not run a version yet.
	WaitingNode struct {
		Node   fleet.NodeID    `json:"node"`
		State  fleet.NodeState `json:"state"`
		Reason string          `json:"reason,omitempty"`
	}

	// NodeUpdate changes what is set.
	NodeUpdate struct {
		Cordoned *bool             `json:"cordoned,omitempty"`
		Region   *fleet.RegionName `json:"region,omitempty"`
		Weight   *int              `json:"weight,omitempty" minimum:"0" maximum:"100" doc:"share of DNS answers, 1 to 100; 0 is the usual 10"`
	}

	// ClusterStatus is what a member knows of its cluster.
	ClusterStatus struct {
		fleet.Cluster
		// Member answered; Leader leads, empty when nobody does.
		Member fleet.MemberID `json:"member"`
		Leader fleet.MemberID `json:"leader,omitempty"`
		// Term and Index are Raft's; Applied is the index that this member's state includes.
		Term    uint64 `json:"term"`
		Index   uint64 `json:"index"`
		Applied uint64 `json:"applied"`
		// StateHash is the digest of this member's state at Applied; asked for with ?hash=true.
		StateHash string         `json:"state_hash,omitempty"`
		Members   []MemberStatus `json:"members"`
		// Format is the format of the log that all members understand; OlderMembers are those that understand no newer one
		// though the answering member does.
		Format       int              `json:"format"`
		OlderMembers []fleet.MemberID `json:"older_members,omitempty"`
	}
	// MemberStatus is a member and its part in Raft.
	MemberStatus struct {
		fleet.Member
		Suffrage string `json:"suffrage" doc:"voter, nonvoter, or joining before it runs"`
		Leader   bool   `json:"leader"`
		// Health is how it stands, where that was asked for.
		Health *MemberHealth `json:"health,omitempty"`
	}
	// MemberHealth is how a member stands, as the answering member found it.
	MemberHealth struct {
		Healthy bool   `json:"healthy"`
		Detail  string `json:"detail,omitempty" doc:"what is wrong"`
		// Behind is how many entries it lacks of the leader's log.
		Behind uint64     `json:"behind"`
		Stats  *RaftStats `json:"stats,omitempty"`
	}
	// RaftStats is how a member stands in Raft, by its own account.
	RaftStats struct {
		Member    fleet.MemberID `json:"member"`
		State     string         `json:"state" doc:"leader, follower, candidate or shutdown"`
		Term      uint64         `json:"term"`
		LastTerm  uint64         `json:"last_term" doc:"term of the last entry of the log"`
		LastIndex uint64         `json:"last_index"`
		Commit    uint64         `json:"commit"`
		Applied   uint64         `json:"applied"`
		// LastContactMS is how long ago it heard from the leader; missing if it leads, or never did.
		LastContactMS *int64 `json:"last_contact_ms,omitempty"`
		// KEKs are the names of its key-encryption keys, the newest last.
		KEKs []string `json:"keks,omitempty"`
	}

	// LeaderTransfer hands leadership to another voter; an empty To leaves the choice to the cluster.
	LeaderTransfer struct {
		To     fleet.MemberID `json:"to,omitempty" doc:"the voter that is to lead; empty: the one that is furthest"`
		Reason string         `json:"reason,omitempty" maxLength:"512" doc:"why, for the audit log"`
	}
	// LeaderTransferred says who leads since.
	LeaderTransferred struct {
		From   fleet.MemberID `json:"from"`
		Leader fleet.MemberID `json:"leader"`
	}

	// MemberJoin exchanges a member join token for an identity.
	MemberJoin struct {
		Token string `json:"token"`
		// Member has the addresses that the others reach the newcomer by.
		Member fleet.Member `json:"member"`
		// CSR and APICSR are PEM, for the member identity and the API listener.
		CSR    string `json:"csr"`
		APICSR string `json:"api_csr"`
		// Sent is the newcomer's clock.
		Sent time.Time `json:"sent"`
	}
	// MemberJoined is the newcomer's identity and the cluster it belongs to.
	MemberJoined struct {
		Cluster        fleet.Cluster  `json:"cluster"`
		Certificate    string         `json:"certificate"`
		APICertificate string         `json:"api_certificate"`
		Members        []fleet.Member `json:"members"`
	}
)
