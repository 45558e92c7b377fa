package cli_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/edgefleet/edgefleet/controlplane/cmd/fleetctl/cli"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
)

// noon is the time of every script, so that ages do not change.
func noon() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fleetctl": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		code := cli.Run(ctx, cli.Options{Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Now: noon})
		stop()
		os.Exit(code)
	}})
}

// TestScripts runs the commands against an API that answers what each script says:
//
//	api FILE FILES…    starts one and points fleetctl at it; the answer {NAME} is the content of one of FILES
//	snapshot FILE      writes a snapshot of cluster c1 at index 77
//	exits CODE ARGS…   runs fleetctl and wants that exit code
//	same STREAM FILE   wants stdout or stderr byte by byte
//	mode MODE FILE     wants a file's permissions, octal
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: os.Getenv("UPDATE") != "", RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			for _, kv := range [][2]string{{"HOME", env.WorkDir}, {"FLEETCTL_TOKEN", goodToken}} {
				env.Setenv(kv[0], kv[1])
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"api": cmdAPI, "exits": cmdExits, "same": cmdSame, "mode": cmdMode, "snapshot": cmdSnapshot},
	})
}

func cmdAPI(ts *testscript.TestScript, _ bool, args []string) {
	f, err := newFakeAPI(ts.Logf, ts.ReadFile(args[0]))
	ts.Check(err)
	for _, file := range args[1:] {
		f.files["{"+file+"}\n"] = ts.ReadFile(file)
	}
	ts.Defer(f.stop)
	ca := ts.MkAbs("api-ca.crt")
	ts.Check(os.WriteFile(ca, f.ca(), 0o600))
	ts.Setenv("FLEETCTL_ADDR", f.Listener.Addr().String())
	ts.Setenv("FLEETCTL_CACERT", ca)
}

func cmdSnapshot(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	e := snapshot.Envelope{Cluster: "c1", Incarnation: 1, Index: 77, Term: 3, Time: noon().Add(-time.Hour), Member: "m1", Software: "v1"}
	_, err = snapshot.Write(f, e, func(string) (fleet.Sealed, error) { return fleet.Sealed{}, nil }, func(w io.Writer) error {
		_, err := io.WriteString(w, "{\"format\":1,\"index\":77}\n{\"table\":\"tenants\",\"row\":{\"id\":\"acme\"}}\n")
		return err
	})
	ts.Check(errors.Join(err, f.Close()))
}

func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec("fleetctl", args[1:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func cmdSame(ts *testscript.TestScript, _ bool, args []string) {
	if got, want := ts.ReadFile(args[0]), ts.ReadFile(args[1]); got != want {
		ts.Fatalf("%s is\n%q\nwant\n%q", args[0], got, want)
	}
}

func cmdMode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(filepath.FromSlash(args[1])))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); got != args[0] {
		ts.Fatalf("mode %s, want %s", got, args[0])
	}
}
