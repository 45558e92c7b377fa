package fleet

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

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

// MaxEventBytes bounds one encoded event with the message around it; an event within the limits below always fits.
const MaxEventBytes = 128 << 10

// Limits of an event's parts; Clip cuts to them at the node, Validate holds them there and again at each member.
const (
	maxEventRules  = 64
	maxEventPoints = 64
	maxEventPath   = 4 << 10
	maxEventText   = 256
)

// EventMessage is what a node publishes on its event subject.
type EventMessage struct {
	// Released is the node's watermark when it sent: a majority of members holds every event of this boot up to it, and the
	// node no longer does. A member that lacks some of those must not wait for them.
	Released uint64 `json:"released,omitempty"`
	Event    Event  `json:"event"`
}

// Validate checks the identity and the limits of e.
func (e Event) Validate() error {
	if err := ValidateID("node_id", e.NodeID); err != nil {
		return err
	}
	if err := ValidateID("boot", e.Boot); err != nil {
		return err
	}
	if err := ValidateID("tenant", e.Tenant); err != nil {
		return err
	}
	if e.Seq == 0 || e.Seq > math.MaxInt64 {
		return Invalid("seq", "sequence number %d: use 1 and up", e.Seq)
	}
	if want := NewEventID(e.NodeID, e.Boot, e.Seq); e.ID != want {
		return Invalid("event_id", "event id %.200q: want %q", string(e.ID), want)
	}
	if y := e.Time.UTC().Year(); y < 1970 || y > 2200 {
		return Invalid("time", "an event of the year %d: check the node's clock", y)
	}
	if e.Status != Blocked && e.Status != Monitored {
		return Invalid("block_status", "%.50q is neither blocked nor monitored", string(e.Status))
	}
	return e.validateSizes()
}

func (e Event) validateSizes() error {
	if e.Type == "" || len(e.Type) > 32 {
		return Invalid("type", "an attack type of %d bytes: give 1 to 32", len(e.Type))
	}
	if len(e.Rules) > maxEventRules || len(e.MaskedPoints) > maxEventPoints {
		return NewError(ErrTooLarge, "rules", "%d rules and %d masked points; the limits are %d and %d", len(e.Rules), len(e.MaskedPoints), maxEventRules, maxEventPoints)
	}
	for _, t := range e.texts() {
		if len(*t.value) > t.max {
			return NewError(ErrTooLarge, t.name, "%s of an event has %d bytes; the limit is %d", t.name, len(*t.value), t.max)
		}
	}
	payloads := 0
	for _, p := range e.Payloads {
		payloads += len(p)
	}
	if payloads > MaxPayloadBytes || len(e.Payloads) > maxEventRules {
		return NewError(ErrTooLarge, "payloads", "%d payloads of %d bytes; the limits are %d and %d", len(e.Payloads), payloads, maxEventRules, MaxPayloadBytes)
	}
	return nil
}

// Clip cuts every part that a client can make long, and makes all text valid UTF-8, so that nobody keeps an event from
// being recorded by its size or encoding. The slices of the result are its own.
func (e Event) Clip() Event {
	e.Rules = slices.Clone(e.Rules[:min(len(e.Rules), maxEventRules)])
	e.MaskedPoints = slices.Clone(e.MaskedPoints[:min(len(e.MaskedPoints), maxEventPoints)])
	for _, t := range e.texts() {
		*t.value = clip(*t.value, t.max)
	}
	left, payloads := MaxPayloadBytes, []string(nil)
	for _, p := range e.Payloads[:min(len(e.Payloads), maxEventRules)] {
		p = clip(p, left)
		left -= len(p)
		payloads = append(payloads, p)
	}
	e.Payloads = payloads
	return e
}

type eventText struct {
	name  string
	value *string
	max   int
}

// texts lists the free text of e with its limits; payloads share one limit and are not in it.
func (e *Event) texts() []eventText {
	ts := []eventText{
		{"path", &e.Path, maxEventPath},
		{"host", (*string)(&e.Host), 253},
		{"region", (*string)(&e.Region), 63},
		{"mode", (*string)(&e.Mode), 63},
		{"point", &e.Point, maxEventText},
		{"parameter", &e.Parameter, maxEventText},
		{"method", &e.Method, maxEventText},
		{"protocol", &e.Protocol, maxEventText},
		{"request_id", &e.RequestID, maxEventText},
		{"trace_id", &e.TraceID, maxEventText},
		{"node_version", &e.Software, maxEventText},
		{"client_ip", &e.ClientIP, 63},
	}
	for i := range e.MaskedPoints {
		ts = append(ts, eventText{"masked_points", &e.MaskedPoints[i], 128})
	}
	for i := range e.Rules {
		r := &e.Rules[i]
		ts = append(ts, eventText{"rule id", &r.ID, 63}, eventText{"rule message", &r.Message, maxEventText}, eventText{"rule severity", &r.Severity, 63})
	}
	return ts
}

// clip cuts s to at most limit bytes of valid UTF-8; each run of invalid bytes becomes one '?'.
func clip(s string, limit int) string {
	return strings.ToValidUTF8(s[:min(len(s), limit)], "?")
}

// ParseEventID reads the parts of an event id.
func ParseEventID(id EventID) (node NodeID, boot string, seq uint64, err error) {
	parts := strings.Split(string(id), ":")
	if len(parts) == 3 && validID(parts[0]) && validID(parts[1]) {
		seq, err = strconv.ParseUint(parts[2], 10, 63)
		if node, boot = NodeID(parts[0]), parts[1]; err == nil && NewEventID(node, boot, seq) == id {
			return node, boot, seq, nil
		}
	}
	return "", "", 0, Invalid("event_id", "%.200q is not an event id such as node:boot:17", string(id))
}
