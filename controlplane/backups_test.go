package controlplane_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
)

// bucket is a bucket of an S3 server that checks signatures.
func bucket(t *testing.T) controlplane.Backup {
	t.Helper()
	mem := s3mem.New()
	if err := mem.CreateBucket(t.Context(), "backups"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewTLSServer(gofakes3.New(mem, gofakes3.WithV4Auth(map[string]string{"key-id": "the-secret"})).Server())
	t.Cleanup(srv.Close)
	b := controlplane.Backup{
		To: "https://" + srv.Listener.Addr().String() + "/backups/prod", Region: "us-east-1", Every: time.Hour, Keep: 3,
		CAFile: filepath.Join(t.TempDir(), "ca.crt"), CredentialsFile: filepath.Join(t.TempDir(), "credentials"),
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := errors.Join(os.WriteFile(b.CAFile, ca, 0o600), os.WriteFile(b.CredentialsFile, []byte("key-id\nthe-secret\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return b
}

// backups waits until a member says what is asked for.
func (c *cluster) backups(what string, ok func(fleet.BackupStatus) bool) fleet.BackupStatus {
	c.t.Helper()
	var s fleet.BackupStatus
	c.await(what, func() bool {
		var err error
		s, err = client.Get[fleet.BackupStatus](c.t.Context(), c.client(), "/v1/cluster/backups", nil)
		return err == nil && ok(s)
	})
	return s
}

func TestTheLeaderMakesBackupsThatBringAClusterBack(t *testing.T) {
	if testing.Short() {
		t.Skip("starts four members")
	}
	t.Parallel()
	c := start(t, 1)
	c.addTenant("acme")
	c.backups("none are scheduled", func(s fleet.BackupStatus) bool { return s.To == "" && s.Member == "m1" })
	key, first := c.recoveryKey(), c.members[0].config
	inBucket := bucket(t)
	inDirectory := controlplane.Backup{To: "file://" + filepath.Join(t.TempDir(), "deep", "backups"), Every: time.Hour, Keep: 3}
	for name, place := range map[string]controlplane.Backup{"a bucket": inBucket, "a directory": inDirectory} {
		c.members[0].stop(t)
		c.members = nil
		first.Backup = place
		c.run(first)
		s := c.backups("a backup is in "+name, func(s fleet.BackupStatus) bool { return s.Last != nil })
		if s.To != place.To || s.Stale() != "" || s.Error != "" || len(s.Kept) != 1 || s.Kept[0] != *s.Last {
			t.Errorf("%s: %+v", name, s)
		}
	}
	c.members[0].stop(t)
	kek, err := os.ReadFile(c.kek)
	if err != nil {
		t.Fatal(err)
	}
	for name, place := range map[string]controlplane.Backup{"bucket": inBucket, "directory": inDirectory} {
		file := newest(t, place)
		if bytes.Contains(file, bytes.TrimSpace(kek)) || bytes.Contains(file, []byte("the-secret")) {
			t.Errorf("%s: the backup holds a key", name)
		}
		if e, err := snapshot.Verify(bytes.NewReader(file)); err != nil || e.Rows["tenants"] != 1 {
			t.Fatalf("%s: %+v, %v", name, e, err)
		}
		fresh := newConfig(t, "m7", c.kek)
		if _, err := controlplane.InitFromSnapshot(fresh, bytes.NewReader(file), controlplane.Rebirth{RecoveryKey: key, Now: time.Now()}); err != nil {
			t.Fatal(err)
		}
		c.members = nil
		r := c.run(fresh)
		if c.lead(); !c.has("acme") {
			t.Errorf("%s: what was acknowledged is not there", name)
		}
		r.stop(t)
	}
}

// newest reads the newest backup as an operator would who has nothing else: by its name.
func newest(t *testing.T, b controlplane.Backup) []byte {
	t.Helper()
	target, err := backup.Place{To: b.To, Region: b.Region, CredentialsFile: b.CredentialsFile, CAFile: b.CAFile}.Open()
	if err != nil {
		t.Fatal(err)
	}
	names, err := target.List(t.Context())
	if err != nil || len(names) != 1 || !strings.HasSuffix(names[0], ".snapshot") {
		t.Fatalf("%v, %v", names, err)
	}
	r, err := target.Get(t.Context(), names[0])
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := file.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	return file.Bytes()
}

func TestABackupIsNotWhatFillsTheDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a member")
	}
	t.Parallel()
	place := controlplane.Backup{To: "file://" + t.TempDir(), Every: time.Hour, Keep: 3}
	c := startWith(t, 1, func(first *controlplane.Config) {
		first.Backup = place
		if err := os.Mkdir(first.DataDir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", first.DataDir, "tmpfs", 0, "size=64m,mode=0700"); err != nil { // which a log may need
			t.Skipf("mounting a file system is not permitted here: %v", err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(first.DataDir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	})
	s := c.backups("the backup is refused", func(s fleet.BackupStatus) bool { return s.Error != "" || s.Last != nil })
	if s.Last != nil || !strings.Contains(s.Error, "MiB are free at "+c.members[0].config.DataDir) {
		t.Errorf("%+v", s)
	}
	c.addTenant("acme")
}
