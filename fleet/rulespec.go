package fleet

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// RuleKind is what a rule does.
type RuleKind string

// The kinds of rule.
const (
	// RuleRegex detects attacks: a regular expression looked for at a point.
	RuleRegex RuleKind = "regex"
	// RuleVPatch is a virtual patch: it blocks in monitoring and safe_blocking too.
	RuleVPatch RuleKind = "vpatch"
	// RuleDisableAttackType takes attack types out of what is found at a branch and point.
	RuleDisableAttackType RuleKind = "disable_attack_type"
	// RuleDisableRule takes managed rules or own detectors out, by their ids.
	RuleDisableRule RuleKind = "disable_rule"
	// RuleMode sets the mode: without conditions of the tenant, with conditions of a location.
	RuleMode RuleKind = "mode"
	// RuleSensitiveData masks values before anything of a request leaves the node.
	RuleSensitiveData RuleKind = "sensitive_data"
	// RuleResponseHeader sets a header of the answers.
	RuleResponseHeader RuleKind = "set_response_header"
	// RuleBlockPage is what a blocked client gets to see.
	RuleBlockPage RuleKind = "block_page"
)

// RuleKinds lists the kinds of rule.
var RuleKinds = []RuleKind{
	RuleRegex, RuleVPatch, RuleDisableAttackType, RuleDisableRule, RuleMode, RuleSensitiveData, RuleResponseHeader, RuleBlockPage,
}

// RuleSpec is what people write; it is also what travels to nodes. Conditions, Comment and ExpiresAt belong to every
// kind; which of the others belong to which kind is in ruleFields.
type RuleSpec struct {
	Kind RuleKind `json:"kind" yaml:"kind"`
	// Conditions restrict where the rule applies; none means every request of the tenant's hosts.
	Conditions []RuleCondition `json:"conditions,omitempty" yaml:"conditions,omitempty"`
	// Point is where a rule looks, or where what is found is disabled. A detector without one looks at the path, every
	// argument and every header value.
	Point Point `json:"point,omitempty" yaml:"point,omitempty"`
	// Pattern is an RE2 regular expression (linear time).
	Pattern string `json:"pattern,omitempty" yaml:"pattern,omitempty"`
	// AttackType is what a detector finds.
	AttackType AttackType `json:"attack_type,omitempty" yaml:"attack_type,omitempty"`
	// Experimental detectors report and never block.
	Experimental bool `json:"experimental,omitempty" yaml:"experimental,omitempty"`
	// AttackTypes are what a virtual patch stops, or what is disabled. A virtual patch without them stops every request that
	// has a value at its point (and matches its pattern).
	AttackTypes []AttackType `json:"attack_types,omitempty" yaml:"attack_types,omitempty"`
	// Rules are the ids of managed rules, such as 942100, or of own detectors.
	Rules []string `json:"rules,omitempty" yaml:"rules,omitempty"`
	// Mode is what a rule of kind mode sets.
	Mode Mode `json:"mode,omitempty" yaml:"mode,omitempty"`
	// Header and Value are of a response header.
	Header string `json:"header,omitempty" yaml:"header,omitempty"`
	Value  string `json:"value,omitempty" yaml:"value,omitempty"`
	// Page is what a blocked client gets to see.
	Page    *BlockPage `json:"page,omitempty" yaml:"page,omitempty"`
	Comment string     `json:"comment,omitempty" yaml:"comment,omitempty"`
	// ExpiresAt ends the rule: it is not applied from then on. Nodes judge by their own clocks.
	ExpiresAt time.Time `json:"expires_at,omitzero" yaml:"expires_at,omitempty"`
}

// BlockPage is the answer to a blocked request. In its body {{request_id}}, {{host}} and {{client_address}} stand for
// those of the request.
type BlockPage struct {
	// ContentType is text/html or application/json.
	ContentType string `json:"content_type" yaml:"content_type"`
	// Status is 400 to 599; 0 is 403.
	Status int    `json:"status,omitempty" yaml:"status,omitempty"`
	Body   string `json:"body" yaml:"body"`
}

// Expired reports whether s is not applied any more at now.
func (s RuleSpec) Expired(now time.Time) bool {
	return !s.ExpiresAt.IsZero() && !now.Before(s.ExpiresAt)
}

