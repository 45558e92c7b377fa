package fleet

// Point is a parser chain in parser order, such as [["post"],["json_doc"],["hash","password"]].
type Point [][]string

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
