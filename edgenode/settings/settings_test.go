package settings_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/edgefleet/edgefleet/edgenode/settings"
)

const minimal = `data_dir: /var/lib/edgefleet
addresses: [192.0.2.1, "2001:db8::1"]
control_plane: [cp1.example.net:8443]
`

func load(t *testing.T, text string) (settings.Settings, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "edge.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return settings.Load(path)
}

func TestMinimalFileGetsDefaults(t *testing.T) {
	got, err := load(t, minimal)
	if err != nil {
		t.Fatal(err)
	}
	want := settings.Settings{
		DataDir: "/var/lib/edgefleet", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		ControlPlane: []string{"cp1.example.net:8443"}, HTTPSListen: ":443", HTTPListen: ":80", AdminListen: "127.0.0.1:9180",
		PollInterval: 30 * time.Second, HeartbeatInterval: 5 * time.Second, DrainTimeout: 15 * time.Second, LeaveDNS: 25 * time.Second,
		WAF: settings.WAF{Paranoia: 1, BodyLimit: 128 << 10}, LogLevel: "info", LogFormat: "text",
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
}

func TestErrorsNameLineAndField(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"an unknown field", minimal + "poll_intervall: 5s\n", `edge.yaml:4: unknown field "poll_intervall"`},
		{"an unknown nested field", minimal + "waf:\n  paranoja: 2\n", `edge.yaml:5: unknown field "paranoja"`},
		{"a duplicate field", minimal + "data_dir: /x\n", "edge.yaml:4: "},
		{"a duration that is none", minimal + "poll_interval: soon\n", "edge.yaml:4: poll_interval: "},
		{"an address that is none", "data_dir: /x\naddresses: [here]\n", "edge.yaml:2: "},
		{"a value out of range", minimal + "heartbeat_interval: 1h\n", "edge.yaml:4: heartbeat_interval: 1h0m0s is out of range"},
		{"a nested value out of range", minimal + "waf:\n  paranoia: 9\n", "edge.yaml:5: waf.paranoia: 9 is not"},
		{"a listener that is none", minimal + "https_listen: nine\n", "edge.yaml:4: https_listen: "},
		{"a relative data directory", strings.Replace(minimal, "/var", "var", 1), "edge.yaml:1: data_dir: "},
		{"no members", "data_dir: /x\naddresses: [192.0.2.1]\n", "edge.yaml:1: control_plane: 0 members"},
		{"a member without a port", minimal + "", ""},
		{"broken yaml", minimal + "waf: [\n", "edge.yaml:"},
		{"an empty file", "", "edge.yaml:1: data_dir: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.text)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestAMissingFileIsSaid(t *testing.T) {
	if _, err := settings.Load(filepath.Join(t.TempDir(), "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("got %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(minimal)
	f.Add("waf: {paranoia: 1}\n")
	f.Add("a: &a [*a]\n")
	path := filepath.Join(f.TempDir(), "edge.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := settings.Load(path); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("an error of several lines: %q", err)
		}
	})
}
