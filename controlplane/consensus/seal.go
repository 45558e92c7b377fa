package consensus

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
)

// The files of a snapshot: what Raft says about it, and the seal over that.
const (
	metaFile = "meta.json"
	sealFile = "meta.sha256"
)

// sealedSnapshots seals what Raft's store says about a snapshot. That store sums up the state, but not the index, the term
// and the configuration beside it: a flipped bit there gave a member other peers, or an index that it never had, and a
// file that could not be read any more made it fall back, without a word, to an older snapshot.
//
// The seal is written once the snapshot is in place; a crash in between leaves one without, which is taken as it is.
type sealedSnapshots struct {
	*raft.FileSnapshotStore
	dir string
}

// Create implements raft.SnapshotStore.
func (s sealedSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, configIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(v, index, term, c, configIndex, t)
	if err != nil {
		return nil, err
	}
	return &sealingSink{SnapshotSink: sink, dir: filepath.Join(s.dir, sink.ID())}, nil
}

// Open implements raft.SnapshotStore.
func (s sealedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if err := checkSeal(filepath.Join(s.dir, id)); err != nil {
		return nil, nil, err
	}
	return s.FileSnapshotStore.Open(id)
}

// check holds every snapshot against its seal, and makes sure that Raft's store sees all there are.
func (s sealedSnapshots) check() error {
	dirs, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("list the directory of the snapshots: %w", err)
	}
	metas, err := s.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	seen := map[string]bool{}
	for _, m := range metas {
		seen[m.ID] = true
	}
	for _, d := range dirs {
		if !d.IsDir() || strings.HasSuffix(d.Name(), ".tmp") {
			continue
		}
		if err := checkSeal(filepath.Join(s.dir, d.Name())); err != nil {
			return fmt.Errorf("snapshot %s: %w", d.Name(), err)
		}
		if !seen[d.Name()] && len(metas) < retainSnapshots {
			return fmt.Errorf("%w: %s of snapshot %s cannot be read", fleet.ErrCorrupt, metaFile, d.Name())
		}
	}
	return nil
}

// checkSeal holds what is said about the snapshot in dir against its seal, if it has one.
func checkSeal(dir string) error {
	want, err := os.ReadFile(filepath.Join(dir, sealFile)) //nolint:gosec // the member's own directory
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the seal of a snapshot: %w", err)
	}
	got, err := sumFile(filepath.Join(dir, metaFile))
	if err != nil {
		return err
	}
	if got != string(want) {
		return fmt.Errorf("%w: %s is not what was written", fleet.ErrCorrupt, metaFile)
	}
	return nil
}

func sumFile(path string) (string, error) {
	b, err := os.ReadFile(path) //nolint:gosec // the member's own directory
	if err != nil {
		return "", fmt.Errorf("read what is said about a snapshot: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// sealingSink seals the snapshot once it is in place.
type sealingSink struct {
	raft.SnapshotSink
	dir               string
	closed, cancelled bool
}

// Close implements raft.SnapshotSink.
func (s *sealingSink) Close() error {
	if s.closed || s.cancelled {
		return s.SnapshotSink.Close()
	}
	s.closed = true
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	sum, err := sumFile(filepath.Join(s.dir, metaFile))
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(s.dir, sealFile), sum)
}

// sync makes what was written so far durable; Raft's store has it in a directory of another name until it is whole.
func (s *sealingSink) sync() error { return syncFile(filepath.Join(s.dir+".tmp", "state.bin")) }

// Cancel implements raft.SnapshotSink.
func (s *sealingSink) Cancel() error {
	s.cancelled = true
	return s.SnapshotSink.Cancel()
}

// writeSynced puts a file in place whole, or not at all.
func writeSynced(path, text string) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // the member's own directory
	if err != nil {
		return fmt.Errorf("seal the snapshot: %w", err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("seal the snapshot: %w", err)
	}
	return os.Rename(path+".tmp", path)
}
