// Package identity keeps who an edge node is and whom it trusts, in the directory that its supervisor writes and its worker
// reads.
//
// It owns the four files (node.crt, node.key, hpke.key, trust.json; mode 0600 in a directory of mode 0700) and the keys of
// an enrolment or renewal under way. It asks nobody: package supervise enrols and renews. While a renewed file cannot be read, the last
// good identity stays in use.
package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

const (
	certFile  = "node.crt"
	keyFile   = "node.key"
	hpkeFile  = "hpke.key"
	trustFile = "trust.json"
	// enrolFile holds the key of an enrolment whose answer has not arrived: the next attempt asks with the same key.
	enrolFile = "enrol.key"
)

// maxFile bounds each file, in bytes.
const maxFile = 1 << 20

// Identity is an enrolled node's.
type Identity struct {
	// Trust is what enrolment answered, without the certificate.
	Trust fleet.EnrolResponse
	// Source is the certificate, which is renewed while the node runs.
	Source *mtls.Source
	// HPKE is the private key that opens key envelopes.
	HPKE []byte
	// Members and API verify the members' NATS and API servers.
	Members, API *x509.CertPool
	// HeadKeys verify heads.
	HeadKeys []ed25519.PublicKey
}

// Open reads the identity in dir; fs.ErrNotExist when the node has not enrolled yet.
func Open(dir string) (*Identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, trustFile))
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	var id Identity
	if err := json.Unmarshal(b, &id.Trust); err != nil {
		return nil, damaged(dir, trustFile, err)
	}
	if id.HPKE, err = os.ReadFile(filepath.Join(dir, hpkeFile)); err != nil {
		return nil, damaged(dir, hpkeFile, err)
	}
	if id.Source, err = mtls.OpenSource(filepath.Join(dir, certFile), filepath.Join(dir, keyFile)); err != nil {
		return nil, damaged(dir, certFile, err)
	}
	if err := id.trust(); err != nil {
		return nil, damaged(dir, trustFile, err)
	}
	return &id, nil
}

// trust checks and decodes what the node trusts.
func (id *Identity) trust() error {
	t := id.Trust
	if err := errors.Join(fleet.ValidateID("node", t.Node), fleet.ValidateID("group", t.Group), fleet.ValidateID("cluster", t.Cluster)); err != nil {
		return err
	}
	var err error
	if id.Members, err = mtls.PoolFromPEM([]byte(t.MemberCA)); err != nil {
		return fmt.Errorf("member CA: %w", err)
	}
	if id.API, err = mtls.PoolFromPEM([]byte(t.APICA)); err != nil {
		return fmt.Errorf("api CA: %w", err)
	}
	for _, k := range t.HeadKeys {
		if len(k) != ed25519.PublicKeySize {
			return fleet.Invalid("head_keys", "a head key of %d bytes", len(k))
		}
		id.HeadKeys = append(id.HeadKeys, ed25519.PublicKey(k))
	}
	if len(id.HeadKeys) == 0 {
		return fleet.Invalid("head_keys", "there is no key to verify heads with")
	}
	return nil
}

func damaged(dir, file string, err error) error {
	return fleet.NewError(fleet.ErrCorrupt, "identity", "%s is damaged: %v; restore it, or move %s away and enrol again with a new join token",
		filepath.Join(dir, file), err, dir)
}

// Keys are what a node proves itself with: the private key in PEM and the HPKE key pair.
type Keys struct {
	KeyPEM, HPKEPrivate, HPKEPublic []byte
}

// NewKeys makes the keys of a first enrolment, or returns those of an attempt that did not finish: if its answer was lost,
// the control plane sees the same key again.
func NewKeys(dir string) (Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Keys{}, fmt.Errorf("make identity directory: %w", err)
	}
	var stored Keys
	b, err := os.ReadFile(filepath.Join(dir, enrolFile))
	if err == nil && json.Unmarshal(b, &stored) == nil && keyring.ValidateHPKEKey(stored.HPKEPublic) == nil {
		return stored, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Keys{}, fmt.Errorf("read keys of enrolment: %w", err)
	}
	key, err := mtls.NewKey()
	if err != nil {
		return Keys{}, err
	}
	var k Keys
	if k.KeyPEM, err = mtls.EncodeKey(key); err != nil {
		return Keys{}, err
	}
	if k.HPKEPrivate, k.HPKEPublic, err = keyring.NewHPKEKey(); err != nil {
		return Keys{}, err
	}
	if b, err = json.Marshal(k); err != nil {
		return Keys{}, fmt.Errorf("encode keys of enrolment: %w", err)
	}
	return k, writeFile(dir, enrolFile, b)
}

// Save stores a new identity. The trust file comes last: until it is there the node counts as not enrolled.
func Save(dir string, k Keys, r fleet.EnrolResponse) error {
	if err := writeFile(dir, hpkeFile, k.HPKEPrivate); err != nil {
		return err
	}
	if err := Renew(dir, k.KeyPEM, r); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, enrolFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove keys of enrolment: %w", err)
	}
	return nil
}

// Renew replaces the certificate with its key, and what is trusted but for what enrolment pinned: whose heads are obeyed
// is changed by the recovery key, not by whoever answers renewals.
func Renew(dir string, keyPEM []byte, r fleet.EnrolResponse) error {
	if b, err := os.ReadFile(filepath.Join(dir, trustFile)); err == nil {
		var pinned fleet.EnrolResponse
		if json.Unmarshal(b, &pinned) == nil && len(pinned.RecoveryKey) > 0 {
			r.Incarnation, r.HeadKeys, r.RecoveryKey = pinned.Incarnation, pinned.HeadKeys, pinned.RecoveryKey
		}
	}
	check := Identity{Trust: r}
	if err := check.trust(); err != nil {
		return fmt.Errorf("answer of the control plane: %w", err)
	}
	if err := mtls.WriteIdentity(filepath.Join(dir, certFile), filepath.Join(dir, keyFile), []byte(r.Certificate), keyPEM); err != nil {
		return err
	}
	r.Certificate = ""
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encode trust: %w", err)
	}
	return errors.Join(writeFile(dir, trustFile, b), forgetNext(dir))
}

// writeFile replaces a file, mode 0600, so that a crash leaves the old content or the new.
func writeFile(dir, name string, b []byte) error {
	if len(b) > maxFile {
		return fleet.NewError(fleet.ErrTooLarge, name, "%s would have %d bytes; the limit is %d", name, len(b), maxFile)
	}
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, os.Remove(f.Name())))
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return errors.Join(d.Sync(), d.Close())
}
