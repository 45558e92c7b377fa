package e2e_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestBadInputAtTheAPI(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for name, test := range map[string]func(*testing.T, cluster){
		"hosts":               testHosts,
		"origins":             testOrigins,
		"another's host":      testAnothersHost,
		"rules":               testRules,
		"an oversized body":   testOversizedBody,
		"an unreachable API":  testUnreachable,
		"an unknown token":    testToken,
		"tokens and settings": testSettings,
	} {
		t.Run(name, func(t *testing.T) { test(t, c.on(t)) })
	}
}

func testUnreachable(t *testing.T, c cluster) {
	nobody := loopback() + ":8440"
	c.fleetctl("--addr", nobody, "tenant", "list").says(t, fleet.ExitFailure, nobody, "cannot be reached", "FLEETCTL_ADDR")
	run(t, "fleetctl", nil, "whoami").says(t, fleet.ExitFailure, "no API address", "FLEETCTL_ADDR", "--addr")
	run(t, "fleetctl", []string{"FLEETCTL_ADDR=" + c.at(8440)}, "whoami").says(t, fleet.ExitFailure, c.at(8440), "unknown authority", "FLEETCTL_CACERT", "api-ca.crt")
	// The node CA is a real authority of the same cluster, and the wrong one.
	c.fleetctl("--cacert", c.path("node-ca.crt"), "whoami").says(t, fleet.ExitFailure, c.at(8440), "unknown authority", "FLEETCTL_CACERT")
	c.fleetctl("--cacert", c.file(), "whoami").says(t, fleet.ExitFailure, "no PEM certificate", "cacert")
	c.fleetctl("--cacert", "/nonexistent/ca.crt", "whoami").says(t, fleet.ExitFailure, "/nonexistent/ca.crt", "cacert")
}

func testToken(t *testing.T, c cluster) {
	for _, token := range []string{"eft1.tok-0000.c2VjcmV0", "garbage", c.token() + "x"} {
		r := c.fleetctlAs(token, "tenant", "list")
		r.says(t, fleet.ExitDenied, "token", "not known", "FLEETCTL_TOKEN")
		r.hides(t, token)
	}
	c.fleetctlAs("", "tenant", "list").says(t, fleet.ExitDenied, "no valid API token", "FLEETCTL_TOKEN")
	c.fleetctlAs(c.red, "tenant", "list").says(t, fleet.ExitDenied, "needs an operator token")
}

func testSettings(t *testing.T, c cluster) {
	c.unchanged(func() {
		c.fleetctl("host", "list").says(t, fleet.ExitUsage, "which tenant?", "--tenant", "FLEETCTL_TENANT")
		c.fleetctl("tenant", "add", "Not_An_Id").says(t, fleet.ExitFailure, "Not_An_Id", "a-z")
		c.fleetctl("tenant", "add", "red").says(t, fleet.ExitConflict, "tenant red exists already")
		c.fleetctl("tenant", "update", "red", "--allow-origin", "10.0.0").says(t, fleet.ExitFailure, `"10.0.0"`, "10.0.0.0/8")
		c.fleetctl("node", "join-token", "--ttl", "16m").says(t, fleet.ExitFailure, "16m", "15m")
		c.fleetctl("tenant", "delete", "red").says(t, fleet.ExitUsage, "--yes")
	})
}

func testHosts(t *testing.T, c cluster) {
	for _, tt := range []struct {
		name, host string
		words      []string
	}{
		{"an IPv4 address", "203.0.113.7", []string{"is an IP address", "--origin"}},
		{"an IPv6 address", "2001:db8::1", []string{"is an IP address", "--origin"}},
		{"an IPv6 address in brackets", "[2001:db8::1]", []string{"is an IP address", "--origin"}},
		{"an address with a port", "203.0.113.7:443", []string{"is an IP address", "--origin"}},
		{"an address in disguise", "0x7f.1", []string{"ends in a number"}},
		{"the edge zone", "edge.example", []string{"belongs to the edge zone", "CNAME"}},
		{"a name in the edge zone", "shop.edge.example", []string{"belongs to the edge zone", "CNAME"}},
		{"a public suffix", "co.uk", []string{"is a public suffix", "www.co.uk"}},
		{"a private public suffix", "github.io", []string{"is a public suffix"}},
		{"a wildcard in the middle", "api.*.example.com", []string{"not the whole first label", "*.example.com"}},
		{"a wildcard over a public suffix", "*.co.uk", []string{"public suffix"}},
		{"one label", "localhost", []string{"one label", "api.example.com"}},
		{"a URL", "https://shop.example.com/", []string{"is a URL", "host name only"}},
		{"a name that is too long", strings.Repeat("abcdefgh.", 30) + "example.com", []string{"281 bytes", "limit is 253"}},
		{"a label that is too long", strings.Repeat("a", 64) + ".example.com", []string{"1 to 63"}},
		{"nothing", "", []string{"is empty", "api.example.com"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := c.on(t)
			c.unchanged(func() {
				c.fleetctlAs(c.red, "host", "add", tt.host, "--origin", "https://203.0.113.10").says(t, fleet.ExitFailure, tt.words...)
				// The API refuses it too: fleetctl's own check is a courtesy.
				status, body := c.post(c.red, "/v1/tenants/red/hosts", fmt.Appendf(nil, `{"name":%q,"origins":[{"url":"https://203.0.113.10"}]}`, tt.host))
				if status != http.StatusUnprocessableEntity || !strings.Contains(body, `"field":"host"`) {
					t.Errorf("the API answers %d %s", status, body)
				}
			})
		})
	}
}

