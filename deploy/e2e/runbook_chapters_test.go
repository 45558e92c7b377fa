package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/discovery/consultest"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

func TestEveryCommandOfTheRunbook(t *testing.T) {
	if testing.Short() {
		t.Skip("it plays the life of a cluster")
	}
	t.Parallel()
	l := &life{runbook: openRunbook(t), t: t}
	for _, chapter := range []func(){
		l.startAndStop, l.members, l.upgrade, l.installed, l.edgeNodes, l.hostsAndRules, l.tokens, l.people, l.twoPeople, l.audit, l.damaged, l.restored, l.keys, l.lostQuorum, l.everyMemberLost,
		l.consul,
	} {
		chapter()
	}
	l.skip(chapterDrills)  // see TestDrillsLoseMembersAndNoWrite
	l.skip(chapterKEKGone) // see TestAMemberGoesOnWithoutTheFileOfItsKey
	l.finished()
}

// life is that of a cluster of three members and a node, as the runbook tells it.
type life struct {
	*runbook
	t          *testing.T
	m1, m2, m3 *member
	// single is a cluster of its own, installed as deploy/systemd wants it.
	single *member
	edge   *runningEdge
	// escrow is the file of the key-encryption keys during their rotation, oldKEK the name of the one that was dropped.
	escrow, oldKEK string
}

func (l *life) member(id string) *member {
	m := newMember(l.t, id)
	m.configure("backup: {to: file://" + filepath.Join(l.dir, "backups") + "}")
	if l.m1 != nil {
		write(l.t, m.kek, string(read(l.t, l.m1.kek)))
	}
	return m
}

// voters waits until so many members vote.
func (l *life) voters(n int) {
	l.t.Helper()
	await(l.t, "the members vote", func() bool {
		s, err := client.Get[client.ClusterStatus](l.t.Context(), l.m1.client(), "/v1/cluster", nil)
		voters := 0
		for _, m := range s.Members {
			if m.Suffrage == "voter" {
				voters++
			}
		}
		return err == nil && s.Leader != "" && voters == n
	})
}

func leads(t *testing.T, m *member) {
	t.Helper()
	await(t, m.id+" leads", func() bool {
		s, err := client.Get[client.ClusterStatus](t.Context(), m.client(), "/v1/cluster", nil)
		return err == nil && string(s.Leader) == m.id
	})
}

func (l *life) startAndStop() {
	l.m1 = l.member("m1")
	first := l.on("Start and stop", l.m1, nil)
	first.does("controlplane init --config /etc/edgefleet/controlplane.yaml")
	first.does("controlplane run --config /etc/edgefleet/controlplane.yaml")
	leads(l.t, l.m1)
	first.as = l.m1.env()
	write(l.t, filepath.Join(l.dir, "recovery.key"), string(read(l.t, l.m1.path("recovery.key"))))

	l.m2, l.m3 = l.member("m2"), l.member("m3")
	second := l.on("Start and stop", l.m2, nil)
	second.does("controlplane join --config /etc/edgefleet/controlplane.yaml --address FIRST:8440 --token efm1.…",
		"FIRST:8440", l.m1.at(8440), "efm1.…", first.does("fleetctl cluster join-token"))
	l.m2.launch()
	if r := l.m3.controlplane("join", "--address", l.m1.at(8440), "--token", l.m1.must("cluster", "join-token")); r.code != fleet.ExitOK {
		l.t.Fatal(r.stderr)
	}
	l.m3.launch()
	l.voters(3)
	first.says(first.does("fleetctl cluster status"), "m1", "m2", "m3", "voter", "leader")
	first.says(first.tries("fleetctl cluster check").stdout, "delegation", "key-encryption key", "disk")
	skew := l.on("Clock skew", l.m1, l.m1.env())
	skew.says(skew.tries("fleetctl cluster check").stdout, "clock")
}

// installed is the part about deploy/systemd.
func (l *life) installed() {
	m := newMember(l.t, "m1")
	l.single = m
	m.kek = filepath.Join(m.dir, "new.kek")
	m.configure()
	r := l.on("Start and stop", m, nil)
	r.does("install -d -o edgefleet -g edgefleet -m 0700 /var/lib/edgefleet /var/lib/edgefleet/controlplane")
	r.does("sudo -u edgefleet controlplane init --config /etc/edgefleet/controlplane.yaml")
	m.kek = filepath.Join(m.dir, "kek")
	r.does("install -o root -g root -m 0600 /var/lib/edgefleet/kek /etc/edgefleet/kek && rm /var/lib/edgefleet/kek")
	m.configure()
	r.does("systemctl enable --now edgefleet-controlplane")
	leads(l.t, m)
}

