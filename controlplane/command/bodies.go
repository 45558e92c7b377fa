package command

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Put says how a write meets what is there.
type Put struct {
	// Create refuses an object that exists; without it, one that does not.
	Create bool `json:"create,omitempty"`
	// IfRevision refuses an object whose revision differs; 0 does not look.
	IfRevision uint64 `json:"if_revision,omitempty"`
}

type (
	// ClusterInit is the first command of a cluster. Answers fleet.Cluster.
	ClusterInit struct {
		Cluster fleet.ClusterRecord `json:"cluster"`
		Member  fleet.Member        `json:"member"`
		Token   fleet.TokenRecord   `json:"token"`
	}
	// MemberPut records a member's addresses. Answers fleet.Member.
	MemberPut struct {
		Member fleet.Member `json:"member"`
	}
	// MemberRemove forgets a member.
	MemberRemove struct {
		ID fleet.MemberID `json:"id"`
	}
	// GroupPut writes a node group's spec. Answers fleet.Group.
	GroupPut struct {
		Put
		Name fleet.GroupName `json:"name"`
		Spec fleet.GroupSpec `json:"spec"`
	}
	// TenantPut writes a tenant's spec. Answers fleet.Tenant.
	TenantPut struct {
		Put
		ID   fleet.TenantID   `json:"id"`
		Spec fleet.TenantSpec `json:"spec"`
	}
	// TenantDelete removes a tenant that has no hosts, with its tokens and rules.
	TenantDelete struct {
		ID         fleet.TenantID `json:"id"`
		IfRevision uint64         `json:"if_revision,omitempty"`
	}
	// TokenPut stores a new API token. Answers fleet.Token.
	TokenPut struct {
		Token fleet.TokenRecord `json:"token"`
	}
	// TokenDelete revokes an API token. A set Tenant must be the token's.
	TokenDelete struct {
		ID     fleet.TokenID  `json:"id"`
		Tenant fleet.TenantID `json:"tenant,omitempty"`
	}
	// HostPut writes a host's spec; Label is used when the host is new. Answers fleet.Host.
	HostPut struct {
		Put
		Name   fleet.HostName `json:"name"`
		Tenant fleet.TenantID `json:"tenant"`
		Spec   fleet.HostSpec `json:"spec"`
		Label  string         `json:"label,omitempty"`
		// Exclusive refuses a new name also below one, or a wildcard, of another tenant, and has a name and the wildcard over
		// it share their certificate record: entries of the first format look at the names below only.
		Exclusive bool `json:"exclusive,omitempty"`
	}
	// HostDelete removes a host, its certificate, orders and challenges; its label stays taken.
	HostDelete struct {
		Name       fleet.HostName `json:"name"`
		Tenant     fleet.TenantID `json:"tenant"`
		IfRevision uint64         `json:"if_revision,omitempty"`
	}
	// HostObserve stores what the leader observed of a host. Not audited: it is no mutation of what people decided.
	HostObserve struct {
		Name     fleet.HostName     `json:"name"`
		Tenant   fleet.TenantID     `json:"tenant"`
		Observed fleet.HostObserved `json:"observed"`
	}
	// RulePut writes a rule. Answers fleet.Rule.
	RulePut struct {
		Put
		ID     fleet.RuleID   `json:"id"`
		Tenant fleet.TenantID `json:"tenant"`
		Spec   fleet.RuleSpec `json:"spec"`
	}
	// RuleDelete removes a rule.
	RuleDelete struct {
		ID         fleet.RuleID   `json:"id"`
		Tenant     fleet.TenantID `json:"tenant"`
		IfRevision uint64         `json:"if_revision,omitempty"`
	}
	// JoinTokenPut stores a new join token. Answers fleet.JoinToken.
	JoinTokenPut struct {
		Token fleet.JoinTokenRecord `json:"token"`
	}
	// NodeEnrol consumes a join token and creates the node. Answers fleet.Node.
	NodeEnrol struct {
		Token    fleet.TokenID      `json:"token"`
		ID       fleet.NodeID       `json:"id"`
		Spec     fleet.NodeSpec     `json:"spec"`
		Identity fleet.NodeIdentity `json:"identity"`
	}
	// NodeRenew records a node's new key and certificate. Answers fleet.Node.
	NodeRenew struct {
		ID       fleet.NodeID `json:"id"`
		SPKI     string       `json:"spki"`
		NotAfter time.Time    `json:"not_after"`
	}
	// NodePut writes a node's spec. Answers fleet.Node.
	NodePut struct {
		Put
		ID   fleet.NodeID   `json:"id"`
		Spec fleet.NodeSpec `json:"spec"`
	}
	// NodeRevoke ends a node's identity for ever.
	NodeRevoke struct {
		ID fleet.NodeID `json:"id"`
	}
	// NodesReport folds what nodes reported. Unknown nodes are passed over. Not audited.
	NodesReport struct {
		Reports []NodeReport `json:"reports"`
	}
	// NodeReport is one node's new observed part.
	NodeReport struct {
		ID       fleet.NodeID       `json:"id"`
		Observed fleet.NodeObserved `json:"observed"`
	}
	// HeadsAdvance moves heads, each to the generation after its current one.
	HeadsAdvance struct {
		Heads []HeadAdvance `json:"heads"`
	}
	// HeadAdvance is one new head.
	HeadAdvance struct {
		Group   fleet.GroupName `json:"group"`
		Kind    fleet.HeadKind  `json:"kind"`
		Version fleet.Version   `json:"version"`
		Root    fleet.Digest    `json:"root"`
	}
	// ChallengePut publishes the answer to an ACME challenge.
	ChallengePut struct {
		Challenge fleet.Challenge `json:"challenge"`
	}
	// ChallengeDelete withdraws it.
	ChallengeDelete struct {
		Host  fleet.HostName      `json:"host"`
		Via   fleet.ChallengeType `json:"via"`
		Token string              `json:"token"`
	}
	// OrderPut stores an order before the CA hears of it, and each failed attempt. Answers fleet.Order.
	OrderPut struct {
		Put
		Order fleet.OrderRecord `json:"order"`
	}
	// CertificateCommit stores an issued certificate and ends its order, in one step. Answers fleet.Certificate.
	CertificateCommit struct {
		Order       fleet.OrderID           `json:"order"`
		Certificate fleet.CertificateRecord `json:"certificate"`
	}
	// EntryPut stores a sealed value for certmagic (ACME accounts).
	EntryPut struct {
		Key   string `json:"key"`
		Value []byte `json:"value"`
	}
	// EntryDelete removes the value with that key and all below it.
	EntryDelete struct {
		Key string `json:"key"`
	}
	// MemberJoin consumes a join token and records the member. Answers fleet.Member.
	MemberJoin struct {
		Token  fleet.TokenID `json:"token"`
		Member fleet.Member  `json:"member"`
	}
)

