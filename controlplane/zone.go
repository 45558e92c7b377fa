package controlplane

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// zone is the edge zone as the local state has it: it answers also without quorum.
type zone struct {
	state *state.Store
}

// Zone implements dns.Source.
func (z zone) Zone() fleet.HostName {
	c, _ := z.state.Read().Cluster()
	return c.Zone
}

// Label implements dns.Source.
func (z zone) Label(label string) (fleet.HostName, []netip.Addr, bool) {
	v := z.state.Read()
	h, ok := hostOf(v, label)
	if !ok {
		return "", nil, false
	}
	t, _ := v.Tenant(h.Tenant)
	serving := slices.DeleteFunc(v.NodesOf(t.Spec.Group), func(n fleet.Node) bool {
		return len(h.Spec.Regions) > 0 && !slices.Contains(h.Spec.Regions, n.Spec.Region)
	})
	var addrs []netip.Addr
	for _, n := range dns.Healthy(serving) {
		addrs = append(addrs, n.Spec.Addresses...)
	}
	return h.Name, addrs, true
}

// DCV implements dns.Source.
func (z zone) DCV(label string) ([]string, bool) {
	v := z.state.Read()
	h, ok := hostOf(v, label)
	if !ok {
		return nil, false
	}
	var values []string
	for _, c := range v.Challenges() {
		if c.Host == h.Name && c.Type == fleet.ChallengeDNS01 {
			values = append(values, c.Response)
		}
	}
	return values, true
}

// hostOf finds the live host of a label; the label of a deleted host stays taken and answers nothing.
func hostOf(v *state.View, label string) (fleet.Host, bool) {
	l, ok := v.Label(label)
	if !ok {
		return fleet.Host{}, false
	}
	h, ok := v.Host(l.Host)
	return h, ok && h.Desired.Label == label
}

// Servers implements dns.Source: every member serves the zone.
func (z zone) Servers() []dns.NameServer {
	v := z.state.Read()
	c, _ := v.Cluster()
	var out []dns.NameServer
	for i, m := range v.Members() {
		host, _, err := net.SplitHostPort(m.DNS)
		if err != nil {
			continue
		}
		if a, err := netip.ParseAddr(host); err == nil {
			out = append(out, dns.NameServer{Name: fleet.HostName(fmt.Sprintf("ns%d.%s", i+1, c.Zone)), Addr: a})
		}
	}
	return out
}

// Serial implements dns.Source.
func (z zone) Serial() uint32 { return uint32(z.state.Read().Index()) } //nolint:gosec // serials wrap around (RFC 1982)

// edgeAddresses are the addresses of all nodes.
func (z zone) edgeAddresses() []netip.Addr {
	var out []netip.Addr
	for _, n := range z.state.Read().Nodes() {
		if n.Identity.RevokedAt.IsZero() {
			out = append(out, n.Spec.Addresses...)
		}
	}
	return out
}

// pointsHere says whether visitors of a host still come to the edge.
func (m *member) pointsHere(ctx context.Context, h fleet.Host) (bool, error) {
	z := zone{m.state}
	f, err := m.check.CheckHost(ctx, h, z.Zone(), z.edgeAddresses())
	if err == nil && f.Traffic.Reason == fleet.ReasonDNSServfail {
		err = fleet.NewError(fleet.ErrUnavailable, "host", "%s", f.Traffic.Message)
	}
	return f.Traffic.OK, err
}
