package supervise_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/handoff"
	"github.com/edgefleet/edgefleet/edgenode/settings"
	"github.com/edgefleet/edgefleet/edgenode/supervise"
	"github.com/edgefleet/edgefleet/observability"
)

// The test binary plays three parts: with a role in its environment it is a supervisor or, started by one with the
// arguments of a worker, a tiny worker.
const roleVariable = "EDGEFLEET_TEST_ROLE"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(roleVariable) == "":
		os.Exit(m.Run())
	case len(os.Args) > 1 && os.Args[1] == "run":
		exit(tinyWorker())
	default:
		exit(childSupervisor())
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// childSupervisor supervises with the configuration file that is its argument.
func childSupervisor() error {
	s, err := settings.Load(os.Args[1])
	if err != nil {
		return err
	}
	tel, err := observability.Setup(context.Background(), observability.Options{Service: "test"})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return supervise.Run(ctx, supervise.Options{Settings: s, ConfigPath: os.Args[1], Telemetry: tel})
}

// tinyWorker serves its process id on the inherited socket; /crash ends it at once, and while the file "hold" exists next to
// its configuration it does not come up. When it drains it leaves the file "drained".
func tinyWorker() error {
	w, err := handoff.Inherit()
	if err != nil {
		return err
	}
	dir := filepath.Dir(os.Args[3])
	if _, err := os.Stat(filepath.Join(dir, "hold")); err == nil {
		return errors.New("held down")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(rw, os.Getpid()) })
	server := &http.Server{Handler: mux}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		w.Orphaned()
		cancel()
	}()
	go func() { _ = server.Serve(w.Listeners[handoff.HTTP]) }()
	if err := w.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	if err := server.Shutdown(context.Background()); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "drained"), nil, 0o600)
}
