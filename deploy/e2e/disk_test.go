package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// flip inverts bytes in the middle of the first place where word is stored in a file.
func flip(t *testing.T, path, word string) {
	t.Helper()
	b := read(t, path)
	i := bytes.Index(b, []byte(word))
	if i < 0 {
		t.Fatalf("%s does not hold %q", path, word)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	b[i], b[i+1] = ^b[i], ^b[i+1]
	_, err = f.WriteAt(b[i:i+2], int64(i))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestADamagedLogIsRefusedAndLeftAsItIs(t *testing.T) {
	t.Parallel()
	m := newMember(t, "m1")
	m.initialize()
	m.start()
	for i := range 9 {
		m.must("tenant", "add", fmt.Sprintf("tenant-%d", i))
	}
	m.stop()
	segments, err := filepath.Glob(m.path("raft/wal/*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments %v, %v", segments, err)
	}
	segment := segments[0]

	for _, tt := range []struct {
		name   string
		damage func(t *testing.T)
		repair func(t *testing.T)
		words  []string
	}{
		{
			"bytes that flipped in the middle",
			func(t *testing.T) { flip(t, segment, "tenant-4") }, func(t *testing.T) { flip(t, segment, inverted("tenant-4")) },
			[]string{filepath.Base(segment)},
		},
		{
			"bytes that flipped at the end",
			func(t *testing.T) { flip(t, segment, "tenant-8") }, func(t *testing.T) { flip(t, segment, inverted("tenant-8")) },
			[]string{filepath.Base(segment)},
		},
		{
			"a segment that is missing",
			func(t *testing.T) { move(t, segment, segment+".away") }, func(t *testing.T) { move(t, segment+".away", segment) }, nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := *m
			m.t = t
			whole := read(t, segment)
			tt.damage(t)
			words := append(tt.words, "write-ahead log of member m1 is corrupt", "move "+m.path("raft")+" aside", "fleetctl cluster remove m1", "controlplane join")
			for range 2 { // it does not heal itself by forgetting
				m.controlplane("run").says(t, fleet.ExitFailure, words...)
			}
			tt.repair(t)
			if !bytes.Equal(whole, read(t, segment)) {
				t.Fatal("the refusal changed the log")
			}
		})
	}
	t.Run("repaired, the member has all its state", func(t *testing.T) {
		m := *m
		m.t = t
		m.start()
		for i := range 9 {
			m.must("tenant", "show", fmt.Sprintf("tenant-%d", i))
		}
	})
}

// inverted is word as flip leaves it.
func inverted(word string) string {
	b := []byte(word)
	b[0], b[1] = ^b[0], ^b[1]
	return string(b)
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// smallDisk mounts a file system of the given size where the member's data will be.
func smallDisk(t *testing.T, m *member, megabytes int) {
	t.Helper()
	if err := os.Mkdir(m.data(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", m.data(), "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", megabytes)); err != nil {
		t.Skipf("mounting a file system is not permitted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(m.data(), syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fill writes a file until the file system is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err = f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2] // down to the last byte
		}
	}
	_ = f.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func TestAFullDisk(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("fills a segment of the write-ahead log")
	}
	m := newMember(t, "m1")
	smallDisk(t, m, 96)
	m.initialize()
	m.start()
	m.must("tenant", "add", "red")
	ballast := m.path("ballast")
	fill(t, ballast)

	// The segment was allocated ahead, so that writes go on until it is full.
	o := m.writeUntilRefused()
	t.Logf("%d rules were replaced, then: %v", len(o.gone), o.refusal)
	if !errors.Is(o.refusal, fleet.ErrUnavailable) || len(o.gone) == 0 {
		t.Errorf("after %d rules the refusal is %v, want unavailable", len(o.gone), o.refusal)
	}
	await(t, "/readyz says why", func() bool {
		status, body := m.ready()
		return status == http.StatusServiceUnavailable && strings.Contains(body, "raft_log") && strings.Contains(body, "no space left") && strings.Contains(body, "free the disk and restart")
	})
	m.fleetctl("tenant", "add", "late").says(t, fleet.ExitFailure)
	check := m.fleetctl("cluster", "check") // it is for such times, so it needs no leader
	if check.code != fleet.ExitFailure || !strings.Contains(lineWith(check.stdout, "health of m1"), "no space left") || !strings.Contains(lineWith(check.stdout, "disk of m1"), "fail") {
		t.Errorf("cluster check: exit code %d\n%s%s", check.code, check.stdout, check.stderr)
	}
	if _, err := client.Get[fleet.Tenant](t.Context(), m.client(), "/v1/tenants/red", map[string][]string{"consistency": {"stale"}}); err != nil {
		t.Errorf("a stale read: %v", err)
	}

	m.stop()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	m.start()
	if status, body := m.ready(); status != http.StatusOK {
		t.Errorf("/readyz after the restart: %d %s", status, body)
	}
	stored := map[fleet.RuleID]bool{}
	for _, r := range list[fleet.Rule](m, m.client(), "/v1/tenants/red/rules") {
		stored[r.ID] = true
	}
	for _, id := range o.present {
		if !stored[id] {
			t.Errorf("the creation of rule %s was acknowledged and is lost", id)
		}
	}
	for _, id := range o.gone {
		if stored[id] {
			t.Errorf("the deletion of rule %s was acknowledged and is lost", id)
		}
	}
	m.must("tenant", "add", "later")
}

// outcome is what a member answered to writes until it refused one.
type outcome struct {
	// present and gone are the rules whose creation and deletion were acknowledged last.
	present, gone []fleet.RuleID
	refusal       error
}

// writeUntilRefused replaces rules, as large as they may be, until a write is not accepted.
func (m *member) writeUntilRefused() (o outcome) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 3*patience) // slow under the race detector
	defer cancel()
	var mu sync.Mutex
	var owned sync.WaitGroup
	for w := range 16 {
		owned.Go(func() {
			held, gone, err := m.replaceRules(ctx, w)
			mu.Lock()
			defer mu.Unlock()
			o.present, o.gone = append(o.present, held...), append(o.gone, gone...)
			if o.refusal == nil {
				o.refusal = err
				cancel() // whoever still waits for an answer does not count
			}
		})
	}
	owned.Wait()
	return o
}

// replaceRules adds a rule and deletes the one before, again and again. A rule whose fate an error leaves open is neither
// held nor gone.
func (m *member) replaceRules(ctx context.Context, writer int) (held, gone []fleet.RuleID, err error) {
	c := m.client()
	spec := fleet.RuleSpec{Kind: fleet.RuleRegex, AttackType: fleet.AttackSQLi, Pattern: strings.Repeat("a", fleet.MaxPatternLength), Comment: strings.Repeat("c", fleet.MaxCommentLength)}
	for range 5 {
		spec.Conditions = append(spec.Conditions, fleet.RuleCondition{Type: fleet.MatchEqual, Point: "uri", Value: "/" + strings.Repeat("u", fleet.MaxPatternLength-1)})
	}
	for i := 0; ; i++ {
		id := fleet.RuleID(fmt.Sprintf("r-%d-%d", writer, i))
		if _, err := client.Post[fleet.Rule](ctx, c, "/v1/tenants/red/rules", client.RuleCreate{ID: id, Spec: spec}); err != nil {
			return held, gone, err
		}
		before := held
		held = []fleet.RuleID{id}
		for _, old := range before {
			if err := c.Do(ctx, http.MethodDelete, "/v1/tenants/red/rules/"+string(old), nil, nil, nil, client.IfMatchAny()); err != nil {
				return held, gone, err
			}
			gone = append(gone, old)
		}
	}
}
