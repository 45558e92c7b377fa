package fsm

import (
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (p *processor) regionPut(b *command.RegionPut) (any, error) {
	if err := fleet.ValidateID("region", b.Name); err != nil {
		return nil, err
	}
	nodes := slices.DeleteFunc(p.tx.Nodes(), func(n fleet.Node) bool { return !n.Identity.RevokedAt.IsZero() })
	if !slices.ContainsFunc(nodes, func(n fleet.Node) bool { return n.Spec.Region == b.Name }) && b.Withdraw {
		return nil, fleet.NewError(fleet.ErrNotFound, "region", "no node is in region %s; fleetctl region list shows the regions", b.Name)
	}
	before, ok := p.tx.Region(b.Name)
	if !ok && !b.Withdraw {
		return nil, fleet.NewError(fleet.ErrConflict, "region", "region %s is not withdrawn", b.Name)
	}
	if err := check(command.Put{Create: !ok, IfRevision: b.IfRevision}, ok, before.Meta, "region "+string(b.Name)); err != nil {
		return nil, err
	}
	r := fleet.Region{Name: b.Name, Meta: p.meta(before.Meta)}
	switch {
	case !b.Withdraw && before.Withdrawn == nil:
		return nil, fleet.NewError(fleet.ErrConflict, "region", "region %s is not withdrawn", b.Name)
	case b.Withdraw:
		if err := p.checkWithdrawal(b, nodes); err != nil {
			return nil, err
		}
		r.Withdrawn = &fleet.RegionWithdrawal{At: p.header.Time, Reason: p.header.Reason, Forced: b.Force}
	}
	p.tx.PutRegion(r)
	return r, p.audit(b, "region/"+string(r.Name), "", orNil(before, ok), r)
}

// checkWithdrawal refuses a withdrawal without Force that leaves a group, or the hosts of some regions, without a healthy
// node.
func (p *processor) checkWithdrawal(b *command.RegionPut, nodes []fleet.Node) error {
	if b.Force {
		return nil
	}
	out := p.tx.Withdrawn()
	out[b.Name] = &fleet.RegionWithdrawal{}
	left := func(g fleet.GroupName, regions []fleet.RegionName) bool {
		return slices.ContainsFunc(nodes, func(n fleet.Node) bool {
			why, known := n.WantedInDNS(out)
			return known && why == "" && n.Healthy() && n.Spec.Group == g && (len(regions) == 0 || slices.Contains(regions, n.Spec.Region))
		})
	}
	for _, n := range nodes {
		if n.Spec.Region == b.Name && !left(n.Spec.Group, nil) {
			return fleet.NewError(fleet.ErrConflict, "region", "without region %s no healthy node of group %s is left in DNS: bring others up first, or withdraw it with force, and its hosts have no address", b.Name, n.Spec.Group)
		}
	}
	for _, s := range p.tx.DNSSets() {
		if slices.Contains(s.Regions, b.Name) && !left(s.Group, s.Regions) {
			return fleet.NewError(fleet.ErrConflict, "region", "without region %s no healthy node is left in DNS for hosts of group %s that are bound to %s: give these hosts more regions first, or withdraw it with force, and they have no address", b.Name, s.Group, regionNames(s.Regions))
		}
	}
	return nil
}

func regionNames(regions []fleet.RegionName) string {
	names := make([]string, len(regions))
	for i, r := range regions {
		names[i] = string(r)
	}
	return strings.Join(names, ", ")
}

func (p *processor) dnsSetsPut(b *command.DNSSetsPut) error {
	for _, s := range b.Sets {
		if err := s.Validate(); err != nil {
			return err
		}
	}
	for _, s := range b.Sets {
		before, ok := p.tx.DNSSet(s.Key)
		if before.Revision != s.Revision || !ok && len(p.tx.DNSSets()) >= fleet.MaxDNSSets {
			continue
		}
		s.Meta = p.meta(before.Meta)
		p.tx.PutDNSSet(s)
	}
	for _, key := range b.Gone {
		p.tx.DeleteDNSSet(key)
	}
	return nil
}
