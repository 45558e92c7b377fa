package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/edgefleet/edgefleet/fleet"
)

// The layout below Options.Dir: the heads file, the one before it, and a directory of blobs named by their digest.
const (
	headsFile    = "heads.json"
	previousFile = "heads.previous.json"
	blobsDir     = "blobs"
	diskFormat   = 1
)

// maxHeadsFile bounds the heads file when it is read, in bytes.
const maxHeadsFile = 1 << 20

// record is the heads file: all that is needed to rebuild what is served, with keys in their sealed form only.
type record struct {
	Format int                           `json:"format"`
	Kinds  map[fleet.HeadKind]recordKind `json:"kinds"`
	// Envelopes hold the group keys that the certificates named by Kinds need, by epoch.
	Envelopes []fleet.KeyEnvelope `json:"envelopes,omitempty"`
	// Incarnations are the statements that verify the heads above, and the newest.
	Incarnations []fleet.SignedIncarnation `json:"incarnations,omitempty"`
}

// recordKind is the head that is served and the one before it.
type recordKind struct {
	Current  fleet.SignedHead  `json:"current"`
	Previous *fleet.SignedHead `json:"previous,omitempty"`
}

// disk reads and writes the state directory. What it returns is not trusted: callers verify signatures and digests.
type disk struct{ dir string }

func openDisk(dir string) (disk, error) {
	d := disk{dir: dir}
	if err := os.MkdirAll(filepath.Join(dir, blobsDir), 0o700); err != nil {
		return d, fmt.Errorf("open state directory: %w", err)
	}
	return d, nil
}

// read returns one of the two heads files; fs.ErrNotExist when there is none.
func (d disk) read(name string) (record, error) {
	b, err := readLimited(filepath.Join(d.dir, name), maxHeadsFile)
	if err != nil {
		return record{}, err
	}
	var r record
	if err := fleet.DecodeStrict(b, &r); err != nil {
		return record{}, fleet.NewError(fleet.ErrCorrupt, "heads", "%s is damaged: %v", name, err)
	}
	if r.Format != diskFormat {
		return record{}, fleet.NewError(fleet.ErrCorrupt, "heads", "%s has format %d; this version reads %d", name, r.Format, diskFormat)
	}
	return r, nil
}

// write makes r the heads file and keeps the one before. When it returns nil, r survives a power cut; when it fails or
// is interrupted, one of the two files is whole.
func (d disk) write(r record) error {
	r.Format = diskFormat
	b, err := json.Marshal(r) // not indented: the heads' bytes are what was signed
	if err != nil {
		return fmt.Errorf("write heads: %w", err)
	}
	current := filepath.Join(d.dir, headsFile)
	tmp, err := writeTemp(d.dir, b)
	if err != nil {
		return fmt.Errorf("write heads: %w", err)
	}
	if err := os.Rename(current, filepath.Join(d.dir, previousFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write heads: %w", errors.Join(err, os.Remove(tmp)))
	}
	if err := os.Rename(tmp, current); err != nil {
		return fmt.Errorf("write heads: %w", err)
	}
	return syncDir(d.dir)
}

// blob returns the verified content of g from disk. A damaged file is removed, so that it is fetched anew.
func (d disk) blob(g fleet.Digest) ([]byte, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	b, err := readLimited(d.path(g), fleet.MaxBundleBytes)
	if err != nil {
		return nil, err
	}
	if fleet.DigestOf(b) != g {
		err := fleet.NewError(fleet.ErrCorrupt, "blob", "blob %s on disk is damaged", g.Short())
		return nil, errors.Join(err, os.Remove(d.path(g)))
	}
	return b, nil
}

// putBlob stores verified content; the directory is synced by the write of the heads that name it.
func (d disk) putBlob(g fleet.Digest, b []byte) error {
	tmp, err := writeTemp(filepath.Join(d.dir, blobsDir), b)
	if err != nil {
		return fmt.Errorf("store blob: %w", err)
	}
	if err := os.Rename(tmp, d.path(g)); err != nil {
		return fmt.Errorf("store blob: %w", err)
	}
	return nil
}

// syncBlobs makes the names of the stored blobs durable.
func (d disk) syncBlobs() error { return syncDir(filepath.Join(d.dir, blobsDir)) }

// sweep removes every blob that keep does not name, and temporary files that a crash left.
func (d disk) sweep(keep map[fleet.Digest]bool) error {
	names := make(map[string]bool, len(keep))
	for g := range keep {
		names[g.Hex()] = true
	}
	dir := filepath.Join(d.dir, blobsDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweep blobs: %w", err)
	}
	var failed error
	for _, e := range entries {
		if !names[e.Name()] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}

func (d disk) path(g fleet.Digest) string { return filepath.Join(d.dir, blobsDir, g.Hex()) }

func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fleet.NewError(fleet.ErrCorrupt, "file", "%s is larger than %d bytes", filepath.Base(path), limit)
	}
	return b, nil
}

// writeTemp writes and syncs b to a new file in dir, mode 0600, and returns its path.
func writeTemp(dir string, b []byte) (string, error) {
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}
