package fsm

import (
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// originCertPut stores a certificate that nodes show to an origin. Whether certificate and key are what they should be was
// seen before they were sealed.
func (p *processor) originCertPut(b *command.OriginCertPut) (any, error) {
	c := b.Certificate
	h, ok := p.tx.Host(c.Host)
	if !ok || h.Tenant != c.Tenant {
		return nil, fleet.NewError(fleet.ErrNotFound, "host", "host %s does not exist", c.Host)
	}
	if err := c.Validate(h); err != nil {
		return nil, err
	}
	if n := len(c.Key.Ciphertext); n == 0 || n > fleet.MaxOriginKeyBytes {
		return nil, fleet.NewError(fleet.ErrTooLarge, "key", "a sealed key of %d bytes; give 1 to %d", n, fleet.MaxOriginKeyBytes)
	}
	before, had := p.tx.OriginCert(c.Host, c.Origin)
	if c.Generation != before.Generation+1 {
		return nil, fleet.NewError(fleet.ErrChanged, "certificate", "the certificate for %s changed meanwhile: it has generation %d; try again", c.Origin, before.Generation)
	}
	size := len(c.Chain)
	for _, other := range p.tx.OriginCertsOfTenant(c.Tenant) {
		if other.Host != c.Host || other.Origin != c.Origin {
			size += len(other.Chain)
		}
	}
	if size > fleet.MaxTenantOriginCertBytes {
		return nil, fleet.NewError(fleet.ErrTooLarge, "certificate", "tenant %s would have %d bytes of certificates for origins; the limit is %d: remove some, or use shorter chains", c.Tenant, size, fleet.MaxTenantOriginCertBytes)
	}
	c.Meta = p.meta(before.Meta)
	p.tx.PutOriginCert(c)
	return c.OriginCert, p.audit(b, "origin_certificate/"+string(c.Host), c.Tenant, orNil(before.OriginCert, had), c.OriginCert)
}

func (p *processor) originCertDelete(b *command.OriginCertDelete) (any, error) {
	c, ok := p.tx.OriginCert(b.Host, b.Origin)
	if !ok || c.Tenant != b.Tenant {
		return nil, fleet.NewError(fleet.ErrNotFound, "origin", "nodes show no certificate to %.200s: see 'fleetctl origin health %s'", b.Origin, b.Host)
	}
	p.tx.DeleteOriginCert(b.Host, b.Origin)
	return c.OriginCert, p.audit(b, "origin_certificate/"+string(b.Host), b.Tenant, c.OriginCert, nil)
}

// dropOriginCerts removes the certificates for origins that h does not have any more.
func (p *processor) dropOriginCerts(h fleet.Host) {
	for _, c := range p.tx.OriginCertsOf(h.Name) {
		if !slices.ContainsFunc(h.Spec.Origins, func(o fleet.Origin) bool { return o.URL == c.Origin }) {
			p.tx.DeleteOriginCert(h.Name, c.Origin)
		}
	}
}
