package proxy_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/fleet"
)

// outsideName is 127.0.0.1 to the C library, and a host name to the edge: programs that are given a name, and connect to
// what it resolves to, need neither DNS nor a change of /etc/hosts.
const outsideName = "127.0x1"

// outside is an edge for programs that test servers: one host with what a host has by default.
func outside(t *testing.T, limits proxy.Limits, h http.HandlerFunc) *edge {
	t.Helper()
	e := limited(t, limits, h)
	e.serve(&config.Host{Name: outsideName, Tenant: "tenant-a", Mode: fleet.ModeBlock, Origins: e.snapshot.Load().Hosts[hostName].Origins, AllowedOrigins: loopback})
	return e
}

func (e *edge) port() string {
	e.t.Helper()
	_, port, err := net.SplitHostPort(e.https.Addr().String())
	if err != nil {
		e.t.Fatal(err)
	}
	return port
}

// served reports how a request from somebody else is answered.
func (e *edge) served(c *http.Client) int {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+outsideName+"/", nil)
	if err != nil {
		return 0
	}
	res, err := c.Do(req)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// program finds a program that make peers installs; the test is skipped where it is not there.
func program(t *testing.T, names ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("takes a while")
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("no %s here: make peers installs it", names[0])
	return ""
}

// run runs a program and returns what it says; how it exits is not looked at.
func run(t *testing.T, within time.Duration, path string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "GODEBUG=netdns=cgo") // outsideName is for the C library
	cmd.WaitDelay = 5 * time.Second
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%s has not ended after %s: %v\n%s", filepath.Base(path), within, err, out)
	}
	return string(out)
}

// testsslUntried are what testssl.sh warns that it cannot try here, with what says the same.
var testsslUntried = map[string]string{
	"RC4":           "Debian's OpenSSL has no RC4; cipherlist_LOW offers it without OpenSSL",
	"secure_renego": "Debian's OpenSSL gives no answer without a session; Go's server never renegotiates, and secure_client_renego says so",
}

// TestTestsslFindsNoWeakness asks testssl.sh for what it thinks of the protocols, the ciphers and the known holes.
func TestTestsslFindsNoWeakness(t *testing.T) {
	testssl := program(t, "testssl", "testssl.sh")
	e := outside(t, proxy.Limits{}, hello)
	dir := t.TempDir()
	ca, report := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "report.json")
	if err := os.WriteFile(ca, []byte(testAuthority().pem()), 0o600); err != nil {
		t.Fatal(err)
	}
	out := run(t, 4*time.Minute, testssl, "--quiet", "--color", "0", "--warnings", "batch", "--fast", "--nodns", "min", "--add-ca", ca, "--ip", "127.0.0.1",
		"-p", "-s", "-U", "--jsonfile", report, "https://"+outsideName+":"+e.port())
	raw, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("no report: %v\n%s", err, out)
	}
	var findings []struct {
		ID       string `json:"id"`
		Severity string `json:"severity"`
		Finding  string `json:"finding"`
	}
	if err := json.Unmarshal(raw, &findings); err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	said := map[string]string{}
	for _, f := range findings {
		said[f.ID] = f.Severity
		if _, untried := testsslUntried[f.ID]; untried && f.Severity == "WARN" {
			continue
		}
		if !slices.Contains([]string{"OK", "INFO", "LOW", "DEBUG"}, f.Severity) {
			t.Errorf("%s %s: %s", f.Severity, f.ID, f.Finding)
		}
	}
	// That something was looked at, and by a real handshake.
	for id, want := range map[string]string{"TLS1_2": "OK", "TLS1_3": "OK", "SSLv3": "OK", "heartbleed": "OK", "ROBOT": "OK", "cipherlist_LOW": "OK", "cipherlist_NULL": "OK"} {
		if said[id] != want {
			t.Errorf("%s is %q, want %s\n%s", id, said[id], want, out)
		}
	}
}

