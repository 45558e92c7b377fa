// Package backup writes snapshots of the state to files and reads them back, and keeps scheduled ones in a directory or
// a bucket.
//
// It owns the seal, which proves that a member of this cluster wrote a file, the checks before a restore, the schedule
// and how many backups are kept. It does not own the format (fleet/snapshot) and changes no state. While the place of the
// backups is away, nothing else is affected: the age of the last one grows, which is an alert, and the next attempt comes
// soon.
package backup

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// Source says of what a snapshot is and who takes it.
type Source struct {
	View   *state.View
	Term   uint64
	Member fleet.MemberID
	Keys   *keys.Keys
	Now    time.Time
}

// Write writes a snapshot of s, at full speed. A member without the KEK cannot (ErrSealed): nobody could tell that the file is genuine.
func Write(w io.Writer, s Source) (snapshot.Envelope, error) {
	return write(w, s, func(w io.Writer) io.Writer { return w })
}

// WriteGently is Write for when nobody waits: it takes four times as long, and gives up when ctx ends.
func WriteGently(ctx context.Context, w io.Writer, s Source) (snapshot.Envelope, error) {
	return write(w, s, func(w io.Writer) io.Writer { return &gentleWriter{gentle{ctx: ctx}, w} })
}

// write writes the state, twice, for the envelope before it has its digest, to what paced makes of a writer.
func write(w io.Writer, s Source, paced func(io.Writer) io.Writer) (snapshot.Envelope, error) {
	if err := s.Keys.Check(); err != nil {
		return snapshot.Envelope{}, err
	}
	c, ok := s.View.Cluster()
	if !ok {
		return snapshot.Envelope{}, fleet.NewError(fleet.ErrUnavailable, "cluster", "member %s has no state yet", s.Member)
	}
	e := snapshot.Envelope{
		Cluster: c.ID, Incarnation: c.Incarnation, Index: s.View.Index(), Term: s.Term, Time: s.Now.UTC(), Member: s.Member, Software: observability.Version,
	}
	seal := func(digest string) (fleet.Sealed, error) {
		return s.Keys.Sealer.Seal([]byte(digest), keyring.SnapshotAAD(c.ID))
	}
	return snapshot.Write(w, e, seal, func(w io.Writer) error { _, err := s.View.WriteTo(paced(w)); return err })
}

// Loaded is a snapshot in memory, beside whatever state there is.
type Loaded struct {
	Envelope snapshot.Envelope
	State    *state.Store
	Keys     *keys.Keys
}

// Load reads a whole snapshot into a state of its own. It is refused unless every byte is as it was written, the KEK is
// that of the cluster that wrote it (ErrDenied), it opens the secrets, and the state has the hash that the envelope says.
func Load(r io.Reader, sealer keyring.Sealer) (Loaded, error) {
	e, content, err := snapshot.Open(r)
	if err != nil {
		return Loaded{}, err
	}
	digest, err := sealer.Open(e.Seal, keyring.SnapshotAAD(e.Cluster))
	if err != nil || string(digest) != e.SHA256 {
		return Loaded{}, fleet.NewError(fleet.ErrDenied, "kek_file", "no key-encryption key of this member opens the snapshot of cluster %s, which %.64q sealed at %s (or its envelope was forged): give the kek_file of that cluster and of that time, from another member or from escrow", e.Cluster, e.Seal.Key, e.Time.Format(time.RFC3339))
	}
	l := Loaded{Envelope: e}
	if l.State, err = state.Load(content); err != nil {
		return Loaded{}, fmt.Errorf("load snapshot, which is damaged or of a newer version: %w", err)
	}
	v := l.State.Read()
	hash, err := v.Hash()
	if err != nil {
		return Loaded{}, err
	}
	c, ok := v.Cluster()
	if hash != e.StateHash || !ok || c.ID != e.Cluster || v.Index() != e.Index || c.Incarnation != e.Incarnation {
		return Loaded{}, fleet.NewError(fleet.ErrCorrupt, "snapshot", "the state in the snapshot is not the one of its envelope: it has the hash %.12s, not %.12s; use another snapshot, or the version that wrote it, %.40q", hash, e.StateHash, e.Software)
	}
	if err := opens(sealer, e.Cluster, v.NotSealedBy(c.KEK()).Keys()); err != nil {
		return Loaded{}, err
	}
	l.Keys, err = keys.Open(c, sealer)
	return l, err
}

// opens refuses a snapshot of the middle of a rotation, if sealer lacks a key that seals secrets of it still.
func opens(sealer keyring.Sealer, cluster fleet.ClusterID, names []string) error {
	several, ok := sealer.(interface{ Names() []string })
	if !ok {
		return nil
	}
	for _, name := range names {
		if !slices.Contains(several.Names(), name) {
			return fleet.NewError(fleet.ErrDenied, "kek_file", "the snapshot of cluster %s was taken during a rotation, and %.64q seals secrets of it still, which this kek_file does not hold: give the kek_file of that time, from escrow", cluster, name)
		}
	}
	return nil
}

// Origin is e as the records of incarnations name it.
func Origin(e snapshot.Envelope) fleet.SnapshotOrigin {
	return fleet.SnapshotOrigin{Incarnation: e.Incarnation, Index: e.Index, Time: e.Time, StateHash: e.StateHash}
}
