package controlplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// membership says which cluster a data directory belongs to; it is written last, so that a directory without it is
// not a member's.
type membership struct {
	Cluster  fleet.ClusterID `json:"cluster"`
	Member   fleet.MemberID  `json:"member"`
	Zone     fleet.HostName  `json:"zone"`
	MemberCA string          `json:"member_ca"`
	NodeCA   string          `json:"node_ca"`
	APICA    string          `json:"api_ca"`
	// Peers are API addresses to announce this member at until it is a voter; empty for the one that ran init.
	Peers []string `json:"peers,omitempty"`
}

// requireEmpty refuses to make an identity over anything; existed says that there is an empty directory.
func (c Config) requireEmpty(command string) (existed bool, err error) {
	if err := c.checkOwner(); err != nil {
		return true, err
	}
	if m, err := c.membership(); err == nil {
		return true, fleet.NewError(fleet.ErrConflict, "data_dir", "%s holds member %s of cluster %s already: start it with 'controlplane run', or give another data_dir to %s", c.DataDir, m.Member, m.Cluster, command)
	}
	switch ok, err := c.empty(); {
	case err != nil:
		return true, err
	case !ok:
		return true, fleet.NewError(fleet.ErrConflict, "data_dir", "%s is not empty: %s needs an empty directory; move what is there aside first", c.DataDir, command)
	}
	_, err = os.Stat(c.DataDir)
	existed = err == nil
	if err := os.MkdirAll(c.path(dirIdentity), 0o700); err != nil {
		return existed, fleet.Invalid("data_dir", "data_dir: cannot make %s: %v", c.DataDir, err)
	}
	return existed, nil
}

// discard undoes a failed init or join: the directory is as empty, or as missing, as it was before.
func (c Config) discard(existed bool) error {
	if !existed {
		return os.RemoveAll(c.DataDir)
	}
	entries, err := os.ReadDir(c.DataDir) // itself it may be a mount, or in a directory that is not ours
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(c.path(e.Name())))
	}
	return err
}

func (c Config) membership() (membership, error) {
	b, err := os.ReadFile(c.path(fileCluster))
	if errors.Is(err, os.ErrNotExist) {
		return membership{}, fleet.NewError(fleet.ErrNotFound, "data_dir", "%s holds no member: run 'controlplane init' on the first host, or 'controlplane join' on the others", c.DataDir)
	}
	if err != nil {
		return membership{}, fmt.Errorf("read %s: %w", fileCluster, err)
	}
	var m membership
	if err := fleet.DecodeStrict(b, &m); err != nil {
		return m, fleet.NewError(fleet.ErrCorrupt, "data_dir", "%s is damaged (%v): move %s aside and join again", c.path(fileCluster), err, c.DataDir)
	}
	if m.Member != c.Member {
		return m, fleet.NewError(fleet.ErrConflict, "member", "%s belongs to member %s, but the configuration says %s: correct member or data_dir", c.DataDir, m.Member, c.Member)
	}
	if c.ClusterZone != "" && m.Zone != c.ClusterZone {
		return m, fleet.NewError(fleet.ErrConflict, "cluster_zone", "%s belongs to a cluster with the zone %s, but the configuration says %s: correct cluster_zone or data_dir", c.DataDir, m.Zone, c.ClusterZone)
	}
	return m, nil
}

func (c Config) save(m membership) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", fileCluster, err)
	}
	for name, pem := range map[string]string{"api-ca.crt": m.APICA, "member-ca.crt": m.MemberCA, "node-ca.crt": m.NodeCA} {
		if err := writeFile(c.path(name), []byte(pem), 0o644); err != nil {
			return err
		}
	}
	return writeFile(c.path(fileCluster), b, 0o600)
}

// writeFile writes a file durably: it is there whole or not at all.
func writeFile(path string, b []byte, mode os.FileMode) error {
	tmp, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// trust are the pools and sources that a running member uses.
type trust struct {
	membership
	source              *mtls.Source
	apiSource           *mtls.Source
	memberCA, clientCAs *x509.CertPool
	apiCA               *x509.CertPool
}

func (c Config) trust(m membership) (trust, error) {
	t := trust{membership: m}
	var err error
	if t.source, err = mtls.OpenSource(c.certFile("member"), c.keyFile("member")); err != nil {
		return t, fmt.Errorf("open member identity: %w", err)
	}
	if t.apiSource, err = mtls.OpenSource(c.certFile("api"), c.keyFile("api")); err != nil {
		return t, fmt.Errorf("open API certificate: %w", err)
	}
	if t.memberCA, err = mtls.PoolFromPEM([]byte(m.MemberCA)); err != nil {
		return t, fmt.Errorf("member CA: %w", err)
	}
	if t.clientCAs, err = mtls.PoolFromPEM([]byte(m.MemberCA), []byte(m.NodeCA)); err != nil {
		return t, fmt.Errorf("client CAs: %w", err)
	}
	if t.apiCA, err = mtls.PoolFromPEM([]byte(m.APICA)); err != nil {
		return t, fmt.Errorf("API CA: %w", err)
	}
	return t, t.checkMember()
}

// checkMember refuses a certificate that is not this member's in this cluster.
func (t trust) checkMember() error {
	leaf := t.source.Certificate().Leaf
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: t.memberCA, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return fleet.NewError(fleet.ErrDenied, "data_dir", "the member certificate is not of cluster %s (%v): join again with a new token", t.Cluster, err)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != fleet.MemberSPIFFE(t.Cluster, t.Member) {
		return fleet.NewError(fleet.ErrDenied, "data_dir", "the member certificate is not of member %s: join again with a new token", t.Member)
	}
	return nil
}

// newKey makes a key and its CSR.
func newKey() (key *ecdsa.PrivateKey, keyPEM, csr []byte, err error) {
	if key, err = mtls.NewKey(); err != nil {
		return nil, nil, nil, err
	}
	if keyPEM, err = mtls.EncodeKey(key); err != nil {
		return nil, nil, nil, err
	}
	csr, err = mtls.CSR(key)
	return key, keyPEM, csr, err
}

// kek loads the key-encryption key; nil without one.
func (c Config) kek() (*keyring.KEK, error) {
	if c.KEKFile == "" {
		return nil, nil
	}
	k, err := newPatient(c.provider(), kekTimeout).load(context.Background())
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, fleet.ErrNotFound) {
		return nil, nil
	}
	return k, err
}
