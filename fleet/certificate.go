package fleet

import (
	"hash/fnv"
	"time"
)

// Sealed is a secret encrypted with AES-256-GCM; package keyring seals and opens it. The additional data is not
// stored: both sides rebuild it from what the secret belongs to, so that a ciphertext moved elsewhere does not open.
type Sealed struct {
	// Key says which key sealed it: "kek" or "group/<name>/<epoch>".
	Key        string `json:"key"`
	Nonce      []byte `json:"nonce"`
	Ciphertext []byte `json:"ciphertext"`
}

// ChallengeType is an ACME challenge type (RFC 8555 section 8).
type ChallengeType string

// The challenge types that the control plane solves.
const (
	// ChallengeDNS01 is answered by our DNS servers behind the host's delegated CNAME.
	ChallengeDNS01 ChallengeType = "dns-01"
	// ChallengeHTTP01 is answered by the edges.
	ChallengeHTTP01 ChallengeType = "http-01"
	// ChallengeTLSALPN01 is answered by the edges in a handshake (RFC 8737): the last choice, where port 80 is closed.
	ChallengeTLSALPN01 ChallengeType = "tls-alpn-01"
)

// Challenge is what must be answered while an order is validated.
type Challenge struct {
	Type   ChallengeType `json:"type"`
	Host   HostName      `json:"host"`
	Tenant TenantID      `json:"tenant"`
	// Token is the last path element of an HTTP-01 request.
	Token string `json:"token"`
	// Response is the body of the HTTP-01 answer (key authorization) or the DNS-01 TXT value.
	Response  string    `json:"response"`
	CreatedAt time.Time `json:"created_at"`
	// Out are edges that did not acknowledge the answer in time: DNS answers for the host without them meanwhile.
	Out *ChallengeOut `json:"out,omitempty"`
}

// ChallengeOut takes edges out of DNS for one host, until the challenge is over or, if nobody is left to end it, until
// its time is.
type ChallengeOut struct {
	Nodes []NodeID  `json:"nodes"`
	Until time.Time `json:"until"`
}

// OutAt are the edges that c keeps out of DNS at a time.
func (c Challenge) OutAt(now time.Time) []NodeID {
	if c.Out == nil || !now.Before(c.Out.Until) {
		return nil
	}
	return c.Out.Nodes
}

// MaxChallengeOut bounds the edges that one challenge takes out of DNS, MaxChallengeOutTime for how long.
const (
	MaxChallengeOut     = 1024
	MaxChallengeOutTime = 15 * time.Minute
)

// OrderState is where a certificate order stands.
type OrderState string

// The states of an order.
const (
	// OrderQueued: to be worked on at NextAttempt.
	OrderQueued OrderState = "queued"
	// OrderIssued: the certificate is committed.
	OrderIssued OrderState = "issued"
)

// Order is one durable certificate order: key and CSR are committed before the CA hears of it, so that a new leader
// goes on with the same key.
type Order struct {
	ID     OrderID  `json:"id"`
	Host   HostName `json:"host"`
	Tenant TenantID `json:"tenant"`
	// Generation numbers the certificates of one host, from 1.
	Generation uint64        `json:"generation"`
	Challenge  ChallengeType `json:"challenge"`
	State      OrderState    `json:"state"`
	// Attempts counts failed attempts; NextAttempt is when the next may begin.
	Attempts    int       `json:"attempts"`
	NextAttempt time.Time `json:"next_attempt"`
	// Problem is what the CA said last.
	Problem string `json:"problem,omitempty"`
	// Asked: the CA may have an order of this. It is stored before the CA is asked, and URL, the CA's name of the order,
	// before anything is done with it.
	Asked bool   `json:"asked,omitempty"`
	URL   string `json:"url,omitempty"`
	// Authority is the directory of the CA that was asked last; empty before the first was.
	Authority string `json:"authority,omitempty"`
	// Failed are the newest failed validations, for CAs count them by name.
	Failed []time.Time `json:"failed,omitempty"`
	Meta
}

// Certificate is an issued certificate with its sealed key.
type Certificate struct {
	Host       HostName `json:"host"`
	Tenant     TenantID `json:"tenant"`
	Generation uint64   `json:"generation"`
	// Chain is PEM, leaf first.
	Chain string `json:"chain"`
	// SPKI is the SHA-256 of the subject public key info, hex.
	SPKI      string    `json:"spki"`
	Serial    string    `json:"serial"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	// Renewal is when it is renewed; the leader stores it soon after the certificate.
	Renewal Renewal `json:"renewal,omitzero"`
	// Authority is the directory of the CA that issued it, if it is known.
	Authority string `json:"authority,omitempty"`
	// Source is empty for a certificate of the ACME authority, SourceUploaded for an uploaded one. RemovedAt is when its
	// owner took an uploaded one back: it serves until its successor is there.
	Source    string    `json:"source,omitempty"`
	RemovedAt time.Time `json:"removed_at,omitzero"`
	// Revoke is set when the authority is to revoke it, as soon as its successor is served.
	Revoke RevocationReason `json:"revoke,omitempty"`
	Meta
}

// Where the time of a renewal comes from.
const (
	// RenewalCA: the CA named a window (RFC 9773).
	RenewalCA = "ca"
	// RenewalLife: the CA says nothing; one third of the certificate's life is left then, less a spread.
	RenewalLife = "life"
	// RenewalRequested: somebody asked for it.
	RenewalRequested = "requested"
)

// Renewal is when a certificate is to be renewed, and why then.
type Renewal struct {
	At time.Time `json:"at"`
	// Source is ca, life or requested.
	Source string `json:"source"`
	// Start and End are the CA's window; Explanation is a page of the CA that says why.
	Start       time.Time `json:"start,omitzero"`
	End         time.Time `json:"end,omitzero"`
	Explanation string    `json:"explanation,omitempty"`
}

// RenewAt is when the certificate is due for renewal: when its Renewal says so, else at one third of its life left.
func (c Certificate) RenewAt() time.Time {
	if !c.RemovedAt.IsZero() {
		return c.RemovedAt
	}
	if !c.Renewal.At.IsZero() {
		return c.Renewal.At
	}
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
}

// spread is a fraction from 0 to 1 that is the host's own, so that what is due for many at one time is not done for all
// of them then.
func (c Certificate) spread() float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(c.Host)) // never fails
	// The last bits of the sum depend on all of the name.
	return float64(h.Sum32()&0xffff) / (1 << 16)
}

// Spread is a time from 0 to d that is the host's own.
func (c Certificate) Spread(d time.Duration) time.Duration {
	return time.Duration(c.spread() * float64(d))
}

// PlanRenewal is the renewal within the CA's window from start to end, or by the certificate's life if there is no window.
// The same window gives the same time.
func (c Certificate) PlanRenewal(start, end time.Time, explanation string) Renewal {
	if end.After(start) {
		at := start.Add(c.Spread(end.Sub(start))).UTC().Truncate(time.Second)
		return Renewal{At: at, Source: RenewalCA, Start: start.UTC(), End: end.UTC(), Explanation: explanation}
	}
	// At one third left, and within a sixtieth of the life after it: a day and a half of ninety days.
	life := c.NotAfter.Sub(c.NotBefore)
	at := c.NotAfter.Add(-life / 3).Add(c.Spread(life / 60)).UTC().Truncate(time.Second)
	return Renewal{At: at, Source: RenewalLife}
}