// Extended reports whether s is more than a detector for good, which is all that members of the first format know.
func (s RuleSpec) Extended() bool { return s.Kind != RuleRegex || !s.ExpiresAt.IsZero() }

// fields are the fields of a kind of rule beside those that every kind has.
type fields struct{ required, optional []string }

var ruleFields = map[RuleKind]fields{
	RuleRegex:             {required: []string{"pattern", "attack_type"}, optional: []string{"point", "experimental"}},
	RuleVPatch:            {optional: []string{"point", "pattern", "attack_types"}},
	RuleDisableAttackType: {required: []string{"attack_types"}, optional: []string{"point"}},
	RuleDisableRule:       {required: []string{"rules"}, optional: []string{"point"}},
	RuleMode:              {required: []string{"mode"}},
	RuleSensitiveData:     {optional: []string{"point", "pattern"}},
	RuleResponseHeader:    {required: []string{"header", "value"}},
	RuleBlockPage:         {required: []string{"page"}},
}

// field is one field of a rule that not every kind has.
type field struct {
	name string
	set  bool
}

func (s RuleSpec) fields() []field {
	return []field{
		{"point", len(s.Point) > 0},
		{"pattern", s.Pattern != ""},
		{"attack_type", s.AttackType != ""},
		{"experimental", s.Experimental},
		{"attack_types", len(s.AttackTypes) > 0},
		{"rules", len(s.Rules) > 0},
		{"mode", s.Mode != ""},
		{"header", s.Header != ""},
		{"value", s.Value != ""},
		{"page", s.Page != nil},
	}
}

// Validate checks sizes and enumerations; package rules compiles conditions, points and patterns.
func (r Rule) Validate() error {
	if err := ValidateID("rule", r.ID); err != nil {
		return err
	}
	if err := ValidateID("tenant", r.Tenant); err != nil {
		return err
	}
	return r.Spec.Validate()
}

// Validate checks what needs nothing but s itself.
func (s RuleSpec) Validate() error {
	if err := s.validateShape(); err != nil {
		return err
	}
	if len(s.Pattern) > MaxPatternLength {
		return Invalid("pattern", "the pattern has %d bytes: give 1 to %d", len(s.Pattern), MaxPatternLength)
	}
	if s.Kind == RuleRegex && !slices.Contains(AttackTypes, s.AttackType) {
		return unknownType("attack_type", s.AttackType)
	}
	if err := s.validateKind(); err != nil {
		return err
	}
	return s.validateSize()
}

// validateShape holds the fields of s against those of its kind.
func (s RuleSpec) validateShape() error {
	of, known := ruleFields[s.Kind]
	if !known {
		return Invalid("kind", "%q is not a kind of rule: use one of %v", string(s.Kind), RuleKinds)
	}
	for _, f := range s.fields() {
		switch required := slices.Contains(of.required, f.name); {
		case f.set && !required && !slices.Contains(of.optional, f.name):
			return Invalid(f.name, "a rule of kind %s has no %s, it has %s: remove it", s.Kind, f.name, strings.Join(slices.Concat(of.required, of.optional), ", "))
		case !f.set && required && f.name == "pattern":
			return Invalid("pattern", "the pattern has 0 bytes: give 1 to %d", MaxPatternLength)
		case !f.set && required:
			return Invalid(f.name, "a rule of kind %s needs %s", s.Kind, f.name)
		}
	}
	return nil
}

func (s RuleSpec) validateKind() error {
	switch s.Kind {
	case RuleMode:
		return s.Mode.Validate()
	case RuleVPatch:
		if len(s.AttackTypes) > 0 && s.Pattern != "" {
			return Invalid("pattern", "a virtual patch stops attack types or what a pattern matches: give one of them")
		}
		if len(s.AttackTypes) == 0 && s.Pattern == "" && len(s.Point) == 0 && len(s.Conditions) == 0 {
			return Invalid("point", "this virtual patch would block every request: give a point, a condition, a pattern or attack types")
		}
		return validateTypes(s.AttackTypes)
	case RuleDisableAttackType:
		return validateTypes(s.AttackTypes)
	case RuleDisableRule:
		return validateRuleIDs(s.Rules)
	case RuleSensitiveData:
		if len(s.Point) == 0 && s.Pattern == "" {
			return Invalid("point", "what should be masked? give a point, a pattern or both")
		}
	case RuleResponseHeader:
		return validateHeader(s.Header, s.Value)
	case RuleBlockPage:
		return s.Page.validate()
	case RuleRegex:
	}
	return nil
}

