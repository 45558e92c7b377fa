package client

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

type (
	// CertificateView is a host's certificate and how it stands. It holds no key.
	CertificateView struct {
		fleet.Certificate
		Source  string   `json:"source" enum:"acme,uploaded" doc:"where it comes from"`
		KeyType string   `json:"key_type" doc:"kind of its key, such as ECDSA P-256"`
		Names   []string `json:"names" doc:"names that it is for"`
		// RenewAt is when it is renewed; the zero time if the edge does not.
		RenewAt time.Time `json:"renew_at,omitzero" doc:"when the edge renews it; absent if it does not"`
		// Blocked is why it is not renewed, or not served.
		Blocked string `json:"blocked,omitempty" doc:"why it is not renewed, or not served by every edge"`
		// Order is the renewal under way.
		Order *fleet.Order `json:"order,omitempty" doc:"the order of its successor, if there is one"`
		// Served of Edges nodes have acknowledged it; Edges are those that are up for the host.
		Served int `json:"served" doc:"edges that have acknowledged it"`
		Edges  int `json:"edges" doc:"edges that are up for the host"`
		// Verified: a TLS handshake through the edges showed it.
		Verified bool `json:"verified" doc:"a TLS handshake through the edges showed it"`
		// Revocations are this certificate's and those of the host's earlier ones, until they end.
		Revocations []fleet.Revocation `json:"revocations,omitempty" doc:"certificates of the host that are or will be revoked, until they end"`
		// Warnings say what visitors may not take of an uploaded certificate.
		Warnings []string `json:"warnings,omitempty" doc:"of an uploaded one: what visitors may not take"`
	}
	// CertificateUpload is a certificate that its owner brings.
	CertificateUpload struct {
		Certificate string `json:"certificate" doc:"PEM: the certificate of the host first, its intermediates behind it"`
		Key         string `json:"key" writeOnly:"true" doc:"PEM: the private key (PKCS #8, PKCS #1 or SEC 1), not encrypted; it is sealed before it is stored, and never shown again"`
	}
	// CertificateRevoke has a certificate revoked by its authority.
	CertificateRevoke struct {
		Cause fleet.RevocationReason `json:"cause,omitempty" enum:"key_compromise,superseded,cessation_of_operation,unspecified" doc:"what the authority publishes; default key_compromise"`
		Now   bool                   `json:"now,omitempty" doc:"revoke it at once, and not when its successor is served: visitors may be refused meanwhile"`
	}
)
