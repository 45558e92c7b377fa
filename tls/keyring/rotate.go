package keyring

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/edgefleet/edgefleet/fleet"
)

// AddKEK adds a new key to the file at path, as the newest. It opens from then on; it seals when the cluster says so.
func AddKEK(path string) (*KEK, error) {
	k, err := LoadKEK(path)
	if err != nil {
		return nil, err
	}
	if len(k.keys) == maxKEKs {
		return nil, fleet.NewError(fleet.ErrConflict, "kek", "%s holds %d keys already: end the rotation before with 'fleetctl cluster kek rotate', and drop the keys that nothing is sealed by any more", path, maxKEKs)
	}
	fresh, err := NewKEK()
	if err != nil {
		return nil, err
	}
	k.keys = append(k.keys, fresh.keys...)
	return k, k.replace(path)
}

// DropKEK removes a key from the file at path. The newest is never dropped.
func DropKEK(path, name string) (*KEK, error) {
	k, err := LoadKEK(path)
	if err != nil {
		return nil, err
	}
	names := k.Names()
	i := slices.Index(names, name)
	switch i {
	case -1:
		return nil, fleet.NewError(fleet.ErrNotFound, "kek", "%s holds no key %s: it has %q", path, name, names)
	case len(names) - 1:
		return nil, fleet.NewError(fleet.ErrConflict, "kek", "%s is the newest key of %s: it is never dropped", name, path)
	}
	k.keys = slices.Delete(k.keys, i, i+1)
	return k, k.replace(path)
}

// replace writes the file anew, whole or not at all.
func (k *KEK) replace(path string) error {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace key-encryption key: %w", err)
	}
	if err := k.Save(next); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("replace key-encryption key: %w", err)
	}
	return syncDir(filepath.Dir(path))
}
