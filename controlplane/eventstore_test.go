package controlplane_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestWhereThePostgresOfEventsIsHasNoSecretInTheFile(t *testing.T) {
	for name, tc := range map[string]struct{ yaml, field string }{
		"a file":                         {"{dsn_file: /etc/edgefleet/events.dsn}", ""},
		"a variable":                     {"{dsn_env: EDGEFLEET_EVENTS_DSN}", ""},
		"both":                           {"{dsn_file: /etc/edgefleet/events.dsn, dsn_env: EDGEFLEET_EVENTS_DSN}", "events.postgres.dsn_env"},
		"a relative path":                {"{dsn_file: events.dsn}", "events.postgres.dsn_file"},
		"the string instead of its name": {"{dsn_env: 'postgres://x:hunter2@h/d'}", "events.postgres.dsn_env"},
	} {
		path := filepath.Join(t.TempDir(), "controlplane.yaml")
		text := "data_dir: /var/lib/edgefleet\nmember: m1\nadvertise: 192.0.2.1\nevents:\n  postgres: " + tc.yaml + "\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := controlplane.LoadConfig(path)
		switch {
		case tc.field == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.field != "" && (!errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), tc.field) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s: %v", name, err)
		}
	}
}
