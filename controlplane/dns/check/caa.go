package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

// CAA reports whether CAA records (RFC 8659, with the parameters of RFC 8657) allow a certificate authority to issue for
// name by a challenge. Resolvers follow CNAMEs at each level, as certificate authorities do.
func (r *Resolver) CAA(ctx context.Context, name fleet.HostName, via fleet.ChallengeType, ca fleet.CAIdentity) fleet.DNSVerdict {
	base, wildcard := strings.CutPrefix(string(name), "*.")
	for level := base; level != ""; _, level, _ = strings.Cut(level, ".") {
		m, err := r.exchange(ctx, level, dns.TypeCAA)
		if err != nil {
			return caaLookup(level, err)
		}
		var set []*dns.CAA
		for _, rr := range m.Answer {
			if c, ok := rr.(*dns.CAA); ok {
				set = append(set, c)
			}
		}
		if len(set) > 0 {
			return judgeCAA(set, wildcard, via, ca)
		}
	}
	return fleet.DNSVerdict{OK: true}
}

func caaLookup(name string, err error) fleet.DNSVerdict {
	v := servfail(name, err)
	if v.Reason != fleet.ReasonDNSSECBogus {
		v.Reason, v.Message = fleet.ReasonCAALookupFailed, fmt.Sprintf("the CAA records of %s cannot be looked up: %v", name, err)
		v.Action = fmt.Sprintf("see that the name servers of %s answer questions for CAA, with an empty answer if there is none", name)
	}
	return v
}

// judgeCAA reads the set that applies: the closest one that is not empty.
func judgeCAA(set []*dns.CAA, wildcard bool, via fleet.ChallengeType, ca fleet.CAIdentity) fleet.DNSVerdict {
	owner, tag := plain(set[0].Hdr.Name), "issue"
	if wildcard && slices.ContainsFunc(set, func(c *dns.CAA) bool { return strings.EqualFold(c.Tag, "issuewild") }) {
		tag = "issuewild"
	}
	add := fmt.Sprintf("add %s CAA 0 %s %q", owner, tag, ca.Name())
	var others, limits []string
	restricted := false
	for _, c := range set {
		if c.Flag&128 != 0 && !slices.Contains([]string{"issue", "issuewild", "iodef", "issuemail", "issuevmc", "contactemail", "contactphone"}, strings.ToLower(c.Tag)) {
			return fleet.DNSVerdict{
				Reason: fleet.ReasonCAAForbidden, Message: fmt.Sprintf("%s has a critical CAA property %q that no certificate authority knows", owner, c.Tag),
				Action: fmt.Sprintf("remove the CAA record with %q of %s", c.Tag, owner),
			}
		}
		if !strings.EqualFold(c.Tag, tag) {
			continue
		}
		restricted = true
		domain, parameters := parseCAA(c.Value)
		if !slices.ContainsFunc(ca.Domains, func(d string) bool { return strings.EqualFold(d, domain) }) {
			if domain != "" {
				others = append(others, domain)
			}
			continue
		}
		limit := limitOf(parameters, via, ca)
		if limit == "" {
			return fleet.DNSVerdict{OK: true}
		}
		limits = append(limits, limit)
	}
	slices.Sort(others)
	v := fleet.DNSVerdict{Reason: fleet.ReasonCAAForbidden, Action: add}
	switch {
	case !restricted:
		return fleet.DNSVerdict{OK: true}
	case len(limits) > 0:
		v.Message = fmt.Sprintf("%s allows %s only %s", owner, ca.Name(), strings.Join(limits, ", or "))
	case len(others) == 0:
		v.Message = owner + " allows no certificate authority"
	default:
		v.Message = fmt.Sprintf("%s allows only %s", owner, few(slices.Compact(others)))
	}
	return v
}

// parseCAA splits the value of an issue property: a domain, and parameters.
func parseCAA(value string) (domain string, parameters map[string]string) {
	parts := strings.Split(value, ";")
	parameters = map[string]string{}
	for _, p := range parts[1:] {
		if k, v, ok := strings.Cut(p, "="); ok {
			parameters[strings.ToLower(strings.TrimSpace(k))] = strings.TrimSpace(v)
		}
	}
	return plain(strings.TrimSpace(parts[0])), parameters
}

// limitOf says what parameters of an allowance keep us from using it; empty if nothing. An account that we do not know
// is for the authority to judge.
func limitOf(parameters map[string]string, via fleet.ChallengeType, ca fleet.CAIdentity) string {
	if account, ok := parameters["accounturi"]; ok && ca.Account != "" && account != ca.Account {
		return "for the account " + account
	}
	methods, ok := parameters["validationmethods"]
	if !ok {
		return ""
	}
	for m := range strings.SplitSeq(methods, ",") {
		if strings.EqualFold(strings.TrimSpace(m), string(via)) {
			return ""
		}
	}
	return "by " + methods
}
