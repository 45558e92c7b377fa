package fsm

import (
	"maps"
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (p *processor) kekRotate(b *command.KEKRotate) error {
	c, ok := p.tx.Cluster()
	switch {
	case !ok:
		return fleet.NewError(fleet.ErrConflict, "cluster", "this cluster is not initialised")
	case b.From != c.KEK():
		return fleet.NewError(fleet.ErrConflict, "kek", "the key-encryption key was rotated meanwhile: %s seals now", c.KEK())
	case b.To == "" || b.To == b.From || len(b.To) > 64:
		return fleet.Invalid("kek", "the key that is to seal needs a name of its own")
	case !slices.Equal(slices.Sorted(maps.Keys(b.Secrets)), slices.Sorted(maps.Keys(c.Secrets))):
		return fleet.Invalid("secrets", "every secret of the cluster must be sealed anew, and no other")
	}
	for _, m := range p.tx.Members() {
		if !slices.Contains(b.Members, m.ID) {
			return fleet.NewError(fleet.ErrConflict, "members", "member %s joined meanwhile, and nobody asked whether it has %s: rotate again", m.ID, b.To)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.Secrets)) {
		if key := b.Secrets[name].Key; key != b.To {
			return fleet.Invalid("secrets", "%s is sealed by %q, not by %q", name, key, b.To)
		}
	}
	c.Secrets, c.Meta = b.Secrets, p.meta(c.Meta)
	p.tx.PutCluster(c)
	type seals struct {
		KEK string `json:"kek"`
	}
	return p.audit(b, "cluster/"+string(c.ID), "", seals{b.From}, seals{b.To})
}

func (p *processor) secretsReseal(b *command.SecretsReseal) error {
	c, _ := p.tx.Cluster()
	if b.KEK == "" || b.KEK != c.KEK() {
		return fleet.NewError(fleet.ErrConflict, "kek", "the key-encryption key was rotated meanwhile: %s seals now", c.KEK())
	}
	type resealed struct {
		KEK          string `json:"kek"`
		Certificates int    `json:"certificates"`
		Orders       int    `json:"orders"`
		Entries      int    `json:"entries"`
		Origins      int    `json:"origins,omitempty"`
	}
	done := resealed{KEK: b.KEK}
	for _, r := range b.Certificates {
		if was, ok := p.tx.Certificate(r.Host); ok && was.Generation == r.Generation && r.Key.Key == b.KEK {
			was.Key = r.Key
			p.tx.PutCertificate(was)
			done.Certificates++
		}
	}
	for _, r := range b.Orders {
		if was, ok := p.tx.Order(r.ID); ok && r.Key.Key == b.KEK {
			was.Key = r.Key
			p.tx.PutOrder(was)
			done.Orders++
		}
	}
	for _, r := range b.Entries {
		if was, ok := p.tx.Entry(r.Key); ok && fleet.DigestOf(was.Value) == r.Was {
			was.Value = r.Value
			p.tx.PutEntry(was)
			done.Entries++
		}
	}
	for _, r := range b.Origins {
		if was, ok := p.tx.OriginCert(r.Host, r.Origin); ok && was.Generation == r.Generation && r.Key.Key == b.KEK {
			was.Key = r.Key
			p.tx.PutOriginCert(was)
			done.Origins++
		}
	}
	return p.audit(b, "cluster/"+string(c.ID), "", nil, done)
}
