// Package certstore keeps what the ACME client remembers, above all the CA account and its key, in the replicated
// state: it is certmagic.Storage over a narrow key-value store.
//
// Values are sealed by the key-encryption key before they reach the store, each bound to its own key, so that the
// store, its log, snapshots and backups see ciphertext only, and an exchanged value does not open. A member without
// that key gets fleet.ErrSealed from every operation on values. When the store is away (no quorum) its error is
// handed through, and the ACME client gives up that attempt.
//
// Locks are in that store too, with a lease: who holds one keeps it over a change of leader for as long as its context
// lasts, and what a member held that died is free when the lease is over. Package certstore does not keep certificates;
// those are objects of their own in the replicated state.
package certstore

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// Limits on what is stored: an account and its key have less than 4 KiB.
const (
	// MaxKeyBytes bounds a key.
	MaxKeyBytes = 512
	// MaxValueBytes bounds a value before it is sealed.
	MaxValueBytes = 64 << 10
)

// KV is the store. Keys are slash-separated paths. It is called concurrently.
type KV interface {
	// Get returns the value and when it was last put; ok is false when there is none.
	Get(ctx context.Context, key string) (value []byte, modified time.Time, ok bool, err error)
	// Put stores value durably before it returns.
	Put(ctx context.Context, key string, value []byte) error
	// Delete removes key durably; it is not an error if there is none.
	Delete(ctx context.Context, key string) error
	// List returns the keys that begin with prefix, in any order.
	List(ctx context.Context, prefix string) ([]string, error)
}

// Backend is what a Store needs.
type Backend interface {
	KV
	Locks
}

// Store is a certmagic.Storage.
type Store struct {
	kv     Backend
	sealer keyring.Sealer
	locks  locks
}

var _ certmagic.Storage = (*Store)(nil)

// New returns a Store over kv. A nil sealer is allowed: values can then be neither stored nor loaded.
func New(kv Backend, sealer keyring.Sealer) *Store {
	return &Store{kv: kv, sealer: sealer, locks: locks{held: map[string]*hold{}}}
}

// Store seals value and puts it at key.
func (s *Store) Store(ctx context.Context, key string, value []byte) error {
	key, err := clean(key)
	if err != nil {
		return err
	}
	if len(value) > MaxValueBytes {
		return fleet.NewError(fleet.ErrTooLarge, "value", "acme storage: %s has %d bytes; the limit is %d", key, len(value), MaxValueBytes)
	}
	if s.sealer == nil {
		return errSealed(key)
	}
	sealed, err := s.sealer.Seal(value, keyring.StorageAAD(key))
	if err != nil {
		return fmt.Errorf("seal %s: %w", key, err)
	}
	b, err := json.Marshal(sealed)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if err := s.kv.Put(ctx, key, b); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

// Load returns the value at key; the error is fs.ErrNotExist if there is none, and fleet.ErrCorrupt if it was not
// sealed for this key.
func (s *Store) Load(ctx context.Context, key string) ([]byte, error) {
	value, _, err := s.load(ctx, key)
	return value, err
}

func (s *Store) load(ctx context.Context, key string) ([]byte, time.Time, error) {
	key, err := clean(key)
	if err != nil {
		return nil, time.Time{}, err
	}
	b, modified, ok, err := s.kv.Get(ctx, key)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("load %s: %w", key, err)
	}
	if !ok {
		return nil, time.Time{}, &fs.PathError{Op: "load", Path: key, Err: fs.ErrNotExist}
	}
	if s.sealer == nil {
		return nil, time.Time{}, errSealed(key)
	}
	var sealed fleet.Sealed
	if err := fleet.DecodeStrict(b, &sealed); err != nil {
		return nil, time.Time{}, fleet.NewError(fleet.ErrCorrupt, "value", "acme storage: %s is not a sealed value: %v", key, err)
	}
	value, err := s.sealer.Open(sealed, keyring.StorageAAD(key))
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("open %s: %w", key, err)
	}
	return value, modified, nil
}

// Delete removes key and everything below it.
func (s *Store) Delete(ctx context.Context, key string) error {
	key, err := clean(key)
	if err != nil {
		return err
	}
	below, err := s.kv.List(ctx, key+"/")
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	for _, k := range append(below, key) {
		if err := s.kv.Delete(ctx, k); err != nil {
			return fmt.Errorf("delete %s: %w", k, err)
		}
	}
	return nil
}

// Exists reports whether there is a value at key or below it.
func (s *Store) Exists(ctx context.Context, key string) bool {
	key, err := clean(key)
	if err != nil {
		return false
	}
	if _, _, ok, err := s.kv.Get(ctx, key); err != nil || ok {
		return err == nil
	}
	below, err := s.kv.List(ctx, key+"/")
	return err == nil && len(below) > 0
}

// List returns what is below dir, sorted: its direct children, or with recursive everything, inner directories
// included. The error is fs.ErrNotExist if there is nothing.
func (s *Store) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	dir, err := clean(dir)
	if err != nil {
		return nil, err
	}
	prefix := dir + "/"
	if dir == "." {
		prefix = ""
	}
	keys, err := s.kv.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	if len(keys) == 0 {
		return nil, &fs.PathError{Op: "list", Path: dir, Err: fs.ErrNotExist}
	}
	var out []string
	for _, k := range keys {
		parts := strings.Split(strings.TrimPrefix(k, prefix), "/")
		depth := len(parts)
		if !recursive {
			depth = 1
		}
		for i := 1; i <= depth; i++ {
			out = append(out, prefix+strings.Join(parts[:i], "/"))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Stat describes key: a value with its size, or a directory.
func (s *Store) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	key, err := clean(key)
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	if _, _, ok, err := s.kv.Get(ctx, key); err == nil && !ok && s.Exists(ctx, key) {
		return certmagic.KeyInfo{Key: key}, nil
	}
	value, modified, err := s.load(ctx, key)
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	return certmagic.KeyInfo{Key: key, Modified: modified, Size: int64(len(value)), IsTerminal: true}, nil
}

// clean gives every key one spelling and keeps keys inside the store's own name space.
func clean(key string) (string, error) {
	c := strings.TrimPrefix(path.Clean("/"+key), "/")
	if c == "" {
		c = "."
	}
	if len(c) > MaxKeyBytes {
		return "", fleet.NewError(fleet.ErrTooLarge, "key", "acme storage: key of %d bytes; the limit is %d", len(c), MaxKeyBytes)
	}
	return c, nil
}

func errSealed(key string) error {
	return fleet.NewError(fleet.ErrSealed, "value", "acme storage: %s needs the key-encryption key, which this member does not have: install it and restart", key)
}
