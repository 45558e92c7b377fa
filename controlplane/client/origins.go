package client

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

type (
	// OriginCertSet gives nodes a certificate to show to one of a host's origins.
	OriginCertSet struct {
		Origin      string `json:"origin" minLength:"1" maxLength:"2048" doc:"URL of the origin, as the host has it" example:"https://203.0.113.10"`
		Certificate string `json:"certificate" minLength:"1" maxLength:"16384" doc:"certificate and those of the authorities between it and the root, PEM, leaf first"`
		Key         string `json:"key" minLength:"1" maxLength:"8192" writeOnly:"true" doc:"its private key, PEM, not encrypted; it is sealed before it is stored, and never answered"`
	}
	// OriginView is one origin of a host.
	OriginView struct {
		fleet.Origin
		// Certificate is what nodes show to it; none if they show nothing.
		Certificate *fleet.OriginCert `json:"client_certificate,omitempty"`
		// Out says which nodes pass over it, or over one of the instances of its service, and why.
		Out []OriginOutage `json:"out,omitempty"`
	}
	// OriginOutage is an origin that a node passes over.
	OriginOutage struct {
		Node   fleet.NodeID `json:"node"`
		Server string       `json:"server" doc:"host:port as the node dials it"`
		Reason string       `json:"reason" doc:"as in edgefleet_proxy_origin_errors_total, or 'health check: ' and why"`
		Since  time.Time    `json:"since"`
	}
	// OriginViews are the origins of a host.
	OriginViews struct {
		Host    fleet.HostName `json:"host"`
		Origins []OriginView   `json:"origins"`
		// Nodes are those that may serve the host and were heard of just now: what is not out there is up.
		Nodes []fleet.NodeID `json:"nodes"`
	}
)

// OriginCertDelete names the origin that no certificate is shown to any more.
type OriginCertDelete struct {
	Origin string `json:"origin" minLength:"1" maxLength:"2048" doc:"URL of the origin, as the host has it"`
}
