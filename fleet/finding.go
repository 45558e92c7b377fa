package fleet

import "time"

// Reasons of conditions of a host: stable codes that the API, fleetctl and the console show with a message for people.
const (
	ReasonDNSMissing      = "DNS_MISSING"
	ReasonDNSWrongTarget  = "DNS_WRONG_TARGET"
	ReasonDNSPartial      = "DNS_PARTIAL"
	ReasonDNSConflictAAAA = "DNS_CONFLICT_AAAA"
	// ReasonDNSProxied: another CDN answers for the name and hides where it leads.
	ReasonDNSProxied      = "DNS_PROXIED"
	ReasonDNSServfail     = "DNS_SERVFAIL"
	ReasonDNSSECBogus     = "DNSSEC_BOGUS"
	ReasonCAAForbidden    = "CAA_FORBIDDEN"
	ReasonCAALookupFailed = "CAA_LOOKUP_FAILED"
	// ReasonHTTPUnreachable: port 80 or 443 of an edge does not answer, over which the CA would look.
	ReasonHTTPUnreachable = "HTTP_UNREACHABLE"
	// ReasonClaimedElsewhere never comes with the name of the other tenant.
	ReasonClaimedElsewhere = "CLAIMED_ELSEWHERE"
	ReasonCARateLimited    = "CA_RATE_LIMITED"
	ReasonCARejectedName   = "CA_REJECTED_NAME"
	// ReasonCARejected: the CA looked at our answer to its challenge and did not accept it.
	ReasonCARejected     = "CA_REJECTED"
	ReasonCAUnavailable  = "CA_UNAVAILABLE"
	ReasonRenewalBlocked = "RENEWAL_BLOCKED"
	ReasonDeployPartial  = "DEPLOY_PARTIAL"
	// ReasonUploadNeeded: the host has its own certificate, and needs another, or its first.
	ReasonUploadNeeded = "UPLOAD_NEEDED"
)

// Who has to act on a condition.
type Who string

// Those who may have to act.
const (
	WhoCustomer Who = "customer"
	WhoOperator Who = "operator"
	// WhoNobody: it is tried again, and nobody has to do anything yet.
	WhoNobody Who = "nobody"
)

// HostAdvice is what a condition of a host that is not true says to people. It follows from the condition, and is
// stored nowhere.
type HostAdvice struct {
	// Condition is ownership, certificate or routing.
	Condition string `json:"condition"`
	Reason    string `json:"reason"`
	// Seen is what is the case, Wanted what has to be done, by Who.
	Seen   string `json:"seen"`
	Wanted string `json:"wanted"`
	Who    Who    `json:"who"`
	// NextCheck is when it is looked at again; zero when that follows from something else.
	NextCheck time.Time `json:"next_check,omitzero"`
}

// CAIdentity is a certificate authority as CAA records know it (RFC 8659).
type CAIdentity struct {
	// Domains are the names that an issue property may have for it; none if they are not known.
	Domains []string
	// Account is the URI of our account there (RFC 8657); empty if it is not known.
	Account string
}

// Name is what to write into a CAA record.
func (c CAIdentity) Name() string {
	if len(c.Domains) == 0 {
		return "the certificate authority"
	}
	return c.Domains[0]
}

// DNSVerdict is what DNS says about one of a host's records.
type DNSVerdict struct {
	// OK: the record is as it should be; the other fields are empty then.
	OK bool `json:"ok"`
	// Reason is one of the DNS_ codes above.
	Reason string `json:"reason,omitempty"`
	// Message says what is seen.
	Message string `json:"message,omitempty"`
	// Action says what the customer has to set.
	Action string `json:"action,omitempty"`
}

// DNSFinding is what DNS says about a host: package check looks it up.
type DNSFinding struct {
	// Certificate is about _acme-challenge.<host>: OK means that we can answer DNS-01 challenges.
	Certificate DNSVerdict `json:"certificate"`
	// DNSOnly: visitors do not prove control, for the host is a wildcard.
	DNSOnly bool `json:"dns_only,omitempty"`
	// Traffic is about <host> itself: OK means that its visitors, and HTTP-01 challenges, come to the edge.
	Traffic DNSVerdict `json:"traffic"`
}
