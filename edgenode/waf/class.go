package waf

import (
	"regexp"
	"slices"
	"strings"

	"github.com/corazawaf/coraza/v3/types"

	"github.com/edgefleet/edgefleet/fleet"
)

// tagTypes maps tags of the core rule set to attack types; the first that a rule has decides.
var tagTypes = []struct {
	tag  string
	kind fleet.AttackType
}{
	{"attack-sqli", fleet.AttackSQLi},
	{"attack-xss", fleet.AttackXSS},
	{"attack-xxe", fleet.AttackXXE},
	{"attack-ssti", fleet.AttackSSTI},
	{"attack-ssrf", fleet.AttackSSRF},
	{"attack-rfi", fleet.AttackSSRF}, // a URL in a parameter that the server would fetch
	{"attack-lfi", fleet.AttackPTrav},
	{"attack-rce", fleet.AttackRCE},
	{"attack-injection-php", fleet.AttackRCE},
	{"attack-injection-java", fleet.AttackRCE},
	{"attack-injection-generic", fleet.AttackRCE},
	{"attack-reputation-scanner", fleet.AttackScanner},
}

// ruleTypes are rules whose tags say less than their messages.
var ruleTypes = map[int]fleet.AttackType{
	921120: fleet.AttackCRLF, 921130: fleet.AttackCRLF, 921140: fleet.AttackCRLF, 921150: fleet.AttackCRLF,
	921151: fleet.AttackCRLF, 921160: fleet.AttackCRLF, 921190: fleet.AttackCRLF,
	921200: fleet.AttackLDAPi,
	942290: fleet.AttackNoSQLi,
}

// attackType classifies a rule of the core rule set; what has no type of its own breaks or abuses the protocol.
func attackType(r types.RuleMetadata) fleet.AttackType {
	if kind, ok := ruleTypes[r.ID()]; ok {
		return kind
	}
	for _, t := range tagTypes {
		if slices.Contains(r.Tags(), t.tag) {
			return t.kind
		}
	}
	return fleet.AttackProtocol
}

var (
	messageAction = regexp.MustCompile(`msg:'([^']*)'`)
	// macro is a request's value in a message, with the parentheses around it.
	macro = regexp.MustCompile(`\s*\(?[^()]*%\{[^}]*\}[^()]*\)?`)
)

// staticMessage is the text of a rule's message as it was written, without the parts that hold values of the request.
func staticMessage(r types.RuleMetadata) string {
	m := messageAction.FindStringSubmatch(r.Raw())
	if m == nil {
		return ""
	}
	text := m[1]
	if before, _, found := strings.Cut(text, " (%{"); found {
		return before
	}
	return strings.TrimSpace(macro.ReplaceAllString(text, ""))
}
