package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

const chapterRotate = "Rotate keys and tokens"

// kek says which key-encryption keys the members have, as the cluster sees it; nothing while it cannot be asked.
func (m *member) keks() client.KEKStatus {
	s, err := client.Get[client.KEKStatus](m.t.Context(), m.client(), "/v1/cluster/kek", nil)
	if err != nil {
		return client.KEKStatus{}
	}
	return s
}

// all reports whether n members have exactly these keys.
func all(s client.KEKStatus, n int, names ...string) bool {
	return len(s.Members) == n && !slices.ContainsFunc(s.Members, func(m client.KEKMember) bool { return !slices.Equal(m.Keys, names) })
}

// names are the keys that a list of the control plane shows, the oldest first.
func names(out string) []string {
	var all []string
	for line := range strings.Lines(out) {
		all = append([]string{strings.Fields(line)[0]}, all...)
	}
	return all
}

// keys rotates the key-encryption key of the three members, member by member.
func (l *life) keys() {
	r := l.on(chapterRotate, l.m1, l.m1.env())
	others := []*member{l.m2, l.m3}
	old := names(r.does("controlplane kek list --file /etc/edgefleet/kek"))[0]
	both := names(r.does("controlplane kek add --file /etc/edgefleet/kek"))
	if len(both) != 2 || both[0] != old {
		l.t.Fatalf("the file has %q, %s was in it", both, old)
	}
	newest := both[1]
	l.escrow, l.oldKEK = string(read(l.t, l.m1.kek)), old
	if res := l.m1.fleetctl("cluster", "kek", "rotate"); res.code != fleet.ExitConflict || !strings.Contains(res.stderr, "controlplane kek add") {
		l.t.Errorf("no member has loaded it: %d %s", res.code, res.stderr)
	}
	r.does("systemctl restart edgefleet-controlplane")
	await(l.t, "m1 has loaded both", func() bool {
		s := l.m1.keks()
		return len(s.Members) == 3 && slices.Equal(s.Members[0].Keys, both)
	})
	l.m1.must("cluster", "transfer-leader", "--to", "m1")
	leads(l.t, l.m1)
	if res := l.m1.fleetctl("cluster", "kek", "rotate"); res.code != fleet.ExitConflict || !strings.Contains(res.stderr, newest+" is not on every member: m2, m3") {
		l.t.Errorf("two members lack it: %d %s", res.code, res.stderr)
	}
	for _, m := range others {
		write(l.t, m.kek, l.escrow)
		m.stop()
		m.launch()
		await(l.t, m.id+" has loaded both", func() bool {
			i := slices.IndexFunc(l.m1.keks().Members, func(k client.KEKMember) bool { return string(k.Member) == m.id && slices.Equal(k.Keys, both) })
			return i >= 0
		})
	}
	r.says(r.does("fleetctl cluster kek show"), old+" seals; nothing waits")
	r.says(r.does(`fleetctl cluster kek rotate --reason "yearly"`), newest+" seals")
	await(l.t, "every secret is sealed anew", func() bool { s := l.m1.keks(); return s.Seals == newest && s.Waiting == 0 })
	r.does("fleetctl cluster snapshot save after-the-rotation.snapshot")
	r.does("controlplane kek drop OLD --file /etc/edgefleet/kek --yes", "OLD", old)
	for _, m := range others {
		if res := run(l.t, "controlplane", nil, "kek", "drop", old, "--file", m.kek, "--yes"); res.code != fleet.ExitOK {
			l.t.Fatal(res.stderr)
		}
	}
	for _, m := range []*member{l.m1, l.m2, l.m3} {
		m.stop()
		m.launch()
	}
	await(l.t, "every member has the new key alone", func() bool { return all(l.m1.keks(), 3, newest) })
	l.m1.must("tenant", "add", "rotated")
	await(l.t, "the cluster opens its secrets", func() bool {
		return strings.Contains(l.m1.fleetctl("cluster", "check").stdout, "opens the cluster's secrets")
	})
}

// withoutTheOldKey holds that a backup of before the rotation needs the key of before, and says so.
func (l *life) withoutTheOldKey() {
	l.t.Helper()
	snapshot := filepath.Join(l.dir, "edgefleet.snapshot")
	res := l.m1.controlplane("init", "--from-snapshot", snapshot, "--recovery-key", filepath.Join(l.dir, "recovery.key"), "--yes")
	if res.code != fleet.ExitDenied || !strings.Contains(res.stderr, l.oldKEK) || !strings.Contains(res.stderr, "from escrow") {
		l.t.Errorf("without the key of before: %d %s", res.code, res.stderr)
	}
	if _, err := os.Stat(l.m1.data()); !os.IsNotExist(err) {
		l.t.Errorf("a refused init left something behind: %v", err)
	}
	write(l.t, l.m1.kek, l.escrow)
}

