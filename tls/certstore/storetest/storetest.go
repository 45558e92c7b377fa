// Package storetest holds the contract of certmagic.Storage as tests, for every backend that certstore runs over.
//
// It owns what certmagic's documentation promises to its callers, and nothing of what is particular to one backend.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// Run tests one, an empty storage, and another over the same backend, as another process has it.
func Run(t *testing.T, one, another certmagic.Storage) {
	t.Helper()
	t.Run("values", func(t *testing.T) { values(t, one, another) })
	t.Run("directories", func(t *testing.T) { directories(t, one) })
	t.Run("keys that are missing", func(t *testing.T) { missing(t, one) })
	t.Run("concurrent writers", func(t *testing.T) { concurrent(t, one, another) })
	t.Run("locks", func(t *testing.T) { locks(t, one, another) })
	t.Run("leases", func(t *testing.T) { leases(t, one, another) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func values(t *testing.T, one, another certmagic.Storage) {
	ctx := t.Context()
	for _, value := range []string{"first", "second", ""} {
		must(t, one.Store(ctx, "values/a", []byte(value)))
		for _, s := range []certmagic.Storage{one, another} {
			got, err := s.Load(ctx, "values/a")
			if err != nil || string(got) != value {
				t.Errorf("loaded %q, %v; stored %q", got, err, value)
			}
			info, err := s.Stat(ctx, "values/a")
			if err != nil || info.Key != "values/a" || !info.IsTerminal || info.Size != int64(len(value)) || info.Modified.IsZero() {
				t.Errorf("%+v, %v", info, err)
			}
		}
	}
	must(t, another.Delete(ctx, "values/a"))
	if one.Exists(ctx, "values/a") {
		t.Error("a deleted value exists")
	}
}

func directories(t *testing.T, s certmagic.Storage) {
	ctx := t.Context()
	for _, k := range []string{"d/a", "d/b/c", "d/b/d/e", "db"} {
		must(t, s.Store(ctx, k, []byte("v")))
	}
	for _, tt := range []struct {
		dir       string
		recursive bool
		want      []string
	}{
		{"d", false, []string{"d/a", "d/b"}},
		{"d", true, []string{"d/a", "d/b", "d/b/c", "d/b/d", "d/b/d/e"}},
		{"d/b", false, []string{"d/b/c", "d/b/d"}},
	} {
		got, err := s.List(ctx, tt.dir, tt.recursive)
		must(t, err)
		if slices.Sort(got); !slices.Equal(got, tt.want) {
			t.Errorf("list %s, recursive %v: %v, want %v", tt.dir, tt.recursive, got, tt.want)
		}
	}
	for key, want := range map[string]bool{"d": true, "d/b": true, "d/b/c": true, "d/": true, "d/c": false, "b": false} {
		if s.Exists(ctx, key) != want {
			t.Errorf("%s exists: %v", key, !want)
		}
	}
	if info, err := s.Stat(ctx, "d/b"); err != nil || info.IsTerminal {
		t.Errorf("a directory: %+v, %v", info, err)
	}
	must(t, s.Delete(ctx, "d/b"))
	got, err := s.List(ctx, "d", true)
	if err != nil || !slices.Equal(got, []string{"d/a"}) || !s.Exists(ctx, "db") {
		t.Errorf("after a directory was deleted: %v, %v", got, err)
	}
}

func missing(t *testing.T, s certmagic.Storage) {
	ctx := t.Context()
	_, load := s.Load(ctx, "missing/x")
	_, stat := s.Stat(ctx, "missing/x")
	_, list := s.List(ctx, "missing", true)
	for op, err := range map[string]error{"load": load, "stat": stat, "list": list} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", op, err)
		}
	}
	must(t, s.Delete(ctx, "missing/x"))
	if s.Exists(ctx, "missing/x") {
		t.Error("it exists")
	}
}

func concurrent(t *testing.T, one, another certmagic.Storage) {
	var wg sync.WaitGroup
	for i, s := range []certmagic.Storage{one, another, one, another} {
		wg.Go(func() {
			for n := range 5 {
				if err := s.Store(t.Context(), "concurrent/x", fmt.Appendf(nil, "%d of writer %d", n, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	a, err := one.Load(t.Context(), "concurrent/x")
	must(t, err)
	if b, err := another.Load(t.Context(), "concurrent/x"); err != nil || string(a) != string(b) || string(a[:13]) != "4 of writer "+string(a[12]) {
		t.Errorf("%q here, %q there, %v", a, b, err)
	}
}

func locks(t *testing.T, one, another certmagic.Storage) {
	ctx := t.Context()
	for _, second := range []certmagic.Storage{one, another} {
		must(t, one.Lock(ctx, "l"))
		must(t, second.Lock(ctx, "other"))
		must(t, second.Unlock(ctx, "other"))
		if try, ok := second.(certmagic.TryLocker); ok {
			if taken, err := try.TryLock(ctx, "l"); taken || err != nil {
				t.Errorf("a held lock was tried: %v, %v", taken, err)
			}
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		if err := second.Lock(short, "l"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting beyond the deadline: %v", err)
		}
		cancel()
		got := make(chan error, 1)
		go func() { got <- second.Lock(ctx, "l") }()
		ended, end := context.WithCancel(ctx)
		end()
		must(t, one.Unlock(ended, "l")) // a context that has ended is no reason to keep a lock
		must(t, <-got)
		must(t, second.Unlock(ctx, "l"))
		if err := second.Unlock(ctx, "l"); err == nil {
			t.Error("a free lock was unlocked")
		}
	}
	counter := 0
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			s := []certmagic.Storage{one, another}[i%2]
			if err := s.Lock(ctx, "n"); err != nil {
				t.Error(err)
				return
			}
			counter++ // the lock is what keeps it whole
			if err := s.Unlock(ctx, "n"); err != nil {
				t.Error(err)
			}
		})
	}
	if wg.Wait(); counter != 6 {
		t.Errorf("%d of 6", counter)
	}
}

func leases(t *testing.T, one, another certmagic.Storage) {
	r, ok := one.(certmagic.LockLeaseRenewer)
	if !ok {
		t.Fatal("this storage has no leases")
	}
	ctx := t.Context()
	must(t, one.Lock(ctx, "lease"))
	must(t, r.RenewLockLease(ctx, "lease", time.Minute))
	if err := another.(certmagic.LockLeaseRenewer).RenewLockLease(ctx, "lease", time.Minute); err == nil { //nolint:forcetypeassert // both are alike
		t.Error("somebody else renewed the lease")
	}
	must(t, one.Unlock(ctx, "lease"))
	if err := r.RenewLockLease(ctx, "lease", time.Minute); err == nil {
		t.Error("the lease of a free lock was renewed")
	}
}
