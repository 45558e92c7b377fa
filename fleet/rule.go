package fleet

import (
	"encoding/json"
	"slices"
)

// Point is a parser chain in parser order, such as [["post"],["json_doc"],["hash","password"]].
type Point [][]string

// RuleKind is what a rule does.
type RuleKind string

// The kinds of rule.
const (
	// RuleRegex detects attacks: a regular expression looked for at a point.
	RuleRegex RuleKind = "regex"
)

// ConditionType is how a rule's condition compares.
type ConditionType string

// The condition types.
const (
	MatchEqual  ConditionType = "equal"
	MatchIEqual ConditionType = "iequal"
	MatchRegex  ConditionType = "regex"
	MatchAbsent ConditionType = "absent"
)

// RuleCondition restricts a rule to some requests; all conditions of a rule must hold.
type RuleCondition struct {
	Type ConditionType `json:"type" yaml:"type"`
	// Point is one of host, method, scheme, proto, uri, path[n], action_name, action_ext, query[name], header[NAME], instance.
	Point string `json:"point" yaml:"point"`
	Value string `json:"value,omitempty" yaml:"value,omitempty"`
}

// AttackType classifies malicious requests.
type AttackType string

// The attack types.
const (
	AttackSQLi    AttackType = "sqli"
	AttackXSS     AttackType = "xss"
	AttackRCE     AttackType = "rce"
	AttackPTrav   AttackType = "ptrav"
	AttackXXE     AttackType = "xxe"
	AttackSSRF    AttackType = "ssrf"
	AttackSSTI    AttackType = "ssti"
	AttackSSI     AttackType = "ssi"
	AttackLDAPi   AttackType = "ldapi"
	AttackNoSQLi  AttackType = "nosqli"
	AttackCRLF    AttackType = "crlf"
	AttackRedir   AttackType = "redir"
	AttackScanner AttackType = "scanner"
	// AttackProtocol: a request that breaks or abuses the protocol.
	AttackProtocol AttackType = "protocol"
	// AttackVPatch: matched by a virtual patch.
	AttackVPatch AttackType = "vpatch"
	// AttackCustom: matched by a rule that names no type.
	AttackCustom AttackType = "custom"
)

// AttackTypes lists the attack types.
var AttackTypes = []AttackType{
	AttackSQLi, AttackXSS, AttackRCE, AttackPTrav, AttackXXE, AttackSSRF, AttackSSTI, AttackSSI, AttackLDAPi,
	AttackNoSQLi, AttackCRLF, AttackRedir, AttackScanner, AttackProtocol, AttackVPatch, AttackCustom,
}

// Rule is one rule of a tenant.
type Rule struct {
	ID     RuleID   `json:"id"`
	Tenant TenantID `json:"tenant"`
	Spec   RuleSpec `json:"spec"`
	Meta
}

// RuleSpec is what people write; it is also what travels to nodes.
type RuleSpec struct {
	Kind RuleKind `json:"kind" yaml:"kind"`
	// Conditions restrict where the rule applies; none means every request of the tenant's hosts.
	Conditions []RuleCondition `json:"conditions,omitempty" yaml:"conditions,omitempty"`
	// Point is where the pattern is looked for; empty means the path, every argument and every header value.
	Point Point `json:"point,omitempty" yaml:"point,omitempty"`
	// Pattern is an RE2 regular expression (linear time).
	Pattern    string     `json:"pattern" yaml:"pattern"`
	AttackType AttackType `json:"attack_type" yaml:"attack_type"`
	// Experimental detectors report and never block.
	Experimental bool   `json:"experimental,omitempty" yaml:"experimental,omitempty"`
	Comment      string `json:"comment,omitempty" yaml:"comment,omitempty"`
}

// Validate checks sizes and enumerations; package rules compiles conditions, points and patterns.
func (r Rule) Validate() error {
	if err := ValidateID("rule", r.ID); err != nil {
		return err
	}
	if err := ValidateID("tenant", r.Tenant); err != nil {
		return err
	}
	s := r.Spec
	if s.Kind != RuleRegex {
		return Invalid("kind", "%q is not a kind of rule: use regex", string(s.Kind))
	}
	if !slices.Contains(AttackTypes, s.AttackType) {
		return Invalid("attack_type", "%q is not an attack type: use one of %v", string(s.AttackType), AttackTypes)
	}
	if s.Pattern == "" || len(s.Pattern) > MaxPatternLength {
		return Invalid("pattern", "the pattern has %d bytes: give 1 to %d", len(s.Pattern), MaxPatternLength)
	}
	if len(s.Conditions) > MaxConditionsPerRule {
		return NewError(ErrTooLarge, "conditions", "%d conditions; the limit is %d", len(s.Conditions), MaxConditionsPerRule)
	}
	if len(s.Comment) > MaxCommentLength {
		return NewError(ErrTooLarge, "comment", "the comment has %d bytes; the limit is %d", len(s.Comment), MaxCommentLength)
	}
	b, err := json.Marshal(r.Spec)
	if err != nil {
		return err
	}
	if len(b) > MaxRuleBytes {
		return NewError(ErrTooLarge, "rule", "the rule has %d bytes as JSON; the limit is %d", len(b), MaxRuleBytes)
	}
	return nil
}
