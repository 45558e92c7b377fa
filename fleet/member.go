package fleet

import "time"

// Member is one control-plane member.
type Member struct {
	ID MemberID `json:"id"`
	// Raft, API, NATS and NATSRoute are host:port addresses as other members (and, for API and NATS, nodes) reach them.
	Raft      string `json:"raft"`
	API       string `json:"api"`
	NATS      string `json:"nats"`
	NATSRoute string `json:"nats_route"`
	// DNS is the host:port of the authoritative DNS server.
	DNS string `json:"dns"`
	// Software is the version the member ran when it announced itself.
	Software string `json:"software,omitempty"`
	// Nonvoter: it keeps a copy and answers reads, and never votes.
	Nonvoter bool `json:"nonvoter,omitempty"`
	// Format is the newest format of the log and of snapshots that the member understands; none means 1.
	Format int `json:"format,omitempty"`
	// Join is the join token by which it came. Its certificates carry it, so that those of an earlier member of the same id
	// are told apart; empty for the first member.
	Join TokenID `json:"join,omitempty"`
	// Region is where it runs, for drills and for people; empty if its configuration names none.
	Region RegionName `json:"region,omitempty"`
	Meta
}

// Cluster is what is true of the whole control plane.
type Cluster struct {
	ID ClusterID `json:"id"`
	// Incarnation is one life of the cluster between restores, from 1.
	Incarnation uint64 `json:"incarnation"`
	// Zone is the edge zone: the DNS zone below which labels of hosts live.
	Zone HostName `json:"zone"`
	// MemberCA, NodeCA and APICA are the certificate authorities, PEM.
	MemberCA string `json:"member_ca"`
	NodeCA   string `json:"node_ca"`
	APICA    string `json:"api_ca"`
	// HeadKeys are the Ed25519 public keys that sign heads, newest first.
	HeadKeys [][]byte `json:"head_keys"`
	// RecoveryKey is the Ed25519 public key kept offline; it signs a new incarnation after a restore.
	RecoveryKey []byte `json:"recovery_key"`
	// AuditKey is the Ed25519 public key that signs audit checkpoints.
	AuditKey []byte `json:"audit_key"`
	Meta
}

// SecretName names one of the cluster's own secrets.
type SecretName string

// The cluster's own secrets.
const (
	SecretMemberCA SecretName = "member-ca"
	SecretNodeCA   SecretName = "node-ca"
	SecretAPICA    SecretName = "api-ca"
	SecretHeadKey  SecretName = "head-key"
	SecretAuditKey SecretName = "audit-key"
	// SecretGroupMaster is what group keys are derived from.
	SecretGroupMaster SecretName = "group-master"
)

// Check is one line of a readiness check of the cluster.
type Check struct {
	Name string `json:"name"`
	// State is ok, warn or fail.
	State CheckState `json:"state"`
	// Detail says what was seen and, unless ok, what to do.
	Detail string `json:"detail"`
}

// CheckState is the outcome of a check.
type CheckState string

// The outcomes of a check.
const (
	CheckOK   CheckState = "ok"
	CheckWarn CheckState = "warn"
	CheckFail CheckState = "fail"
)

// MaxClockSkew is how far the clocks of members and nodes may differ: certificates, tokens and events depend on them.
const MaxClockSkew = 60 * time.Second

// RemovedMember is what is kept of a member that was removed: its certificates are refused.
type RemovedMember struct {
	// Key is RemovedKey of the two that follow.
	Key       string    `json:"key"`
	ID        MemberID  `json:"id"`
	Join      TokenID   `json:"join,omitempty"`
	RemovedAt time.Time `json:"removed_at"`
}

// RemovedKey names one life of a member id.
func RemovedKey(id MemberID, join TokenID) string { return string(id) + "/" + string(join) }
