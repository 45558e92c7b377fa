package devfleet_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/deploy/devfleet"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/google/go-cmp/cmp"
)

func TestBusyPortIsReportedWithItsOwner(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []net.Addr{l.Addr(), pc.LocalAddr()} {
		err := devfleet.CheckPorts(t.Context(), a.Network(), a.String())
		if !errors.Is(err, fleet.ErrConflict) {
			t.Fatalf("%s: %v", a.Network(), err)
		}
		for _, want := range []string{a.Network() + " " + a.String() + " is in use by", fmt.Sprintf("(pid %d)", os.Getpid()), "--address-block"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in: %v", a.Network(), want, err)
			}
		}
	}
	if err := errors.Join(l.Close(), pc.Close()); err != nil {
		t.Fatal(err)
	}
	for _, a := range []net.Addr{l.Addr(), pc.LocalAddr()} {
		if err := devfleet.CheckPorts(t.Context(), a.Network(), a.String()); err != nil {
			t.Errorf("after close: %v", err)
		}
	}
}

func TestDirectoryOfARunningFleetIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fleet")
	_, end, err := devfleet.OpenDir(t.Context(), dir, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = devfleet.OpenDir(t.Context(), dir, &bytes.Buffer{})
	if want := fmt.Sprintf("(pid %d) already runs", os.Getpid()); !errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), want) {
		t.Errorf("second open: %v", err)
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
}

func TestDirectoryOfAKilledFleetIsWiped(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fleet")
	id, end, err := devfleet.OpenDir(t.Context(), dir, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, "data", "m1")
	if err := os.WriteFile(old, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	left := exec.CommandContext(t.Context(), "sleep", "60")
	left.Env = []string{devfleet.EnvID + "=" + id}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- left.Wait() }()

	var out bytes.Buffer
	again, end, err := devfleet.OpenDir(t.Context(), dir, &out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = end() }()
	if !strings.Contains(out.String(), "which an earlier fleet left") {
		t.Errorf("message: %q", out.String())
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("old file: %v", err)
	}
	if err := <-exited; err == nil || err.Error() != "signal: killed" {
		t.Errorf("the process that was left behind: %v", err)
	}
	if again == id {
		t.Error("the new fleet has the id of the old one")
	}
}

func TestDirectoryThatIsNotOursIsRefusedAndKept(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "thesis.txt")
	if err := os.WriteFile(file, []byte("years of work"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := devfleet.OpenDir(t.Context(), dir, &bytes.Buffer{})
	if !errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), "was not made by devfleet") {
		t.Errorf("open: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory has %d entries: %v", len(entries), err)
	}
}

func TestScanFindsASecretInEverySpelling(t *testing.T) {
	const secret = "K3J5Q2W7XZ4N6M8B1V9C"
	fill := func(n int) string { return strings.Repeat("x", n) }
	for name, tc := range map[string]struct {
		content string
		want    []string
	}{
		"plain":                    {"password=" + secret + "&x=1", []string{"plain"}},
		"at the very end":          {fill(999) + secret, []string{"plain"}},
		"across a chunk":           {fill(1<<20-10) + secret + fill(100), []string{"plain"}},
		"deep in a large file":     {fill(3<<20+7) + secret + fill(1<<20), []string{"plain"}},
		"hex":                      {hex.EncodeToString([]byte("pw=" + secret)), []string{"hex"}},
		"base64, first alignment":  {base64.StdEncoding.EncodeToString([]byte("abc" + secret + "yz")), []string{"base64"}},
		"base64, second alignment": {base64.StdEncoding.EncodeToString([]byte("abcd" + secret + "y")), []string{"base64"}},
		"base64, third alignment":  {base64.RawURLEncoding.EncodeToString([]byte("abcde" + secret)), []string{"base64"}},
		"in two spellings":         {secret + hex.EncodeToString([]byte(secret)), []string{"plain", "hex"}},
		"not there":                {fill(1<<20) + secret[:19] + fill(9), nil},
		"an empty file":            {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "a", "b", "f")
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			found, read, err := devfleet.Scan(t.Context(), secret, dir)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range found {
				what, ok := strings.CutPrefix(fmt.Sprint(f), "{"+path+" ")
				if !ok {
					t.Errorf("found in %v", f)
				}
				got = append(got, strings.TrimSuffix(what, "}"))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
			if read != int64(len(tc.content)) {
				t.Errorf("read %d of %d bytes", read, len(tc.content))
			}
		})
	}
}

// controlled starts a fleet of two sleeping processes and serves its control socket.
func controlled(t *testing.T) (string, devfleet.Control) {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	// Longer than the path of a unix socket may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	f, end, err := devfleet.NewTestFleet(t.Context(), dir, &bytes.Buffer{},
		devfleet.NewTestProcess("m1", "", nil, sleep, "60"), devfleet.NewTestProcess("n1", "", nil, sleep, "60"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- f.ServeControl(ctx) }()
	t.Cleanup(func() {
		err := f.StopAll(ctx)
		cancel()
		if err := errors.Join(err, <-done, end()); err != nil {
			t.Error(err)
		}
	})
	c := devfleet.Control{Dir: dir}
	eventually(t, func() error { _, err := c.Status(t.Context()); return err })
	return dir, c
}

