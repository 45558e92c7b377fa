package e2e_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestAConfigurationErrorNamesLineAndField(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, line string
		words      []string
	}{
		{"an unknown field", "membr: m2", []string{":14: ", `unknown field "membr"`}},
		{"an unknown field of a block", "acme: {folder: https://ca.example}", []string{":14: ", `unknown field "folder"`}},
		{"a list for a text", "member: [m1]", []string{":2: ", "member: ", "not text"}},
		{"a word for a number", "edge_https_port: many", []string{":14: ", "edge_https_port: ", "whole number"}},
		{"a text for a block", "acme: letsencrypt", []string{":14: ", "acme: "}},
		{"a duration that is none", "reap_after: soon", []string{":14: ", "reap_after: ", "not a duration such as 30s"}},
		{"a duration without a unit", "reap_after: 5", []string{":14: ", "reap_after: ", "not a duration such as 30s"}},
		{"a duration out of range", "event_retention: -5h", []string{":14: ", "event_retention: ", "24h or more"}},
		{"a log level that is none", "log_level: loud", []string{":13: ", "log_level: ", "debug, info, warn or error"}},
		{"an address that is none", "api_listen: nine", []string{":5: ", "api_listen: ", "give IP:port"}},
		{"a zone that is none", "cluster_zone: not a zone", []string{":3: ", "cluster_zone: ", "edge.example.net"}},
		{"a relative data directory", "data_dir: data", []string{":1: ", "data_dir: ", "absolute path"}},
		{"broken YAML", "resolvers: [", []string{"controlplane.yaml:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMember(t, "m1")
			m.configure(tt.line)
			for _, command := range []string{"init", "run"} {
				m.controlplane(command).says(t, fleet.ExitFailure, append(tt.words, m.file())...)
			}
			missing(t, m.data())
			missing(t, m.kek)
		})
	}
}

func TestASettingTwiceNamesBoth(t *testing.T) {
	t.Parallel()
	m := newMember(t, "m1")
	write(t, m.file(), string(read(t, m.file()))+"member: m2\n")
	m.controlplane("run").says(t, fleet.ExitFailure, m.file()+":14: ", `"member" already defined at [2:1]`)
}

func TestAnEdgeConfigurationErrorNamesLineAndField(t *testing.T) {
	t.Parallel()
	m := &member{t: t, ip: loopback()}
	for _, tt := range []struct {
		name, line string
		words      []string
	}{
		{"an unknown field", "nod: n2", []string{":9: ", `unknown field "nod"`}},
		{"a list for a text", "node: [n1]", []string{":2: ", "node: ", "not text"}},
		{"a word for a number", "waf: {paranoia: high}", []string{":9: ", "paranoia: ", "whole number"}},
		{"a duration that is none", "poll_interval: soon", []string{":9: ", "poll_interval: ", "not a duration such as 30s"}},
		{"a duration without a unit", "drain_timeout: 15", []string{":9: ", "drain_timeout: ", "not a duration such as 30s"}},
		{"an address that is none", "addresses: [here]", []string{":3: ", "addresses: ", `"here"`}},
		{"a member without a port", "control_plane: [cp1]", []string{":7: ", "control_plane: ", "give host:port"}},
		{"no members", "control_plane:", []string{":1: ", "control_plane: ", "1 to 64"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEdge(t, "n1", m)
			e.configure(tt.line)
			e.run("efn1.x").says(t, fleet.ExitFailure, append(tt.words, e.file())...)
			missing(t, filepath.Join(e.dir, "data"))
		})
	}
}

func TestAMissingConfigurationIsNamed(t *testing.T) {
	t.Parallel()
	run(t, "controlplane", nil, "run", "--config", "/nonexistent/cp.yaml").says(t, fleet.ExitFailure, "controlplane: ", "/nonexistent/cp.yaml", "no such file")
	run(t, "edgesupervisor", nil, "run", "--config", "/nonexistent/edge.yaml").says(t, fleet.ExitFailure, "edgesupervisor: ", "/nonexistent/edge.yaml", "no such file")
	run(t, "edgenode", nil, "run").says(t, fleet.ExitFailure, "edgenode: ", "run edgesupervisor")
}

func TestACommandLineThatMakesNoSenseIsUsage(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"controlplane", "edgesupervisor", "edgenode", "fleetctl"} {
		sub := "run"
		if program == "fleetctl" {
			sub = "whoami"
		}
		for what, tt := range map[string]struct {
			args  []string
			words []string
		}{
			"an unknown flag":              {[]string{"--frobnicate"}, []string{"unknown flag", "--frobnicate"}},
			"an unknown command":           {[]string{"frobnicate"}, []string{"unknown command", "frobnicate"}},
			"an unknown flag of a command": {[]string{sub, "--frobnicate"}, []string{"unknown flag", "--frobnicate"}},
			"an argument too many":         {[]string{sub, "frobnicate"}, []string{"unexpected argument", "frobnicate"}},
		} {
			t.Run(program+": "+what, func(t *testing.T) {
				run(t, program, nil, tt.args...).says(t, fleet.ExitUsage, append(tt.words, program+": ", "--help")...)
			})
		}
	}
}

// missing fails the test if something is at path.
func missing(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v, want nothing there", path, err)
	}
}
