package command

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

type (
	// CertificateUpload stores a certificate that its owner uploaded, with its sealed key, in place of the generation before
	// it, and ends orders of the host. Answers fleet.Certificate.
	CertificateUpload struct {
		Certificate fleet.CertificateRecord `json:"certificate"`
	}
	// CertificateRemove takes an uploaded certificate back. Where one is ordered in its place, it serves until that is
	// there; else it is gone at once. Answers fleet.Certificate.
	CertificateRemove struct {
		Host       fleet.HostName `json:"host"`
		Tenant     fleet.TenantID `json:"tenant"`
		Generation uint64         `json:"generation"`
	}
	// CertificateRenew makes a certificate due for renewal now. Answers fleet.Certificate.
	CertificateRenew struct {
		Host       fleet.HostName `json:"host"`
		Tenant     fleet.TenantID `json:"tenant"`
		Generation uint64         `json:"generation"`
	}
	// CertificateRevoke has a certificate replaced and then revoked by its authority, or with Now revoked at once. Answers
	// fleet.Certificate.
	CertificateRevoke struct {
		Host       fleet.HostName         `json:"host"`
		Tenant     fleet.TenantID         `json:"tenant"`
		Generation uint64                 `json:"generation"`
		Reason     fleet.RevocationReason `json:"reason"`
		Now        bool                   `json:"now,omitempty"`
	}
	// RevocationPut stores how an attempt to revoke a certificate ended; Forget drops one whose certificate has ended.
	RevocationPut struct {
		ID          string    `json:"id"`
		Revoked     bool      `json:"revoked,omitempty"`
		Attempts    int       `json:"attempts,omitempty"`
		NextAttempt time.Time `json:"next_attempt,omitzero"`
		Problem     string    `json:"problem,omitempty"`
		Forget      bool      `json:"forget,omitempty"`
	}
)

// Type implements Body.
func (CertificateUpload) Type() Type { return TypeCertificateUpload }

// Type implements Body.
func (CertificateRemove) Type() Type { return TypeCertificateRemove }

// Type implements Body.
func (CertificateRenew) Type() Type { return TypeCertificateRenew }

// Type implements Body.
func (CertificateRevoke) Type() Type { return TypeCertificateRevoke }

// Type implements Body.
func (RevocationPut) Type() Type { return TypeRevocationPut }
