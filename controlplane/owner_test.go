package controlplane_test

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestRootWritesNothingIntoTheDirectoryOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	c := newConfig(t, "m1", t.TempDir()+"/kek")
	if err := os.Mkdir(c.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(c.DataDir, 54321, 54321); err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]func() error{
		"init": func() error { _, err := controlplane.Init(t.Context(), c); return err },
		"join": func() error {
			_, err := controlplane.Join(t.Context(), c, "efm1.a.b.c", "127.0.0.1:1")
			return err
		},
		"recover": func() error {
			_, err := controlplane.Recover(c, []consensus.Server{}, controlplane.Rebirth{Now: time.Now()})
			return err
		},
		"run": func() error { return controlplane.Run(t.Context(), c, io.Discard) },
	} {
		err := run()
		if !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), c.DataDir) || !strings.Contains(err.Error(), "sudo -u 54321") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := os.ReadDir(c.DataDir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}