func TestControlSocketStartsAndKillsProcesses(t *testing.T) {
	dir, c := controlled(t)
	if info, err := os.Stat(filepath.Join(dir, "control.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	for _, s := range []struct{ verb, name, problem string }{
		{"start", "m1", ""},
		{"start", "m1", "m1 is already running"},
		{"pause", "m1", ""},
		{"kill", "m1", ""},
		{"kill", "m1", "cannot kill m1: it is stopped"},
		{"resume", "m1", "cannot resume m1: it is stopped"},
		{"start", "m1", ""},
		{"start", "m9", `no process "m9" in this fleet: use one of [m1 n1]`},
		{"explode", "m1", "no operation"},
	} {
		err := c.Do(t.Context(), s.verb, s.name)
		if s.problem == "" && err != nil || s.problem != "" && (err == nil || !strings.Contains(err.Error(), s.problem)) {
			t.Errorf("%s %s: %v, wanted %q", s.verb, s.name, err, s.problem)
		}
	}
	ps, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(ps) != 2 || ps[0].State != devfleet.Running || ps[0].PID == 0 || ps[1].State != devfleet.Stopped {
		t.Errorf("status: %+v", ps)
	}
}

func TestControlSocketChangesDNS(t *testing.T) {
	_, c := controlled(t)
	if err := c.SetRecords(t.Context(), devfleet.DNSChange{Name: "a.example", Type: "A", Values: []string{"192.0.2.1"}}); err != nil {
		t.Fatal(err)
	}
	rs, err := c.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := (devfleet.Record{Name: "a.example", Type: "A", Value: "192.0.2.1"}); len(rs) == 0 || rs[0] != want {
		t.Errorf("records: %+v", rs)
	}
	if err := c.SetRecords(t.Context(), devfleet.DNSChange{Name: "a.example", Type: "A", Values: []string{"x"}}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("wrong value: %v", err)
	}
}

func TestControlWithoutAFleetSaysHowToStartOne(t *testing.T) {
	empty := t.TempDir()
	for _, dir := range []string{empty, filepath.Join(empty, "missing")} {
		_, err := devfleet.Control{Dir: dir}.Status(t.Context())
		if !errors.Is(err, fleet.ErrNotFound) || !strings.Contains(err.Error(), "devfleet up --dir "+dir) {
			t.Errorf("status: %v", err)
		}
	}
}

func TestLogsOfAnUnknownProcessListTheOthers(t *testing.T) {
	dir, c := controlled(t)
	if err := c.Do(t.Context(), "start", "n1"); err != nil {
		t.Fatal(err)
	}
	f, err := devfleet.Logs(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := devfleet.Logs(dir, "../n7"); !errors.Is(err, fleet.ErrNotFound) || !strings.Contains(err.Error(), "use one of [n1]") {
		t.Errorf("unknown: %v", err)
	}
}

func TestStoryEndsAtTheFirstStepThatFailsAndShowsTheLog(t *testing.T) {
	var out bytes.Buffer
	dir := filepath.Join(t.TempDir(), "fleet")
	f, end, err := devfleet.NewTestFleet(t.Context(), dir, &out, devfleet.NewTestProcess("m1", "", nil, "/bin/sh", "-c", "true"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(f.StopAll(t.Context()), end()); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(filepath.Join(dir, "logs", "m1.log"), []byte("first line\n"+strings.Repeat("more\n", 20)+"disk is full\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fine := func(note string, err error) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return note, err }
	}
	err = f.Play(t.Context(),
		devfleet.NewStep("works", nil, fine("as it should", nil)),
		devfleet.NewStep("left out", nil, fine("needs 3 members", devfleet.ErrSkip)),
		devfleet.NewStep("fails", []string{"m1"}, fine("", errors.New("no leader"))),
		devfleet.NewStep("never reached", nil, fine("", nil)))
	if !errors.Is(err, devfleet.ErrStory) {
		t.Errorf("run: %v", err)
	}
	got := out.String()
	for _, want := range []string{"✓ works ", "as it should", "- left out ", "needs 3 members", "✗ fails ", "what was seen: no leader", "logs/m1.log", "disk is full"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
	for _, not := range []string{"never reached", "first line"} {
		if strings.Contains(got, not) {
			t.Errorf("%q is in:\n%s", not, got)
		}
	}
}

func TestPebbleCertificateIsForItsAddressAndRootsAreCollected(t *testing.T) {
	dir := t.TempDir()
	ca, cert, key, err := devfleet.PreparePebble(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	caPEM, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(caPEM)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "127.0.3.3"}); err != nil {
		t.Error(err)
	}

	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(caPEM) }))
	defer srv.Close()
	own := filepath.Join(dir, "own.pem")
	if err := os.WriteFile(own, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(dir, "roots.pem")
	for range 2 {
		if err := devfleet.FetchRoots(t.Context(), srv.URL, own, roots); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(roots); err != nil || strings.Count(string(b), "BEGIN CERTIFICATE") != 2 {
		t.Errorf("roots: %q, %v", b, err)
	}
	if err := devfleet.FetchRoots(t.Context(), srv.URL, ca, roots); err == nil {
		t.Error("a server of another CA was trusted")
	}
}
