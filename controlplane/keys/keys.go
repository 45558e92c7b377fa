// Package keys holds the cluster's own private keys of one running member, opened with the KEK.
//
// It owns neither the sealed forms (state) nor the KEK's storage (tls/keyring). A member without a KEK has no Keys:
// it votes and serves reads, and issues, signs and seals nothing; every method of a nil *Keys answers ErrSealed.
package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// caLife is how long the cluster's certificate authorities last.
const caLife = 10 * 365 * 24 * time.Hour

// Keys are the opened secrets.
type Keys struct {
	// Sealer is the KEK.
	Sealer keyring.Sealer
	// MemberCA, NodeCA and APICA sign identities.
	MemberCA, NodeCA, APICA *mtls.CA

	headKey     ed25519.PrivateKey
	auditKey    ed25519.PrivateKey
	groupMaster []byte
}

// Generate makes the secrets of a new cluster, and the public and sealed parts that are stored.
func Generate(id fleet.ClusterID, zone fleet.HostName, sealer keyring.Sealer, recovery ed25519.PublicKey, now time.Time) (fleet.ClusterRecord, error) {
	rec := fleet.ClusterRecord{Cluster: fleet.Cluster{ID: id, Zone: zone, RecoveryKey: recovery}, Secrets: map[fleet.SecretName]fleet.Sealed{}}
	secrets := map[fleet.SecretName][]byte{}
	for name, pem := range map[fleet.SecretName]*string{
		fleet.SecretMemberCA: &rec.MemberCA, fleet.SecretNodeCA: &rec.NodeCA, fleet.SecretAPICA: &rec.APICA,
	} {
		ca, err := mtls.NewCA(fmt.Sprintf("%s %s", id, name), now, caLife)
		if err != nil {
			return rec, fmt.Errorf("make %s: %w", name, err)
		}
		*pem, secrets[name] = string(ca.CertPEM()), ca.KeyDER()
	}
	for name, pub := range map[fleet.SecretName]*[]byte{fleet.SecretHeadKey: nil, fleet.SecretAuditKey: &rec.AuditKey} {
		p, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return rec, fmt.Errorf("make %s: %w", name, err)
		}
		secrets[name] = key.Seed()
		if pub == nil {
			rec.HeadKeys = [][]byte{p}
		} else {
			*pub = p
		}
	}
	master := make([]byte, 32)
	if _, err := rand.Read(master); err != nil {
		return rec, fmt.Errorf("make group master: %w", err)
	}
	secrets[fleet.SecretGroupMaster] = master
	for name, plain := range secrets {
		sealed, err := sealer.Seal(plain, keyring.SecretAAD(id, name))
		if err != nil {
			return rec, fmt.Errorf("seal %s: %w", name, err)
		}
		rec.Secrets[name] = sealed
	}
	return rec, nil
}

// Open opens the cluster's secrets. A KEK that does not fit is ErrDenied and says so.
func Open(c fleet.ClusterRecord, sealer keyring.Sealer) (*Keys, error) {
	k := &Keys{Sealer: sealer}
	plain := map[fleet.SecretName][]byte{}
	for name, sealed := range c.Secrets {
		b, err := sealer.Open(sealed, keyring.SecretAAD(c.ID, name))
		if err != nil {
			return nil, fleet.NewError(fleet.ErrDenied, "kek_file", "the key-encryption key does not open the secrets of cluster %s, which %s seals: give the kek_file of a member that runs, or of that time, from escrow", c.ID, sealed.Key)
		}
		plain[name] = b
	}
	for name, ca := range map[fleet.SecretName]struct {
		pem string
		to  **mtls.CA
	}{fleet.SecretMemberCA: {c.MemberCA, &k.MemberCA}, fleet.SecretNodeCA: {c.NodeCA, &k.NodeCA}, fleet.SecretAPICA: {c.APICA, &k.APICA}} {
		loaded, err := mtls.LoadCA([]byte(ca.pem), plain[name])
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", name, err)
		}
		*ca.to = loaded
	}
	seed := plain[fleet.SecretHeadKey]
	if len(seed) != ed25519.SeedSize {
		return nil, fleet.NewError(fleet.ErrCorrupt, "head-key", "the head key has %d bytes", len(seed))
	}
	k.headKey, k.groupMaster = ed25519.NewKeyFromSeed(seed), plain[fleet.SecretGroupMaster]
	pub, _ := k.headKey.Public().(ed25519.PublicKey)
	if !slices.ContainsFunc(c.HeadKeys, func(known []byte) bool { return bytes.Equal(known, pub) }) {
		return nil, fleet.NewError(fleet.ErrCorrupt, "head-key", "the head key is none of those that the nodes of cluster %s know", c.ID)
	}
	if seed = plain[fleet.SecretAuditKey]; len(seed) != ed25519.SeedSize {
		return nil, fleet.NewError(fleet.ErrCorrupt, "audit-key", "the audit key has %d bytes", len(seed))
	}
	k.auditKey = ed25519.NewKeyFromSeed(seed)
	if known := ed25519.PublicKey(c.AuditKey); !known.Equal(k.auditKey.Public()) {
		return nil, fleet.NewError(fleet.ErrCorrupt, "audit-key", "the audit key is not the one that auditors of cluster %s know", c.ID)
	}
	if _, err := k.Group(fleet.DefaultGroup, 1); err != nil {
		return nil, fmt.Errorf("%w: load %s: %w", fleet.ErrCorrupt, fleet.SecretGroupMaster, err)
	}
	return k, nil
}

func sealed() error {
	return fleet.NewError(fleet.ErrSealed, "kek_file", "this member has no key-encryption key, so it can neither sign nor seal: set kek_file, or ask another member")
}

// Check returns ErrSealed for a member without a KEK.
func (k *Keys) Check() error {
	if k == nil {
		return sealed()
	}
	return nil
}

// SignHead signs a group's head; every member makes the same bytes.
func (k *Keys) SignHead(h fleet.GroupHead) (fleet.SignedHead, error) {
	if k == nil {
		return fleet.SignedHead{}, sealed()
	}
	return head.Sign(head.Head{Group: h.Group, Kind: h.Kind, Version: h.Version, Root: h.Root}, k.headKey)
}

// Group derives the key of a node group in an epoch: see state.View.EpochKey.
func (k *Keys) Group(g fleet.GroupName, epoch uint64) (keyring.GroupKey, error) {
	if k == nil {
		return keyring.GroupKey{}, sealed()
	}
	return keyring.DeriveGroupKey(k.groupMaster, g, epoch)
}
