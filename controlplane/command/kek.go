package command

import "github.com/edgefleet/edgefleet/fleet"

type (
	// KEKRotate makes another key-encryption key seal from now on: it replaces the cluster's own secrets by the same, sealed
	// by that key. What else is sealed follows by SecretsReseal.
	KEKRotate struct {
		// From is the name of the key that seals until now, To that of the new one.
		From string `json:"from"`
		To   string `json:"to"`
		// Members are those that were asked whether they have the new key: all there are, or the command is refused.
		Members []fleet.MemberID                  `json:"members"`
		Secrets map[fleet.SecretName]fleet.Sealed `json:"secrets"`
	}
	// SecretsReseal replaces sealed secrets by the same, sealed by the key that seals now. One that has changed meanwhile
	// stays as it is.
	SecretsReseal struct {
		// KEK is the name of the key that sealed them.
		KEK          string              `json:"kek"`
		Certificates []CertificateReseal `json:"certificates,omitempty"`
		Orders       []OrderReseal       `json:"orders,omitempty"`
		Entries      []EntryReseal       `json:"entries,omitempty"`
		Origins      []OriginCertReseal  `json:"origins,omitempty"`
	}
	// CertificateReseal is the key of a host's certificate.
	CertificateReseal struct {
		Host       fleet.HostName `json:"host"`
		Generation uint64         `json:"generation"`
		Key        fleet.Sealed   `json:"key"`
	}
	// OrderReseal is the key of a certificate that is being ordered.
	OrderReseal struct {
		ID  fleet.OrderID `json:"id"`
		Key fleet.Sealed  `json:"key"`
	}
	// EntryReseal is a value of certmagic's storage.
	EntryReseal struct {
		Key string `json:"key"`
		// Was is the digest of the value that it replaces.
		Was   fleet.Digest `json:"was"`
		Value []byte       `json:"value"`
	}
)

// Type implements Body.
func (KEKRotate) Type() Type { return TypeKEKRotate }

// Type implements Body.
func (SecretsReseal) Type() Type { return TypeSecretsReseal }
