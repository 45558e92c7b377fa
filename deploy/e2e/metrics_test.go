package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/deploy/devfleet"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// unprovoked are the rows that show only after a failure which nobody can cause from outside, and the test that does.
var unprovoked = map[string]string{
	"edgefleet_waf_errors_total":      "edgenode/waf, a panic while judging",
	"edgefleet_waf_rule_panics_total": "edgenode/waf, a panic of a tenant's rule",
}

// scrape reads /metrics of a process.
func scrape(t *testing.T, address string) []byte {
	t.Helper()
	res, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("scrape %s: %s, %v", address, res.Status, err)
	}
	return b
}

// admin lists the admin listeners of every member and every edge by name.
func (f *wholeFleet) admin() map[string]string {
	out := map[string]string{}
	for _, m := range f.Members {
		host, _, _ := strings.Cut(m.API, ":")
		out[m.ID] = host + ":8444"
	}
	for _, e := range f.Edges {
		out[e.ID] = e.Address + ":8444"
	}
	return out
}

// emitted notes the names of our metrics with a sample in a scrape.
func emitted(names map[string]bool, scraped []byte) {
	for line := range bytes.Lines(scraped) {
		if !bytes.HasPrefix(line, []byte("edgefleet_")) {
			continue
		}
		name := string(line[:bytes.IndexAny(line, "{ ")])
		names[name] = true
		names[strings.TrimSuffix(name, "_count")] = true // of a histogram
	}
}

func TestMetricsAreTheRegistry(t *testing.T) {
	t.Parallel()
	f := sharedFleet(t)
	f.provoke(t)
	var missing []string
	defer func() {
		if t.Failed() {
			t.Logf("no process emits %v", missing)
		}
	}()
	await(t, "every row of the registry is emitted", func() bool {
		names := map[string]bool{}
		for _, address := range f.admin() {
			emitted(names, scrape(t, address))
		}
		missing = nil
		for _, m := range observability.Metrics() {
			if _, ok := unprovoked[m.Name]; !names[m.Name] && !ok {
				missing = append(missing, m.Name)
			}
		}
		return len(missing) == 0
	})
	all := f.admin()
	if len(all) != len(f.Members)+len(f.Edges) {
		t.Fatalf("admin listeners %v", all)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := observability.CheckExposition(bytes.NewReader(scrape(t, all[name]))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// provoke makes the fleet emit what an idle one does not: refusals, failures of an origin, a body that is too long to be
// judged whole.
func (f *wholeFleet) provoke(t *testing.T) {
	t.Helper()
	const broken fleet.HostName = "broken.shop.example"
	f.transfer(t)
	f.addHost(t, broken, "http://127.0.0.9:9")
	for i, v := range f.visitors(t, broken) {
		// The origin of a host is reached before it has a certificate, for the customer's own ACME client.
		await(t, "the edge knows the host", func() bool {
			status, _, err := v.get(t.Context(), "http", "/.well-known/acme-challenge/x")
			return err == nil && status == http.StatusBadGateway
		})
		if _, _, err := v.get(t.Context(), "https", "/"); err == nil {
			t.Error("a host without a certificate was served by TLS")
		}
		demo := f.visitors(t, f.Host)[i]
		demo.wants(t, http.StatusForbidden, attack(marker("metrics")))
		demo.post(t, strings.NewReader("order="+strings.Repeat("tea ", 40<<10)))
		stranger := newVisitor(t, "stranger.example", f.Edges[i].Address, nil)
		if status, _, err := stranger.get(t.Context(), "http", "/"); err != nil || status != http.StatusMisdirectedRequest {
			t.Errorf("an unknown host: %d %v", status, err)
		}
	}
}

// transfer asks a member for its whole zone, which is refused to strangers.
func (f *wholeFleet) transfer(t *testing.T) {
	t.Helper()
	host, _, _ := strings.Cut(f.Members[0].API, ":")
	q := new(dns.Msg)
	q.SetAxfr(string(devfleet.Zone) + ".")
	answer, _, err := (&dns.Client{Net: "tcp"}).ExchangeContext(t.Context(), q, host+":8053")
	if err != nil || answer.Rcode != dns.RcodeRefused {
		t.Errorf("a transfer to a stranger: %v %v", answer, err)
	}
}

// post uploads a form.
func (v visitor) post(t *testing.T, body io.Reader) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("https://%s:8443/upload", v.host), body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "edgefleet-e2e/1.0")
	req.Header.Set("Accept", "*/*")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := v.http.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	_ = res.Body.Close()
}