func (l *life) edgeNodes() {
	l.edge = &runningEdge{edge: newEdge(l.t, "n1", l.m1), log: &buffer{}}
	l.edge.configure("heartbeat_interval: 1s", "log_level: warn")
	r := l.on("Add, cordon and revoke an edge node", l.m1, l.m1.env())
	r.edge, r.token = l.edge, r.does("fleetctl node join-token --group default --region eu-1")
	r.does("edgesupervisor run --config /etc/edgefleet/edge.yaml")
	l.t.Cleanup(l.edge.stop)
	await(l.t, "n1 is up", func() bool {
		n, err := client.Get[fleet.Node](l.t.Context(), l.m1.client(), "/v1/nodes/n1", nil)
		return err == nil && n.Observed.State == fleet.NodeUp
	})
	c := cluster{member: l.m1}
	lost, err := c.enrol(l.m1.must("node", "join-token"), "n2", time.Now())
	c.ok(err)
	r.says(r.does("fleetctl node list"), "n1", "n2", "eu-1")
	r.does("fleetctl node cordon NODE", "NODE", "n1")
	r.says(l.m1.must("node", "show", "n1", "-o", "json"), "cordoned")
	r.does("fleetctl node uncordon NODE", "NODE", "n1")
	r.says(r.tries("fleetctl node unlock NODE --reason 'the copy in rack 7 is off and wiped'", "NODE", "n1").stderr, "not locked")
	r.does("fleetctl node revoke NODE --yes", "NODE", "n2")
	if _, err := client.Post[fleet.HeadSet](l.t.Context(), lost.client, "/v1/edge/poll", fleet.Report{Node: "n2", Boot: "b1", Sent: time.Now(), Heads: []fleet.HeadReport{}}); err == nil {
		l.t.Error("a revoked node is served")
	}
	_, err = c.enrol(l.m1.must("node", "join-token"), "n3", time.Now())
	c.ok(err)
	r.does(`fleetctl node revoke NODE --yes --reason "stolen from rack 3"`, "NODE", "n3")
	await(l.t, "an epoch that the stolen node does not know", func() bool {
		return strings.Contains(l.m1.fleetctl("group", "keys", "default").stdout, "evicted (node n3)")
	})
	r.does("fleetctl group keys GROUP", "GROUP", "default")
	r.says(r.does(`fleetctl group rekey GROUP --yes --reason "node NODE was stolen"`, "GROUP", "default", "NODE", "n3"), "new private keys")
	r.says(r.does("fleetctl group rekey GROUP --epoch-only", "GROUP", "default"), "keep their private keys")
	l.withdrawal()
	skew := l.on("Clock skew", l.m1, l.m1.env())
	skew.says(skew.does("fleetctl node show NODE", "NODE", "n1"), "n1", "up")
}

func (l *life) withdrawal() {
	w := l.on("DNS withdrawal", l.m1, l.m1.env())
	w.says(w.does("fleetctl dns zone show"), "serial", "m1.ns.")
	w.says(w.tries("fleetctl dns zone check").stdout, "member m1", "nodes in dns")
	w.says(w.does("fleetctl region list"), "eu-1")
	w.does("fleetctl node cordon NODE --reason 'new kernel'", "NODE", "n1")
	w.does("fleetctl node uncordon NODE", "NODE", "n1")
	w.says(w.tries("fleetctl region withdraw REGION --reason 'no power'", "REGION", "eu-1").stderr, "no healthy node of group default is left")
	w.says(w.tries("fleetctl region restore REGION", "REGION", "eu-1").stderr, "is not withdrawn")
	w.says(w.does("fleetctl node weight NODE 5 --reason 'half the size'", "NODE", "n1"), "weight 5")
}

