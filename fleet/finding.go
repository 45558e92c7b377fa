package fleet

// Reasons of conditions of a host: stable codes that the API, fleetctl and the console show with a message for people.
const (
	ReasonDNSMissing      = "DNS_MISSING"
	ReasonDNSWrongTarget  = "DNS_WRONG_TARGET"
	ReasonDNSPartial      = "DNS_PARTIAL"
	ReasonDNSConflictAAAA = "DNS_CONFLICT_AAAA"
	ReasonDNSServfail     = "DNS_SERVFAIL"
	ReasonCAAForbidden    = "CAA_FORBIDDEN"
	ReasonCARateLimited   = "CA_RATE_LIMITED"
	ReasonCARejectedName  = "CA_REJECTED_NAME"
	// ReasonCARejected: the CA looked at our answer to its challenge and did not accept it.
	ReasonCARejected     = "CA_REJECTED"
	ReasonCAUnavailable  = "CA_UNAVAILABLE"
	ReasonRenewalBlocked = "RENEWAL_BLOCKED"
	ReasonDeployPartial  = "DEPLOY_PARTIAL"
)

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
	// Traffic is about <host> itself: OK means that its visitors, and HTTP-01 challenges, come to the edge.
	Traffic DNSVerdict `json:"traffic"`
}
