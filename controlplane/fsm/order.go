package fsm

import (
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// maxURL bounds what is stored of a URL that the CA names.
const maxURL = 1024

// orderProgress is the leader's own note: it changes nothing that anybody decided, so the audit log has the order's
// beginning, failures and end only.
func (p *processor) orderProgress(b *command.OrderProgress) (any, error) {
	o, ok := p.tx.Order(b.ID)
	if !ok || o.State != fleet.OrderQueued {
		return nil, fleet.NewError(fleet.ErrConflict, "order", "order %s is not under way", b.ID)
	}
	if len(b.URL) > maxURL {
		return nil, fleet.NewError(fleet.ErrTooLarge, "url", "order URL of %d bytes; the limit is %d", len(b.URL), maxURL)
	}
	if b.Authority != "" {
		if o.Authority = b.Authority; b.Asked && b.URL == "" {
			if err := p.ordered(b.Authority); err != nil {
				return nil, err
			}
		}
	}
	o.Asked, o.URL, o.Meta = b.Asked, b.URL, p.meta(o.Meta)
	p.tx.PutOrder(o)
	return o.Order, nil
}

func (p *processor) renewalPlan(b *command.RenewalPlan) (any, error) {
	c, ok := p.tx.Certificate(b.Host)
	if !ok || c.Generation != b.Generation {
		return nil, fleet.NewError(fleet.ErrStale, "certificate", "host %s does not have certificate generation %d", b.Host, b.Generation)
	}
	if b.Renewal.At.IsZero() || len(b.Renewal.Explanation) > maxURL {
		return nil, fleet.Invalid("renewal", "a renewal of %s needs a time, and an explanation of at most %d bytes", b.Host, maxURL)
	}
	c.Renewal = b.Renewal
	p.tx.PutCertificate(c)
	return c.Certificate, nil
}