// Type implements Body.
func (ClusterInit) Type() Type { return TypeClusterInit }

// Type implements Body.
func (MemberPut) Type() Type { return TypeMemberPut }

// Type implements Body.
func (MemberRemove) Type() Type { return TypeMemberRemove }

// Type implements Body.
func (GroupPut) Type() Type { return TypeGroupPut }

// Type implements Body.
func (TenantPut) Type() Type { return TypeTenantPut }

// Type implements Body.
func (TenantDelete) Type() Type { return TypeTenantDelete }

// Type implements Body.
func (TokenPut) Type() Type { return TypeTokenPut }

// Type implements Body.
func (TokenDelete) Type() Type { return TypeTokenDelete }

// Type implements Body.
func (HostPut) Type() Type { return TypeHostPut }

// Type implements Body.
func (HostDelete) Type() Type { return TypeHostDelete }

// Type implements Body.
func (HostObserve) Type() Type { return TypeHostObserve }

// Type implements Body.
func (RulePut) Type() Type { return TypeRulePut }

// Type implements Body.
func (RuleDelete) Type() Type { return TypeRuleDelete }

// Type implements Body.
func (JoinTokenPut) Type() Type { return TypeJoinTokenPut }

// Type implements Body.
func (NodeEnrol) Type() Type { return TypeNodeEnrol }

// Type implements Body.
func (NodeRenew) Type() Type { return TypeNodeRenew }

// Type implements Body.
func (NodePut) Type() Type { return TypeNodePut }

// Type implements Body.
func (NodeRevoke) Type() Type { return TypeNodeRevoke }

// Type implements Body.
func (NodesReport) Type() Type { return TypeNodesReport }

// Type implements Body.
func (HeadsAdvance) Type() Type { return TypeHeadsAdvance }

// Type implements Body.
func (ChallengePut) Type() Type { return TypeChallengePut }

// Type implements Body.
func (ChallengeDelete) Type() Type { return TypeChallengeDelete }

// Type implements Body.
func (OrderPut) Type() Type { return TypeOrderPut }

// Type implements Body.
func (CertificateCommit) Type() Type { return TypeCertificateCommit }

// Type implements Body.
func (EntryPut) Type() Type { return TypeEntryPut }

// Type implements Body.
func (EntryDelete) Type() Type { return TypeEntryDelete }

// Type implements Body.
func (MemberJoin) Type() Type { return TypeMemberJoin }
