package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// Digest is the content address of a blob: "sha256:" and 64 hex digits.
type Digest string

const digestPrefix = "sha256:"

// DigestOf is the digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest(digestPrefix + hex.EncodeToString(sum[:]))
}

// Validate checks the shape of d.
func (d Digest) Validate() error {
	h, ok := strings.CutPrefix(string(d), digestPrefix)
	if b, err := hex.DecodeString(h); !ok || err != nil || len(b) != sha256.Size || strings.ToLower(h) != h {
		return Invalid("digest", "%q is not a digest of the form sha256:<64 hex digits>", string(d))
	}
	return nil
}

// Hex is d without its prefix; it is the file name of the blob.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), digestPrefix) }

// Short is enough of d for people.
func (d Digest) Short() string {
	h := d.Hex()
	return h[:min(12, len(h))]
}

// HeadKind is what a head is about.
type HeadKind string

// The kinds of heads that nodes follow. Node releases, kill switches and host patches are reserved names.
const (
	// HeadConfig: hosts, origins and modes.
	HeadConfig HeadKind = "config"
	// HeadRuleset: the tenants' rules and masks.
	HeadRuleset HeadKind = "ruleset"
	// HeadCerts: certificates with sealed keys, and pending challenge answers.
	HeadCerts HeadKind = "certs"
)

// HeadKinds lists the kinds in the order in which a node applies them: a host never appears before its certificate.
var HeadKinds = []HeadKind{HeadCerts, HeadRuleset, HeadConfig}

// Validate reports whether k is one of HeadKinds.
func (k HeadKind) Validate() error {
	if !slices.Contains(HeadKinds, k) {
		return Invalid("kind", "%q is not a kind of head", string(k))
	}
	return nil
}

// Version orders heads: first by the life of the cluster, then within it.
type Version struct {
	// Incarnation is one life of the cluster between restores, from 1.
	Incarnation uint64 `json:"incarnation"`
	// Generation counts the heads of one group and kind within an incarnation, from 1.
	Generation uint64 `json:"generation"`
}

// Compare is negative when v is older than w, zero when equal, positive when newer.
func (v Version) Compare(w Version) int {
	switch {
	case v == w:
		return 0
	case v.Incarnation < w.Incarnation, v.Incarnation == w.Incarnation && v.Generation < w.Generation:
		return -1
	}
	return 1
}

// GroupHead is the desired head of one kind for all nodes of a group, as the leader committed it.
type GroupHead struct {
	Group   GroupName `json:"group"`
	Kind    HeadKind  `json:"kind"`
	Version Version   `json:"version"`
	// Root is the digest of the bundle tree.
	Root Digest `json:"root"`
	Meta
}

// ReleaseKind is what a release changes.
type ReleaseKind string

// The kinds of release.
const (
	// ReleaseNode: the programs of an edge node.
	ReleaseNode ReleaseKind = "node"
	// ReleaseRuleset: the managed rules.
	ReleaseRuleset ReleaseKind = "ruleset"
	// ReleaseConfig: configuration that the vendor ships.
	ReleaseConfig ReleaseKind = "config"
	// ReleaseKillSwitch: something is turned off everywhere.
	ReleaseKillSwitch ReleaseKind = "killswitch"
	// ReleaseHostPatch: packages and reboots of node hosts.
	ReleaseHostPatch ReleaseKind = "host_patch"
)

// ReleaseKinds lists the kinds of release.
var ReleaseKinds = []ReleaseKind{ReleaseNode, ReleaseRuleset, ReleaseConfig, ReleaseKillSwitch, ReleaseHostPatch}

// Release is an immutable, content-addressed version of something that reaches nodes in stages.
type Release struct {
	Kind ReleaseKind `json:"kind"`
	// Version is MAJOR.MINOR.PATCH (semver.org, without pre-release and build parts).
	Version string `json:"version"`
	// Digest is of the content, Size its length in bytes.
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"`
	// Edges are the versions that it may follow; none means that only a new node takes it.
	Edges []string `json:"edges,omitempty"`
}

// Validate checks the invariants of r.
func (r Release) Validate() error {
	if !slices.Contains(ReleaseKinds, r.Kind) {
		return Invalid("kind", "%q is not a kind of release: use one of %v", string(r.Kind), ReleaseKinds)
	}
	for _, v := range append([]string{r.Version}, r.Edges...) {
		if !validVersion(v) {
			return Invalid("version", "%q is not a version: use MAJOR.MINOR.PATCH, such as 1.4.2", v)
		}
	}
	if slices.Contains(r.Edges, r.Version) {
		return Invalid("edges", "release %s cannot follow itself", r.Version)
	}
	if r.Size <= 0 {
		return Invalid("size", "release %s has %d bytes", r.Version, r.Size)
	}
	return r.Digest.Validate()
}

func validVersion(v string) bool {
	parts := strings.Split(v, ".")
	if len(parts) != 3 {
		return false
	}
	for _, p := range parts {
		if p == "" || len(p) > 9 || strings.Trim(p, "0123456789") != "" || (len(p) > 1 && p[0] == '0') {
			return false
		}
	}
	return true
}
