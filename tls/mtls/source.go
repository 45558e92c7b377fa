package mtls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// checkEvery is how often a source looks whether its files were replaced.
	checkEvery = 5 * time.Second
	// pending is the suffix of a file that is complete but not yet in its place.
	pending = ".new"
)

// Source is an identity in a certificate file and a key file that may be replaced while it is in use.
type Source struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]

	mu      sync.Mutex // guards what follows
	checked time.Time
	seen    [2]os.FileInfo
}

// OpenSource reads the files, which must hold a matching pair.
func OpenSource(certFile, keyFile string) (*Source, error) {
	s := &Source{certFile: certFile, keyFile: keyFile}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Certificate is the current identity. At most every five seconds it looks for replaced files; when those cannot be
// used, the identity that it has stays.
func (s *Source) Certificate() *tls.Certificate {
	// Whoever finds the lock taken need not wait: another handshake is looking already.
	if s.mu.TryLock() {
		defer s.mu.Unlock()
		if now := time.Now(); now.Sub(s.checked) >= checkEvery {
			s.checked = now
			if s.replaced() {
				_ = s.load() // the files are half replaced or damaged: the last good identity serves, the next check tries again
			}
		}
	}
	return s.current.Load()
}

// Reload reads the files at once; after an error the identity is the one before.
func (s *Source) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checked = time.Now()
	return s.load()
}

func (s *Source) replaced() bool {
	for i, info := range s.stat() {
		old := s.seen[i]
		if info == nil || old == nil || !os.SameFile(info, old) || !info.ModTime().Equal(old.ModTime()) || info.Size() != old.Size() {
			return true
		}
	}
	return false
}

// stat leaves nil for a file that is not there.
func (s *Source) stat() (infos [2]os.FileInfo) {
	for i, f := range []string{s.certFile, s.keyFile} {
		if info, err := os.Stat(f); err == nil {
			infos[i] = info
		}
	}
	return infos
}

func (s *Source) load() error {
	seen := s.stat() // before reading: a replacement in between is found by the next check
	cert, err := loadPair(s.certFile, s.keyFile)
	if err != nil {
		return err
	}
	s.seen = seen
	s.current.Store(cert)
	return nil
}

// loadPair reads a matching pair. WriteIdentity moves the key first and the certificate second; if it was interrupted
// in between, the certificate is still in its pending file.
func loadPair(certFile, keyFile string) (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err == nil {
		return &cert, nil
	}
	if next, pendingErr := tls.LoadX509KeyPair(certFile+pending, keyFile); pendingErr == nil {
		return &next, nil
	}
	return nil, fmt.Errorf("read identity %s and %s: %w", certFile, keyFile, err)
}

// WriteIdentity replaces a certificate file and its key file, mode 0600. A crash at any moment leaves the old pair or
// the new one to be read. Only one process may write.
func WriteIdentity(certFile, keyFile string, certPEM, keyPEM []byte) error {
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return fleet.Invalid("identity", "the certificate and the key do not form a pair: %v", err)
	}
	if err := finish(certFile, keyFile); err != nil {
		return fmt.Errorf("finish interrupted write of %s: %w", certFile, err)
	}
	// Both files are on disk before the first moves.
	err := errors.Join(writeSynced(certFile+pending, certPEM), writeSynced(keyFile+pending, keyPEM))
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	if err := move(keyFile); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	if err := move(certFile); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return nil
}

// finish completes a write that was interrupted between its two moves.
func finish(certFile, keyFile string) error {
	if _, err := tls.LoadX509KeyPair(certFile+pending, keyFile); err != nil {
		return nil //nolint:nilerr // nothing was interrupted: there is no pending certificate for this key
	}
	return move(certFile)
}

func writeSynced(path string, b []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // a left-over file may have another mode
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// move puts a pending file in its place and syncs the directory.
func move(path string) error {
	if err := os.Rename(path+pending, path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
