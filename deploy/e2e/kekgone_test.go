package e2e_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

const chapterKEKGone = "The key-encryption key is gone"

func TestAMemberGoesOnWithoutTheFileOfItsKey(t *testing.T) {
	if testing.Short() {
		t.Skip("two members take a while")
	}
	t.Parallel()
	m1, m2 := newMember(t, "m1"), newMember(t, "m2")
	m1.configure("raft_timeout: 500ms", "log_level: info")
	m1.initialize()
	m1.start()
	key := string(read(t, m1.kek))
	write(t, m2.kek, key)
	m2.configure("raft_timeout: 500ms", "log_level: info")
	if r := m2.controlplane("join", "--address", m1.at(8440), "--token", m1.must("cluster", "join-token")); r.code != fleet.ExitOK {
		t.Fatal(r.stderr)
	}
	m2.launch()
	name := names(run(t, "controlplane", nil, "kek", "list", "--file", m1.kek).stdout)
	has := func(keys ...string) func() bool {
		return func() bool {
			i := slices.IndexFunc(m1.keks().Members, func(k client.KEKMember) bool { return k.Member == "m2" && slices.Equal(k.Keys, keys) })
			return i >= 0
		}
	}
	await(t, "m2 votes, with its key", func() bool {
		return has(name...)() && strings.Count(m1.fleetctl("cluster", "members").stdout, "voter") == 2
	})
	book := openRunbook(t)
	r := book.on(chapterKEKGone, m1, m1.env())

	// At the start: whatever is in the file's place, the member votes (without it, two members commit nothing), and takes up its
	// work by itself when the key is back.
	for what, take := range map[string]func() error{
		"deleted":    func() error { return os.Remove(m2.kek) },
		"unreadable": func() error { return errors.Join(os.Remove(m2.kek), os.Symlink(m2.kek, m2.kek)) },
	} {
		m2.stop()
		if err := take(); err != nil {
			t.Fatal(err)
		}
		m2.launch()
		await(t, "m2 runs without its key, "+what, has())
		await(t, "m2 is ready and says what is the matter", func() bool {
			status, body := m2.ready()
			return status == 200 && strings.Contains(body, m2.kek) && strings.Contains(body, "copy the key from another member")
		})
		await(t, "a tenant is added", func() bool { return m1.fleetctl("tenant", "add", what).code == fleet.ExitOK })
		if !strings.Contains(m2.log.String(), "no key-encryption key") || !strings.Contains(m2.log.String(), m2.kek) {
			t.Errorf("%s: the log does not say so: %s", what, m2.log)
		}
		if err := os.RemoveAll(m2.kek); err != nil {
			t.Fatal(err)
		}
		write(t, m2.kek, key)
		await(t, "m2 has its key again", has(name...))
	}

	// While it runs: it goes on with what it has in memory, and says that it must not be restarted.
	for what, m := range map[string]*member{"the leader": m1, "the other": m2} {
		if err := os.Remove(m.kek); err != nil {
			t.Fatal(err)
		}
		await(t, what+" says that its key is gone", func() bool {
			status, body := m.ready()
			return status == 200 && strings.Contains(body, m.kek) && strings.Contains(body, "would not after a restart")
		})
		if !strings.Contains(m.log.String(), "do not restart this member") {
			t.Errorf("%s does not say so in its log: %s", what, m.log)
		}
		await(t, "a join token is made", func() bool { return m1.fleetctl("node", "join-token").code == fleet.ExitOK })
		if m == m1 {
			r.says(r.tries("fleetctl cluster check").stdout, "key-encryption key", "would not after a restart")
			r.says(r.does("fleetctl cluster kek show"), name[0]+" seals")
			r.says(r.curl("http://"+m1.at(8444)+"/metrics"), "edgefleet_kek_loaded 1", "edgefleet_kek_provider_up 0")
		}
		write(t, m.kek, key)
		await(t, what+" says nothing more", func() bool {
			_, body := m.ready()
			return body != "" && !strings.Contains(body, m.kek)
		})
	}
	if left := book.left[chapterKEKGone]; len(left) > 0 {
		t.Errorf("nothing executes %q", left)
	}
}

func TestTheKeyIsACredentialOfSystemd(t *testing.T) {
	t.Parallel()
	m := newMember(t, "m1")
	m.initialize()
	credentials := filepath.Join(m.dir, "credentials")
	if err := os.Mkdir(credentials, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(credentials, "kek")
	place := func() {
		t.Helper()
		write(t, file, string(read(t, m.kek)))
		if err := os.Chmod(file, 0o440); err != nil { //nolint:gosec // as systemd gives it
			t.Fatal(err)
		}
	}
	place()
	m.configure("kek_file: " + file)
	m.controlplane("run").says(t, fleet.ExitFailure, "chmod 600") // outside of a service, others could read it
	m.environ = []string{"CREDENTIALS_DIRECTORY=" + credentials}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	m.start()
	await(t, "the member says which credential is missing", func() bool {
		_, body := m.ready()
		return strings.Contains(body, "the systemd credential kek") && strings.Contains(body, "LoadCredential")
	})
	place()
	await(t, "the member has its key", func() bool { return m.fleetctl("node", "join-token").code == fleet.ExitOK })
}
