package backup_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"

	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// source is a state with a cluster in it, and its KEK.
func source(t *testing.T) (backup.Source, *keyring.KEK) {
	t.Helper()
	kek, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	rec, err := keys.Generate("c1", "edge.example", kek, make([]byte, 32), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	rec.Incarnation = 1
	k, err := keys.Open(rec, kek)
	if err != nil {
		t.Fatal(err)
	}
	s := state.New()
	tx := s.Write()
	tx.PutCluster(rec)
	tx.PutTenant(fleet.Tenant{ID: "acme"})
	tx.SetIndex(77)
	tx.Commit()
	return backup.Source{View: s.Read(), Term: 3, Member: "m1", Keys: k, Now: time.Now()}, kek
}

func TestABackupIsLoadedBesideTheStateByItsKEKOnly(t *testing.T) {
	s, kek := source(t)
	var file bytes.Buffer
	e, err := backup.Write(&file, s)
	if err != nil {
		t.Fatal(err)
	}
	l, err := backup.Load(bytes.NewReader(file.Bytes()), kek)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := l.State.Read().Hash()
	want, wantErr := s.View.Hash()
	if err != nil || wantErr != nil || hash != want || hash != e.StateHash || l.Keys == nil || l.Envelope.Index != 77 || l.Envelope.Term != 3 {
		t.Errorf("%+v %s %s %v", l.Envelope, hash, want, err)
	}
	other, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Load(bytes.NewReader(file.Bytes()), other); !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "escrow") {
		t.Errorf("with another KEK: %v", err)
	}
	// A forged envelope has a right checksum, and no seal.
	forged := bytes.Replace(file.Bytes(), []byte(`"index":77`), []byte(`"index":78`), 1)
	fe, _, _ := bytes.Cut(forged, []byte("\n"))
	var env snapshot.Envelope
	if err := fleet.DecodeStrict(fe, &env); err != nil {
		t.Fatal(err)
	}
	forged = bytes.Replace(forged, []byte(env.SHA256), []byte(env.Digest()), 1)
	if _, err := backup.Load(bytes.NewReader(forged), kek); !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "forged") {
		t.Errorf("forged: %v", err)
	}
	if _, err := backup.Load(bytes.NewReader(file.Bytes()[:file.Len()-5]), kek); !errors.Is(err, fleet.ErrCorrupt) {
		t.Errorf("cut off: %v", err)
	}
	s.Keys = nil
	if _, err := backup.Write(io.Discard, s); !errors.Is(err, fleet.ErrSealed) {
		t.Errorf("without a KEK: %v", err)
	}
}

// service is an S3 server with one bucket; it checks signatures.
type service struct {
	host, ca, creds string
}

