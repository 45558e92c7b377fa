// Package blobs derives what nodes fetch, bundle trees of config, rules and certificates, from the replicated state.
//
// It owns derivation and a cache of the current and previous trees, nothing on disk: every member with the KEK derives
// the same bytes from the same state, so nothing needs to be copied between members. A member without the KEK has no
// library; nodes ask another.
package blobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// Derive builds the tree of each kind for one node group. A kind that cannot be built for one of the tenants is left
// out, the others are there; the error says which and why.
func Derive(v *state.View, g fleet.GroupName, k *keys.Keys) (map[fleet.HeadKind]bundle.Tree, error) {
	return derive(v, g, k, newCache())
}

func derive(v *state.View, g fleet.GroupName, k *keys.Keys, c *cache) (map[fleet.HeadKind]bundle.Tree, error) {
	key, err := k.Group(g, v.EpochKey(g))
	if err != nil {
		return nil, err
	}
	challenges := map[fleet.TenantID][]fleet.BundleChallenge{}
	for _, c := range v.Challenges() {
		switch c.Type {
		case fleet.ChallengeHTTP01:
			challenges[c.Tenant] = append(challenges[c.Tenant], fleet.BundleChallenge{Host: c.Host, Token: c.Token, Response: c.Response})
		case fleet.ChallengeTLSALPN01:
			challenges[c.Tenant] = append(challenges[c.Tenant], fleet.BundleChallenge{Host: c.Host, Token: c.Token, Response: c.Response, Type: c.Type})
		case fleet.ChallengeDNS01: // answered by the members
		}
	}
	kept := c.group(g, key.Epoch)
	failed, moved := map[fleet.HeadKind]error{}, map[fleet.HeadKind]bool{}
	now := make(map[fleet.TenantID]*tenantCache, len(kept.tenants))
	for tenant := range v.TenantsOf(g) {
		id, allowed := tenant.ID, tenant.Spec.AllowedOrigins
		t := kept.tenants[id]
		if !t.current(v, allowed, challenges[id]) {
			before := t
			t = deriveTenant(v, id, deriver{keys: k, group: key, allowed: allowed, challenges: challenges[id]})
			for _, kind := range fleet.HeadKinds {
				moved[kind] = moved[kind] || before == nil || before.leaves[kind].Digest != t.leaves[kind].Digest
			}
		}
		for kind, err := range t.errs {
			if failed[kind] == nil {
				failed[kind] = fmt.Errorf("derive %s of group %s: tenant %s: %w", kind, g, id, err)
			}
		}
		now[id] = t
	}
	gone := len(now) != len(kept.tenants)
	kept.tenants = now
	trees := map[fleet.HeadKind]bundle.Tree{}
	var errs []error
	for _, kind := range fleet.HeadKinds {
		if failed[kind] != nil {
			errs = append(errs, failed[kind])
			delete(kept.trees, kind)
			continue
		}
		tree, err := kept.tree(kind, gone || moved[kind])
		if err != nil {
			errs = append(errs, fmt.Errorf("derive %s of group %s: %w", kind, g, err))
			continue
		}
		trees[kind] = tree
	}
	return trees, errors.Join(errs...)
}

// deriver derives the bundles of one tenant.
type deriver struct {
	view       *state.View
	keys       *keys.Keys
	group      keyring.GroupKey
	allowed    []netip.Prefix
	challenges []fleet.BundleChallenge
}

// deriveTenant derives a tenant's bundles from a tracked view, so that it is known what they depend on.
func deriveTenant(v *state.View, id fleet.TenantID, d deriver) *tenantCache {
	t := &tenantCache{leaves: map[fleet.HeadKind]bundle.Leaf{}, allowed: d.allowed, challenges: d.challenges}
	d.view, t.reads = v.Tracked()
	for kind, content := range map[fleet.HeadKind]func(fleet.TenantID) (any, error){
		fleet.HeadConfig: d.config, fleet.HeadRuleset: d.ruleset, fleet.HeadCerts: d.certs,
	} {
		c, err := content(id)
		if err == nil {
			var b []byte
			if b, err = json.Marshal(c); err == nil {
				t.leaves[kind] = bundle.NewLeaf(b)
				continue
			}
		}
		if t.errs == nil {
			t.errs = map[fleet.HeadKind]error{}
		}
		t.errs[kind] = err
	}
	return t
}

func (d *deriver) config(t fleet.TenantID) (any, error) {
	b := fleet.ConfigBundle{Tenant: t, AllowedOrigins: d.allowed}
	for _, h := range d.view.HostsOf(t) {
		if h.Deleting() {
			continue
		}
		var resolved fleet.HostOrigins
		if slices.ContainsFunc(h.Spec.Origins, fleet.Origin.IsConsul) { // others do not depend on that table
			resolved, _ = d.view.HostOrigins(h.Name)
		}
		origins := h.Servers(resolved, d.allowed)
		if len(origins) == 0 {
			continue // a node takes no host without a server; no instance of its Consul services was ever seen
		}
		b.Hosts = append(b.Hosts, fleet.HostConfig{Name: h.Name, Origins: origins, Mode: h.Spec.Mode, Regions: h.Spec.Regions, TLS: h.Spec.TLS, Forwarding: h.Spec.Forwarding, Plain: h.Spec.Certificate == fleet.CertificateNone, FailPolicy: h.Spec.FailPolicy})
	}
	return b, nil
}

func (d *deriver) ruleset(t fleet.TenantID) (any, error) {
	b := fleet.RulesetBundle{Tenant: t}
	for _, r := range d.view.RulesOf(t) {
		b.Rules = append(b.Rules, fleet.BundleRule{ID: r.ID, Spec: r.Spec})
	}
	return b, nil
}

// certs reseals each key from the KEK to the group key, deterministically.
func (d *deriver) certs(t fleet.TenantID) (any, error) {
	b := fleet.CertsBundle{Tenant: t, Challenges: d.challenges}
	for _, h := range d.view.HostsOf(t) {
		c, ok := d.view.Certificate(h.Name)
		if !ok {
			continue
		}
		aad := keyring.CertKeyAAD(c.Tenant, c.Host, c.SPKI, c.Generation)
		plain, err := d.keys.Sealer.Open(c.Key, aad)
		if err != nil {
			return nil, fmt.Errorf("open key of %s: %w", c.Host, err)
		}
		sealed, err := d.group.Seal(plain, aad)
		clear(plain)
		if err != nil {
			return nil, fmt.Errorf("seal key of %s: %w", c.Host, err)
		}
		b.Certificates = append(b.Certificates, fleet.BundleCert{Host: c.Host, Generation: c.Generation, SPKI: c.SPKI, Chain: c.Chain, Key: sealed})
	}
	var err error
	b.Origins, err = d.originCerts(t)
	return b, err
}
