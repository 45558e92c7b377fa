package controlplane

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/fleet"
)

const (
	maxCAA       = 8
	maxUnlimited = 64
)

func (d DNS) validate() error {
	if d.Bake < time.Second || d.Bake > time.Hour {
		return fleet.Invalid("dns.bake", "%s is not between 1s and 1h", d.Bake)
	}
	if len(d.CAA) > maxCAA {
		return fleet.Invalid("dns.caa", "%d values are more than %d", len(d.CAA), maxCAA)
	}
	for _, v := range d.CAA {
		if v == "" || len(v) > 255 || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fleet.Invalid("dns.caa", "%.80q is not the value of a CAA issue record: give one such as letsencrypt.org", v)
		}
	}
	if len(d.Unlimited) > maxUnlimited {
		return fleet.Invalid("dns.unlimited", "%d networks are more than %d", len(d.Unlimited), maxUnlimited)
	}
	return d.validatePeers()
}

const maxSecondaries = 16

func (d DNS) validatePeers() error {
	if len(d.Secondaries) > maxSecondaries {
		return fleet.Invalid("dns.secondaries", "%d are more than %d", len(d.Secondaries), maxSecondaries)
	}
	for _, s := range d.Secondaries {
		if _, err := netip.ParseAddrPort(s.Address); err != nil {
			return fleet.Invalid("dns.secondaries.address", "%q is not an IP:port such as 192.0.2.53:53", s.Address)
		}
		if s.TSIGKeyFile == "" {
			return fleet.Invalid("dns.secondaries.tsig_key_file", "secondary %s has no key: nobody transfers the zone without; make one with tsig-keygen", s.Address)
		}
		if s.Name != "" {
			if _, err := fleet.ParseHostName(string(s.Name)); err != nil {
				return fleet.Invalid("dns.secondaries.name", "%q is not a DNS name such as ns.example.net", string(s.Name))
			}
		}
	}
	if d.Push.Server == "" {
		return nil
	}
	if _, err := netip.ParseAddrPort(d.Push.Server); err != nil {
		return fleet.Invalid("dns.push.server", "%q is not an IP:port such as 192.0.2.53:53", d.Push.Server)
	}
	if d.Push.TSIGKeyFile == "" {
		return fleet.Invalid("dns.push.tsig_key_file", "updates of %s need a key: make one with tsig-keygen", d.Push.Server)
	}
	if d.Push.Every < time.Second || d.Push.Every > 24*time.Hour {
		return fleet.Invalid("dns.push.every", "%s is not between 1s and 24h", d.Push.Every)
	}
	return nil
}

// secondaries reads the keys of those that may transfer the zone. One key serves one secondary.
func (d DNS) secondaries() ([]dns.Secondary, error) {
	var out []dns.Secondary
	for _, s := range d.Secondaries {
		key, err := dns.ReadKey(s.TSIGKeyFile)
		if err != nil {
			return nil, fmt.Errorf("dns.secondaries: %w", err)
		}
		addr, err := netip.ParseAddrPort(s.Address)
		if err != nil {
			return nil, fmt.Errorf("dns.secondaries: %w", err)
		}
		for _, other := range out {
			if other.Key.Name == key.Name && other.Key != key {
				return nil, fleet.Invalid("dns.secondaries.tsig_key_file", "two different keys are called %s: give each its own name", key.Name)
			}
		}
		out = append(out, dns.Secondary{Addr: addr, Key: key})
	}
	return out, nil
}

// openPush prepares the push to an outside primary; nil if there is none.
func (m *member) openPush() (*dns.Push, error) {
	c := m.c.DNS.Push
	if c.Server == "" {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	key, err := dns.ReadKey(c.TSIGKeyFile)
	if err != nil {
		return nil, fmt.Errorf("dns.push: %w", err)
	}
	addr, err := netip.ParseAddrPort(c.Server)
	if err != nil {
		return nil, fmt.Errorf("dns.push: %w", err)
	}
	return &dns.Push{Source: m.zone, Server: addr, Key: key, TTL: dns.DefaultTTL, Every: c.Every, Logger: m.tel.Logger}, nil
}

// listenDNS binds the DNS server.
func (m *member) listenDNS() (err error) {
	m.zone = newZone(m.state, m.c.DNS, m.heardAgo())
	secondaries, err := m.c.DNS.secondaries()
	if err != nil {
		return err
	}
	if m.push, err = m.openPush(); err != nil {
		return err
	}
	if m.dns, err = dns.Listen(dns.Options{Listen: m.c.DNSListen, Source: m.zone, Secondaries: secondaries, Unlimited: m.c.DNS.Unlimited, Telemetry: m.tel}); err != nil {
		return err
	}
	m.tel.Gauge("edgefleet_dns_sets_held", m.setsHeld)
	m.tel.Gauge("edgefleet_dns_nodes", m.nodesInDNS)
	m.parts.OnStop("dns listener", func(context.Context) error { return ignoreClosed(m.dns.Close()) })
	return nil
}

// heardAgo says how long ago this member heard from a leader: 0 if it leads, and since now if it never did.
func (m *member) heardAgo() func() time.Duration {
	started := time.Now()
	return func() time.Duration {
		if m.node == nil {
			return time.Since(started)
		}
		s := m.ownStats()
		switch {
		case s.State == "leader":
			return 0
		case s.LastContactMS == nil:
			return time.Since(started)
		}
		return time.Duration(*s.LastContactMS) * time.Millisecond
	}
}
