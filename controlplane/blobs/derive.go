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
	group, err := k.Group(g)
	if err != nil {
		return nil, err
	}
	d := deriver{view: v, keys: k, group: group, challenges: map[fleet.TenantID][]fleet.BundleChallenge{}, cache: c}
	for _, c := range v.Challenges() {
		if c.Type == fleet.ChallengeHTTP01 {
			d.challenges[c.Tenant] = append(d.challenges[c.Tenant], fleet.BundleChallenge{Host: c.Host, Token: c.Token, Response: c.Response})
		}
	}
	for _, t := range v.Tenants() {
		if t.Spec.Group == g {
			d.tenants = append(d.tenants, t.ID)
		}
	}
	trees := map[fleet.HeadKind]bundle.Tree{}
	var errs []error
	for _, kind := range fleet.HeadKinds {
		tree, err := d.tree(g, kind)
		if err != nil {
			errs = append(errs, fmt.Errorf("derive %s of group %s: %w", kind, g, err))
			continue
		}
		trees[kind] = tree
	}
	return trees, errors.Join(errs...)
}

type deriver struct {
	view       *state.View
	keys       *keys.Keys
	group      keyring.GroupKey
	tenants    []fleet.TenantID
	challenges map[fleet.TenantID][]fleet.BundleChallenge
	cache      *cache
}

// tree builds the tree of one kind, of what was derived before as far as nothing of it has changed.
func (d *deriver) tree(g fleet.GroupName, kind fleet.HeadKind) (bundle.Tree, error) {
	leaves := make(map[fleet.TenantID]bundle.Leaf, len(d.tenants))
	for _, id := range d.tenants {
		l, err := d.leaf(kind, id)
		if err != nil {
			return bundle.Tree{}, fmt.Errorf("tenant %s: %w", id, err)
		}
		leaves[id] = l
	}
	return d.cache.tree(slot{g, kind}, leaves)
}

func (d *deriver) leaf(kind fleet.HeadKind, id fleet.TenantID) (bundle.Leaf, error) {
	key := leafKey{kind, id, d.group.Group, d.group.Epoch}
	challenges := d.challenges[id]
	if l, ok := d.cache.leaf(key, challenges); ok {
		return l, nil
	}
	// Derived from a tracked view, so that the cache knows what it depends on.
	in, reads := d.view.Tracked()
	t, ok := in.Tenant(id)
	if !ok {
		return bundle.Leaf{}, fleet.NewError(fleet.ErrNotFound, "tenant", "tenant %s does not exist", id)
	}
	of := deriver{view: in, keys: d.keys, group: d.group, challenges: d.challenges}
	content, err := map[fleet.HeadKind]func(fleet.Tenant) (any, error){
		fleet.HeadConfig: of.config, fleet.HeadRuleset: of.ruleset, fleet.HeadCerts: of.certs,
	}[kind](t)
	if err != nil {
		return bundle.Leaf{}, err
	}
	b, err := json.Marshal(content)
	if err != nil {
		return bundle.Leaf{}, err
	}
	return d.cache.keep(key, challenges, bundle.NewLeaf(b), reads), nil
}

func (d *deriver) config(t fleet.Tenant) (any, error) {
	b := fleet.ConfigBundle{Tenant: t.ID, AllowedOrigins: t.Spec.AllowedOrigins}
	for _, h := range d.view.HostsOf(t.ID) {
		resolved, _ := d.view.HostOrigins(h.Name)
		origins := h.Servers(resolved, t.Spec.AllowedOrigins)
		if len(origins) == 0 {
			continue // a node takes no host without a server; no instance of its Consul services was ever seen
		}
		b.Hosts = append(b.Hosts, fleet.HostConfig{Name: h.Name, Origins: origins, Mode: h.Spec.Mode, Regions: h.Spec.Regions})
	}
	return b, nil
}

func (d *deriver) ruleset(t fleet.Tenant) (any, error) {
	b := fleet.RulesetBundle{Tenant: t.ID}
	for _, r := range d.view.RulesOf(t.ID) {
		b.Rules = append(b.Rules, fleet.BundleRule{ID: r.ID, Spec: r.Spec})
	}
	return b, nil
}

// certs reseals each key from the KEK to the group key, deterministically.
func (d *deriver) certs(t fleet.Tenant) (any, error) {
	b := fleet.CertsBundle{Tenant: t.ID, Challenges: d.challenges[t.ID]}
	for _, h := range d.view.HostsOf(t.ID) {
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
	return b, nil
}
