package certstore_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/certstore"
	"github.com/edgefleet/edgefleet/tls/certstore/storetest"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// memory is a backend whose contents and failures the tests see.
type memory struct {
	mu   sync.Mutex
	m    map[string][]byte
	at   time.Time
	fail error

	locks map[string]fleet.StorageLock
}

func (k *memory) TakeLock(_ context.Context, name, holder string, lease time.Duration) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l, ok := k.locks[name]; ok && l.Holder != holder && l.Until.After(time.Now()) {
		return false, k.fail
	}
	if k.locks == nil {
		k.locks = map[string]fleet.StorageLock{}
	}
	k.locks[name] = fleet.StorageLock{Name: name, Holder: holder, Until: time.Now().Add(lease)}
	return k.fail == nil, k.fail
}

func (k *memory) ReleaseLock(_ context.Context, name, holder string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.locks[name].Holder != holder {
		return fleet.ErrConflict
	}
	delete(k.locks, name)
	return k.fail
}

func (k *memory) Get(_ context.Context, key string) ([]byte, time.Time, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.m[key]
	return v, k.at, ok, k.fail
}

func (k *memory) Put(_ context.Context, key string, value []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail == nil {
		k.m[key] = value
	}
	return k.fail
}

func (k *memory) Delete(_ context.Context, key string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail == nil {
		delete(k.m, key)
	}
	return k.fail
}

func (k *memory) List(_ context.Context, prefix string) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var keys []string
	for key := range maps.Keys(k.m) {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys, k.fail
}

func newStore(t *testing.T) (*certstore.Store, *memory) {
	t.Helper()
	kek, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	kv := &memory{m: map[string][]byte{}, at: time.Unix(1_800_000_000, 0)}
	return certstore.New(kv, kek), kv
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStoredValuesAreSealedAndLoadedBack(t *testing.T) {
	s, kv := newStore(t)
	secret := []byte("-----BEGIN EC PRIVATE KEY-----")
	must(t, s.Store(t.Context(), "acme/ca/users/a/a.key", secret))
	got, err := s.Load(t.Context(), "/acme/ca//users/a/a.key")
	must(t, err)
	if !bytes.Equal(got, secret) {
		t.Errorf("loaded %q", got)
	}
	if raw := kv.m["acme/ca/users/a/a.key"]; len(raw) == 0 || bytes.Contains(raw, secret) {
		t.Errorf("the store holds %q", raw)
	}
	must(t, s.Store(t.Context(), "acme/ca/users/a/a.key", []byte("two")))
	if got, err = s.Load(t.Context(), "acme/ca/users/a/a.key"); err != nil || string(got) != "two" {
		t.Errorf("after overwriting: %q, %v", got, err)
	}
}

func TestAValueMovedToAnotherKeyDoesNotOpen(t *testing.T) {
	s, kv := newStore(t)
	must(t, s.Store(t.Context(), "a", []byte("x")))
	kv.m["b"] = kv.m["a"]
	if _, err := s.Load(t.Context(), "b"); !errors.Is(err, fleet.ErrCorrupt) {
		t.Errorf("moved value: %v", err)
	}
	kv.m["c"] = []byte("{")
	if _, err := s.Load(t.Context(), "c"); !errors.Is(err, fleet.ErrCorrupt) {
		t.Errorf("broken value: %v", err)
	}
}

func TestContractOfDirectories(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	for _, k := range []string{"acme/ca/users/x/x.json", "acme/ca/users/x/x.key", "acme/ca/users/y/y.key", "acme/ca2/z"} {
		must(t, s.Store(ctx, k, []byte("v")))
	}
	list := func(dir string, recursive bool) []string {
		got, err := s.List(ctx, dir, recursive)
		must(t, err)
		return got
	}
	if d := cmp.Diff([]string{"acme/ca/users/x", "acme/ca/users/y"}, list("acme/ca/users", false)); d != "" {
		t.Error(d)
	}
	want := []string{"acme/ca/users/x", "acme/ca/users/x/x.json", "acme/ca/users/x/x.key", "acme/ca/users/y", "acme/ca/users/y/y.key"}
	if d := cmp.Diff(want, list("acme/ca/users/", true)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"acme"}, list("", false)); d != "" {
		t.Error(d)
	}
	got := map[string]bool{}
	for _, k := range []string{"acme/ca", "acme/c", "acme/ca/users/x/x.key", "nothing"} {
		got[k] = s.Exists(ctx, k)
	}
	if d := cmp.Diff(map[string]bool{"acme/ca": true, "acme/c": false, "acme/ca/users/x/x.key": true, "nothing": false}, got); d != "" {
		t.Error(d)
	}

	must(t, s.Delete(ctx, "acme/ca"))
	must(t, s.Delete(ctx, "acme/ca"))
	if d := cmp.Diff([]string{"acme", "acme/ca2", "acme/ca2/z"}, list("", true)); d != "" {
		t.Error("deleting a directory deletes what is below it and nothing else:", d)
	}
}

