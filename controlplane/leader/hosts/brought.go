package hosts

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
	"github.com/edgefleet/edgefleet/fleet/hoststate"
	"github.com/edgefleet/edgefleet/observability"
)

// plain reports how far the edges are to serve h without a certificate.
func (i *inspector) plain(v *state.View, h fleet.Host, now time.Time) *deployment {
	t, ok := v.Tenant(h.Tenant)
	head, published := v.Head(t.Spec.Group, fleet.HeadConfig)
	if !ok || !published || !i.plainIn(head.Root, h) {
		return &deployment{}
	}
	d := &deployment{Deployment: hoststate.Deployment{Published: true}}
	for _, n := range serving(v, t, h, now) {
		if r, _ := n.Observed.Head(fleet.HeadConfig); !r.Applied(head.Version) {
			d.Laggards = append(d.Laggards, string(n.ID))
		}
		d.Edges++
	}
	return d
}

// plainIn reports whether the configuration below root has h as a host without a certificate. It is not remembered: hosts
// are looked at so until every edge has acknowledged it, once.
func (i *inspector) plainIn(root fleet.Digest, h fleet.Host) bool {
	bundles, err := bundle.Index(root, i.fetch)
	if err != nil {
		return false // the head just moved on
	}
	raw, err := bundle.Blob(bundles[h.Tenant], i.fetch)
	var b fleet.ConfigBundle
	if err != nil || json.Unmarshal(raw, &b) != nil {
		return false
	}
	return slices.ContainsFunc(b.Hosts, func(c fleet.HostConfig) bool { return c.Name == h.Name && c.Plain })
}

// uploadsNeeded counts the hosts that need a certificate from their owner.
func (l *Loop) uploadsNeeded() []observability.Sample {
	n := 0.0
	for _, h := range l.o.State.Read().Hosts() {
		if h.Observed.Certificate.Reason == fleet.ReasonUploadNeeded {
			n++
		}
	}
	return []observability.Sample{{Value: n}}
}

// revocationsWaiting counts the certificates that are to be revoked.
func (l *Loop) revocationsWaiting() []observability.Sample {
	n := 0.0
	for _, r := range l.o.State.Read().Revocations() {
		if r.State == fleet.RevocationWaiting {
			n++
		}
	}
	return []observability.Sample{{Value: n}}
}

// remind writes the event that a certificate which the edge does not renew needs a successor, each time that what is said
// of it changes.
func (r *run) remind(ctx context.Context, h fleet.Host, before fleet.HostObserved) {
	c := h.Observed.Certificate
	if c.Reason != fleet.ReasonUploadNeeded || c.Message == before.Certificate.Message || h.Observed.VerifiedGeneration == 0 {
		return
	}
	r.o.Telemetry.Logger.WarnContext(ctx, "certificate needs an upload", "host", string(h.Name), "tenant", string(h.Tenant), "reason", c.Reason, "message", c.Message)
}
