package client

import "github.com/edgefleet/edgefleet/fleet"

type (
	// AuditHeld lists the audit segments that a member has on its disk, of those whose entries are still in the state.
	AuditHeld struct {
		Digests []fleet.Digest `json:"digests"`
	}
	// AuditKey is what auditors verify exports with. They should get it by a way of its own, once.
	AuditKey struct {
		Cluster fleet.ClusterID `json:"cluster"`
		// PEM is the Ed25519 public key.
		PEM string `json:"pem"`
		// Fingerprint is the SHA-256 of the key, to compare by telephone.
		Fingerprint string `json:"fingerprint"`
	}
)
