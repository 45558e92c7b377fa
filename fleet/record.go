package fleet

import "time"

// Records are what the replicated state keeps of objects whose API form must not show everything: the object and,
// beside it, hashes and sealed secrets. Only the object part is ever answered, audited or logged.
type (
	// TokenRecord is an API token with the SHA-256 of its secret.
	TokenRecord struct {
		Token
		Hash []byte `json:"hash"`
	}

	// JoinTokenRecord is a join token with the SHA-256 of its secret.
	JoinTokenRecord struct {
		JoinToken
		Hash []byte `json:"hash"`
	}

	// OrderRecord is an order with its key (PKCS #8 DER, sealed by the KEK) and certificate signing request (DER).
	OrderRecord struct {
		Order
		Key Sealed `json:"key"`
		CSR []byte `json:"csr"`
		// SPKI is the SHA-256 of the key's public half, hex; it is part of the key's additional data.
		SPKI string `json:"spki"`
	}

	// CertificateRecord is a certificate with its key, sealed as in OrderRecord.
	CertificateRecord struct {
		Certificate
		Key Sealed `json:"key"`
	}

	// ClusterRecord is the cluster with its own private keys, sealed by the KEK.
	ClusterRecord struct {
		Cluster
		Secrets map[SecretName]Sealed `json:"secrets"`
	}

	// Entry is one value of the key-value store behind certmagic's storage; the value is sealed.
	Entry struct {
		Key       string    `json:"key"`
		Value     []byte    `json:"value"`
		UpdatedAt time.Time `json:"updated_at"`
	}

	// Label is a DNS label that was issued once and never will be again: its row outlasts the host as a tombstone, with
	// whose it was and since when it answers nothing.
	Label struct {
		Label     string    `json:"label"`
		Host      HostName  `json:"host"`
		Tenant    TenantID  `json:"tenant,omitempty"`
		DeletedAt time.Time `json:"deleted_at,omitzero"`
	}
)

// KEK is the name of the key-encryption key that seals in this cluster: the one that sealed its own secrets, which a
// rotation replaces all at once.
func (c ClusterRecord) KEK() string { return c.Secrets[SecretHeadKey].Key }

// HashBytes is the length of a stored secret hash (SHA-256).
const HashBytes = 32
