package fleet

import "time"

// Meta is carried by every stored object.
type Meta struct {
	// Revision is the Raft index of the last change to the spec or desired part; it orders changes to one object.
	Revision  uint64    `json:"revision"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// AtRevision is the revision of the object that m is part of.
func (m Meta) AtRevision() uint64 { return m.Revision }

// Limits on what people may store; each is checked when published and again when a node loads it.
const (
	// MaxHostsPerTenant bounds the hosts of one tenant: their certificates fit into one bundle (MaxBundleBytes).
	MaxHostsPerTenant = 5_000
	// MaxRegionsPerHost bounds the regions of one host.
	MaxRegionsPerHost = 64
	// MaxOriginsPerHost bounds the servers behind one host.
	MaxOriginsPerHost = 16
	// MaxRulesPerTenant bounds the rules of one tenant.
	MaxRulesPerTenant = 2_000
	// MaxConditionsPerRule bounds the conditions of one rule.
	MaxConditionsPerRule = 16
	// MaxPatternLength bounds a regular expression or a condition's value, in bytes.
	MaxPatternLength = 2_048
	// MaxRuleBytes bounds the JSON encoding of one rule.
	MaxRuleBytes = 16 << 10
	// MaxBundleBytes bounds one tenant's bundle of one kind.
	MaxBundleBytes = 32 << 20
	// MaxCommentLength bounds a free-text comment or reason, in bytes.
	MaxCommentLength = 1_024
)