func (d *disaster) kek(member string) string { return filepath.Join(d.dir, "config", member+".kek") }

func (d *disaster) keks() (s client.KEKStatus) {
	d.t.Helper()
	_ = json.Unmarshal([]byte(run(d.t, "fleetctl", d.env(), "cluster", "kek", "show", "-o", "json").stdout), &s) // nothing while nobody leads
	return s
}

func (d *disaster) has(names ...string) {
	d.t.Helper()
	await(d.t, "every member has "+strings.Join(names, " and "), func() bool { return all(d.keks(), 3, names...) })
}

func TestTheKeyEncryptionKeyIsRotatedWhileVisitorsCome(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole fleet takes a while")
	}
	collector := newCollector(t)
	d := newDisaster(t, "--otlp", collector.url)
	s := d.watch(collector)
	members := []string{"m1", "m2", "m3"}
	dir := t.TempDir()
	first, before, after, last := filepath.Join(dir, "first.snapshot"), filepath.Join(dir, "before.snapshot"), filepath.Join(dir, "after.snapshot"), filepath.Join(dir, "last.snapshot")
	s.provision()
	d.ctl("cluster", "snapshot", "save", first)
	s.learn(first)
	s.rekey()
	d.ctl("cluster", "snapshot", "save", before)
	s.learn(before)
	both := names(d.must("kek", "add", "--file", d.kek("m1")).stdout)
	old, newest := both[0], both[1]
	escrow := string(read(t, d.kek("m1")))
	for _, m := range members {
		write(t, d.kek(m), escrow)
		d.do("kill", m)
		d.do("start", m)
		await(t, m+" has both keys", func() bool {
			return slices.ContainsFunc(d.keks().Members, func(k client.KEKMember) bool { return string(k.Member) == m && slices.Equal(k.Keys, both) })
		})
	}
	d.has(both...)
	d.ctl("cluster", "kek", "rotate")
	await(t, "nothing waits", func() bool { k := d.keks(); return k.Seals == newest && k.Waiting == 0 })

	// Every member loses the old key, and all of them restart at once.
	for _, m := range members {
		d.must("kek", "drop", old, "--file", d.kek(m), "--yes")
	}
	d.do("kill", members...)
	d.do("start", members...)
	d.has(newest)
	d.ctl("cluster", "snapshot", "save", after)
	d.opens(after, d.kek("m1"))
	s.learn(after)
	d.followed(0) // nodes take what members sign and derive now

	// A backup of before needs the old key, and says which one.
	restore := []string{"cluster", "snapshot", "restore", before, "--recovery-key", d.recovery, "--yes"}
	if r := run(t, "fleetctl", d.env(), restore...); r.code != fleet.ExitDenied || !strings.Contains(r.stderr, old) || !strings.Contains(r.stderr, "from escrow") {
		t.Errorf("without the old key: %d %s", r.code, r.stderr)
	}
	for _, m := range members {
		write(t, d.kek(m), escrow)
	}
	d.do("kill", members...)
	d.do("start", members...)
	d.has(both...)
	d.ctl(restore...)
	d.followed(1)
	await(t, "what the backup brought is sealed anew", func() bool { k := d.keks(); return k.Seals == newest && k.Waiting == 0 })
	d.noticed()

	// Whatever was lost, rotated and brought back: no secret lies where none may be.
	s.restartNode(t, "n1")
	s.transfer()
	d.followed(1)
	d.ctl("cluster", "snapshot", "save", last)
	s.learn(last)
	s.scan()
}

// opens opens every secret of a snapshot by the keys of a file.
func (d *disaster) opens(snapshot, file string) {
	d.t.Helper()
	kek, err := keyring.LoadKEK(file)
	if err != nil {
		d.t.Fatal(err)
	}
	loaded, err := backup.Load(bytes.NewReader(read(d.t, snapshot)), kek)
	if err != nil {
		d.t.Fatal(err)
	}
	v := loaded.State.Read()
	certificates, entries := v.Certificates(), v.EntriesBelow("")
	if len(certificates) == 0 || len(entries) == 0 {
		d.t.Errorf("%d certificates, %d values of the ACME account: there is nothing to open", len(certificates), len(entries))
	}
	for _, c := range certificates {
		if _, err := kek.Open(c.Key, keyring.CertKeyAAD(c.Tenant, c.Host, c.SPKI, c.Generation)); err != nil {
			d.t.Errorf("certificate of %s: %v", c.Host, err)
		}
	}
	for _, e := range entries {
		var s fleet.Sealed
		if err := fleet.DecodeStrict(e.Value, &s); err != nil {
			d.t.Errorf("%s: %v", e.Key, err)
		} else if _, err := kek.Open(s, keyring.StorageAAD(e.Key)); err != nil {
			d.t.Errorf("%s: %v", e.Key, err)
		}
	}
}

