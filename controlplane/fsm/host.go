package fsm

import (
	"iter"
	"net/netip"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// hostPut writes a host. Origins that are Consul services come with a command of their own: members that are too old to
// know them would refuse here what others accept.
func (p *processor) hostPut(cmd command.Body, b *command.HostPut, services bool) (any, error) {
	before, exists := p.tx.Host(b.Name)
	if exists && before.Tenant != b.Tenant {
		if !b.Create {
			return nil, fleet.NewError(fleet.ErrNotFound, "host", "host %s does not exist", b.Name)
		}
		return nil, claimedElsewhere(b.Name)
	}
	if err := live(before); err != nil {
		return nil, err
	}
	if err := check(b.Put, exists, before.Meta, "host "+string(b.Name)); err != nil {
		return nil, err
	}
	tenant, ok := p.tx.Tenant(b.Tenant)
	if !ok {
		return nil, fleet.NewError(fleet.ErrNotFound, "tenant", "tenant %s does not exist", b.Tenant)
	}
	h := fleet.Host{Name: b.Name, Tenant: b.Tenant, Spec: b.Spec, Desired: before.Desired, Observed: before.Observed, Meta: p.meta(before.Meta)}
	if !exists {
		if err := p.claim(&h, b); err != nil {
			return nil, err
		}
	}
	if err := h.Validate(); err != nil {
		return nil, err
	}
	if err := p.checkCABytes(h); err != nil {
		return nil, err
	}
	cluster, _ := p.tx.Cluster()
	if h.Name.Within(cluster.Zone) {
		return nil, fleet.Invalid("host", "%s lies in the edge zone %s, which belongs to the edge itself: protect your own name", h.Name, cluster.Zone)
	}
	servers := h
	if services {
		var err error
		if servers, err = p.checkServices(h); err != nil {
			return nil, err
		}
	}
	if err := servers.CheckOrigins(cluster.Zone, tenant.Spec.AllowedOrigins, p.edgeAddresses()); err != nil {
		return nil, err
	}
	p.tx.PutHost(h)
	p.dropOriginCerts(h)
	if h.Spec.Certificate != fleet.CertificateACME {
		p.endOrders(h.Name)
	}
	return h, p.audit(cmd, "host/"+string(h.Name), h.Tenant, orNil(before, exists), h)
}

// claim checks that the tenant may claim the name and fills in what a new host starts with.
func (p *processor) claim(h *fleet.Host, b *command.HostPut) error {
	label := b.Label
	below, wildcard := h.Name.Wildcard()
	if !wildcard {
		below = h.Name
	}
	if others(p.tx.HostsBelow(below), h.Tenant) || b.Exclusive && others(p.tx.HostsAbove(h.Name), h.Tenant) {
		return claimedElsewhere(h.Name)
	}
	if n := len(p.tx.HostsOf(h.Tenant)); n >= fleet.MaxHostsPerTenant {
		return fleet.NewError(fleet.ErrTooLarge, "hosts", "tenant %s has %d hosts; the limit is %d", h.Tenant, n, fleet.MaxHostsPerTenant)
	}
	if err := fleet.ValidateID("label", label); err != nil {
		return err
	}
	if _, taken := p.tx.Label(label); taken {
		return fleet.NewError(fleet.ErrConflict, "label", "label %s was issued before", label)
	}
	p.tx.PutLabel(fleet.Label{Label: label, Host: h.Name})
	h.Desired.Label = label
	if sibling, ok := p.tx.Host(h.Name.Sibling()); ok && b.Exclusive && !sibling.Deleting() {
		h.Desired.DCVLabel = sibling.Desired.DCV() // the same tenant's, or it was refused above
	}
	waiting := fleet.Condition{State: fleet.ConditionUnknown, Since: p.header.Time, NextCheck: p.header.Time}
	h.Observed = fleet.HostObserved{Phase: fleet.PhaseClaimed, Status: fleet.StatusPending, Ownership: waiting, Certificate: waiting, Routing: waiting}
	return nil
}

// others reports whether one of hosts is another tenant's than of.
func others(hosts iter.Seq[fleet.Host], of fleet.TenantID) bool {
	for h := range hosts {
		if h.Tenant != of {
			return true
		}
	}
	return false
}

// claimedElsewhere never names the other tenant.
func claimedElsewhere(n fleet.HostName) error {
	return fleet.NewError(fleet.ErrConflict, "host", "%s: %s, or a name above or below it, is protected already by another account; if it is yours, contact support with proof of ownership", fleet.ReasonClaimedElsewhere, n)
}

func (p *processor) edgeAddresses() []netip.Addr {
	var own []netip.Addr
	for _, n := range p.tx.Nodes() {
		if n.Identity.RevokedAt.IsZero() {
			own = append(own, n.Spec.Addresses...)
		}
	}
	return own
}

func (p *processor) hostDelete(b *command.HostDelete) error {
	before, ok := p.tx.Host(b.Name)
	ok = ok && before.Tenant == b.Tenant
	if err := check(command.Put{IfRevision: b.IfRevision}, ok, before.Meta, "host "+string(b.Name)); err != nil {
		return err
	}
	p.tx.DeleteHost(b.Name)
	return p.audit(b, "host/"+string(b.Name), b.Tenant, before, nil)
}

func (p *processor) hostObserve(b *command.HostObserve) (any, error) {
	h, ok := p.tx.Host(b.Name)
	if !ok || h.Tenant != b.Tenant {
		return nil, fleet.NewError(fleet.ErrNotFound, "host", "host %s does not exist", b.Name)
	}
	if err := live(h); err != nil {
		return nil, err
	}
	h.Observed = b.Observed
	p.tx.PutHost(h)
	return h, nil
}

// maxChallenge bounds the token of a challenge and its response, in bytes; RFC 8555 has some 40 and 90.
const maxChallenge = 512

func (p *processor) challengePut(b *command.ChallengePut) error {
	c := b.Challenge
	h, ok := p.tx.Host(c.Host)
	if !ok {
		return fleet.NewError(fleet.ErrNotFound, "host", "host %s does not exist", c.Host)
	}
	if err := live(h); err != nil {
		return err
	}
	if c.Type != fleet.ChallengeDNS01 && c.Type != fleet.ChallengeHTTP01 && c.Type != fleet.ChallengeTLSALPN01 {
		return fleet.Invalid("type", "%q is not a challenge type: use dns-01, http-01 or tls-alpn-01", string(c.Type))
	}
	if n := len(c.Token); n == 0 || n > maxChallenge || len(c.Response) > maxChallenge {
		return fleet.Invalid("token", "a challenge token of %d and a response of %d bytes: give 1 to %d", n, len(c.Response), maxChallenge)
	}
	if o := c.Out; o != nil {
		if n := len(o.Nodes); n == 0 || n > fleet.MaxChallengeOut || o.Until.After(p.header.Time.Add(fleet.MaxChallengeOutTime)) {
			return fleet.Invalid("out", "a challenge that takes %d edges out of DNS until %s: 1 to %d, for at most %s", n, o.Until, fleet.MaxChallengeOut, fleet.MaxChallengeOutTime)
		}
	}
	c.Tenant, c.CreatedAt = h.Tenant, p.header.Time
	p.tx.PutChallenge(c)
	return p.audit(b, "challenge/"+string(c.Host), c.Tenant, nil, nil)
}

func (p *processor) challengeDelete(b *command.ChallengeDelete) error {
	h, _ := p.tx.Host(b.Host)
	p.tx.DeleteChallenge(b.Host, b.Via, b.Token)
	return p.audit(b, "challenge/"+string(b.Host), h.Tenant, nil, nil)
}

func (p *processor) orderPut(b *command.OrderPut) (any, error) {
	o := b.Order
	if err := fleet.ValidateID("order", o.ID); err != nil {
		return nil, err
	}
	before, ok := p.tx.Order(o.ID)
	if err := check(b.Put, ok, before.Meta, "order "+string(o.ID)); err != nil {
		return nil, err
	}
	h, exists := p.tx.Host(o.Host)
	if !exists || h.Tenant != o.Tenant {
		return nil, fleet.NewError(fleet.ErrNotFound, "host", "host %s does not exist", o.Host)
	}
	if err := live(h); err != nil {
		return nil, err
	}
	if ok && (before.Host != o.Host || before.Generation != o.Generation || before.SPKI != o.SPKI) {
		return nil, fleet.NewError(fleet.ErrConflict, "order", "order %s is for generation %d of %s: another host, generation or key is another order", o.ID, before.Generation, before.Host)
	}
	for _, other := range p.tx.OrdersOf(o.Host) {
		if !ok && other.State == fleet.OrderQueued {
			return nil, fleet.NewError(fleet.ErrConflict, "order", "host %s has the order %s under way", o.Host, other.ID)
		}
	}
	if len(o.Failed) > fleet.MaxOrderFailures {
		return nil, fleet.NewError(fleet.ErrTooLarge, "failed", "%d failures of an order; the limit is %d", len(o.Failed), fleet.MaxOrderFailures)
	}
	if ok {
		o.Key = before.Key // whoever attempts it may hold it as it was before it was sealed anew
	}
	o.Meta = p.meta(before.Meta)
	p.tx.PutOrder(o)
	return o.Order, p.audit(b, "order/"+string(o.ID), o.Tenant, orNil(before.Order, ok), o.Order)
}

func (p *processor) certificateCommit(b *command.CertificateCommit) (any, error) {
	o, ok := p.tx.Order(b.Order)
	if !ok || o.State != fleet.OrderQueued {
		return nil, fleet.NewError(fleet.ErrConflict, "order", "order %s is not under way", b.Order)
	}
	c := b.Certificate
	if c.Host != o.Host || c.Tenant != o.Tenant || c.Generation != o.Generation || c.SPKI != o.SPKI {
		return nil, fleet.NewError(fleet.ErrConflict, "certificate", "certificate does not belong to order %s of %s", o.ID, o.Host)
	}
	before, had := p.tx.Certificate(c.Host)
	if had && before.Generation >= c.Generation {
		return nil, fleet.NewError(fleet.ErrStale, "certificate", "host %s has certificate generation %d already", c.Host, before.Generation)
	}
	c.Key, c.Authority, c.Meta = o.Key, o.Authority, p.meta(before.Meta)
	if had {
		p.superseded(before.Certificate)
	}
	p.tx.PutCertificate(c)
	p.endOrders(c.Host) // the certificate is the record of a finished order
	return c.Certificate, p.audit(b, "certificate/"+string(c.Host), c.Tenant, orNil(before.Certificate, had), c.Certificate)
}