// h2specKnown are cases that Go's HTTP/2 server fails, with why that is no weakness here.
var h2specKnown = map[string]string{
	"http2/4.2: Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE":                          "20 KB are sent, and the server has said that it takes frames of 1 MiB",
	"http2/6.5.3: Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE":                                            "a setting that comes twice in a frame ends the connection, so that it cannot be used to make work",
	"http2/8.1.2.2: Sends a HEADERS frame that contains the connection-specific header field":                       "the request is answered with 400 instead of a reset, and goes no further",
	"http2/8.1.2.2: Sends a HEADERS frame that contains the TE header field with any value other than \"trailers\"": "as above",
}

// TestH2specPasses runs the conformance test of HTTP/2 and HPACK (RFC 7540, RFC 7541).
func TestH2specPasses(t *testing.T) {
	h2spec := program(t, "../../.tools/h2spec")
	h2spec, err := filepath.Abs(h2spec)
	if err != nil {
		t.Fatal(err)
	}
	e := outside(t, proxy.Limits{}, hello)
	report := filepath.Join(t.TempDir(), "report.xml")
	out := run(t, 4*time.Minute, h2spec, "-h", outsideName, "-p", e.port(), "-t", "-k", "-o", "5", "-j", report)
	raw, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("no report: %v\n%s", err, out)
	}
	var suites struct {
		Suites []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Package string    `xml:"package,attr"`
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(raw, &suites); err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	passed := 0
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			known, expected := h2specKnown[c.Package+": "+c.Name]
			switch failed := c.Failure != nil || c.Error != nil; {
			case failed && !expected:
				t.Errorf("%s: %s fails", c.Package, c.Name)
			case !failed && expected:
				t.Errorf("%s: %s passes now; it was known to fail: %s", c.Package, c.Name, known)
			case !failed:
				passed++
			}
		}
	}
	if passed < 140 {
		t.Errorf("%d cases passed, of some 146\n%s", passed, out)
	}
}

// TestSlowClientsOfManyConnectionsAreSurvived lets slowhttptest hold as many connections as it can.
func TestSlowClientsOfManyConnectionsAreSurvived(t *testing.T) {
	slowhttptest := program(t, "slowhttptest")
	const (
		connections = 300
		limit       = 3 * time.Second
	)
	for name, attack := range map[string][]string{
		"slow headers": {"-H", "-i", "1"},
		"slow body":    {"-B", "-i", "1", "-s", "65536"},
	} {
		t.Run(name, func(t *testing.T) {
			e := outside(t, proxy.Limits{HeaderTimeout: limit, InspectTimeout: limit, ProgressTimeout: limit, IdleTimeout: limit}, hello)
			attacked, c := make(chan string, 1), e.client(true)
			go func() {
				args := append(slices.Clone(attack), "-c", strconv.Itoa(connections), "-r", "300", "-l", "60", "-p", "20", "-u", "http://"+outsideName+":"+e.relay()+"/")
				attacked <- run(t, 3*time.Minute, slowhttptest, args...)
			}()
			asked := 0
			for out := ""; out == ""; {
				select {
				case out = <-attacked:
					// It ends by itself when every connection was ended by the edge, long before its own end.
					if !strings.Contains(out, "No open connections left") {
						t.Errorf("connections are left after 60 s, with a limit of %s:\n%s", limit, tail(out))
					}
				default:
					if got := e.served(c); got != http.StatusOK {
						t.Fatalf("request %d of somebody else: %d", asked, got)
					}
					asked++
				}
			}
			if asked == 0 {
				t.Error("nobody else asked meanwhile")
			}
		})
	}
}

// relay accepts plain connections and passes them on by TLS, for a program that sends no name in its handshakes.
func (e *edge) relay() (port string) {
	e.t.Helper()
	l := listen(e.t)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = in.Close() }()
				raw, err := net.Dial("tcp", e.https.Addr().String()) //nolint:noctx // loopback
				if err != nil {
					return
				}
				out := tls.Client(raw, &tls.Config{ServerName: outsideName, RootCAs: testAuthority().pool()})
				defer func() { _ = out.Close() }()
				go func() {
					_, _ = io.Copy(out, in)
					_ = out.Close()
				}()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		e.t.Fatal(err)
	}
	return port
}

func tail(s string) string { return s[max(0, len(s)-2000):] }