func (l *life) hostsAndRules() {
	l.m1.must("tenant", "add", "acme", "--allow-origin", "127.0.0.0/8")
	l.m1.must("host", "add", "--tenant", "acme", "www.acme.example", "--origin", closedOrigin)
	r := l.on("A host does not get its certificate", l.m1, l.m1.env())
	r.says(r.does("fleetctl host show --tenant TENANT HOST", "TENANT", "acme", "HOST", "www.acme.example"), "www.acme.example", "DNS records")
	r.does("fleetctl host check --tenant TENANT HOST", "TENANT", "acme", "HOST", "www.acme.example")
	r.does("fleetctl cluster status")
	r.says(r.tries("fleetctl cluster check").stdout, "delegation")
	r.does("fleetctl node show NODE", "NODE", "n1")
	l.originThatDoesNotAnswer()
	l.authorities()
	l.certificatesByHand()
	r = l.on("A rule does not reach a node", l.m1, l.m1.env())
	await(l.t, "the rules are live", func() bool {
		return l.m1.fleetctl("ruleset", "status", "--tenant", "acme").code == fleet.ExitOK
	})
	r.says(r.does("fleetctl ruleset status --tenant TENANT", "TENANT", "acme"), "live on 1/1 nodes")
}

func (l *life) authorities() {
	of := []string{"TENANT", "acme", "HOST", "www.acme.example"}
	down := l.on("CA down", l.m1, l.m1.env())
	down.says(down.does("fleetctl cert budget"), "AUTHORITY", "0 orders wait")
	down.says(down.tries("fleetctl cluster check").stdout, "certificate authorities")
	down.says(down.does("fleetctl cluster status"), "m1")
	failing := l.on("Renewals failing", l.m1, l.m1.env())
	failing.says(failing.does("fleetctl cert budget"), "orders wait")
	failing.says(failing.does("fleetctl host list --tenant TENANT", of...), "www.acme.example")
	failing.says(failing.does("fleetctl cert list"), "HOST")
	failing.says(failing.does("fleetctl cluster kek show"), "m1")
	failing.says(failing.does("fleetctl host show --tenant TENANT HOST", of...), "www.acme.example")
	failing.says(failing.does("fleetctl node list"), "n1")
	failing.does("fleetctl host check --tenant TENANT HOST", of...)
}

func (l *life) certificatesByHand() {
	of := []string{"TENANT", "acme", "HOST", "www.acme.example"}
	own := newAuthority(l.t, "of the customer")
	l.keep("own", own, own.issue("www.acme.example", x509.ExtKeyUsageServerAuth))
	r := l.on("Certificates by hand", l.m1, l.m1.env())
	r.says(r.does("fleetctl cert upload --tenant TENANT HOST --cert fullchain.pem --key privkey.pem", append(of, "fullchain.pem", "own.pem", "privkey.pem", "own.key")...), "is stored and on its way")
	r.says(r.does("fleetctl cert show --tenant TENANT HOST", of...), "uploaded", "of the customer")
	r.says(r.does("fleetctl cert list --expiring 14d"), "HOST")
	r.says(r.tries("fleetctl cert revoke --tenant TENANT HOST --yes --reason 'the key was in a public repository'", of...).stderr, "was uploaded", "upload its successor")
	r.does("fleetctl cert remove --tenant TENANT HOST --yes", of...)
	l.on("Renewals failing", l.m1, l.m1.env()).says(l.m1.fleetctl("cert", "show", "--tenant", "acme", "www.acme.example").stdout, "for it was removed")
}

// keep writes a certificate with its authority's, and its key, to where the reader works.
func (l *life) keep(name string, by *authority, c tls.Certificate) {
	l.t.Helper()
	cert, key := by.files(c)
	write(l.t, filepath.Join(l.dir, name+".pem"), cert+by.pem())
	write(l.t, filepath.Join(l.dir, name+".key"), key)
}

// closedOrigin refuses connections at once. The node looks after its health, and must not dial what is not this machine.
const closedOrigin = "http://127.0.0.1:9"

