package command

import "github.com/edgefleet/edgefleet/fleet"

type (
	// OriginCertPut stores the certificate that nodes show to one of a host's origins, in place of the one before. Its
	// generation is the next one.
	OriginCertPut struct {
		Certificate fleet.OriginCertRecord `json:"certificate"`
	}
	// OriginCertDelete removes it: nodes show none to that origin.
	OriginCertDelete struct {
		Host   fleet.HostName `json:"host"`
		Tenant fleet.TenantID `json:"tenant"`
		Origin string         `json:"origin"`
	}
	// OriginCertReseal is the key of such a certificate, sealed anew.
	OriginCertReseal struct {
		Host       fleet.HostName `json:"host"`
		Origin     string         `json:"origin"`
		Generation uint64         `json:"generation"`
		Key        fleet.Sealed   `json:"key"`
	}
)

// Type implements Body.
func (OriginCertPut) Type() Type { return TypeOriginCertPut }

// Type implements Body.
func (OriginCertDelete) Type() Type { return TypeOriginCertDelete }
