package controlplane

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/fleet"
)

// showZone is the zone as this member answers it.
func (m *member) showZone() client.Zone {
	apex := m.zone.Apex()
	out := client.Zone{Member: m.c.Member, Zone: apex.Zone, Serial: apex.Serial, CAA: apex.CAA, NameServers: []client.ZoneNameServer{}, Sets: m.state.Read().DNSSets()}
	if out.Sets == nil {
		out.Sets = []fleet.DNSSet{}
	}
	for _, s := range apex.Servers {
		ns := client.ZoneNameServer{Name: s.Name}
		if s.Addr.IsValid() {
			ns.Address = s.Addr.String()
		}
		out.NameServers = append(out.NameServers, ns)
	}
	for _, p := range m.dns.Secondaries() {
		out.Secondaries = append(out.Secondaries, zonePeer(p))
	}
	if leader, _ := m.raft.Leader(); m.push != nil && leader == m.c.Member {
		p := zonePeer(m.push.Status())
		out.Push = &p
	}
	for range m.zone.Labels() {
		out.Labels++
	}
	return out
}

func zonePeer(p dns.PeerStatus) client.ZonePeer {
	out := client.ZonePeer{Address: p.Addr, Serial: p.Serial, At: p.At}
	if p.Err != nil {
		out.Error = p.Err.Error()
	}
	return out
}

// serialLag is by how much name servers may differ while changes are on their way to all of them.
const serialLag = 256

// checkZone asks every member, and every secondary, for the zone over the network.
func (m *member) checkZone(ctx context.Context) []fleet.Check {
	apex := m.zone.Apex()
	type server struct{ name, addr string }
	var servers []server
	for _, other := range m.state.Read().Members() {
		servers = append(servers, server{"member " + string(other.ID), other.DNS})
	}
	for _, s := range m.c.DNS.Secondaries {
		servers = append(servers, server{"secondary " + s.Address, s.Address})
	}
	out := []fleet.Check{m.check.CheckDelegation(ctx, apex.Zone, m.zone.Servers()), m.checkDNSSets()}
	found := make([]fleet.Check, len(servers))
	var asked sync.WaitGroup
	for i, s := range servers {
		asked.Go(func() { found[i] = checkServer(ctx, s.name, s.addr, apex) })
	}
	asked.Wait()
	return append(out, found...)
}

// checkServer asks one name server for the zone's SOA and NS, by UDP and TCP, and compares them with ours.
func checkServer(ctx context.Context, name, addr string, apex dns.Apex) fleet.Check {
	c := fleet.Check{Name: name, State: fleet.CheckFail}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		c.Detail = fmt.Sprintf("%q is no address of a name server: set advertise and dns_listen of that member", addr)
		return c
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var names []string
	for _, s := range apex.Servers {
		names = append(names, string(s.Name))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for _, network := range []string{"udp", "tcp"} {
		seen, err := dns.Ask(ctx, network, addr, apex.Zone)
		if err != nil {
			c.Detail = fmt.Sprintf("%s does not answer for %s by %s: %v; is it running, and does a firewall allow port 53 by UDP and TCP?", addr, apex.Zone, strings.ToUpper(network), err)
			return c
		}
		// In RFC 1982's order: how far it is behind us, or we behind it.
		behind := int32(apex.Serial - seen.Serial) //nolint:gosec // it wraps around as serials do
		c.Detail = fmt.Sprintf("serial %d by UDP and TCP", seen.Serial)
		if behind > serialLag {
			c.State, c.Detail = fleet.CheckWarn, fmt.Sprintf("serial %d is %d behind this member's %d: a member that has no contact with the leader, or a secondary that gets no transfers", seen.Serial, behind, apex.Serial)
			return c
		}
		if !slices.Equal(names, seen.Servers) {
			c.State, c.Detail = fleet.CheckWarn, fmt.Sprintf("its name servers are %s, ours %s: give every member the same dns configuration", strings.Join(seen.Servers, ", "), strings.Join(names, ", "))
			return c
		}
	}
	c.State = fleet.CheckOK
	return c
}
