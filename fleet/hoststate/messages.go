package hoststate

import (
	"fmt"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// Message says what a reason code means to people. A condition's own message and action name the records at hand; where
// it has no action, Wanted is it.
type Message struct {
	Code string
	// Seen is what is the case, Wanted what has to be done, by Who.
	Seen, Wanted string
	Who          fleet.Who
	// Next is when it is looked at again.
	Next string
	// Example is what fleetctl prints.
	Example string
	// Preflight: found before the CA is asked, so that it costs nothing there.
	Preflight bool
}

const (
	ladder  = "every second for 30 s, every 5 s to 2 min, every 15 s to 10 min, every minute to 1 h, every 5 min to a day, hourly to 7 days, then daily"
	refused = "after 1 min, 10 min, 100 min, then daily"
	outage  = "within minutes, spread at random"
)

// Messages has every reason code of a host.
var Messages = []Message{
	{
		Code: fleet.ReasonDNSMissing, Who: fleet.WhoCustomer, Next: ladder, Preflight: true,
		Seen: "The record that you were asked to set does not exist.", Wanted: "set the record that `fleetctl host show` prints at your DNS provider",
		Example: "DNS_MISSING: _acme-challenge.api.example.com has no CNAME. Set _acme-challenge.api.example.com CNAME habc.dcv.edge.example.net.",
	},
	{
		Code: fleet.ReasonDNSWrongTarget, Who: fleet.WhoCustomer, Next: ladder, Preflight: true,
		Seen: "The record exists and leads somewhere else.", Wanted: "change the record to the value that `fleetctl host show` prints",
		Example: "DNS_WRONG_TARGET: api.example.com is a CNAME to old.cdn.example. Set api.example.com CNAME habc.edge.example.net.",
	},
	{
		Code: fleet.ReasonDNSPartial, Who: fleet.WhoCustomer, Next: ladder, Preflight: true,
		Seen: "Some of your name servers or addresses have the right record, and others do not.", Wanted: "wait until every name server has the change, and remove the addresses that are not the edge's",
		Example: "DNS_PARTIAL: ns2.example.com (192.0.2.54) does not have the record _acme-challenge.api.example.com that ns1.example.com has. See that every name server of example.com has the same zone.",
	},
	{
		Code: fleet.ReasonDNSConflictAAAA, Who: fleet.WhoCustomer, Next: ladder, Preflight: true,
		Seen: "The IPv4 addresses are the edge's, and the IPv6 address is not: part of your visitors, and the certificate authority, go elsewhere.", Wanted: "remove the AAAA record",
		Example: "DNS_CONFLICT_AAAA: api.example.com has the edge's IPv4 addresses, but its AAAA record 2001:db8::bad is not the edge's. Remove api.example.com AAAA 2001:db8::bad.",
	},
	{
		Code: fleet.ReasonDNSProxied, Who: fleet.WhoCustomer, Next: ladder, Preflight: true,
		Seen: "Another CDN answers for the name, so that it cannot be seen whether it leads to the edge.", Wanted: "switch the proxy of this record off at that provider (DNS only)",
		Example: "DNS_PROXIED: api.example.com has the addresses 104.16.1.1 of Cloudflare. Switch the proxy of api.example.com off (DNS only), and set api.example.com CNAME habc.edge.example.net.",
	},
	{
		Code: fleet.ReasonDNSServfail, Who: fleet.WhoCustomer, Next: ladder, Preflight: true,
		Seen: "The name servers of the domain do not answer, or answer with an error.", Wanted: "check the name servers of the domain",
		Example: "DNS_SERVFAIL: api.example.com cannot be looked up: SERVFAIL for api.example.com CNAME. Check the name servers of the domain of api.example.com.",
	},
	{
		Code: fleet.ReasonDNSSECBogus, Who: fleet.WhoCustomer, Next: ladder, Preflight: true,
		Seen: "The domain is signed, and its signatures do not verify: validating resolvers, the certificate authority's too, refuse it.", Wanted: "repair DNSSEC: the DS record at the registrar has to fit the keys of the zone, and signatures must not have expired",
		Example: "DNSSEC_BOGUS: api.example.com does not validate: resolvers answer only with checking disabled. Repair DNSSEC of its zone: the DS record at the registrar has to fit the zone's keys, or remove the DS record.",
	},
	{
		Code: fleet.ReasonCAAForbidden, Who: fleet.WhoCustomer, Next: "as for DNS, not more often than every 5 s", Preflight: true,
		Seen: "CAA records of the domain do not allow the certificate authority.", Wanted: "allow the certificate authority in the CAA records of the domain",
		Example: "CAA_FORBIDDEN: example.com allows only digicert.com. Add example.com CAA 0 issue \"letsencrypt.org\".",
	},
	{
		Code: fleet.ReasonCAALookupFailed, Who: fleet.WhoCustomer, Next: "as for DNS, not more often than every 5 s", Preflight: true,
		Seen: "The CAA records of the domain cannot be looked up; the certificate authority refuses then.", Wanted: "see that the name servers of the domain answer questions for CAA, with an empty answer if there is none",
		Example: "CAA_LOOKUP_FAILED: the CAA records of api.example.com cannot be looked up: SERVFAIL for api.example.com CAA. See that its name servers answer questions for CAA, with an empty answer if there is none.",
	},
	{
		Code: fleet.ReasonHTTPUnreachable, Who: fleet.WhoOperator, Next: "as for DNS, not more often than every 5 s", Preflight: true,
		Seen: "Port 80 of an edge that DNS answers with cannot be reached, where the certificate authority looks for HTTP-01, and port 443, where it looks for TLS-ALPN-01, is no way around it.", Wanted: "open the port of the edge, or have the customer set the certificate record, which needs none",
		Example: "HTTP_UNREACHABLE: port 80 of the edge 192.0.2.1 does not answer: connection refused. Open it, or set _acme-challenge.api.example.com CNAME habc.dcv.edge.example.net.",
	},
	{
		Code: fleet.ReasonClaimedElsewhere, Who: fleet.WhoCustomer, Next: "never: the request is refused",
		Seen: "The name, one above it or one below it is protected by another account.", Wanted: "if the name is yours, contact support with proof of ownership",
		Example: "CLAIMED_ELSEWHERE: api.example.com, or a name above or below it, is protected already by another account; if it is yours, contact support with proof of ownership.",
	},
	{
		Code: fleet.ReasonCARateLimited, Who: fleet.WhoNobody, Next: "exactly when the certificate authority allows it",
		Seen: "The certificate authority has had too many requests.", Wanted: "nothing: it is tried again when the authority allows it",
		Example: "CA_RATE_LIMITED: rateLimited: too many certificates already issued for example.com.",
	},
	{
		Code: fleet.ReasonCARejectedName, Who: fleet.WhoCustomer, Next: refused,
		Seen: "The certificate authority refuses this name by its policy.", Wanted: "the certificate authority refuses this name: use another name, or ask it",
		Example: "CA_REJECTED_NAME: rejectedIdentifier: the name is on the authority's list of blocked names.",
	},
	{
		Code: fleet.ReasonCARejected, Who: fleet.WhoCustomer, Next: refused,
		Seen: "The certificate authority looked at the answer to its challenge and did not accept it.", Wanted: "check the DNS records of the host: the authority looks from several places of the world",
		Example: "CA_REJECTED: dns: no TXT record found at _acme-challenge.api.example.com. Check the DNS records of api.example.com.",
	},
	{
		Code: fleet.ReasonCAUnavailable, Who: fleet.WhoNobody, Next: outage,
		Seen: "The certificate authority is away or has an error of its own.", Wanted: "nothing: it is tried again; certificates that are there go on serving",
		Example: "CA_UNAVAILABLE: dial: connection refused.",
	},
	{
		Code: fleet.ReasonRenewalBlocked, Who: fleet.WhoCustomer, Next: "as for what blocks it",
		Seen: "The certificate serves, and its successor cannot be had for the reason that is given; it ends if nothing is done.", Wanted: "do what the reason asks for before the certificate ends",
		Example: "RENEWAL_BLOCKED: the certificate ends at 2026-12-24T10:00:00Z and cannot be renewed: _acme-challenge.api.example.com has no CNAME. Set _acme-challenge.api.example.com CNAME habc.dcv.edge.example.net.",
	},
	{
		Code: fleet.ReasonDeployPartial, Who: fleet.WhoNobody, Next: "when an edge reports, and every 5 s",
		Seen: "The certificate is there, and not every edge has shown it yet.", Wanted: "nothing: it goes on when the edges that are named answer; an operator looks at them when it takes longer than a minute",
		Example: "DEPLOY_PARTIAL: not acknowledged yet by n2.",
	},
	{
		Code: fleet.ReasonUploadNeeded, Who: fleet.WhoCustomer, Next: "30, 14 and 7 days before the certificate ends, and when one is uploaded",
		Seen: "The host has its own certificate, which the edge cannot renew, and needs another one, or its first.", Wanted: "upload a certificate with its chain and key: `fleetctl cert upload HOST --cert FILE --key FILE`; or let the edge order one: `fleetctl cert remove HOST`, or `fleetctl host set HOST --certificate acme`",
		Example: "UPLOAD_NEEDED: the certificate ends at 2026-12-24T10:00:00Z, in less than 14 days, and is not renewed by the edge.",
	},
}

// Lookup finds a code's message.
func Lookup(code string) (Message, bool) {
	for _, m := range Messages {
		if m.Code == code {
			return m, true
		}
	}
	return Message{}, false
}

// Advise says what each condition of a host that has a reason asks for.
func Advise(o fleet.HostObserved) []fleet.HostAdvice {
	var out []fleet.HostAdvice
	for _, c := range []struct {
		name string
		fleet.Condition
	}{{"ownership", o.Ownership}, {"certificate", o.Certificate}, {"routing", o.Routing}} {
		m, ok := Lookup(c.Reason)
		if !ok || c.State == fleet.ConditionTrue {
			continue
		}
		a := fleet.HostAdvice{Condition: c.name, Reason: c.Reason, Seen: c.Message, Wanted: c.Action, Who: m.Who, NextCheck: c.NextCheck}
		if a.Wanted == "" {
			a.Wanted = m.Wanted
		}
		out = append(out, a)
	}
	return out
}

// Page is the table for customers, as Markdown.
func Page() string {
	var b strings.Builder
	b.WriteString(`# Messages of a host

Each condition of a host (ownership, certificate, routing) that is not true has a reason: a code that stays the same,
what is seen, what is wanted, who has to act, and when it is looked at again. ` + "`fleetctl host show NAME`" + ` prints them, and the API has
them as ` + "`advice`" + ` with the fields ` + "`reason`, `seen`, `wanted`, `who` and `next_check`" + `. ` + "`fleetctl host check NAME`" + ` looks at once.
This page is generated from the code.
`)
	for _, m := range Messages {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n* **What to do:** %s.\n* **Who:** %s.\n* **Next check:** %s.\n* **Example:** `%s`\n", m.Code, m.Seen, m.Wanted, m.Who, m.Next, m.Example)
	}
	return b.String()
}
