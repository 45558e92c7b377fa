package fleet

import (
	"encoding/json"
	"net/netip"
	"slices"
	"time"
)

// HeadSubject and the subjects below are the NATS subjects of a node's session. A node may publish and subscribe on its own only; the members' authenticator
// maps the certificate's SPIFFE ID to exactly these.
func (n NodeID) HeadSubject() string { return "hd.node." + string(n) }

// HeadSubject carries the heads that all nodes of a group share.
func (g GroupName) HeadSubject() string { return "hd.group." + string(g) }

// ReportSubject carries a node's Report.
func (n NodeID) ReportSubject() string { return "st." + string(n) }

// PollSubject is a request for the node's HeadSet.
func (n NodeID) PollSubject() string { return "poll." + string(n) }

// EventSubject is in the JetStream stream of events.
func (n NodeID) EventSubject() string { return "ev." + string(n) }

// AckSubject carries EventAck from members to the node.
func (n NodeID) AckSubject() string { return "ack." + string(n) }

// InboxPrefix is the prefix of the node's reply subjects.
func (n NodeID) InboxPrefix() string { return "_INBOX_" + string(n) }

// BlobSubject is a request for a chunk of a blob, answered by any one member.
func BlobSubject(d Digest) string { return "blob." + d.Hex() }

// BlobChunkBytes is the largest chunk of a blob in one NATS message.
const BlobChunkBytes = 256 << 10

// BlobRequest asks for one chunk.
type BlobRequest struct {
	Offset int64 `json:"offset"`
}

// BlobHeader names the headers of a blob reply: total size, or an error kind.
const (
	BlobSizeHeader  = "Blob-Size"
	BlobErrorHeader = "Blob-Error"
)

// SignedHead is an encoded head and its signature; package head makes and checks it.
type SignedHead struct {
	// Head is the exact JSON that was signed.
	Head json.RawMessage `json:"head"`
	// KeyID is the first 8 bytes of the SHA-256 of the public key, hex.
	KeyID     string `json:"key_id"`
	Signature []byte `json:"signature"`
}

// KeyEnvelope is a group key sealed to one node with HPKE (RFC 9180). Info is "edgefleet group key" and the
// node, group and epoch, so that an envelope opens for its node only.
type KeyEnvelope struct {
	Group GroupName `json:"group"`
	Epoch uint64    `json:"epoch"`
	// Enc is the encapsulated key, Ciphertext the sealed 32-byte group key.
	Enc        []byte `json:"enc"`
	Ciphertext []byte `json:"ciphertext"`
}

// HeadSet answers a poll: all heads of the node, the group key, and where the members are now.
type HeadSet struct {
	Heads []SignedHead `json:"heads"`
	// Incarnation is the statement of the cluster's incarnation; nil in the first.
	Incarnation *SignedIncarnation `json:"incarnation,omitempty"`
	Envelope    *KeyEnvelope       `json:"envelope,omitempty"`
	Members     []Endpoints        `json:"members,omitempty"`
}

// Endpoints are the addresses of one member that a node uses.
type Endpoints struct {
	Member MemberID `json:"member"`
	API    string   `json:"api"`
	NATS   string   `json:"nats"`
}

// Report is a node's heartbeat, with its ACKs and NACKs. It carries no request data.
type Report struct {
	Node NodeID `json:"node"`
	// Boot names this life of the worker.
	Boot string `json:"boot"`
	// Instance names this life of the supervisor: workers that follow each other have the same, two machines never.
	Instance string `json:"instance,omitempty"`
	// Sent is the node's clock.
	Sent     time.Time    `json:"sent"`
	Software string       `json:"software"`
	Serving  bool         `json:"serving"`
	Heads    []HeadReport `json:"heads"`
	// Counters are totals since boot, by tenant.
	Counters []TenantCounters `json:"counters,omitempty"`
	// Uncertified are hosts of the node's configuration that clients came for with TLS since the last report although they
	// have no certificate: their DNS is worth a look. One that is lost is told again while clients come.
	Uncertified []HostName `json:"uncertified,omitempty"`
	// OriginsOut are the origins that the node passes over.
	OriginsOut []OriginOut `json:"origins_out,omitempty"`
}

// MaxUncertified bounds Report.Uncertified.
const MaxUncertified = 16

// maxReportText bounds the short texts of a report, maxReason what it says of a head that was refused, in bytes: such
// a head may be anything, its root included.
const (
	maxReportText = 128
	maxReason     = 4 << 10
)

// Validate checks the parts of r that are kept in the replicated state: a node that is not what it should be must not
// fill the log. Counters are not kept.
func (r Report) Validate() error {
	if err := ValidateID("node", r.Node); err != nil {
		return err
	}
	if len(r.Boot) > maxReportText || len(r.Instance) > maxReportText || len(r.Software) > maxReportText {
		return NewError(ErrTooLarge, "report", "boot of %d, instance of %d and software of %d bytes; the limit is %d", len(r.Boot), len(r.Instance), len(r.Software), maxReportText)
	}
	if err := r.validateOriginsOut(); err != nil {
		return err
	}
	if len(r.Uncertified) > MaxUncertified {
		return NewError(ErrTooLarge, "uncertified", "%d hosts without a certificate are reported; the limit is %d", len(r.Uncertified), MaxUncertified)
	}
	for _, h := range r.Uncertified {
		if _, err := ParseHost(string(h)); err != nil {
			return err
		}
	}
	if len(r.Heads) > len(HeadKinds) {
		return NewError(ErrTooLarge, "heads", "%d heads are reported; there are %d kinds", len(r.Heads), len(HeadKinds))
	}
	for i, h := range r.Heads {
		if err := h.Kind.Validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(r.Heads[:i], func(o HeadReport) bool { return o.Kind == h.Kind }) {
			return Invalid("heads", "two heads of kind %s are reported", h.Kind)
		}
		if len(h.Root) > maxReason || len(h.Reason) > maxReason {
			return NewError(ErrTooLarge, "reason", "a root of %d and a reason of %d bytes; the limit is %d", len(h.Root), len(h.Reason), maxReason)
		}
	}
	return nil
}