func serve(t *testing.T) service {
	t.Helper()
	mem := s3mem.New()
	if err := mem.CreateBucket(t.Context(), "backups"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewTLSServer(gofakes3.New(mem, gofakes3.WithV4Auth(map[string]string{"key-id": "the-secret"})).Server())
	t.Cleanup(srv.Close)
	s := service{srv.Listener.Addr().String(), filepath.Join(t.TempDir(), "ca.crt"), filepath.Join(t.TempDir(), "credentials")}
	write(t, s.ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	s.secret(t, "the-secret")
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s service) secret(t *testing.T, secret string) {
	t.Helper()
	write(t, s.creds, "key-id\n"+secret+"\n")
}

func (s service) open(t *testing.T) backup.Target {
	t.Helper()
	target, err := backup.Place{To: "https://" + s.host + "/backups/edge/prod/", Region: "us-east-1", CredentialsFile: s.creds, CAFile: s.ca}.Open()
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func TestATargetKeepsWhatItWasGiven(t *testing.T) {
	for name, target := range map[string]backup.Target{
		"a directory": backup.Directory(filepath.Join(t.TempDir(), "deep", "backups")), "a bucket": serve(t).open(t),
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if names, err := target.List(ctx); err != nil || len(names) != 0 {
				t.Fatalf("%v, %v", names, err)
			}
			content := strings.Repeat("backup ", 1<<17)
			for _, n := range []string{"b", "a"} {
				if err := target.Put(ctx, n, strings.NewReader(content), int64(len(content))); err != nil {
					t.Fatal(err)
				}
			}
			if names, err := target.List(ctx); err != nil || !cmp.Equal(names, []string{"a", "b"}) {
				t.Errorf("%v, %v", names, err)
			}
			r, err := target.Get(ctx, "a")
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err = errors.Join(err, r.Close()); err != nil || string(got) != content {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			for range 2 { // what is not there is left alone
				if err := target.Delete(ctx, "a"); err != nil {
					t.Error(err)
				}
			}
			if names, err := target.List(ctx); err != nil || !cmp.Equal(names, []string{"b"}) {
				t.Errorf("%v, %v", names, err)
			}
			broken := io.MultiReader(strings.NewReader("half"), brokenReader{})
			if err := target.Put(ctx, "c", broken, 1000); err == nil {
				t.Error("half a backup is stored")
			}
			if names, err := target.List(ctx); err != nil || !cmp.Equal(names, []string{"b"}) {
				t.Errorf("after half a backup: %v, %v", names, err)
			}
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

func TestABucketWithAnotherSecretRefusesAndNothingTellsIt(t *testing.T) {
	s := serve(t)
	target := s.open(t)
	s.secret(t, "wrong-secret")
	err := target.Put(t.Context(), "a", strings.NewReader("x"), 1)
	if !errors.Is(err, fleet.ErrUnavailable) || strings.Contains(err.Error(), "wrong-secret") || !strings.Contains(err.Error(), "backups") {
		t.Errorf("%v", err)
	}
	if _, err := target.List(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	s.secret(t, "the-secret") // a new one takes effect without a restart
	if err := target.Put(t.Context(), "a", strings.NewReader("x"), 1); err != nil {
		t.Error(err)
	}
	stranger := backup.Place{To: "https://" + s.host + "/backups", Region: "us-east-1", CredentialsFile: s.creds}
	target, err = stranger.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := target.List(t.Context()); !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a service whose authority is not trusted: %v", err)
	}
}

func TestAPlaceIsCheckedWithoutShowingItsKeys(t *testing.T) {
	dir := t.TempDir()
	creds := filepath.Join(dir, "creds")
	write(t, creds, "key-id\ntop-secret\n")
	odd := filepath.Join(dir, "odd")
	write(t, odd, "key-id top-secret more")
	for _, good := range []backup.Place{
		{To: "file:///var/backups"}, {To: "s3://bucket/a/b", Region: "eu-central-1", CredentialsFile: creds}, {To: "https://s3.example.net:9000/bucket", CredentialsFile: creds},
	} {
		if _, err := good.Open(); err != nil || good.Validate() != nil {
			t.Errorf("%s: %v", good.To, err)
		}
	}
	for _, bad := range []backup.Place{
		{},
		{To: "file:///"},
		{To: "file://host/x"},
		{To: "/var/backups"},
		{To: "s3://bucket", CredentialsFile: creds},
		{To: "s3://bucket", Region: "x"},
		{To: "http://s3.example.net/bucket", CredentialsFile: creds},
		{To: "https://s3.example.net/", CredentialsFile: creds},
		{To: "https://key:top-secret@s3.example.net/b", CredentialsFile: creds},
	} {
		err := bad.Validate()
		if !errors.Is(err, fleet.ErrInvalid) || strings.Contains(err.Error(), "top-secret") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	var e *fleet.Error
	if _, err := (backup.Place{To: "https://s3.example.net/b", CredentialsFile: creds, CAFile: odd}).Open(); !errors.As(err, &e) || e.Field != "backup.ca_file" {
		t.Error(err)
	}
	if _, err := (backup.Place{To: "https://s3.example.net/b", CredentialsFile: odd}).Retrieve(); !errors.Is(err, fleet.ErrInvalid) || strings.Contains(err.Error(), "top-secret") {
		t.Errorf("%v", err)
	}
}

// flaky fails while away.
type flaky struct {
	backup.Target
	away atomic.Bool
}

func (f *flaky) List(ctx context.Context) ([]string, error) {
	if f.away.Load() {
		return nil, errors.New("no route to the bucket")
	}
	return f.Target.List(ctx)
}

func TestTheLoopMakesBackupsOnTimeAndKeepsTheNewest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backups")
	scratch := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		target := &flaky{Target: backup.Directory(dir)}
		tel := observability.Discard()
		var index atomic.Uint64
		newLoop := func() *backup.Loop {
			return backup.NewLoop(backup.LoopOptions{
				Target: target, To: "file://" + dir, Member: "m1", Cluster: "c1", Every: time.Hour, Keep: 3, Scratch: scratch, Telemetry: tel, Now: time.Now,
				Take: numbered(&index),
			})
		}
		lead := func() (*backup.Loop, func()) {
			l := newLoop()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- l.Run(ctx) }()
			return l, func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		if err := target.Put(t.Context(), "edgefleet-c2-20261105T120000Z-000000000001.snapshot", strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
		l, stop := lead()
		time.Sleep(time.Second)
		if kept, err := l.Kept(t.Context()); err != nil || len(kept) != 1 || index.Load() != 1 {
			t.Fatalf("at the start: %v, %v", kept, err)
		}
		time.Sleep(30 * time.Minute)
		stop()
		l, stop = lead() // a new leader goes on where the one before stopped
		time.Sleep(20 * time.Minute)
		if index.Load() != 1 {
			t.Errorf("%d backups in the first hour", index.Load())
		}
		time.Sleep(10*time.Hour + 20*time.Minute)
		kept, err := l.Kept(t.Context())
		if err != nil || len(kept) != 3 || index.Load() != 12 {
			t.Errorf("%d backups were made, %v are kept: %v", index.Load(), kept, err)
		}
		b, r, err := l.Newest(t.Context())
		if err != nil || b.Index != 12 {
			t.Fatalf("%+v, %v", b, err)
		}
		if e, err := snapshot.Verify(r); err != nil || e.Index != 12 {
			t.Errorf("%+v, %v", e, err)
		}
		_ = r.Close()
		if c, st := l.Check(), l.Status(); c.State != fleet.CheckOK || st.Stale() != "" || !cmp.Equal(st.Kept, kept) || st.Last == nil || st.Last.Name != b.Name || st.AgeSeconds != 601 {
			t.Errorf("%+v, %+v", c, st)
		}
		target.away.Store(true)
		time.Sleep(time.Hour)
		if c := l.Check(); c.State != fleet.CheckWarn || tel.Health.Degraded()["backup"] == "" {
			t.Errorf("%+v", c)
		}
		time.Sleep(3 * time.Hour)
		if c, st := l.Check(), l.Status(); c.State != fleet.CheckFail || !strings.Contains(c.Detail, "no route") || !strings.Contains(st.Error, "no route") || st.Stale() == "" || len(tel.Health.Ready()) != 0 {
			t.Errorf("%+v, %+v", c, st)
		}
		target.away.Store(false)
		time.Sleep(2 * time.Minute)
		if c := l.Check(); c.State != fleet.CheckOK || index.Load() != 13 || len(tel.Health.Degraded()) != 0 {
			t.Errorf("%+v after %d", c, index.Load())
		}
		stop()
		if c, st := l.Check(), l.Status(); c.State != fleet.CheckOK || st.Last != nil {
			t.Errorf("one that does not lead: %+v %+v", c, st)
		}
		if all, err := target.List(t.Context()); err != nil || len(all) != 4 {
			t.Errorf("another cluster's backups are not ours to delete: %v, %v", all, err)
		}
		if left, err := os.ReadDir(scratch); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
}

func TestABackupOfTheFutureKeepsNoneFromBeingMade(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		target := backup.Directory(dir)
		for _, name := range []string{"edgefleet-c1-20990101T000000Z-000000000009.snapshot", "edgefleet-c1-odd.snapshot", "notes.txt", "edgefleet-c1-20991301T000000Z-000000000009.snapshot"} {
			if err := target.Put(t.Context(), name, strings.NewReader("x"), 1); err != nil {
				t.Fatal(err)
			}
		}
		var made atomic.Uint64
		l, stop := running(t, target, 10, t.TempDir(), &made)
		time.Sleep(2*time.Hour + time.Minute)
		if st := l.Status(); made.Load() != 3 || st.Last == nil || st.Last.Index != 3 || len(st.Kept) != 4 {
			t.Errorf("%d made, %+v", made.Load(), st)
		}
		if i, err := opens(t, l); err != nil || i != 3 {
			t.Errorf("%d, %v", i, err)
		}
		stop()
	})
}
