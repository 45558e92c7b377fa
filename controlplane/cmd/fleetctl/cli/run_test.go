package cli_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/cmd/fleetctl/cli"
	"github.com/edgefleet/edgefleet/fleet"
)

// run runs fleetctl in this process against f, if there is one.
func run(ctx context.Context, t *testing.T, f *fakeAPI, out *lines, args ...string) (code int, stderr string) {
	t.Helper()
	env := map[string]string{"HOME": t.TempDir(), "FLEETCTL_TOKEN": goodToken, "FLEETCTL_TENANT": "acme"}
	if f != nil {
		ca := filepath.Join(t.TempDir(), "api-ca.crt")
		if err := os.WriteFile(ca, f.ca(), 0o600); err != nil {
			t.Fatal(err)
		}
		env["FLEETCTL_ADDR"], env["FLEETCTL_CACERT"] = f.Listener.Addr().String(), ca
	}
	var errs bytes.Buffer
	code = cli.Run(ctx, cli.Options{
		Args: args, In: strings.NewReader(""), Out: out, Err: &errs, Getenv: func(k string) string { return env[k] }, Now: noon,
	})
	return code, errs.String()
}

// lines is an output that calls full when it has got that many lines.
type lines struct {
	bytes.Buffer
	want int
	full func()
}

func (l *lines) Write(b []byte) (int, error) {
	n, err := l.Buffer.Write(b)
	if l.full != nil && bytes.Count(l.Bytes(), []byte("\n")) >= l.want {
		l.full()
	}
	return n, err
}

const tailRoutes = `
> GET /v1/tenants/acme/events?limit=1
< 200
{"items":[]}
> GET /v1/tenants/acme/events:tail
< 201 stream
{"event_id":"n1:b:1","time":"2026-11-21T11:59:58Z","host":"shop.example.com","type":"sqli","block_status":"blocked","client_ip":"198.51.100.7","method":"GET","path":"/?id=1", "later":1e3}
> GET /v1/tenants/acme/events:tail
< 200 stream
{"event_id":"n1:b:2","time":"2026-11-21T11:59:59Z","host":"shop.example.com","type":"xss","block_status":"monitored","client_ip":"198.51.100.8","method":"POST","path":"/\u001b[2J"}
`

func TestTailGoesOnOverABrokenStreamUntilAnInterrupt(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"table": {[]string{"event", "tail"}, []string{
			"TIME      STATUS     TYPE      HOST                      CLIENT           REQUEST",
			"11:59:58  blocked    sqli      shop.example.com          198.51.100.7     GET /?id=1",
			`11:59:59  monitored  xss       shop.example.com          198.51.100.8     POST /\x1b[2J`,
		}},
		"NDJSON, as the API sent it": {[]string{"event", "tail", "-o", "json"}, []string{
			`{"event_id":"n1:b:1","time":"2026-11-21T11:59:58Z","host":"shop.example.com","type":"sqli","block_status":"blocked","client_ip":"198.51.100.7","method":"GET","path":"/?id=1", "later":1e3}`,
			`{"event_id":"n1:b:2","time":"2026-11-21T11:59:59Z","host":"shop.example.com","type":"xss","block_status":"monitored","client_ip":"198.51.100.8","method":"POST","path":"/\u001b[2J"}`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			deadline := time.AfterFunc(20*time.Second, cancel)
			defer deadline.Stop()
			out := &lines{want: len(test.want), full: cancel}
			code, stderr := run(ctx, t, startAPI(t, tailRoutes), out, test.args...)
			if code != fleet.ExitInterrupted {
				t.Errorf("exit code %d, want %d", code, fleet.ExitInterrupted)
			}
			if want := "the API ended the stream; connecting again"; !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("stderr is %q, want one line with %q", stderr, want)
			}
			if diff := cmp.Diff(strings.Join(test.want, "\n")+"\n", out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTailEndsAtOnceWhenItMayNot(t *testing.T) {
	f := startAPI(t, `> GET /v1/tenants/acme/events?limit=1
< 404
{"status":404,"kind":"not_found","field":"tenant","detail":"tenant acme does not exist"}`)
	code, stderr := run(t.Context(), t, f, &lines{}, "event", "tail")
	if code != fleet.ExitNotFound || stderr != "fleetctl: tenant acme does not exist (tenant)\n" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestAnInterruptWhileWaitingSaysNothing(t *testing.T) {
	f := startAPI(t, `> GET /v1/tenants/acme/hosts/a.example.com
< 200
{"name":"a.example.com","observed":{"status":"pending","phase":"claimed"}}`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.onRequest = cancel
	var out lines
	code, stderr := run(ctx, t, f, &out, "host", "wait", "a.example.com")
	if code != fleet.ExitInterrupted || out.Len() > 0 || strings.Contains(stderr, "fleetctl:") {
		t.Errorf("exit code %d, said %q and %q", code, out.String(), stderr)
	}
}

func TestAllAddressesAreTriedAndNamed(t *testing.T) {
	code, stderr := run(t.Context(), t, nil, &lines{}, "whoami", "--addr", "127.0.0.1:1,https://127.0.0.1:2")
	if code != fleet.ExitFailure || !strings.Contains(stderr, "the API at https://127.0.0.1:1, https://127.0.0.1:2 cannot be reached") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestProgressIsLiveOnATerminalAndALineForEachChangeElsewhere(t *testing.T) {
	for name, test := range map[string]struct {
		width int
		want  string
	}{
		"terminal": {20, "\r\x1b[Kpending (0s)\r\x1b[Kpending (1s)\r\x1b[Ka long line that do\r\x1b[K"},
		"file":     {0, "pending\na long line that does not fit \\x1b[2J\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			p := cli.NewProgress(&out, test.width)
			p.Show("pending", "0s")
			p.Show("pending", "1s")
			p.Show("a long line that does not fit \x1b[2J", "2s")
			p.End()
			if diff := cmp.Diff(test.want, out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
