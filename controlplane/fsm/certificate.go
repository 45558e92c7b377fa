package fsm

import (
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// maxChain bounds a stored chain, in bytes of PEM; nodes take no longer one.
const maxChain = 64 << 10

// certificates processes what people do with certificates, and what the leader learned of revocations.
func (p *processor) certificates(b command.Body) (obj any, known bool, err error) {
	switch b := b.(type) {
	case *command.CertificateUpload:
		obj, err = p.certificateUpload(b)
	case *command.CertificateRemove:
		obj, err = p.certificateRemove(b)
	case *command.CertificateRenew:
		obj, err = p.certificateRenew(b)
	case *command.CertificateRevoke:
		obj, err = p.certificateRevoke(b)
	case *command.RevocationPut:
		err = p.revocationPut(b)
	default:
		return nil, false, nil
	}
	return obj, true, err
}

func (p *processor) certificateUpload(b *command.CertificateUpload) (any, error) {
	c := b.Certificate
	h, ok := p.tx.Host(c.Host)
	if !ok || h.Tenant != c.Tenant {
		return nil, fleet.NewError(fleet.ErrNotFound, "host", "host %s does not exist", c.Host)
	}
	if err := live(h); err != nil {
		return nil, err
	}
	before, had := p.tx.Certificate(c.Host)
	if c.Generation != before.Generation+1 {
		return nil, fleet.NewError(fleet.ErrChanged, "certificate", "host %s got certificate generation %d meanwhile: look at it with 'fleetctl cert show %[1]s', and repeat", c.Host, before.Generation)
	}
	if h.Spec.Certificate == fleet.CertificateNone {
		return nil, fleet.NewError(fleet.ErrConflict, "certificate", "host %s is set to have no certificate: allow it with 'fleetctl host set %[1]s --certificate own' (or acme), then upload", c.Host)
	}
	if c.Source != fleet.SourceUploaded || !c.RemovedAt.IsZero() || c.Revoke != "" || c.Chain == "" || len(c.Chain) > maxChain || len(c.Key.Ciphertext) == 0 || c.SPKI == "" || c.Serial == "" {
		return nil, fleet.Invalid("certificate", "an uploaded certificate needs a chain of at most %d bytes and a sealed key", maxChain)
	}
	if had && before.SPKI == c.SPKI && (before.Revoke == fleet.RevokeKeyCompromise || p.rekeys(before.Certificate)) {
		return nil, fleet.Invalid("key", "the private key is the one that host %s has now, which somebody else may know: make a new key, and have a certificate issued for it", c.Host)
	}
	c.Meta = p.meta(before.Meta)
	p.tx.PutCertificate(c)
	p.endOrders(c.Host)
	return c.Certificate, p.audit(b, "certificate/"+string(c.Host), c.Tenant, orNil(before.Certificate, had), c.Certificate)
}

// rekeys reports whether somebody may know the private key of c, because it was on a node that was stolen.
func (p *processor) rekeys(c fleet.Certificate) bool {
	tenant, _ := p.tx.Tenant(c.Tenant)
	return p.tx.Epoch(tenant.Spec.Group).Rekeys(c)
}

func (p *processor) endOrders(h fleet.HostName) {
	for _, o := range p.tx.OrdersOf(h) {
		p.tx.DeleteOrder(o.ID)
	}
}

// certificate is a host's certificate of one generation.
func (p *processor) certificate(host fleet.HostName, tenant fleet.TenantID, generation uint64) (fleet.CertificateRecord, fleet.Host, error) {
	h, ok := p.tx.Host(host)
	if !ok || h.Tenant != tenant {
		return fleet.CertificateRecord{}, h, fleet.NewError(fleet.ErrNotFound, "host", "host %s does not exist", host)
	}
	c, ok := p.tx.Certificate(host)
	switch {
	case !ok:
		return c, h, fleet.NewError(fleet.ErrNotFound, "certificate", "host %s has no certificate", host)
	case c.Generation != generation:
		return c, h, fleet.NewError(fleet.ErrChanged, "certificate", "host %s has certificate generation %d meanwhile, not %d: look at it with 'fleetctl cert show %[1]s', and repeat if it is still needed", host, c.Generation, generation)
	}
	return c, h, nil
}

func (p *processor) certificateRemove(b *command.CertificateRemove) (any, error) {
	c, h, err := p.certificate(b.Host, b.Tenant, b.Generation)
	if err != nil {
		return nil, err
	}
	before := c.Certificate
	switch {
	case !c.RemovedAt.IsZero():
		return nil, fleet.NewError(fleet.ErrConflict, "certificate", "the certificate of %s is removed already, and serves until its successor is issued: see 'fleetctl cert show %[1]s'", b.Host)
	case h.Spec.Certificate != fleet.CertificateACME:
		p.tx.DeleteCertificate(b.Host)
		return before, p.audit(b, "certificate/"+string(b.Host), b.Tenant, before, nil)
	case c.Source != fleet.SourceUploaded:
		return nil, fleet.NewError(fleet.ErrConflict, "certificate", "the certificate of %s was not uploaded, and the host would be without: replace it with 'fleetctl cert renew %[1]s' or 'fleetctl cert upload %[1]s'", b.Host)
	}
	// Its revision stays: what is renewed after a node was stolen goes by it.
	c.RemovedAt = p.header.Time
	p.tx.PutCertificate(c)
	return c.Certificate, p.audit(b, "certificate/"+string(b.Host), b.Tenant, before, c.Certificate)
}

// orderable refuses what only an ordered certificate can do.
func orderable(c fleet.Certificate, h fleet.Host, what string) error {
	switch {
	case h.Spec.Certificate != fleet.CertificateACME:
		return fleet.NewError(fleet.ErrConflict, "certificate", "nothing is ordered for %s (certificate: %s), so it cannot be %s: 'fleetctl host set %[1]s --certificate acme', or upload another with 'fleetctl cert upload %[1]s'", h.Name, h.Spec.Certificate, what)
	case c.Source == fleet.SourceUploaded:
		return fleet.NewError(fleet.ErrConflict, "certificate", "the certificate of %s was uploaded, so it cannot be %s here: upload its successor with 'fleetctl cert upload %[1]s', or go back to ordered ones with 'fleetctl cert remove %[1]s'", h.Name, what)
	}
	return nil
}

func (p *processor) certificateRenew(b *command.CertificateRenew) (any, error) {
	c, h, err := p.certificate(b.Host, b.Tenant, b.Generation)
	if err == nil {
		err = orderable(c.Certificate, h, "renewed")
	}
	if err != nil {
		return nil, err
	}
	for _, o := range p.tx.OrdersOf(b.Host) {
		return nil, fleet.NewError(fleet.ErrConflict, "order", "the certificate of %s is being renewed already: attempt %d is at %s; see 'fleetctl host show %[1]s' for what is in its way", b.Host, o.Attempts+1, o.NextAttempt.UTC().Format("2006-01-02T15:04:05Z"))
	}
	before := c.Certificate
	c.Renewal = fleet.Renewal{At: p.header.Time, Source: fleet.RenewalRequested}
	p.tx.PutCertificate(c)
	return c.Certificate, p.audit(b, "certificate/"+string(b.Host), b.Tenant, before, c.Certificate)
}

func (p *processor) certificateRevoke(b *command.CertificateRevoke) (any, error) {
	if err := b.Reason.Validate(); err != nil {
		return nil, err
	}
	c, h, err := p.certificate(b.Host, b.Tenant, b.Generation)
	if err == nil && (c.Source == fleet.SourceUploaded || !b.Now) {
		err = orderable(c.Certificate, h, "revoked")
	}
	if err != nil {
		return nil, err
	}
	before := c.Certificate
	if r := fleet.RevocationOf(before, b.Reason, b.Now); b.Now {
		if was, ok := p.tx.Revocation(r.ID); ok && was.State == fleet.RevocationDone {
			return nil, fleet.NewError(fleet.ErrConflict, "certificate", "the certificate of %s with serial %s is revoked already", b.Host, c.Serial)
		}
		p.putRevocation(r)
	}
	if c.Revoke = b.Reason; h.Spec.Certificate == fleet.CertificateACME {
		c.Renewal = fleet.Renewal{At: p.header.Time, Source: fleet.RenewalRequested}
	}
	p.tx.PutCertificate(c)
	return c.Certificate, p.audit(b, "certificate/"+string(b.Host), b.Tenant, before, c.Certificate)
}

func (p *processor) putRevocation(r fleet.RevocationRecord) {
	before, _ := p.tx.Revocation(r.ID)
	r.NextAttempt, r.Meta = p.header.Time, p.meta(before.Meta)
	p.tx.PutRevocation(r)
}

// superseded has the authority revoke a certificate that has a successor now, if somebody asked for that, or may know its
// private key.
func (p *processor) superseded(c fleet.Certificate) {
	reason := c.Revoke
	if reason == "" && p.rekeys(c) {
		reason = fleet.RevokeKeyCompromise
	}
	if reason == "" || c.Source == fleet.SourceUploaded || !p.header.Time.Before(c.NotAfter) {
		return
	}
	r := fleet.RevocationOf(c, reason, false)
	if _, ok := p.tx.Revocation(r.ID); !ok {
		p.putRevocation(r)
	}
}

// revocationPut is audited when the authority has revoked the certificate: attempts change nothing that anybody decided.
func (p *processor) revocationPut(b *command.RevocationPut) error {
	r, ok := p.tx.Revocation(b.ID)
	switch {
	case !ok:
		return fleet.NewError(fleet.ErrNotFound, "revocation", "revocation %s does not exist", b.ID)
	case b.Forget && p.header.Time.Before(r.NotAfter):
		return fleet.NewError(fleet.ErrConflict, "revocation", "the certificate of %s has not ended: its revocation is kept", b.ID)
	case b.Forget:
		p.tx.DeleteRevocation(b.ID)
		return nil
	case r.State == fleet.RevocationDone:
		return fleet.NewError(fleet.ErrConflict, "revocation", "%s is revoked already", b.ID)
	case len(b.Problem) > maxURL:
		return fleet.NewError(fleet.ErrTooLarge, "problem", "a problem of %d bytes; the limit is %d", len(b.Problem), maxURL)
	}
	before := r.Revocation
	r.Attempts, r.NextAttempt, r.Problem, r.Meta = b.Attempts, b.NextAttempt, b.Problem, p.meta(r.Meta)
	if !b.Revoked {
		p.tx.PutRevocation(r)
		return nil
	}
	r.State, r.RevokedAt, r.Chain = fleet.RevocationDone, p.header.Time, ""
	p.tx.PutRevocation(r)
	return p.audit(b, "certificate/"+string(r.Host), r.Tenant, before, r.Revocation)
}