func (l *life) originThatDoesNotAnswer() {
	r := l.on("An origin does not answer", l.m1, l.m1.env())
	ca, err := mtls.NewCA("origin.example.com", time.Now(), time.Hour)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.dir, "origin-ca.pem"), ca.CertPEM(), 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	of := []string{"TENANT", "acme", "HOST", "www.acme.example"}
	await(l.t, "the node has reported", func() bool {
		return strings.Contains(l.m1.fleetctl("origin", "health", "--tenant", "acme", "www.acme.example").stdout, " up ")
	})
	r.says(r.does("fleetctl origin health --tenant TENANT HOST", of...), closedOrigin)
	r.does("fleetctl host set --tenant TENANT HOST --health-path /healthz --health-interval 5s", of...)
	r.does("fleetctl host set --tenant TENANT HOST --response-timeout 120s --max-connections 0", of...)
	r.does("fleetctl origin add --tenant TENANT HOST https://203.0.113.12 --server-name origin.example.com --ca origin-ca.pem", append(of, "https://203.0.113.12", "https://127.0.0.1:10")...)
	r.says(r.does("fleetctl origin list --tenant TENANT HOST", of...), closedOrigin, "https://127.0.0.1:10", "origin.example.com")
	edge := newAuthority(l.t, "of the edge")
	l.keep("edge", edge, edge.issue("edge", x509.ExtKeyUsageClientAuth))
	r.says(r.does("fleetctl origin set --tenant TENANT HOST URL --client-cert edge.pem --client-key edge.key", append(of, "URL", "https://127.0.0.1:10")...), "CN=edge")
	r.does("fleetctl tenant update TENANT --allow-origin CIDR", "TENANT", "acme", "CIDR", "10.20.0.0/16")
}

func (l *life) tokens() {
	m := l.single
	r := l.on(chapterRotate, m, m.env())
	owner := m.must("token", "create", "--operator", "--comment", "on call")
	r.as = append(m.env(), "FLEETCTL_TOKEN="+owner)
	r.does("fleetctl token rotate > token")
	if fresh := r.kept(); fresh == owner || m.fleetctlAs(fresh, "tenant", "list").code != fleet.ExitOK || m.fleetctlAs(owner, "tenant", "list").code != fleet.ExitDenied {
		l.t.Error("the old token was not replaced by the new one")
	}
	r.as = m.env()
	old := tokenID(m.must("token", "create", "--operator", "--comment", "backup job"), m)
	r.does(`fleetctl token create --operator --comment "backup job" --scope audit:read > token && fleetctl token revoke OLD`, "OLD", old)
	job := r.kept()
	if m.fleetctlAs(job, "audit", "list").code != fleet.ExitOK || m.fleetctlAs(job, "tenant", "list").code != fleet.ExitDenied {
		l.t.Error("the token of the backup job has another scope")
	}
	r.does("fleetctl token list --idle 90d")
}

// kept is what a command wrote to the file "token".
func (r *reader) kept() string {
	r.t.Helper()
	return strings.TrimSpace(string(read(r.t, filepath.Join(r.dir, "token"))))
}

// tokenID is the id of a token: the API lists it, the token itself shows it in its middle.
func tokenID(token string, m *member) string {
	m.t.Helper()
	for _, t := range list[fleet.Token](m, m.client(), "/v1/tokens") {
		if strings.Contains(token, strings.TrimPrefix(string(t.ID), "tok-")) {
			return string(t.ID)
		}
	}
	m.t.Fatal("the token is not listed")
	return ""
}

func (l *life) people() {
	m := l.single
	r := l.on("Let people in and out", m, m.env())
	r.does("fleetctl user add alice --role administrator --email alice@example.net")
	r.does("fleetctl token create --user alice > token")
	first := r.kept()
	r.as = append(m.env(), "FLEETCTL_TOKEN="+first)
	alice := r.does("fleetctl token rotate")
	r.as = m.env()
	r.says(r.does("fleetctl role create responder --permission events:read --permission rules:write"), "responder")
	r.does("fleetctl user list --idle 90d")
	if m.fleetctlAs(alice, "tenant", "list").code != fleet.ExitOK {
		l.t.Error("alice cannot work")
	}
	r.does(`fleetctl user disable alice --reason "left the company"`)
	if m.fleetctlAs(alice, "tenant", "list").code != fleet.ExitDenied {
		l.t.Error("alice works on")
	}
}

func (l *life) twoPeople() {
	m := l.single
	r := l.on("Two people for risky acts", m, m.env())
	var tokens []string
	for _, name := range []string{"bob", "carol", "dave"} {
		m.must("user", "add", name, "--role", "administrator", "--email", name+"@example.net")
		r.as = append(m.env(), "FLEETCTL_TOKEN="+m.must("token", "create", "--user", name))
		res := r.shell("fleetctl token rotate")
		tokens = append(tokens, strings.TrimSpace(res.stdout))
	}
	r.as = append(m.env(), "FLEETCTL_TOKEN="+tokens[0])
	r.does(`fleetctl access set --four-eyes --reason "we are three now"`)
	_ = r.shell("fleetctl user enable alice --reason back")
	r.as = append(m.env(), "FLEETCTL_TOKEN="+tokens[1])
	ap := regexp.MustCompile(`\bap-\w+`).FindString(r.does("fleetctl approval list"))
	r.says(r.does("fleetctl approval show AP && fleetctl approval approve AP", "AP", ap), ap)
}

