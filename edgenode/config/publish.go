package config

import (
	"crypto/tls"
	"maps"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/sni"
)

// publish makes the current trees what is served. What no new tree touches is taken from what was served before: while
// certificates are renewed one after another, none of them may cost as much as all hosts.
func (s *Store) publish() {
	snap := &Snapshot{
		Challenges: map[ChallengeKey]string{}, Validations: map[fleet.HostName]*tls.Certificate{},
		Versions: map[fleet.HeadKind]fleet.Version{},
		GroupKey: s.keys[s.keys.newest()].key,
	}
	for kind, t := range s.current {
		snap.Versions[kind] = t.head.Version
		for _, p := range t.tenants {
			maps.Copy(snap.Validations, p.validations)
			for _, c := range p.challenges {
				snap.Challenges[ChallengeKey{c.Host, c.Token}] = c.Response
			}
		}
	}
	before := s.snapshot.Load()
	if before != nil && s.sameHosts() {
		snap.Hosts = before.Hosts
	} else {
		snap.Hosts = s.hosts()
	}
	if certs := s.current[fleet.HeadCerts]; before == nil || certs != s.published[fleet.HeadCerts] {
		s.options.Certificates.Replace(certs.entries())
	}
	s.snapshot.Store(snap)
	s.published = maps.Clone(s.current)
}

// hosts joins what the trees have of each host.
func (s *Store) hosts() map[fleet.HostName]*Host {
	hosts := map[fleet.HostName]*Host{}
	config, ruleset, certs := s.current[fleet.HeadConfig], s.current[fleet.HeadRuleset], s.current[fleet.HeadCerts]
	if config == nil {
		return hosts
	}
	for tenant, p := range config.tenants {
		for _, h := range p.hosts {
			served := *h
			served.RulesMissing = true
			if ruleset != nil {
				part, loaded := ruleset.tenants[tenant]
				served.Rules, served.RulesMissing = part.rules, !loaded
			}
			if certs != nil {
				served.OriginCerts = certs.tenants[tenant].origins[h.Name]
			}
			hosts[h.Name] = &served
		}
	}
	return hosts
}

// sameHosts reports whether hosts would make what is served already.
func (s *Store) sameHosts() bool {
	for _, kind := range []fleet.HeadKind{fleet.HeadConfig, fleet.HeadRuleset} {
		if s.current[kind] != s.published[kind] {
			return false
		}
	}
	return sameOrigins(s.published[fleet.HeadCerts], s.current[fleet.HeadCerts])
}

// sameOrigins reports whether two trees of certificates have the same for origins, as most have none at all.
func sameOrigins(before, after *tree) bool {
	if before == nil || after == nil {
		return before == after
	}
	for tenant, p := range after.tenants {
		old := before.tenants[tenant]
		if old.digest != p.digest && len(old.origins)+len(p.origins) > 0 {
			return false
		}
	}
	for tenant, old := range before.tenants {
		if _, still := after.tenants[tenant]; !still && len(old.origins) > 0 {
			return false
		}
	}
	return true
}

// entries are all names of the tree with their certificates; none of no tree.
func (t *tree) entries() (all []sni.Entry) {
	if t == nil {
		return nil
	}
	for _, p := range t.tenants {
		all = append(all, p.entries...)
	}
	return all
}
