package mtls_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// shows reports whether the source's identity is the certificate in PEM.
func shows(t *testing.T, s *mtls.Source, certPEM []byte) bool {
	t.Helper()
	return bytes.Equal(s.Certificate().Certificate[0], leaf(t, certPEM).Raw)
}

func TestReplacedFilesArePickedUp(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	synctest.Test(t, func(t *testing.T) {
		ca, now := newCA(t, "nodes"), time.Now()
		first := write(t, cert, key, node(ca, cluster, now))
		s := must[*mtls.Source](t)(mtls.OpenSource(cert, key))
		if !shows(t, s, first) {
			t.Fatal("not what was written")
		}
		second := write(t, cert, key, node(ca, cluster, now))
		if !shows(t, s, first) {
			t.Error("looked at the files at once: every handshake would")
		}
		time.Sleep(5 * time.Second)
		if !shows(t, s, second) {
			t.Error("the replaced files are not seen")
		}
		third := write(t, cert, key, node(ca, cluster, now))
		if err := s.Reload(); err != nil || !shows(t, s, third) {
			t.Errorf("reload: %v", err)
		}
	})
}

func TestLastGoodIdentityStaysWhileFilesAreBad(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	synctest.Test(t, func(t *testing.T) {
		ca, now := newCA(t, "nodes"), time.Now()
		first := write(t, cert, key, node(ca, cluster, now))
		s := must[*mtls.Source](t)(mtls.OpenSource(cert, key))
		for name, spoil := range map[string]func() error{
			"a damaged certificate": func() error { return os.WriteFile(cert, []byte("x"), 0o600) },
			"a missing key":         func() error { return os.Remove(key) },
		} {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			if !shows(t, s, first) {
				t.Errorf("%s: the identity is lost", name)
			}
			if err := s.Reload(); err == nil {
				t.Errorf("%s: nothing is said", name)
			}
		}
		second := write(t, cert, key, node(ca, cluster, now))
		time.Sleep(5 * time.Second)
		if !shows(t, s, second) {
			t.Error("the mended files are not seen")
		}
	})
}

// TestCrashWhileWriting leaves the files as a crash between any two steps of WriteIdentity does.
func TestCrashWhileWriting(t *testing.T) {
	ca, now := newCA(t, "nodes"), time.Now()
	for name, tc := range map[string]struct {
		moved []string // files that reached their place before the crash
		isNew bool
	}{
		"before the first move leaves the old identity": {nil, false},
		"between the moves leaves the new identity":     {[]string{"tls.key"}, true},
		"after the last move leaves the new identity":   {[]string{"tls.key", "tls.crt"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, next := t.TempDir(), t.TempDir()
			cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
			want := write(t, cert, key, node(ca, cluster, now))
			newer := write(t, filepath.Join(next, "tls.crt"), filepath.Join(next, "tls.key"), node(ca, cluster, now))
			if tc.isNew {
				want = newer
			}
			for _, f := range []string{"tls.crt", "tls.key"} {
				if err := os.Rename(filepath.Join(next, f), filepath.Join(dir, f+".new")); err != nil {
					t.Fatal(err)
				}
			}
			for _, f := range tc.moved {
				if err := os.Rename(filepath.Join(dir, f+".new"), filepath.Join(dir, f)); err != nil {
					t.Fatal(err)
				}
			}
			s := must[*mtls.Source](t)(mtls.OpenSource(cert, key))
			if !shows(t, s, want) {
				t.Error("the other identity is read")
			}
			// The next write completes and leaves no pending file, whatever the crash left.
			last := write(t, cert, key, node(ca, cluster, now))
			if s := must[*mtls.Source](t)(mtls.OpenSource(cert, key)); !shows(t, s, last) {
				t.Error("the next identity is not read")
			}
			if left := must[[]string](t)(filepath.Glob(filepath.Join(dir, "*.new"))); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestTwoCrashesInARow interrupts one write between its moves and the next one before its first move.
func TestTwoCrashesInARow(t *testing.T) {
	ca, now, dir := newCA(t, "nodes"), time.Now(), t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write(t, cert, key, node(ca, cluster, now))
	old := must[[]byte](t)(os.ReadFile(cert))
	want := write(t, cert, key, node(ca, cluster, now))
	if err := errors.Join(os.Rename(cert, cert+".new"), os.WriteFile(cert, old, 0o600)); err != nil {
		t.Fatal(err)
	}
	// A directory that is not empty stands where the next key would be written.
	if err := os.MkdirAll(filepath.Join(key+".new", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	k := newKey(t)
	next := must[[]byte](t)(ca.SignNode(cluster, "n1", k.Public(), now))
	if err := mtls.WriteIdentity(cert, key, next, must[[]byte](t)(mtls.EncodeKey(k))); err == nil {
		t.Fatal("the write was not interrupted")
	}
	if s := must[*mtls.Source](t)(mtls.OpenSource(cert, key)); !shows(t, s, want) {
		t.Error("the other identity is read")
	}
}

func TestIdentityFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if err := os.WriteFile(key+".new", []byte("left over"), 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, cert, key, node(newCA(t, "nodes"), cluster, time.Now()))
	for _, f := range []string{cert, key} {
		if info := must[os.FileInfo](t)(os.Stat(f)); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, info.Mode())
		}
	}
}

func TestIdentityThatIsNoPairIsNotWritten(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	ca := newCA(t, "nodes")
	certPEM := must[[]byte](t)(ca.SignNode(cluster, "n1", newKey(t).Public(), time.Now()))
	err := mtls.WriteIdentity(cert, key, certPEM, must[[]byte](t)(mtls.EncodeKey(newKey(t))))
	if !errors.Is(err, fleet.ErrInvalid) {
		t.Error(err)
	}
	if left := must[[]os.DirEntry](t)(os.ReadDir(dir)); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := mtls.OpenSource(cert, key); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent files: %v", err)
	}
}

func TestRunningServerShowsTheReplacedCertificate(t *testing.T) {
	ca, now, dir := newCA(t, "members"), time.Now(), t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write(t, cert, key, member(ca, cluster, now))
	src := must[*mtls.Source](t)(mtls.OpenSource(cert, key))
	serverTLS := mtls.ServerTLS(src, ca.Pool(), mtls.MembersOnly(cluster))
	client := mtls.ClientTLS(source(t, member(ca, cluster, now)), ca.Pool(), mtls.MemberServerName(cluster), mtls.MembersOnly(cluster))
	var seen [][]byte
	client.VerifyConnection = func(cs tls.ConnectionState) error {
		seen = append(seen, cs.PeerCertificates[0].Raw)
		return nil
	}
	for range 2 {
		if _, serverErr, clientErr := connect(t, serverTLS, client); errors.Join(serverErr, clientErr) != nil {
			t.Fatal(serverErr, clientErr)
		}
		want := leaf(t, write(t, cert, key, member(ca, cluster, now))).Raw
		if err := src.Reload(); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(seen[len(seen)-1], want) {
			t.Error("the certificate was shown before it was written")
		}
	}
	if len(seen) != 2 || bytes.Equal(seen[0], seen[1]) {
		t.Error("the second connection shows the first certificate")
	}
}
