package fleet

import (
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
}

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
	Meta
}

// RenewAt is when the certificate is due for renewal: at one third of its life left.
func (c Certificate) RenewAt() time.Time {
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
}
