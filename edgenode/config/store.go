package config

import (
	"crypto/ed25519"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/sni"
)

// Options configure a Store. All fields but OwnAddresses are required.
type Options struct {
	// Dir is the state directory; the store is its only writer.
	Dir string
	// Node and Group are whose heads are accepted.
	Node  fleet.NodeID
	Group fleet.GroupName
	// Cluster is the cluster that the node enrolled in.
	Cluster fleet.ClusterID
	// Incarnation was the cluster's at enrolment, and HeadKeys verify its heads; RecoveryKey verifies the statement of a
	// later one.
	Incarnation uint64
	HeadKeys    []ed25519.PublicKey
	RecoveryKey []byte
	// HPKEPrivate opens the group key's envelope.
	HPKEPrivate []byte
	// Certificates is the table that handshakes read; the store is its only writer.
	Certificates *sni.Table
	// OwnAddresses are refused as origins.
	OwnAddresses []netip.Addr
	Telemetry    *observability.Telemetry
}

func (o Options) validate() error {
	switch {
	case o.Dir == "":
		return fleet.Invalid("dir", "the state directory is not set")
	case len(o.HeadKeys) == 0:
		return fleet.Invalid("head_keys", "there is no key to verify heads with: enrol the node again")
	case o.Certificates == nil || o.Telemetry == nil:
		return fleet.Invalid("options", "the certificate table and telemetry are required")
	}
	return errors.Join(fleet.ValidateID("node", o.Node), fleet.ValidateID("group", o.Group))
}

// Store verifies, keeps and publishes what a node serves. All methods may be called at once.
type Store struct {
	options  Options
	disk     disk
	metrics  metrics
	snapshot atomic.Pointer[Snapshot]

	reportMu sync.Mutex
	reports  map[fleet.HeadKind]fleet.HeadReport

	// mu is held while a head set is applied. The fields below belong to its holder.
	mu   sync.Mutex
	keys keyset
	// anchors are the incarnations that are known, the current one last.
	anchors []anchor
	current map[fleet.HeadKind]*tree
	// previous is kept on disk to fall back to; its bundles are not decoded.
	previous map[fleet.HeadKind]*tree
	// published are the trees that the snapshot was made of.
	published map[fleet.HeadKind]*tree
	// floor is the highest head ever accepted, although its blobs may be damaged: nothing older is accepted.
	floor map[fleet.HeadKind]head.Head
}

// Open loads the last-known-good state and serves it at once. Damaged state is never a reason not to start: the previous
// heads are used instead, or what is whole of them, and Reports says so. It fails only when the directory cannot be used.
func Open(o Options) (*Store, error) {
	o.Incarnation = max(o.Incarnation, 1) // which they count from
	if err := o.validate(); err != nil {
		return nil, err
	}
	d, err := openDisk(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		options: o, disk: d,
		reports: map[fleet.HeadKind]fleet.HeadReport{},
		keys:    keyset{},
		current: map[fleet.HeadKind]*tree{}, previous: map[fleet.HeadKind]*tree{}, floor: map[fleet.HeadKind]head.Head{},
	}
	s.anchors = []anchor{{number: o.Incarnation, keys: o.HeadKeys}}
	s.metrics = newMetrics(s, o.Telemetry)
	s.restore()
	s.publish()
	return s, nil
}

// Snapshot is what is served now; it never waits and is never nil.
func (s *Store) Snapshot() *Snapshot { return s.snapshot.Load() }

// Reports are the ACK or NACK of the last head of each kind, for the heartbeat.
func (s *Store) Reports() []fleet.HeadReport {
	s.reportMu.Lock()
	defer s.reportMu.Unlock()
	list := make([]fleet.HeadReport, 0, len(s.reports))
	for _, kind := range fleet.HeadKinds {
		if r, ok := s.reports[kind]; ok {
			list = append(list, r)
		}
	}
	return list
}

// report stores r unless it repeats what is there: a head that is refused at each poll is one refusal with one time.
func (s *Store) report(h head.Head, reason string) fleet.HeadReport {
	r := fleet.HeadReport{Kind: h.Kind, Version: h.Version, Root: h.Root, Reason: reason}
	s.reportMu.Lock()
	defer s.reportMu.Unlock()
	r.AppliedAt = s.reports[h.Kind].AppliedAt
	if s.reports[h.Kind] != r {
		r.AppliedAt = time.Now()
		s.reports[h.Kind] = r
	}
	return r
}

// neededBlobs are the blobs of everything that may be served after a restart.
func (s *Store) neededBlobs() map[fleet.Digest]bool {
	keep := map[fleet.Digest]bool{}
	for _, trees := range []map[fleet.HeadKind]*tree{s.current, s.previous} {
		for _, t := range trees {
			for d := range t.blobs {
				keep[d] = true
			}
		}
	}
	return keep
}

// neededEpochs are the group keys without which the certificates on disk do not open.
func (s *Store) neededEpochs() map[uint64]bool {
	epochs := map[uint64]bool{}
	for _, t := range []*tree{s.current[fleet.HeadCerts], s.previous[fleet.HeadCerts]} {
		if t != nil {
			maps.Copy(epochs, t.epochs)
		}
	}
	return epochs
}

// forUs reports whether h is meant for this node.
func (s *Store) forUs(h head.Head) error {
	if h.Node == s.options.Node || h.Node == "" && h.Group == s.options.Group {
		return nil
	}
	return fleet.NewError(fleet.ErrDenied, "head", "the head is for node %q or group %q, this is node %s of group %s", h.Node, h.Group, s.options.Node, s.options.Group)
}

// record is what goes to disk.
func (s *Store) record() record {
	r := record{Kinds: map[fleet.HeadKind]recordKind{}, Envelopes: s.keys.envelopes(), Incarnations: s.statements()}
	for _, kind := range slices.Sorted(slices.Values(fleet.HeadKinds)) {
		t := s.current[kind]
		if t == nil {
			continue
		}
		k := recordKind{Current: t.signed}
		if p := s.previous[kind]; p != nil {
			k.Previous = &p.signed
		}
		r.Kinds[kind] = k
	}
	return r
}
