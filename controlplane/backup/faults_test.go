package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
	"github.com/edgefleet/edgefleet/observability"
)

// numbered takes snapshots that are numbered by n.
func numbered(n *atomic.Uint64) func(context.Context, io.Writer) (snapshot.Envelope, error) {
	return func(_ context.Context, w io.Writer) (snapshot.Envelope, error) {
		i := n.Add(1)
		return snapshot.Write(w, snapshot.Envelope{Cluster: "c1", Index: i, Time: time.Now().UTC(), Member: "m1"},
			func(string) (fleet.Sealed, error) { return fleet.Sealed{}, nil },
			func(w io.Writer) error { _, err := fmt.Fprintln(w, i); return err })
	}
}

// running makes a backup of n every hour, and returns what ends it.
func running(t *testing.T, target backup.Target, keep int, scratch string, n *atomic.Uint64) (*backup.Loop, func()) {
	t.Helper()
	l := backup.NewLoop(backup.LoopOptions{
		Target: target, To: "the place", Member: "m1", Cluster: "c1", Every: time.Hour, Keep: keep, Scratch: scratch, Telemetry: observability.Discard(), Now: time.Now, Take: numbered(n),
	})
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

// opens reads the newest backup to its end.
func opens(t *testing.T, l *backup.Loop) (uint64, error) {
	t.Helper()
	_, r, err := l.Newest(t.Context())
	if err != nil {
		return 0, err
	}
	e, err := snapshot.Verify(r)
	return e.Index, errors.Join(err, r.Close())
}

// cutting says that it stored all, and stores half.
type cutting struct {
	backup.Target
	on atomic.Bool
}

func (c *cutting) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	if c.on.Load() {
		r, size = io.LimitReader(r, size/2), size/2
	}
	return c.Target.Put(ctx, name, r, size)
}

func TestABackupThatCannotBeReadBackReplacesNoGoodOne(t *testing.T) {
	dir, scratch := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Uint64
		target := &cutting{Target: backup.Directory(dir)}
		l, stop := running(t, target, 1, scratch, &n)
		time.Sleep(time.Minute)
		target.on.Store(true)
		time.Sleep(90 * time.Minute)
		if i, err := opens(t, l); err != nil || i != 1 {
			t.Errorf("the only good backup is gone: %d, %v", i, err)
		}
		if st := l.Status(); st.Last == nil || st.Last.Index != 1 || !strings.Contains(st.Error, "read backup") || len(st.Kept) != 1 {
			t.Errorf("%+v", st)
		}
		target.on.Store(false)
		time.Sleep(2 * time.Minute)
		if st, made := l.Status(), n.Load(); st.Error != "" || st.Last == nil || st.Last.Index != made || len(st.Kept) != 1 {
			t.Errorf("%+v after %d", st, made)
		}
		stop()
	})
}

func TestANewLeaderDoesNotTrustABackupThatIsDamaged(t *testing.T) {
	dir, scratch := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		target := backup.Directory(dir)
		var n atomic.Uint64
		n.Store(4)
		var file bytes.Buffer
		e, err := numbered(&n)(t.Context(), &file)
		if err != nil {
			t.Fatal(err)
		}
		name := "edgefleet-c1-" + e.Time.Format("20060102T150405Z") + "-000000000005.snapshot"
		if err := target.Put(t.Context(), name, io.LimitReader(&file, 100), 100); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		l, stop := running(t, target, 3, scratch, &n)
		time.Sleep(time.Minute)
		if i, err := opens(t, l); err != nil || i != 6 {
			t.Errorf("the newest is %d: %v", i, err)
		}
		stop()
	})
}

func TestBackupsOfTheFutureAreNotKeptInPlaceOfNewOnes(t *testing.T) {
	dir, scratch := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		target := backup.Directory(dir)
		for i := range 3 { // by a leader whose clock was wrong for three hours
			if err := target.Put(t.Context(), fmt.Sprintf("edgefleet-c1-20990101T0%d0000Z-%012d.snapshot", i, i), strings.NewReader("x"), 1); err != nil {
				t.Fatal(err)
			}
		}
		var n atomic.Uint64
		l, stop := running(t, target, 3, scratch, &n)
		time.Sleep(4*time.Hour + time.Minute)
		st := l.Status()
		var kept []uint64
		for _, b := range st.Kept {
			kept = append(kept, b.Index)
		}
		if got := fmt.Sprint(kept); got != "[3 4 5]" || st.Error != "" {
			t.Errorf("kept %s: %s", got, st.Error)
		}
		if i, err := opens(t, l); err != nil || i != 5 {
			t.Errorf("the newest is %d: %v", i, err)
		}
		stop()
	})
}

// A file system whose server is gone answers nothing and cannot be interrupted, as a pipe that nobody writes to.
func TestADirectoryThatHangsHoldsNobodyUp(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "a"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		r, err := backup.Directory(dir).Get(ctx, "a")
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			err = errors.Join(err, r.Close())
		}
		ended <- err
	}()
	t.Cleanup(func() { // whoever still waits goes on
		if fd, err := syscall.Open(filepath.Join(dir, "a"), syscall.O_RDWR, 0); err == nil {
			_ = syscall.Close(fd)
		}
	})
	select {
	case err := <-ended:
		if !errors.Is(err, fleet.ErrTimeout) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("reading a directory that hangs cannot be given up")
	}
}

func TestCredentialsThatAreAwayAreLookedForAgain(t *testing.T) {
	s := serve(t)
	creds := filepath.Join(t.TempDir(), "later")
	target, err := backup.Place{To: "https://" + s.host + "/backups", Region: "us-east-1", CredentialsFile: creds, CAFile: s.ca}.Open()
	if err != nil {
		t.Fatalf("a member would not start: %v", err)
	}
	if _, err := target.List(t.Context()); err == nil || !strings.Contains(err.Error(), creds) {
		t.Errorf("%v", err)
	}
	write(t, creds, "key-id\nthe-secret\n")
	if _, err := target.List(t.Context()); err != nil {
		t.Error(err)
	}
}