func testOrigins(t *testing.T, c cluster) {
	private := []struct{ name, origin, allow string }{
		{"a private address", "10.1.2.3", "10.0.0.0/8"},
		{"a loopback address", "127.0.0.1", "127.0.0.0/8"},
		{"an IPv6 loopback address", "[::1]", "::1/128"},
		{"an IPv4-mapped address", "[::ffff:10.0.0.1]", "10.0.0.0/8"},
		{"a NAT64 address", "[64:ff9b::a00:1]", "10.0.0.0/8"},
	}
	for _, tt := range private {
		t.Run(tt.name, func(t *testing.T) {
			c := c.on(t)
			c.unchanged(func() {
				c.fleetctlAs(c.red, "host", "add", "private.example.com", "--origin", "https://"+tt.origin).
					says(t, fleet.ExitFailure, "not public", "fleetctl tenant update", "--allow-origin "+tt.allow)
			})
		})
	}
	t.Run("a tenant allows itself nothing", func(t *testing.T) {
		c := c.on(t)
		c.unchanged(func() {
			c.fleetctlAs(c.red, "tenant", "update", "red", "--allow-origin", "10.0.0.0/8").says(t, fleet.ExitDenied, "operator")
		})
	})
	t.Run("the metadata address is refused even when it is allowed", func(t *testing.T) {
		c := c.on(t)
		c.must("tenant", "update", "blue", "--allow-origin", "169.254.0.0/16", "--allow-origin", "::/0", "--allow-origin", "0.0.0.0/0")
		for _, origin := range []string{"169.254.169.254", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]"} {
			c.unchanged(func() {
				c.fleetctlAs(c.blue, "host", "add", "meta.example.com", "--origin", "http://"+origin).says(t, fleet.ExitFailure, "metadata", "never allowed")
			})
		}
	})
	t.Run("what an operator allows is accepted, for that tenant only", func(t *testing.T) {
		c := c.on(t)
		c.must("tenant", "update", "red", "--allow-origin", "10.0.0.0/8")
		for i, origin := range []string{"10.1.2.3", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]"} {
			host := fmt.Sprintf("private%d.example.com", i)
			if r := c.fleetctlAs(c.red, "host", "add", host, "--origin", "https://"+origin); r.code != fleet.ExitOK {
				t.Errorf("%s: %s", origin, r.stderr)
			}
		}
		c.fleetctlAs(c.red, "host", "add", "loop.example.com", "--origin", "https://127.0.0.1").says(t, fleet.ExitFailure, "not public")
	})
	t.Run("an origin that is no server", func(t *testing.T) {
		c := c.on(t)
		c.unchanged(func() {
			c.fleetctlAs(c.red, "host", "add", "o.example.com", "--origin", "203.0.113.10").says(t, fleet.ExitFailure, "not a URL", "https://203.0.113.10:8443")
			c.fleetctlAs(c.red, "host", "add", "o.example.com", "--origin", "ftp://203.0.113.10").says(t, fleet.ExitFailure, "http or https")
			c.fleetctlAs(c.red, "host", "add", "o.example.com", "--origin", "https://x.edge.example").says(t, fleet.ExitFailure, "leads back to the edge")
			c.fleetctlAs(c.red, "host", "add", "o.example.com").says(t, fleet.ExitUsage, "--origin is missing")
		})
	})
}

func testAnothersHost(t *testing.T, c cluster) {
	if r := c.fleetctlAs(c.red, "host", "add", "shop.red.example", "--origin", "https://203.0.113.10"); r.code != fleet.ExitOK {
		t.Fatal(r.stderr)
	}
	c.unchanged(func() {
		c.fleetctlAs(c.red, "host", "add", "Shop.RED.example.", "--origin", "https://203.0.113.11").says(t, fleet.ExitConflict, "shop.red.example exists already", "change that one")
		for _, args := range [][]string{
			{"host", "show", "shop.red.example", "--tenant", "red"},
			{"host", "list", "--tenant", "red"},
			{"host", "delete", "shop.red.example", "--tenant", "red", "--yes"},
			{"rule", "list", "--tenant", "red"},
			{"tenant", "show", "red"},
		} {
			// The same words as for a tenant that never was.
			theirs, nobodys := c.fleetctlAs(c.blue, args...), c.fleetctlAs(c.blue, swap(args, "red", "green")...)
			theirs.says(t, fleet.ExitNotFound, "tenant red does not exist, or this token may not see it")
			if got := strings.ReplaceAll(theirs.stderr, "red", "green"); got != strings.ReplaceAll(nobodys.stderr, "red", "green") || theirs.code != nobodys.code {
				t.Errorf("%v tells red from nobody: %q, %q", args, theirs.stderr, nobodys.stderr)
			}
		}
		r := c.fleetctlAs(c.blue, "host", "show", "shop.red.example")
		r.says(t, fleet.ExitNotFound, "host shop.red.example does not exist")
		for _, host := range []string{"shop.red.example", "SHOP.red.example.", "red.example"} {
			r := c.fleetctlAs(c.blue, "host", "add", host, "--origin", "https://203.0.113.12")
			r.says(t, fleet.ExitConflict, "CLAIMED_ELSEWHERE", "contact support")
			r.hides(t, "tenant red", `"red"`, "203.0.113.10")
		}
	})
}

