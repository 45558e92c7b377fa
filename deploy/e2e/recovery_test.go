package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/deploy/devfleet"
	"github.com/edgefleet/edgefleet/fleet"
)

// disaster is a whole fleet of its own that loses its control plane while visitors come.
type disaster struct {
	*wholeFleet
	t        *testing.T
	control  devfleet.Control
	visitors []visitor
	recovery string
	// page is of the last attack that followed saw arrive.
	page string
	// stop ends the visits; visits counts those that were answered, failed keeps those that were not.
	stop   context.CancelFunc
	done   sync.WaitGroup
	visits atomic.Int64
	mu     sync.Mutex
	failed []string
}

func newDisaster(t *testing.T, flags ...string) *disaster {
	t.Helper()
	home := t.TempDir()
	f, err := startFleet(filepath.Join(home, "home"), append(flags, "--members", "3", "--nodes", "2")...)
	if err != nil {
		t.Fatal(err)
	}
	d := &disaster{wholeFleet: f, t: t, control: devfleet.Control{Dir: f.dir}, visitors: f.visitors(t, f.Host), recovery: filepath.Join(home, "recovery.key")}
	t.Cleanup(func() {
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
	write(t, d.recovery, string(read(t, d.data("m1")+"/recovery.key")))
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	d.stop = stop
	t.Cleanup(func() { stop(); d.done.Wait() })
	for _, v := range d.visitors {
		d.done.Go(func() { d.visit(ctx, v) })
	}
	return d
}

func (d *disaster) data(member string) string { return filepath.Join(d.dir, "data", member) }
func (d *disaster) config(member string) string {
	return filepath.Join(d.dir, "config", member+".yaml")
}

// visit makes one request after the other; each must be answered by the origin.
func (d *disaster) visit(ctx context.Context, v visitor) {
	for ctx.Err() == nil {
		status, body, err := v.get(context.WithoutCancel(ctx), "https", "/visit")
		if err != nil || status != http.StatusOK || !strings.Contains(body, "saw GET /visit") {
			d.mu.Lock()
			d.failed = append(d.failed, fmt.Sprintf("%s: %d %v %.100q", v.edge, status, err, body))
			d.mu.Unlock()
		}
		d.visits.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *disaster) env() []string {
	var addrs []string
	for _, m := range d.Members {
		addrs = append(addrs, m.API)
	}
	return []string{"FLEETCTL_ADDR=" + strings.Join(addrs, ","), "FLEETCTL_CACERT=" + d.CACert, "FLEETCTL_TOKEN=" + d.Token}
}

// ctl runs fleetctl, until it works if patient is set, and returns its output.
func (d *disaster) ctl(args ...string) string {
	d.t.Helper()
	var last result
	await(d.t, "fleetctl "+strings.Join(args, " "), func() bool {
		last = run(d.t, "fleetctl", d.env(), args...)
		return last.code == 0
	})
	return strings.TrimSpace(last.stdout)
}

// must runs controlplane.
func (d *disaster) must(args ...string) result {
	d.t.Helper()
	r := run(d.t, "controlplane", nil, args...)
	if r.code != 0 {
		d.t.Fatalf("controlplane %v: %d %s", args, r.code, r.stderr)
	}
	return r
}

func (d *disaster) do(verb string, members ...string) {
	d.t.Helper()
	for _, m := range members {
		if err := d.control.Do(d.t.Context(), verb, m); err != nil {
			d.t.Fatal(err)
		}
	}
}

// join brings a member back on an empty directory.
func (d *disaster) join(member string) {
	d.t.Helper()
	d.must("join", "--config", d.config(member), "--token", d.ctl("cluster", "join-token"), "--address", d.Members[0].API)
	d.do("start", member)
}

func (d *disaster) status() client.ClusterStatus {
	d.t.Helper()
	var s client.ClusterStatus
	if err := json.Unmarshal([]byte(d.ctl("cluster", "status", "-o", "json")), &s); err != nil {
		d.t.Fatal(err)
	}
	return s
}

// followed makes a change and an attack, and waits until every node runs the one, in a later incarnation than before,
// and the event of the other has arrived.
func (d *disaster) followed(before uint64) (incarnation uint64) {
	d.t.Helper()
	word := marker("forbidden")
	spec := fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: word, AttackType: fleet.AttackCustom, Comment: "after the disaster"}
	tenant := d.tenant(d.t)
	await(d.t, "a rule is added", func() bool {
		_, err := client.Post[fleet.Rule](d.t.Context(), tenant, tenantPath(d.Tenant, "rules"), client.RuleCreate{Spec: spec})
		return err == nil
	})
	var last client.RulesetStatus
	await(d.t, "the rule is live on every node", func() bool {
		var err error
		last, err = client.Get[client.RulesetStatus](d.t.Context(), tenant, tenantPath(d.Tenant, "ruleset/status"), nil)
		return err == nil && last.Version.Incarnation > before && last.Nodes == len(d.visitors) && last.Live == last.Nodes && len(last.Waiting) == 0
	})
	for _, v := range d.visitors {
		v.wants(d.t, http.StatusForbidden, "/?say="+word)
	}
	d.page = marker("attack")
	d.visitors[0].wants(d.t, http.StatusForbidden, attack(d.page))
	await(d.t, "the event arrives", func() bool { _, ok := eventOf(d.t, tenant, d.Tenant, d.page); return ok })
	return last.Version.Incarnation
}

// noticed ends the visits and holds that none failed.
func (d *disaster) noticed() {
	d.t.Helper()
	d.stop()
	d.done.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.visits.Load(); len(d.failed) > 0 || n < 100 {
		d.t.Errorf("%d of %d visits failed: %.5v", len(d.failed), n, d.failed)
	}
}

func TestTrafficDoesNotNoticeThatTheControlPlaneIsLostAndBroughtBack(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole fleet takes a while")
	}
	d := newDisaster(t)
	file := filepath.Join(t.TempDir(), "edgefleet.snapshot")
	d.ctl("cluster", "snapshot", "save", file)
	if out := d.ctl("cluster", "snapshot", "inspect", file); !strings.Contains(out, "state hash") || !strings.Contains(out, "nodes         2") {
		t.Errorf("inspect says:\n%s", out)
	}

	// Every member is gone, with its disk; what is left are the snapshot, the KEK and the recovery key.
	d.do("kill", "m1", "m2", "m3")
	for _, m := range d.Members {
		if err := os.RemoveAll(d.data(m.ID)); err != nil {
			t.Fatal(err)
		}
	}
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	write(t, wrong, strings.ReplaceAll(string(read(t, d.config("m1"))), "m1.kek", "nobody.kek"))
	run(t, "controlplane", nil, "init", "--config", wrong, "--from-snapshot", file, "--recovery-key", d.recovery, "--yes").says(t, fleet.ExitNotFound, "from escrow")
	if _, err := os.Stat(d.data("m1")); !os.IsNotExist(err) {
		t.Errorf("a refused init left something behind: %v", err)
	}
	out := d.must("init", "--config", d.config("m1"), "--from-snapshot", file, "--recovery-key", d.recovery, "--yes").stdout
	var e struct {
		StateHash string `json:"state_hash"`
	}
	if err := json.Unmarshal([]byte(d.ctl("cluster", "snapshot", "inspect", file, "-o", "json")), &e); err != nil || e.StateHash == "" || !strings.Contains(out, e.StateHash) {
		t.Errorf("init does not say the state hash %q of the snapshot: %v\n%s", e.StateHash, err, out)
	}
	d.do("start", "m1")
	restored := d.followed(1)
	d.join("m2")
	d.join("m3")
	await(t, "three members vote", func() bool {
		s, voters := d.status(), 0
		for _, m := range s.Members {
			if m.Suffrage == "voter" {
				voters++
			}
		}
		return voters == 3
	})
	d.ctl("audit", "verify")
	// What a node sends next says that this member lacks what was before.
	d.visitors[0].wants(t, http.StatusForbidden, attack(marker("later")))
	for _, m := range d.Members[1:] {
		alone := d.client(t, d.TenantToken, m.API)
		await(t, m.ID+" has fetched the event of before it joined", func() bool { _, ok := eventOf(t, alone, d.Tenant, d.page); return ok })
	}

	// Two of three members are lost for ever.
	d.do("kill", "m2", "m3")
	d.do("kill", "m1")
	peers := "m1=" + strings.Replace(d.Members[0].API, ":8440", ":8441", 1)
	if r := run(t, "controlplane", nil, "recover", "--config", d.config("m1"), "--peers", peers, "--recovery-key", d.recovery); r.code != fleet.ExitFailure || !strings.Contains(r.stderr, "Left out: [m2 m3]") || !strings.Contains(r.stderr, "say --yes. Nothing was changed") {
		t.Errorf("without a confirmation: %d %s", r.code, r.stderr)
	}
	d.must("recover", "--config", d.config("m1"), "--peers", peers, "--recovery-key", d.recovery, "--yes")
	d.do("start", "m1")
	if recovered := d.followed(restored); recovered <= restored {
		t.Errorf("incarnation %d after %d", recovered, restored)
	}
	if s := d.status(); len(s.Members) != 1 || s.Leader != "m1" {
		t.Errorf("members %+v", s.Members)
	}
	d.ctl("audit", "verify")

	// A restore into the running cluster takes back what came since.
	d.ctl("cluster", "snapshot", "restore", file, "--recovery-key", d.recovery, "--yes")
	await(t, "the rules are those of the snapshot", func() bool {
		rules, err := client.All[fleet.Rule](t.Context(), d.tenant(t), tenantPath(d.Tenant, "rules"), nil)
		for _, r := range rules {
			if r.Spec.Comment == "after the disaster" {
				return false
			}
		}
		return err == nil
	})
	d.followed(restored + 1)
	d.noticed()
}