func TestAMemberThatComesAfterARotationNeedsTheNewKeyAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("three members take a while")
	}
	t.Parallel()
	m1 := newMember(t, "m1")
	m1.initialize()
	first := string(read(t, m1.kek))
	kek := func(args ...string) []string {
		t.Helper()
		r := run(t, "controlplane", nil, append(append([]string{"kek"}, args...), "--file", m1.kek)...)
		if r.code != fleet.ExitOK {
			t.Fatal(r.stderr)
		}
		return names(r.stdout)
	}
	both := kek("add")
	m1.start()
	m1.must("cluster", "kek", "rotate")
	m1.stop()
	kek("drop", both[0], "--yes")
	m1.start()
	join := func(id, keys string) *member {
		t.Helper()
		m := newMember(t, id)
		write(t, m.kek, keys)
		m.configure("raft_timeout: 500ms")
		if r := m.controlplane("join", "--address", m1.at(8440), "--token", m1.must("cluster", "join-token")); r.code != fleet.ExitOK {
			t.Fatal(r.stderr)
		}
		m.launch()
		return m
	}
	// The log that it receives begins with secrets that the old key sealed.
	m2 := join("m2", string(read(t, m1.kek)))
	await(t, "m2 has opened the secrets", func() bool {
		s := m1.keks()
		return len(s.Members) == 2 && slices.Equal(s.Members[1].Keys, both[1:]) && m2.running()
	})
	m3 := join("m3", first)
	await(t, "m3 ends", func() bool { return !m3.running() })
	if err := m3.cmd.Wait(); err == nil || !strings.Contains(m3.log.String(), "does not open the secrets of cluster") || !strings.Contains(m3.log.String(), both[1]+" seals") {
		t.Errorf("m3 ended with %v: %s", err, m3.log)
	}
	if r := m1.fleetctl("cluster", "kek", "rotate"); r.code != fleet.ExitConflict {
		t.Errorf("rotated to the key that seals: %d %s", r.code, r.stderr)
	}
	for word, args := range map[string][]string{"never dropped": {both[1], "--yes"}, "holds no key": {both[0], "--yes"}, "say --yes": {both[1]}} {
		r := run(t, "controlplane", nil, append([]string{"kek", "drop", "--file", m1.kek}, args...)...)
		if r.code == fleet.ExitOK || !strings.Contains(r.stderr, word) || !slices.Equal(kek("list"), both[1:]) {
			t.Errorf("drop %q: %d %s", args, r.code, r.stderr)
		}
	}
	run(t, "controlplane", nil, "kek", "drop", "--file", m1.kek).says(t, fleet.ExitUsage, "kek list")
}

func TestAMemberThatWasAwayDuringARotationNeedsTheNewKeyAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("two members take a while")
	}
	t.Parallel()
	m1, m2 := newMember(t, "m1"), newMember(t, "m2")
	m1.initialize()
	m1.start()
	write(t, m2.kek, string(read(t, m1.kek)))
	m2.configure("raft_timeout: 500ms\nnonvoter: true") // m1 goes on without it
	if r := m2.controlplane("join", "--address", m1.at(8440), "--token", m1.must("cluster", "join-token")); r.code != fleet.ExitOK {
		t.Fatal(r.stderr)
	}
	has := func(names ...string) func() bool {
		return func() bool { s := m1.keks(); return m2.running() && all(s, 2, names...) }
	}
	m2.launch()
	old := m1.keks().Seals
	await(t, "m2 has opened the secrets", has(old))
	m2.stop()
	away := filepath.Join(t.TempDir(), "away")
	if err := os.CopyFS(away, os.DirFS(m2.data())); err != nil {
		t.Fatal(err)
	}

	both := names(run(t, "controlplane", nil, "kek", "add", "--file", m1.kek).stdout)
	write(t, m2.kek, string(read(t, m1.kek)))
	m1.stop()
	m1.start()
	m2.launch()
	await(t, "both have both keys", has(both...))
	m1.must("cluster", "kek", "rotate")
	for _, m := range []*member{m1, m2} {
		m.stop()
		if r := run(t, "controlplane", nil, "kek", "drop", old, "--file", m.kek, "--yes"); r.code != fleet.ExitOK {
			t.Fatal(r.stderr)
		}
	}
	m1.start()

	// What m2 has on its disk is from before: it knows of nothing that the new key seals.
	if err := errors.Join(os.RemoveAll(m2.data()), os.CopyFS(m2.data(), os.DirFS(away))); err != nil {
		t.Fatal(err)
	}
	m2.launch()
	await(t, "m2 has opened the secrets with the new key", has(both[1]))
}