func TestStat(t *testing.T) {
	s, kv := newStore(t)
	must(t, s.Store(t.Context(), "d/f", []byte("12345")))
	f, err := s.Stat(t.Context(), "d/f")
	if err != nil || f.Key != "d/f" || f.Size != 5 || !f.IsTerminal || !f.Modified.Equal(kv.at) {
		t.Errorf("file: %+v, %v", f, err)
	}
	d, err := s.Stat(t.Context(), "d")
	if err != nil || d.Key != "d" || d.IsTerminal {
		t.Errorf("directory: %+v, %v", d, err)
	}
}

func TestMissingKeysAreErrNotExist(t *testing.T) {
	s, _ := newStore(t)
	_, loadErr := s.Load(t.Context(), "no")
	_, statErr := s.Stat(t.Context(), "no")
	_, listErr := s.List(t.Context(), "no", true)
	for name, err := range map[string]error{"load": loadErr, "stat": statErr, "list": listErr} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsOfTheStoreAreHandedThrough(t *testing.T) {
	s, kv := newStore(t)
	must(t, s.Store(t.Context(), "k", []byte("v")))
	kv.fail = fleet.ErrUnavailable
	_, loadErr := s.Load(t.Context(), "k")
	_, listErr := s.List(t.Context(), "k", true)
	for name, err := range map[string]error{"store": s.Store(t.Context(), "k", nil), "load": loadErr, "delete": s.Delete(t.Context(), "k"), "list": listErr} {
		if !errors.Is(err, fleet.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Exists(t.Context(), "k") {
		t.Error("exists although the store cannot say")
	}
}

func TestWithoutTheKeyEncryptionKeyNothingIsStored(t *testing.T) {
	full, kv := newStore(t)
	must(t, full.Store(t.Context(), "k", []byte("v")))
	s := certstore.New(kv, nil)
	_, loadErr := s.Load(t.Context(), "k")
	for name, err := range map[string]error{"store": s.Store(t.Context(), "n", []byte("v")), "load": loadErr} {
		if !errors.Is(err, fleet.ErrSealed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(kv.m) != 1 {
		t.Error("something was stored unsealed")
	}
}

func TestLimits(t *testing.T) {
	s, _ := newStore(t)
	for name, err := range map[string]error{
		"key":   s.Store(t.Context(), strings.Repeat("k", certstore.MaxKeyBytes+1), nil),
		"value": s.Store(t.Context(), "k", make([]byte, certstore.MaxValueBytes+1)),
	} {
		if !errors.Is(err, fleet.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLocksExcludeAndHonourTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newStore(t)
		ctx := t.Context()
		must(t, s.Lock(ctx, "a"))
		must(t, s.Lock(ctx, "b"))

		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := s.Lock(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting beyond the deadline: %v", err)
		}

		got := make(chan error, 1)
		go func() { got <- s.Lock(ctx, "a") }()
		synctest.Wait()
		select {
		case err := <-got:
			t.Fatalf("a held lock was given twice: %v", err)
		default:
		}
		must(t, s.Unlock(ctx, "a"))
		must(t, <-got)
		must(t, s.Unlock(ctx, "a"))
		if err := s.Unlock(ctx, "a"); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("unlocking a free lock: %v", err)
		}
	})
}

func TestLockUnderContention(t *testing.T) {
	s, _ := newStore(t)
	var wg sync.WaitGroup
	counter := 0
	for range 50 {
		wg.Go(func() {
			if err := s.Lock(t.Context(), "n"); err != nil {
				t.Error(err)
				return
			}
			counter++
			if err := s.Unlock(t.Context(), "n"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if counter != 50 {
		t.Errorf("%d of 50", counter)
	}
}

func TestTheContractOfStorage(t *testing.T) {
	_, kv := newStore(t)
	kek, err := keyring.NewKEK()
	must(t, err)
	one, another := certstore.New(kv, kek), certstore.New(kv, kek)
	storetest.Run(t, one, another)
}

func TestALockIsHeldByRenewalAndFreeOnceItsHolderIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, kv := newStore(t)
		another := certstore.New(kv, nil)
		alive, die := context.WithCancel(t.Context())
		must(t, one.Lock(alive, "a"))
		time.Sleep(10 * time.Minute)
		if taken, err := another.TryLock(t.Context(), "a"); taken || err != nil {
			t.Fatalf("a lock whose holder lives: %v, %v", taken, err)
		}
		die()
		began := time.Now()
		must(t, another.Lock(t.Context(), "a"))
		if waited := time.Since(began); waited < 10*time.Second || waited > time.Minute {
			t.Errorf("taken over after %v", waited)
		}
		if err := one.Unlock(t.Context(), "a"); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("the one that lost it unlocks it: %v", err)
		}
		if taken, _ := one.TryLock(t.Context(), "a"); taken {
			t.Error("the lock was given twice")
		}
		must(t, another.Unlock(t.Context(), "a"))
	})
}
