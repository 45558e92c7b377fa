package fleet

import "time"

// BlockStatus is what happened to a malicious request.
type BlockStatus string

// What happened to a malicious request.
const (
	Blocked   BlockStatus = "blocked"
	Monitored BlockStatus = "monitored"
)

// MatchedRule is a rule that a request matched. Its message is the rule's own fixed text, never text with request values.
type MatchedRule struct {
	ID       string `json:"id"`
	Message  string `json:"message"`
	Severity string `json:"severity"`
}

// Event is one hit: a malicious request under one attack type, masked at the node before it is written anywhere.
type Event struct {
	ID     EventID `json:"event_id"`
	NodeID NodeID  `json:"node_id"`
	// Boot and Seq order the events of a node without gaps.
	Boot string    `json:"boot"`
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`

	Tenant TenantID   `json:"tenant"`
	Host   HostName   `json:"host"`
	Region RegionName `json:"region"`
	// Software is the node's version.
	Software string `json:"node_version"`
	// Ruleset is the version of the rules that judged the request.
	Ruleset Version `json:"ruleset"`
	// MaskedPoints names the points whose values were masked.
	MaskedPoints []string `json:"masked_points,omitempty"`
	RequestID    string   `json:"request_id"`
	TraceID      string   `json:"trace_id,omitempty"`

	Type   AttackType    `json:"type"`
	Rules  []MatchedRule `json:"rules"`
	Score  int           `json:"anomaly_score"`
	Mode   Mode          `json:"mode"`
	Status BlockStatus   `json:"block_status"`
	// Point and Parameter say where the payload was found.
	Point     string `json:"point,omitempty"`
	Parameter string `json:"parameter,omitempty"`
	// Payloads are masked excerpts of what matched, 4 KiB in all.
	Payloads []string `json:"payloads,omitempty"`

	Method         string `json:"method"`
	Path           string `json:"path"`
	Protocol       string `json:"protocol"`
	ClientIP       string `json:"client_ip"`
	ClientPort     uint16 `json:"client_port"`
	ResponseStatus int    `json:"response_status"`
}

// MaxPayloadBytes bounds the payload excerpts of one event.
const MaxPayloadBytes = 4 << 10