// TenantCounters is the traffic of one tenant on one node since its boot.
type TenantCounters struct {
	Tenant   TenantID `json:"tenant"`
	Requests uint64   `json:"requests"`
	Detected uint64   `json:"detected"`
	Blocked  uint64   `json:"blocked"`
	Dropped  uint64   `json:"dropped"`
}

// EventAck says that one member holds all events of a node's boot up to Through in its synced store. A node
// releases an event when a majority of Voters said so.
type EventAck struct {
	Member  MemberID `json:"member"`
	Voters  int      `json:"voters"`
	Boot    string   `json:"boot"`
	Through uint64   `json:"through"`
}

// EnrolRequest exchanges a join token for an identity.
type EnrolRequest struct {
	Token string `json:"token"`
	// Node is the id that the node would like; empty lets the control plane choose.
	Node NodeID `json:"node,omitempty"`
	// CSR is PEM; only its public key is used.
	CSR string `json:"csr"`
	// HPKE is the node's public HPKE key.
	HPKE      []byte       `json:"hpke"`
	Addresses []netip.Addr `json:"addresses"`
	// Sent is the node's clock; a difference over MaxClockSkew is refused.
	Sent time.Time `json:"sent"`
}

// EnrolResponse is a node's identity and what it must trust.
type EnrolResponse struct {
	Node    NodeID     `json:"node"`
	Group   GroupName  `json:"group"`
	Region  RegionName `json:"region"`
	Cluster ClusterID  `json:"cluster"`
	// Incarnation is the cluster's at enrolment.
	Incarnation uint64 `json:"incarnation"`
	// Certificate is PEM, valid for 24 hours.
	Certificate string `json:"certificate"`
	// MemberCA verifies members' NATS servers, APICA their API, PEM.
	MemberCA string `json:"member_ca"`
	APICA    string `json:"api_ca"`
	// HeadKeys verify heads; RecoveryKey is pinned for a later incarnation.
	HeadKeys    [][]byte    `json:"head_keys"`
	RecoveryKey []byte      `json:"recovery_key"`
	Members     []Endpoints `json:"members"`
}

// ConfigBundle is one tenant's hosts as nodes need them.
type ConfigBundle struct {
	Tenant         TenantID       `json:"tenant"`
	AllowedOrigins []netip.Prefix `json:"allowed_origins,omitempty"`
	Hosts          []HostConfig   `json:"hosts"`
}

// HostConfig is one host as nodes need it.
type HostConfig struct {
	Name    HostName     `json:"name"`
	Origins []Origin     `json:"origins"`
	Mode    Mode         `json:"mode"`
	Regions []RegionName `json:"regions,omitempty"`
	// TLS and Forwarding are as in the host's spec.
	TLS        HostTLS    `json:"tls,omitzero"`
	Forwarding Forwarding `json:"forwarding,omitzero"`
	// Plain: visitors come by another CDN that has their TLS, so that plain HTTP is served and not redirected.
	Plain bool `json:"plain,omitempty"`
	// FailPolicy is as in the host's spec.
	FailPolicy FailPolicy `json:"fail_policy,omitzero"`
}

// RulesetBundle is one tenant's rules.
type RulesetBundle struct {
	Tenant TenantID     `json:"tenant"`
	Rules  []BundleRule `json:"rules"`
}

// BundleRule is one rule in a bundle.
type BundleRule struct {
	ID   RuleID   `json:"id"`
	Spec RuleSpec `json:"spec"`
}

// CertsBundle is one tenant's certificates and pending HTTP-01 answers.
type CertsBundle struct {
	Tenant       TenantID          `json:"tenant"`
	Certificates []BundleCert      `json:"certificates,omitempty"`
	Challenges   []BundleChallenge `json:"challenges,omitempty"`
	// Origins are the certificates that nodes show to origins.
	Origins []BundleOriginCert `json:"origins,omitempty"`
}

// BundleCert is one certificate whose key is sealed by the group key.
type BundleCert struct {
	Host       HostName `json:"host"`
	Generation uint64   `json:"generation"`
	SPKI       string   `json:"spki"`
	Chain      string   `json:"chain"`
	Key        Sealed   `json:"key"`
}

// BundleChallenge is one HTTP-01 answer.
type BundleChallenge struct {
	Host     HostName `json:"host"`
	Token    string   `json:"token"`
	Response string   `json:"response"`
	// Type is empty for HTTP-01, and tls-alpn-01 for an answer that is shown in a handshake.
	Type ChallengeType `json:"type,omitempty"`
}
