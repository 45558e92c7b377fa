package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/edgefleet/edgefleet/tls/mtls"
)

// nextFile holds the key of a renewal whose answer has not arrived. It is on disk before the control plane hears of it, and
// the next attempt asks with the same key: one with another would look like a second machine with this identity.
const nextFile = "next.key"

// NextKey is the private key of the next renewal, in PEM: the one of an attempt that did not finish, or a new one.
func NextKey(dir string) ([]byte, error) {
	path := filepath.Join(dir, nextFile)
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read key of renewal: %w", err)
	}
	if err == nil && usable(dir, b) {
		return b, nil
	}
	key, err := mtls.NewKey()
	if err != nil {
		return nil, err
	}
	if b, err = mtls.EncodeKey(key); err != nil {
		return nil, err
	}
	return b, writeFile(dir, nextFile, b)
}

// usable reports whether b is a key that is not the current one: a renewal that was interrupted at its very end.
func usable(dir string, b []byte) bool {
	current, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil || bytes.Equal(b, current) {
		return false
	}
	_, err = mtls.ParseKey(b)
	return err == nil
}

// forgetNext removes the key of a renewal that is done.
func forgetNext(dir string) error {
	if err := os.Remove(filepath.Join(dir, nextFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove key of renewal: %w", err)
	}
	return nil
}
