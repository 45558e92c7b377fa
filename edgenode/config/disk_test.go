package config_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
)

// generations applies two generations of config and certificates, so that there is something to fall back to.
func generations(c *control, dir string) {
	c.t.Helper()
	e := c.open(dir)
	c.all(e)
	certs := fleet.CertsBundle{Tenant: "acme", Certificates: []fleet.BundleCert{c.certificate("acme", "api.example.com", 2, 6)}}
	for _, r := range c.apply(e, c.envelope(6), c.head(fleet.HeadConfig, 2, oneTenant(hosts("acme", "api.example.com", "b.example.com"))), c.head(fleet.HeadCerts, 2, oneTenant(certs))) {
		if r.Reason != "" {
			c.t.Fatalf("report %+v", r)
		}
	}
}

// damage overwrites every blob that contains all of the given texts, and reports how many.
func damage(t *testing.T, dir string, texts ...string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "blobs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		hit := true
		for _, text := range texts {
			hit = hit && bytes.Contains(b, []byte(text))
		}
		if hit {
			n++
			if err := os.WriteFile(f, []byte("damaged"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

func TestADamagedBlobFallsBackToThePreviousHeadOfItsKind(t *testing.T) {
	c, dir := newControl(t), t.TempDir()
	generations(c, dir)
	if damage(t, dir, "b.example.com") != 1 {
		t.Fatal("no blob to damage")
	}
	e := c.open(dir)
	got := served(e)
	if got["config"] != uint64(1) || got["certs"] != uint64(2) || got["certificates"] != 1 {
		t.Fatalf("served %v", got)
	}
	// What lies between the two is no way forward; the lost head itself is, and only the damaged blob is fetched.
	c.fetched = nil
	reports := c.apply(e, nil, c.head(fleet.HeadConfig, 2, oneTenant(hosts("acme", "api.example.com", "b.example.com"))))
	if len(reports) != 1 || reports[0].Reason != "" || served(e)["config"] != uint64(2) {
		t.Errorf("reports %+v", reports)
	}
	if len(c.fetched) == 0 || len(c.fetched) > 3 {
		t.Errorf("fetched %d blobs", len(c.fetched))
	}
}

func TestADamagedBundleCostsItsOwnTenantOnly(t *testing.T) {
	c, dir := newControl(t), t.TempDir()
	e := c.open(dir)
	// Both generations on disk name the same bundle of tenant other.
	both := func(names ...fleet.HostName) map[fleet.TenantID]any {
		return map[fleet.TenantID]any{"acme": hosts("acme", names...), "other": hosts("other", "other.example.com")}
	}
	c.apply(e, nil, c.head(fleet.HeadConfig, 1, both("a.example.com")))
	second := c.head(fleet.HeadConfig, 2, both("a.example.com", "b.example.com"))
	c.apply(e, nil, second)
	if damage(t, dir, "other.example.com") != 1 {
		t.Fatal("no blob to damage")
	}
	e = c.open(dir)
	snap := e.Snapshot()
	if snap.Hosts["b.example.com"] == nil || snap.Hosts["other.example.com"] != nil {
		t.Fatalf("served %v", served(e))
	}
	if r := e.Reports(); len(r) != 1 || r[0].Reason == "" {
		t.Errorf("reports %+v", r)
	}
	// Another kind that is stored meanwhile does not make the rest good.
	c.apply(e, nil, c.head(fleet.HeadRuleset, 1, oneTenant(ruleset("evil"))))
	e = c.open(dir)
	c.fetched = nil
	reports := c.apply(e, nil, second)
	if len(reports) != 1 || reports[0].Reason != "" || len(e.Snapshot().Hosts) != 3 || len(c.fetched) != 1 {
		t.Errorf("reports %+v, served %v, fetched %d blobs", reports, served(e), len(c.fetched))
	}
	if e = c.open(dir); len(e.Snapshot().Hosts) != 3 {
		t.Errorf("after a restart: served %v", served(e))
	}
}

func TestPreviousCertificatesStillOpenAfterTwoEpochs(t *testing.T) {
	c, dir := newControl(t), t.TempDir()
	generations(c, dir)
	if damage(t, dir, `"generation":2`) == 0 {
		t.Fatal("no blob to damage")
	}
	e := c.open(dir)
	if got := served(e); got["certs"] != uint64(1) || got["certificates"] != 1 {
		t.Errorf("served %v", got)
	}
}

func TestAHeadOlderThanTheLostOneIsNotAccepted(t *testing.T) {
	c, dir := newControl(t), t.TempDir()
	e := c.open(dir)
	for g := uint64(1); g <= 3; g += 2 {
		c.apply(e, nil, c.head(fleet.HeadConfig, g, oneTenant(hosts("acme", fleet.HostName([]string{"", "a", "", "c"}[g]+".example.com")))))
	}
	if damage(t, dir, "c.example.com") != 1 {
		t.Fatal("no blob to damage")
	}
	e = c.open(dir)
	reports := c.apply(e, nil, c.head(fleet.HeadConfig, 2, oneTenant(hosts("acme", "replayed.example.com"))))
	if len(reports) != 1 || !strings.Contains(reports[0].Reason, "not newer") || served(e)["config"] != uint64(1) {
		t.Errorf("reports %+v", reports)
	}
}

func TestAStoreStartsWhateverIsOnDisk(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string)
		// want is the generation of config that is served: the file before the current one has 1; 0 for nothing.
		want uint64
	}{
		{"a damaged heads file", func(t *testing.T, dir string) { write(t, dir, "heads.json", "{") }, 1},
		{"a missing heads file", func(t *testing.T, dir string) { remove(t, dir, "heads.json") }, 1},
		{"an empty heads file", func(t *testing.T, dir string) { write(t, dir, "heads.json", "") }, 1},
		{"a heads file of a later version", func(t *testing.T, dir string) { write(t, dir, "heads.json", `{"format":99,"kinds":{}}`) }, 1},
		{"both heads files damaged", func(t *testing.T, dir string) {
			write(t, dir, "heads.json", "{")
			write(t, dir, "heads.previous.json", "\x00")
		}, 0},
		{"all blobs gone", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"heads files of nothing signed", func(t *testing.T, dir string) {
			write(t, dir, "heads.json", `{"format":1,"kinds":{"config":{"current":{"head":{},"key_id":"","signature":""},"previous":null}},"envelopes":[{}]}`)
			write(t, dir, "heads.previous.json", `{"format":1,"kinds":{"config":{"current":null}}}`)
		}, 0},
		{"nothing damaged", func(*testing.T, string) {}, 2},
		{"a temporary file left by a crash", func(t *testing.T, dir string) { write(t, dir, "blobs/.tmp-1", "half") }, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, dir := newControl(t), t.TempDir()
			generations(c, dir)
			tt.damage(t, dir)
			e := c.open(dir)
			if got := e.Snapshot().Versions[fleet.HeadConfig].Generation; got != tt.want {
				t.Errorf("serves config %d, want %d", got, tt.want)
			}
			if reports := c.all(e); len(reports) != 3 { // from an empty store it comes back
				t.Errorf("reports %+v", reports)
			}
		})
	}
}

func TestLostStateIsReported(t *testing.T) {
	c, dir := newControl(t), t.TempDir()
	generations(c, dir)
	if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	reports := c.open(dir).Reports()
	if len(reports) != 3 {
		t.Fatalf("reports %+v", reports)
	}
	for _, r := range reports {
		if !strings.Contains(r.Reason, "damaged") {
			t.Errorf("report %+v", r)
		}
	}
}

func TestStateOfAnotherClusterIsNotServed(t *testing.T) {
	c, dir := newControl(t), t.TempDir()
	generations(c, dir)
	other := newControl(t)
	if got := other.open(dir).Snapshot(); len(got.Hosts) != 0 {
		t.Errorf("serves %v", got.Hosts)
	}
}

func TestBlobsThatNothingNeedsAreRemoved(t *testing.T) {
	c, dir := newControl(t), t.TempDir()
	e := c.open(dir)
	count := func() int {
		files, err := filepath.Glob(filepath.Join(dir, "blobs", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	counts := []int{}
	for g := uint64(1); g <= 5; g++ {
		b := hosts("acme", "api.example.com")
		b.Hosts[0].Origins[0].URL = "https://203.0.113." + string('0'+rune(g))
		c.apply(e, nil, c.head(fleet.HeadConfig, g, oneTenant(b)))
		counts = append(counts, count())
	}
	if diff := cmp.Diff([]int{3, 6, 6, 6, 6}, counts); diff != "" {
		t.Error(diff)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}