func (l *life) audit() {
	r := l.on("Audit", l.m1, l.m1.env())
	r.says(r.does("fleetctl audit list --newest -n 20"), "tenant/acme")
	r.does("fleetctl audit key audit-key.pem")
	r.does("fleetctl audit export audit.ndjson")
	r.does("fleetctl audit verify audit.ndjson --key audit-key.pem")
	r.does("fleetctl audit verify --key audit-key.pem")
}

func (l *life) damaged() {
	r := l.on("Backup and restore", l.m1, l.m1.env())
	r.does("fleetctl cluster snapshot save edgefleet.snapshot")
	r.says(r.does("fleetctl cluster snapshot inspect edgefleet.snapshot"), "state hash")

	await(l.t, "a backup is made", func() bool { return l.m1.fleetctl("cluster", "backups").code == fleet.ExitOK })
	r.does("fleetctl cluster backups")
	r.says(r.does("fleetctl drill run restore"), "passed", "state hash")
	r.says(r.tries("fleetctl cluster check").stdout, "backup")

	r = l.on("Disk full", l.m2, l.m1.env())
	r.says(r.tries("fleetctl cluster check").stdout, "disk of m1", "ports of m2")
	r.says(r.does("curl -s http://127.0.0.1:8444/readyz", "127.0.0.1", l.m2.ip), "ready")
	r.does("df -h /var/lib/edgefleet/controlplane")
	r.does("systemctl restart edgefleet-controlplane")
	await(l.t, "m2 is ready", func() bool { status, _ := l.m2.ready(); return status == http.StatusOK })

	const chapter = "A member refuses to start: its log or snapshot is damaged"
	l.m2.stop()
	segments, err := filepath.Glob(l.m2.path("raft/wal/*.wal"))
	if err != nil || len(segments) == 0 {
		l.t.Fatalf("no log in %s: %v", l.m2.data(), err)
	}
	b := read(l.t, segments[0])
	copy(b[len(b)/2:], "no log")
	for i := range min(4096, len(b)) {
		b[i] ^= 0x55
	}
	write(l.t, segments[0], string(b))
	if res := l.m2.controlplane("run"); res.code == fleet.ExitOK || !strings.Contains(res.stderr, "corrupt") {
		l.t.Errorf("the damaged member: %d %s", res.code, res.stderr)
	}
	r = l.on(chapter, l.m2, l.m1.env())
	r.does("fleetctl cluster remove m2 --yes")
	r.does("mv /var/lib/edgefleet/controlplane /var/lib/edgefleet/controlplane.damaged")
	l.rejoin(r, "controlplane join … && controlplane run …", l.m2)
	l.voters(3)
}

// rejoin executes a command that names no more than its programs.
func (l *life) rejoin(r *reader, command string, m *member) {
	l.t.Helper()
	r.at = m
	r.does(command, "join …", "join --config "+m.file()+" --address "+l.m1.at(8440)+" --token "+l.m1.must("cluster", "join-token"), "run …", "run --config "+m.file())
	if m.cmd == nil || m.cmd.ProcessState != nil {
		m.launch()
	}
}

func (l *life) restored() {
	l.m1.must("tenant", "add", "mistake")
	r := l.on("Backup and restore", l.m1, l.m1.env())
	r.does("fleetctl cluster snapshot restore edgefleet.snapshot --recovery-key recovery.key", "recovery.key", "recovery.key --yes")
	await(l.t, "the tenant is gone", func() bool { return !strings.Contains(l.m1.fleetctl("tenant", "list").stdout, "mistake") })
}

