package fleet

import (
	"slices"
	"time"
)

// RevocationReason is why a certificate is revoked (RFC 5280 section 5.3.1).
type RevocationReason string

// The reasons that authorities take from the owner of a certificate.
const (
	RevokeKeyCompromise RevocationReason = "key_compromise"
	RevokeSuperseded    RevocationReason = "superseded"
	RevokeCessation     RevocationReason = "cessation_of_operation"
	RevokeUnspecified   RevocationReason = "unspecified"
)

// RevocationReasons lists them.
var RevocationReasons = []RevocationReason{RevokeKeyCompromise, RevokeSuperseded, RevokeCessation, RevokeUnspecified}

// Validate reports whether r is one of RevocationReasons.
func (r RevocationReason) Validate() error {
	if !slices.Contains(RevocationReasons, r) {
		return Invalid("cause", "%q is no reason to revoke a certificate: use key_compromise, superseded, cessation_of_operation or unspecified", string(r))
	}
	return nil
}

// Code is the number of r in RFC 5280.
func (r RevocationReason) Code() int {
	switch r {
	case RevokeKeyCompromise:
		return 1
	case RevokeSuperseded:
		return 4
	case RevokeCessation:
		return 5
	case RevokeUnspecified:
	}
	return 0
}

// RevocationState is where a revocation stands.
type RevocationState string

// The states of a revocation.
const (
	// RevocationWaiting: for its successor to be served, or for the authority.
	RevocationWaiting RevocationState = "waiting"
	// RevocationDone: the authority revoked it.
	RevocationDone RevocationState = "revoked"
)

// Revocation is a certificate that its authority is to revoke, or has revoked. It is kept until the certificate ends.
type Revocation struct {
	// ID is host and serial.
	ID         string   `json:"id"`
	Host       HostName `json:"host"`
	Tenant     TenantID `json:"tenant"`
	Generation uint64   `json:"generation"`
	Serial     string   `json:"serial"`
	Issuer     string   `json:"issuer"`
	SPKI       string   `json:"spki"`
	// Authority is the directory of the CA that issued it, if it is known.
	Authority string    `json:"authority,omitempty"`
	NotAfter  time.Time `json:"not_after"`
	// Reason is why; Now: it does not wait for its successor.
	Reason RevocationReason `json:"reason"`
	Now    bool             `json:"now,omitempty"`

	State RevocationState `json:"state"`
	// Attempts counts those that failed; NextAttempt is when the next may begin, Problem what the authority said last.
	Attempts    int       `json:"attempts,omitempty"`
	NextAttempt time.Time `json:"next_attempt,omitzero"`
	Problem     string    `json:"problem,omitempty"`
	RevokedAt   time.Time `json:"revoked_at,omitzero"`
	Meta
}

// RevocationRecord is a revocation with what the authority is shown: the certificate, PEM.
type RevocationRecord struct {
	Revocation
	Chain string `json:"chain"`
}

// RevocationOf is the revocation of c.
func RevocationOf(c Certificate, reason RevocationReason, now bool) RevocationRecord {
	return RevocationRecord{Chain: c.Chain, Revocation: Revocation{
		ID: string(c.Host) + "/" + c.Serial, Host: c.Host, Tenant: c.Tenant, Generation: c.Generation, Serial: c.Serial,
		Issuer: c.Issuer, SPKI: c.SPKI, Authority: c.Authority, NotAfter: c.NotAfter, Reason: reason, Now: now, State: RevocationWaiting,
	}}
}

// Served reports whether what comes after the certificate is served, so that revoking it breaks nobody.
func (r Revocation) Served(h Host, exists bool) bool {
	return r.Now || !exists || h.Deleting() || h.Tenant != r.Tenant || h.Observed.VerifiedGeneration > r.Generation
}
