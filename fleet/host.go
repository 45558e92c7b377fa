package fleet

import (
	"net/netip"
	"slices"
	"time"
)

// Mode is what an edge does with requests that it judges malicious (mild to strict).
type Mode string

// The filtering modes of a host.
const (
	// ModeOff: no analysis.
	ModeOff Mode = "off"
	// ModeMonitoring: analyse and report, never block.
	ModeMonitoring Mode = "monitoring"
	// ModeSafeBlocking: analyse, report, and block requests of graylisted addresses.
	ModeSafeBlocking Mode = "safe_blocking"
	// ModeBlock: analyse, report and block.
	ModeBlock Mode = "block"
	// ModeInherit, of a host only, takes the tenant's mode: that of its rule of kind mode without conditions, else monitoring.
	ModeInherit Mode = "inherit"
)

// Modes lists the filtering modes from mild to strict.
var Modes = []Mode{ModeOff, ModeMonitoring, ModeSafeBlocking, ModeBlock}

// Validate reports whether m is one of Modes.
func (m Mode) Validate() error {
	if !slices.Contains(Modes, m) {
		return Invalid("mode", "%q is not a mode: use off, monitoring, safe_blocking or block", string(m))
	}
	return nil
}

// Host is a protected host name.
type Host struct {
	Name     HostName     `json:"name"`
	Tenant   TenantID     `json:"tenant"`
	Spec     HostSpec     `json:"spec"`
	Desired  HostDesired  `json:"desired"`
	Observed HostObserved `json:"observed"`
	Meta
}

// HostSpec is what people decide about a host.
type HostSpec struct {
	Origins []Origin `json:"origins"`
	Mode    Mode     `json:"mode"`
	// Regions restricts the nodes that serve the host; empty means all of the tenant's group.
	Regions []RegionName `json:"regions,omitempty"`
	// TLS is how clients reach the host, Forwarding how its requests reach the origins.
	TLS        HostTLS    `json:"tls,omitzero"`
	Forwarding Forwarding `json:"forwarding,omitzero"`
	// Certificate is where the host's certificate comes from.
	Certificate CertificatePolicy `json:"certificate,omitempty"`
	// FailPolicy is what becomes of requests that could not be judged.
	FailPolicy FailPolicy `json:"fail_policy,omitzero"`
}

// HostDesired is what the control plane assigned to a host.
type HostDesired struct {
	// Label is the unguessable DNS label below the edge zone; it is never issued twice.
	Label string `json:"label"`
	// DCVLabel is the label of the certificate record where that is another host's: a name and the wildcard over it have one
	// _acme-challenge name, which can be a CNAME to one name only. Empty means Label.
	DCVLabel string `json:"dcv_label,omitempty"`
	// DeletingSince is when the host was deleted; its name is free when no edge has the host any more.
	DeletingSince time.Time `json:"deleting_since,omitzero"`
}

// HostPhase is where a host stands on its way from a name to HTTPS.
type HostPhase string

// The phases of a host, in order; package hoststate has the edges between them.
const (
	PhaseClaimed    HostPhase = "claimed"
	PhasePendingDNS HostPhase = "pending_dns"
	// PhasePreflight: DNS allows a certificate; what the CA would refuse is looked for before it is asked.
	PhasePreflight  HostPhase = "preflight"
	PhaseOrdering   HostPhase = "ordering"
	PhaseValidating HostPhase = "validating"
	PhaseIssuing    HostPhase = "issuing"
	PhaseDeploying  HostPhase = "deploying"
	PhaseActive     HostPhase = "active"
	// PhaseRenewing: the successor of a certificate that serves is ordered or deployed.
	PhaseRenewing HostPhase = "renewing"
	// PhaseMoved: visitors came to the edge, and DNS leads elsewhere now.
	PhaseMoved HostPhase = "moved"
	// PhaseDetached: DNS has led elsewhere for so long that certificates are not renewed any more.
	PhaseDetached HostPhase = "detached"
	// PhaseDeleting: the host has no certificate, orders or DNS any more, and edges are letting go of it.
	PhaseDeleting HostPhase = "deleting"
	// PhaseTombstone: the host is gone; what is left is the row of its label, which is never issued again.
	PhaseTombstone HostPhase = "tombstone"
)

// HostStatus rolls the three conditions up to one word.
type HostStatus string

// The roll-up of a host's conditions.
const (
	StatusPending   HostStatus = "pending"
	StatusActive    HostStatus = "active"
	StatusAttention HostStatus = "attention"
	StatusFailed    HostStatus = "failed"
	// StatusSuspended: the edge does nothing for the host until its DNS leads here again.
	StatusSuspended HostStatus = "suspended"
)

// ConditionState is the state of one condition of a host.
type ConditionState string

// The states of a condition.
const (
	ConditionUnknown ConditionState = "unknown"
	ConditionWaiting ConditionState = "waiting"
	ConditionTrue    ConditionState = "true"
	ConditionFalse   ConditionState = "false"
)