func swap(args []string, from, to string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = strings.ReplaceAll(a, from, to)
	}
	return out
}

func testRules(t *testing.T, c cluster) {
	file := filepath.Join(t.TempDir(), "rule.yaml")
	const head = "kind: regex\nattack_type: sqli\n"
	for _, tt := range []struct {
		name, text string
		words      []string
	}{
		{"an unknown field", head + "patern: x\n", []string{":3: ", `unknown field "patern"`}},
		{"an unknown field of a condition", head + "pattern: x\nconditions:\n  - {type: equal, pint: host, value: x}\n", []string{":5: ", `unknown field "pint"`}},
		{"a list for a text", head + "pattern: [x]\n", []string{":3: ", "(pattern)", "not text"}},
		{"a word for a switch", head + "pattern: x\nexperimental: soon\n", []string{":4: ", "(experimental)", "true or false"}},
		{"an unknown attack type", "kind: regex\nattack_type: nope\npattern: x\n", []string{":2: ", `"nope"`, "sqli", "(attack_type)"}},
		{"an unknown point", head + "pattern: x\nconditions:\n  - {type: equal, point: hst, value: x}\n", []string{"rule.yaml:", `"hst"`, "host", "(conditions)"}},
		{"a pattern that is no expression", head + "pattern: (x\n", []string{":3: ", "missing closing ): `(x`", "(pattern)"}},
		{"a pattern that RE2 lacks", head + "pattern: (?=x)\n", []string{":3: ", "invalid or unsupported Perl syntax: `(?=`", "(pattern)"}},
		{"no pattern", head, []string{"pattern", "give 1 to 2048"}},
		{"a pattern that is too long", head + "pattern: " + strings.Repeat("a", fleet.MaxPatternLength+1) + "\n", []string{":3: ", "2049 bytes", "1 to 2048", "(pattern)"}},
		{"broken YAML", "kind: [regex\n", []string{"rule.yaml:"}},
		{"a file that is too large", strings.Repeat("#", 1<<20+1), []string{"rule.yaml", "1048576"}},
		{"an empty file", "", []string{"rule.yaml:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := c.on(t)
			write(t, file, tt.text)
			c.unchanged(func() {
				c.fleetctlAs(c.red, "rule", "add", "-f", file).says(t, fleet.ExitFailure, tt.words...)
			})
		})
	}
	t.Run("the API gives the expression's error and the field", func(t *testing.T) {
		c := c.on(t)
		c.unchanged(func() {
			status, body := c.post(c.red, "/v1/tenants/red/rules", []byte(`{"spec":{"kind":"regex","attack_type":"sqli","pattern":"(x"}}`))
			if status != http.StatusUnprocessableEntity || !strings.Contains(body, `"field":"pattern"`) || !strings.Contains(body, "missing closing ): `(x`") {
				t.Errorf("the API answers %d %s", status, body)
			}
		})
	})
}

func testOversizedBody(t *testing.T, c cluster) {
	c.unchanged(func() {
		body := []byte(`{"spec":{"kind":"regex","attack_type":"sqli","comment":"` + strings.Repeat("a", 1<<20) + `","pattern":"x"}}`)
		if status, answer := c.post(c.red, "/v1/tenants/red/rules", body); status != http.StatusRequestEntityTooLarge || !strings.Contains(answer, `"kind":"too_large"`) || !strings.Contains(answer, "1048576") {
			t.Errorf("the API answers %d %s", status, answer)
		}
	})
}

// post sends bytes to the API as they are.
func (m *member) post(token, path string, body []byte) (status int, answer string) {
	m.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read(m.t, m.path("api-ca.crt")))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodPost, "https://"+m.at(8440)+path, bytes.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := transport.RoundTrip(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestWrongTokensAreSlowedDown(t *testing.T) {
	t.Parallel()
	m := newMember(t, "m1")
	m.initialize()
	m.start()
	var last int
	for range 20 {
		last, _ = m.post("eft1.tok-0.x", "/v1/tenants", []byte(`{"id":"red"}`))
	}
	if last != http.StatusUnauthorized {
		t.Errorf("the 20th wrong token is answered %d, want 401", last)
	}
	m.fleetctlAs("eft1.tok-0.x", "tenant", "list").says(t, fleet.ExitFailure, "too many failed authentications", "wait a minute")
	if status, body := m.post("eft1.tok-0.x", "/v1/tenants", []byte(`{"id":"red"}`)); status != http.StatusTooManyRequests {
		t.Errorf("answered %d %s, want 429", status, body)
	}
}
