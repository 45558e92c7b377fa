package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// rename moves a file or a directory for the time of the test.
func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Rename(to, from); err != nil {
			t.Error(err)
		}
	})
}

// borrow puts a file or a directory of another member in the place of ours, for the time of the test.
func borrow(t *testing.T, theirs, ours string) {
	t.Helper()
	rename(t, ours, ours+".own")
	rename(t, theirs, ours)
}

func TestADataDirectoryOfAnotherClusterIsRefused(t *testing.T) {
	t.Parallel()
	ours, theirs := newMember(t, "m1"), newMember(t, "m1")
	for _, m := range []*member{ours, theirs} {
		m.initialize()
	}
	ours.start()
	ours.must("tenant", "add", "red")
	ours.stop()

	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T)
		code    int
		words   []string
	}{
		{
			"the identity of another cluster", func(t *testing.T) { borrow(t, theirs.path("identity"), ours.path("identity")) },
			fleet.ExitDenied,
			[]string{"member certificate is not of cluster", "join again with a new token"},
		},
		{
			"the log of another cluster", func(t *testing.T) { borrow(t, theirs.path("raft"), ours.path("raft")) },
			fleet.ExitConflict,
			[]string{ours.data(), "the log in", "directories of two clusters were mixed"},
		},
		{
			"the papers of another cluster", func(t *testing.T) { borrow(t, theirs.path("cluster.json"), ours.path("cluster.json")) },
			fleet.ExitDenied,
			[]string{"member certificate is not of cluster", "join again"},
		},
		{"papers that are damaged", func(t *testing.T) {
			rename(t, ours.path("cluster.json"), ours.path("cluster.json.own"))
			write(t, ours.path("cluster.json"), `{"cluster":`)
		}, fleet.ExitFailure, []string{ours.path("cluster.json"), "is damaged", "move", "aside", "join again"}},
		{
			"no papers", func(t *testing.T) { rename(t, ours.path("cluster.json"), ours.path("cluster.json.own")) },
			fleet.ExitNotFound,
			[]string{ours.data(), "holds no member", "controlplane init", "controlplane join"},
		},
		{
			"another member's id", func(*testing.T) { ours.configure("member: m2") },
			fleet.ExitConflict,
			[]string{ours.data(), "belongs to member m1", "configuration says m2", "correct member or data_dir"},
		},
		{
			"another zone", func(*testing.T) { ours.configure("cluster_zone: other.example") },
			fleet.ExitConflict,
			[]string{"edge.example", "other.example", "correct cluster_zone or data_dir"},
		},
		{
			"another cluster's key-encryption key", func(*testing.T) { ours.configure("kek_file: " + theirs.kek) },
			fleet.ExitDenied,
			[]string{"does not open the secrets of cluster", "kek_file"},
		},
		{"a key-encryption key that others can read", func(t *testing.T) {
			ours.chmod(t, ours.kek, 0o644)
			t.Cleanup(func() { ours.chmod(t, ours.kek, 0o600) })
		}, fleet.ExitFailure, []string{ours.kek, "chmod 600"}},
		{"a key-encryption key that is none", func(t *testing.T) {
			write(t, ours.kek+".none", "secret")
			ours.configure("kek_file: " + ours.kek + ".none")
		}, fleet.ExitFailure, []string{ours.kek + ".none", "controlplane init"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.prepare(t)
			t.Cleanup(func() { ours.configure() })
			m := *ours
			m.t = t
			m.controlplane("run").says(t, tt.code, append(tt.words, "controlplane: ")...)
		})
	}
	t.Run("put back, the member has what it had", func(t *testing.T) {
		m := *ours
		m.t = t
		m.start()
		m.must("tenant", "show", "red")
	})
}

func (m *member) chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestInitAndJoinTakeEmptyDirectoriesOnly(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	token := c.must("cluster", "join-token")
	join := []string{"--address", c.at(8440), "--token", token}

	t.Run("a directory that holds something else", func(t *testing.T) {
		m := newMember(t, "m2")
		if err := os.Mkdir(m.data(), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, m.path("thesis.txt"), "years of work")
		m.controlplane("init").says(t, fleet.ExitConflict, m.data(), "not empty", "init needs an empty directory")
		m.controlplane("join", join...).says(t, fleet.ExitConflict, m.data(), "not empty", "join needs an empty directory")
		if got := string(read(t, m.path("thesis.txt"))); got != "years of work" {
			t.Errorf("the file holds %q", got)
		}
		missing(t, m.kek)
	})
	t.Run("twice", func(t *testing.T) {
		c := c.on(t)
		c.unchanged(func() {
			c.controlplane("init").says(t, fleet.ExitConflict, c.data(), "holds member m1 of cluster", "controlplane run", "another data_dir")
			c.controlplane("join", join...).says(t, fleet.ExitConflict, c.data(), "holds member m1 of cluster", "another data_dir")
		})
	})
	t.Run("init without what it needs", func(t *testing.T) {
		m := newMember(t, "m2")
		m.configure("cluster_zone:")
		m.controlplane("init").says(t, fleet.ExitFailure, "init needs cluster_zone", "edge.example.net")
		m.configure("kek_file:")
		m.controlplane("init").says(t, fleet.ExitFailure, "init needs kek_file")
		m.configure("data_dir: /proc/nothing/here")
		m.controlplane("init").says(t, fleet.ExitFailure, "data_dir", "/proc/nothing/here")
		missing(t, m.data())
	})
	t.Run("none of it cost the join token", func(t *testing.T) {
		m := newMember(t, "m2")
		if r := m.controlplane("join", join...); r.code != fleet.ExitOK {
			t.Error(r.stderr)
		}
	})
}

func TestAMemberWithoutKeyEncryptionKeySaysSo(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	nodeToken := c.must("node", "join-token")
	c.stop()
	for what, configure := range map[string]func(){
		"no kek_file":                    func() { c.configure("kek_file:") },
		"a kek_file that does not exist": func() { c.configure("kek_file: " + filepath.Join(c.dir, "none")) },
	} {
		t.Run(what, func(t *testing.T) {
			configure()
			c := c.on(t)
			c.start()
			defer c.stop()
			if !strings.Contains(c.log.String(), "no key-encryption key") || !strings.Contains(c.log.String(), "kek_file") {
				t.Errorf("the log does not warn: %s", c.log)
			}
			r := c.fleetctl("cluster", "check")
			if line := lineWith(r.stdout, "key-encryption key"); r.code != fleet.ExitFailure || !strings.Contains(line, "fail") || !strings.Contains(line, "m1") || !strings.Contains(line, "set kek_file") {
				t.Errorf("exit code %d, check says %q", r.code, line)
			}
			c.unchanged(func() {
				for _, args := range [][]string{{"node", "join-token"}, {"cluster", "join-token"}} {
					c.fleetctl(args...).says(t, fleet.ExitFailure, "no key-encryption key", "set kek_file", "another member")
				}
				if _, err := c.enrol(nodeToken, "n1", time.Now()); fleet.KindOf(err).Name != "sealed" {
					t.Errorf("enrolment: %v, want sealed", err)
				}
			})
			// What needs no key goes on.
			if r := c.fleetctl("tenant", "show", "red"); r.code != fleet.ExitOK {
				t.Error(r.stderr)
			}
		})
	}
	c.configure()
	c.start()
	if _, err := c.enrol(nodeToken, "n1", time.Now()); err != nil {
		t.Errorf("with the key again: %v", err)
	}
}