// Condition says how one aspect of a host stands, and who has to do what.
type Condition struct {
	State ConditionState `json:"state"`
	// Reason is a stable code such as DNS_MISSING; empty when the state is true.
	Reason string `json:"reason,omitempty"`
	// Message says what is seen and what is wanted.
	Message string `json:"message,omitempty"`
	// Action says who must do what next.
	Action    string    `json:"action,omitempty"`
	Since     time.Time `json:"since"`
	NextCheck time.Time `json:"next_check,omitzero"`
}

// HostObserved is what the leader learned about a host from DNS, the CA and the nodes.
type HostObserved struct {
	Phase       HostPhase  `json:"phase"`
	Status      HostStatus `json:"status"`
	Ownership   Condition  `json:"ownership"`
	Certificate Condition  `json:"certificate"`
	Routing     Condition  `json:"routing"`
	// Challenge is the challenge type the DNS records allow: dns-01 or http-01.
	Challenge ChallengeType `json:"challenge,omitempty"`
	// VerifiedGeneration is the generation of the certificate that a TLS handshake through the edges showed last.
	VerifiedGeneration uint64 `json:"verified_generation,omitempty"`
}

// Record is a DNS record that a customer is asked to set.
type Record struct {
	// Purpose is certificate or traffic.
	Purpose string `json:"purpose"`
	Name    string `json:"name"`
	Type    string `json:"type"`
	Value   string `json:"value"`
}

// Deleting reports whether h was deleted and edges may still have it.
func (h Host) Deleting() bool { return !h.Desired.DeletingSince.IsZero() }

// Records are the DNS records for h below the edge zone.
func (h Host) Records(zone HostName) []Record {
	return []Record{
		{Purpose: "certificate", Name: h.Name.ChallengeName(), Type: "CNAME", Value: h.DCVName(zone)},
		{Purpose: "traffic", Name: string(h.Name), Type: "CNAME", Value: h.TrafficName(zone)},
	}
}

// DCVName is where h's _acme-challenge CNAME points (domain control validation).
func (h Host) DCVName(zone HostName) string { return h.Desired.DCV() + ".dcv." + string(zone) }

// DCV is the label of the certificate record.
func (d HostDesired) DCV() string {
	if d.DCVLabel != "" {
		return d.DCVLabel
	}
	return d.Label
}

// TrafficName is where h's own CNAME points.
func (h Host) TrafficName(zone HostName) string { return h.Desired.Label + "." + string(zone) }

// Validate checks the invariants of h that need nothing but h itself.
func (h Host) Validate() error {
	if name, err := ParseHost(string(h.Name)); err != nil || name != h.Name {
		return err
	}
	if err := ValidateID("tenant", h.Tenant); err != nil {
		return err
	}
	if h.Spec.Mode != ModeInherit {
		if err := h.Spec.Mode.Validate(); err != nil {
			return err
		}
	}
	if err := h.Spec.FailPolicy.Validate(); err != nil {
		return err
	}
	if n := len(h.Spec.Origins); n == 0 || n > MaxOriginsPerHost {
		return Invalid("origins", "host %s has %d origins: give 1 to %d, for example --origin https://203.0.113.10", h.Name, n, MaxOriginsPerHost)
	}
	if n := len(h.Spec.Regions); n > MaxRegionsPerHost {
		return Invalid("regions", "host %s has %d regions; the limit is %d", h.Name, n, MaxRegionsPerHost)
	}
	for _, r := range h.Spec.Regions {
		if err := ValidateID("region", r); err != nil {
			return err
		}
	}
	if err := h.Spec.Certificate.Validate(); err != nil {
		return err
	}
	if h.Spec.Certificate == CertificateNone && (h.Spec.TLS.ClientAuth != ClientAuthNone || h.Spec.TLS.HSTS.MaxAge > 0) {
		return Invalid("certificate", "host %s has no certificate at the edge, so that clients can show none, and Strict-Transport-Security is for the CDN in front to send: remove client_auth and hsts, or set certificate to own", h.Name)
	}
	return h.Spec.validateEdge()
}

// CheckOrigins refuses origins that CheckOriginAddr refuses (literal addresses), that lie below the edge zone, or that
// name the host itself.
func (h Host) CheckOrigins(zone HostName, allowed []netip.Prefix, own []netip.Addr) error {
	for _, o := range h.Spec.Origins {
		e, err := o.Parse()
		if err != nil {
			return err
		}
		if a, err := netip.ParseAddr(e.Host); err == nil {
			if err := CheckOriginAddr(a, allowed, own); err != nil {
				return err
			}
			continue
		}
		if n := HostName(e.Host); n.Within(zone) || n == h.Name {
			return Invalid("origin", "origin %s leads back to the edge: give the name or address of your own server", o.URL)
		}
	}
	return nil
}