func validateTypes(types []AttackType) error {
	for i, t := range types {
		if !slices.Contains(AttackTypes, t) {
			return unknownType("attack_types", t)
		}
		if slices.Contains(types[:i], t) {
			return Invalid("attack_types", "%s is there twice", t)
		}
	}
	return nil
}

func unknownType(field string, t AttackType) error {
	return Invalid(field, "%q is not an attack type: use one of %v", string(t), AttackTypes)
}

// maxDisabledRules bounds the ids of one rule of kind disable_rule.
const maxDisabledRules = 100

func validateRuleIDs(ids []string) error {
	if len(ids) > maxDisabledRules {
		return NewError(ErrTooLarge, "rules", "%d ids; the limit is %d: disable an attack type, or make two rules", len(ids), maxDisabledRules)
	}
	for i, id := range ids {
		if err := ValidateID("rules", id); err != nil {
			return err
		}
		if slices.Contains(ids[:i], id) {
			return Invalid("rules", "%s is there twice", id)
		}
	}
	return nil
}

// edgeHeaders are response headers that frame the answer, or that the edge sets itself.
var edgeHeaders = []string{
	"connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "trailer", "upgrade", "content-length", "content-type",
	"content-encoding", "content-range", "date", "set-cookie", "strict-transport-security", "x-request-id", "alt-svc",
}

func validateHeader(name, value string) error {
	const maxName, maxValue = 128, 2048
	token := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	}
	switch {
	case len(name) > maxName || strings.ContainsFunc(name, func(c rune) bool { return !token(c) }):
		return Invalid("header", "%.80q is not the name of a header: use letters, digits and '-', at most %d", name, maxName)
	case slices.Contains(edgeHeaders, strings.ToLower(name)):
		return Invalid("header", "%s belongs to the edge or to the origin's answer, and no rule sets it", name)
	case len(value) > maxValue || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c >= 0x7f }):
		return Invalid("value", "the value has %d bytes: give printable ASCII, at most %d", len(value), maxValue)
	}
	return nil
}

// MaxBlockPageBytes bounds the body of a block page: it is a part of the replicated state, and of the tenant's bundle.
const MaxBlockPageBytes = 64 << 10

func (p *BlockPage) validate() error {
	switch {
	case p.ContentType != "text/html" && p.ContentType != "application/json":
		return Invalid("page.content_type", "%q is not the type of a block page: use text/html or application/json", p.ContentType)
	case p.Status != 0 && (p.Status < 400 || p.Status > 599):
		return Invalid("page.status", "%d is not the status of an error: give 400 to 599, or none for 403", p.Status)
	case p.Body == "":
		return Invalid("page.body", "the page is empty")
	case len(p.Body) > MaxBlockPageBytes:
		return NewError(ErrTooLarge, "page.body", "the page has %d bytes; the limit is %d: link images and scripts from elsewhere", len(p.Body), MaxBlockPageBytes)
	}
	return nil
}

func (s RuleSpec) validateSize() error {
	if len(s.Conditions) > MaxConditionsPerRule {
		return NewError(ErrTooLarge, "conditions", "%d conditions; the limit is %d", len(s.Conditions), MaxConditionsPerRule)
	}
	if len(s.Comment) > MaxCommentLength {
		return NewError(ErrTooLarge, "comment", "the comment has %d bytes; the limit is %d", len(s.Comment), MaxCommentLength)
	}
	if y := s.ExpiresAt.UTC().Year(); !s.ExpiresAt.IsZero() && (y < 2000 || y > 9999) {
		return Invalid("expires_at", "a rule cannot end in the year %d", y)
	}
	s.Page = nil // it has a limit of its own
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if len(b) > MaxRuleBytes {
		return NewError(ErrTooLarge, "rule", "the rule has %d bytes as JSON; the limit is %d", len(b), MaxRuleBytes)
	}
	return nil
}