func (l *life) lostQuorum() {
	kill(l.t, l.m2)
	kill(l.t, l.m3)
	none := l.on("No leader", l.m1, l.m1.env())
	none.says(none.tries("fleetctl cluster check").stdout, "m2", "fail")
	r := l.on("Lost quorum", l.m1, l.m1.env())
	r.says(r.does("fleetctl cluster status --addr MEMBER:8440", "MEMBER", l.m1.ip), "log index", ", of term ")
	r.does("systemctl stop edgefleet-controlplane")
	r.does("cp -a /var/lib/edgefleet/controlplane /var/lib/edgefleet/controlplane.before")
	r.does("controlplane recover --config /etc/edgefleet/controlplane.yaml --peers m1=203.0.113.1:8441 --recovery-key recovery.key",
		"203.0.113.1", l.m1.ip, "recovery.key", "recovery.key --yes")
	r.does("systemctl start edgefleet-controlplane")
	leads(l.t, l.m1)
	if err := os.RemoveAll(l.m2.data()); err != nil {
		l.t.Fatal(err)
	}
	l.m1.must("tenant", "add", "after")
	r.as = l.m1.env()
	l.rejoin(r, "fleetctl cluster join-token && controlplane join …", l.m2)
	l.voters(2)
	r.does("fleetctl cluster incarnation start --recovery-key recovery.key")
}

// kill ends a member with SIGKILL.
func kill(t *testing.T, m *member) {
	t.Helper()
	if err := m.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = m.cmd.Wait() // says that it was killed
}

func (l *life) everyMemberLost() {
	kill(l.t, l.m1)
	kill(l.t, l.m2)
	if err := os.RemoveAll(l.m1.data()); err != nil {
		l.t.Fatal(err)
	}
	l.withoutTheOldKey()
	r := l.on("Backup and restore", l.m1, nil)
	r.does("controlplane init --config /etc/edgefleet/controlplane.yaml --from-snapshot edgefleet.snapshot --recovery-key recovery.key", "recovery.key", "recovery.key --yes")
	r.does("controlplane run --config /etc/edgefleet/controlplane.yaml")
	await(l.t, "m1 leads", func() bool {
		r.as = l.m1.env()
		return strings.Contains(r.shell("fleetctl cluster status").stdout, "leader")
	})
	r.does("fleetctl cluster incarnation list")
	r.says(r.does("fleetctl node list"), "n1")
}

func (l *life) consul() {
	const chapter = "Consul"
	done := false
	defer func() {
		if !done {
			l.skip(chapter) // the subtest says why
		}
	}()
	l.t.Run(chapter, func(t *testing.T) {
		defer func(outer *testing.T) { l.runbook.t = outer }(l.runbook.t)
		l.runbook.t = t
		s := consultest.Start(t)
		s.Register("web1", "web", "198.51.100.9", 8080, "blue")
		m1, m2 := newMember(t, "m1"), newMember(t, "m2")
		ip := strings.Split(s.Address, ":")[0]
		for _, m := range []*member{m1, m2} {
			m.configure("consul: {address: \""+s.Address+"\", ttl: 5s}", "retry_join: [consul]")
		}
		m1.initialize()
		m1.start()
		write(t, m2.kek, string(read(t, m1.kek)))
		r := l.on(chapter, m2, nil)
		await(t, "m1 is registered", func() bool { return s.Health("edgefleet-controlplane")["m1"] == "passing" })
		r.does("controlplane join --config /etc/edgefleet/controlplane.yaml --token efm1.…", "efm1.…", m1.must("cluster", "join-token"))
		m1.must("tenant", "add", "acme")
		r.at, r.as = m1, append(m1.env(), "FLEETCTL_TENANT=acme")
		r.does("fleetctl host add shop.example.com --origin 'consul://web?tag=blue&scheme=https'")
		await(t, "the instance is seen", func() bool {
			return strings.Contains(m1.fleetctl("host", "show", "--tenant", "acme", "shop.example.com").stdout, "198.51.100.9")
		})
		r.says(r.does("fleetctl host show shop.example.com"), "198.51.100.9")
		c := cluster{member: m1}
		_, err := c.enrol(m1.must("node", "join-token", "--region", "eu-1"), "n1", time.Now())
		c.ok(err)
		await(t, "the node is registered", func() bool { _, ok := s.Health("edgefleet-edge")["n1"]; return ok })
		r.says(r.does("dig @127.0.0.1 -p 8600 leader.edgefleet-controlplane.service.consul", "127.0.0.1", ip), m1.ip)
		r.does("dig @127.0.0.1 -p 8600 region-eu-1.edgefleet-edge.service.consul", "127.0.0.1", ip)
		r.says(r.tries("fleetctl cluster check").stdout, "consul")
		done = true
	})
}
