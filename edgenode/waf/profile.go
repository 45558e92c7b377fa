package waf

import (
	"fmt"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// Profile is how the core rule set is used.
type Profile string

// The profiles.
const (
	// ProfileTuned is the default: values that are encoded are decoded before the rules see them, rules that mistake what
	// people write for attacks look elsewhere, and detectors of our own find what the core rule set leaves out.
	ProfileTuned Profile = "tuned"
	// ProfileStock is the core rule set as it comes, to compare with.
	ProfileStock Profile = "stock"
)

func (p Profile) validate() error {
	if p != ProfileTuned && p != ProfileStock {
		return fleet.Invalid("profile", "%q is not a profile: give tuned or stock", p)
	}
	return nil
}

// seclang returns what is read before and after the core rule set's own rules.
func (p Profile) seclang() (before, after string) {
	if p == ProfileStock {
		return "", ""
	}
	var b, a strings.Builder
	b.WriteString(lists)
	for i, d := range detectors {
		d.write(&b, firstDetector+i)
	}
	for _, x := range exclusions {
		for _, rule := range x.rules {
			if x.only == "" && x.except == "" {
				fmt.Fprintf(&a, "SecRuleRemoveById %d\n", rule)
			}
		}
	}
	return b.String(), a.String()
}

// lists are the methods of web APIs; the core rule set's own are those of classic sites. A body that Coraza has no parser
// for is bytes: read as a form, its line ends would look like attacks.
const lists = `
SecAction "id:900200,phase:1,pass,t:none,nolog,setvar:'tx.allowed_methods=GET HEAD POST OPTIONS PUT PATCH DELETE'"
SecRule REQUEST_HEADERS:Content-Type "!@rx (?i)^\s*(?:application/x-www-form-urlencoded|multipart/form-data|(?:application(?:/soap\+|/)|text/)xml|(?:application|text)/(?:[a-z0-9.-]+\+)?json)" "id:200006,phase:1,t:none,pass,nolog,ctl:requestBodyProcessor=RAW"
SecRule &REQUEST_HEADERS:Content-Type "@eq 0" "id:200007,phase:1,t:none,pass,nolog,ctl:requestBodyProcessor=RAW"
`

// firstDetector is the number of the first detector: between those of the core rule set's own detections.
const firstDetector = 945_100

// detector is a managed rule of our own. It scores as much as a critical match of the core rule set.
type detector struct {
	// targets, operator and transformations are SecLang; a match of all conditions counts.
	targets, operator, transformations string
	tag, message, reason               string
}

// written is what clients write into parameters, wherever they come from.
const written = "ARGS|REQUEST_COOKIES|XML:/*"

func (d detector) write(b *strings.Builder, id int) {
	fmt.Fprintf(b, "SecRule %s \"%s\" \"id:%d,phase:2,pass,log,t:none,%s,msg:'%s',tag:'%s',severity:'CRITICAL',setvar:'tx.inbound_anomaly_score_pl1=+%d'\"\n",
		d.targets, d.operator, id, d.transformations, d.message, d.tag, criticalScore)
}
