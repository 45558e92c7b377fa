package cli

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

const hostSetLong = `Change a host. The origins and regions that are given replace those that it has; --region '' means all regions
('fleetctl origin add' and 'remove' change one origin). Of TLS and forwarding, what is not given stays as it is.

Clients with a certificate (--client-auth): the edge verifies it with --client-ca, and tells the origin of it in the
header Client-Cert (RFC 9440), which it removes from all other requests.

Where the certificate comes from (--certificate): acme, the default, has the edge order and renew it; own takes what is
uploaded with 'fleetctl cert upload' only; none is for a host behind another CDN, which has the visitors' TLS and comes to
the edge over plain HTTP, which then is not redirected. What the host has goes on serving until it ends or is removed
('fleetctl cert remove').`

const hostSetExample = `  fleetctl host set shop.example.com --origin https://203.0.113.10 --origin https://203.0.113.11
  fleetctl host set shop.example.com --min-tls 1.3 --hsts 8760h --hsts-subdomains
  fleetctl host set shop.example.com --client-auth required --client-ca partners.pem
  fleetctl host set shop.example.com --affinity client-ip --health-path /healthz --health-interval 5s
  fleetctl host set shop.example.com --certificate own`

// edgeFlags are the flags of how clients reach a host, and its requests the origins.
type edgeFlags struct {
	minTLS, clientAuth, clientCA, affinity, healthPath string
	hstsSubdomains, hstsPreload                        bool
	hsts, interval, probeTimeout, connect, response    time.Duration
	unhealthy, healthy, connections                    int
}

func newEdgeFlags(cmd *cobra.Command) *edgeFlags {
	e, f := &edgeFlags{}, cmd.Flags()
	f.StringVar(&e.minTLS, "min-tls", "", "oldest version of TLS: 1.2 or 1.3")
	f.DurationVar(&e.hsts, "hsts", 0, "how long browsers use HTTPS only (Strict-Transport-Security), such as 8760h; 0 sends no header")
	f.BoolVar(&e.hstsSubdomains, "hsts-subdomains", false, "--hsts is for names below, too")
	f.BoolVar(&e.hstsPreload, "hsts-preload", false, "consent to being built into browsers, which is hard to undo")
	f.StringVar(&e.clientAuth, "client-auth", "", "whether clients show a certificate: off, optional or required")
	f.StringVar(&e.clientCA, "client-ca", "", "file with the CA certificates (PEM) that verify those of clients")
	f.StringVar(&e.affinity, "affinity", "", "how requests are spread over the origins: none (by turns) or client-ip")
	f.StringVar(&e.healthPath, "health-path", "", "path that nodes request of each origin to see how it is; '' does not")
	f.DurationVar(&e.interval, "health-interval", 0, "time between two health checks, such as 10s")
	f.DurationVar(&e.probeTimeout, "health-timeout", 0, "bound on one, such as 5s")
	f.IntVar(&e.unhealthy, "unhealthy", 0, "failed checks in a row that take an origin out (default 3)")
	f.IntVar(&e.healthy, "healthy", 0, "good checks in a row that bring it back (default 2)")
	f.DurationVar(&e.connect, "connect-timeout", 0, "bound on getting a connection to an origin, such as 5s")
	f.DurationVar(&e.response, "response-timeout", 0, "bound on the wait for an answer's headers, such as 60s")
	f.IntVar(&e.connections, "max-connections", 0, "bound on the connections of one node to one origin; 0 for none")
	completeFlag(cmd, "min-tls", words("1.2", "1.3"))
	completeFlag(cmd, "client-auth", words("off", "optional", "required"))
	completeFlag(cmd, "affinity", words("none", "client-ip"))
	return e
}

// edits are changes of what a host has.
type edits []func(*fleet.HostTLS, *fleet.Forwarding)

// on adds to a change what the edits make of a host's spec.
func (es edits) on(in client.HostUpdate, s fleet.HostSpec) client.HostUpdate {
	t, f := s.TLS, s.Forwarding
	for _, edit := range es {
		edit(&t, &f)
	}
	if t != s.TLS {
		in.TLS = &t
	}
	if f != s.Forwarding {
		in.Forwarding = &f
	}
	return in
}

// edits are what the flags that were given change.
func (e *edgeFlags) edits(cmd *cobra.Command) (edits, error) {
	var out edits
	given := func(flag string, edit func(*fleet.HostTLS, *fleet.Forwarding)) {
		if cmd.Flags().Changed(flag) {
			out = append(out, edit)
		}
	}
	for flag, d := range map[string]time.Duration{
		"hsts": e.hsts, "health-interval": e.interval, "health-timeout": e.probeTimeout, "connect-timeout": e.connect, "response-timeout": e.response,
	} {
		if d%time.Second != 0 {
			return nil, usagef(cmd, "--%s %s: give whole seconds", flag, d)
		}
	}
	auth, affinity := fleet.ClientAuth(e.clientAuth), fleet.Affinity(strings.ReplaceAll(e.affinity, "-", "_"))
	if auth == "off" {
		auth = fleet.ClientAuthNone
	}
	if affinity == "none" {
		affinity = fleet.AffinityNone
	}
	ca, err := readCA(e.clientCA, "tls.client_ca")
	if err != nil {
		return nil, err
	}
	seconds := func(d time.Duration) int { return int(d / time.Second) }
	given("min-tls", func(t *fleet.HostTLS, _ *fleet.Forwarding) { t.MinVersion = e.minTLS })
	given("hsts", func(t *fleet.HostTLS, _ *fleet.Forwarding) {
		if t.HSTS.MaxAge = seconds(e.hsts); e.hsts == 0 {
			t.HSTS = fleet.HSTS{}
		}
	})
	given("hsts-subdomains", func(t *fleet.HostTLS, _ *fleet.Forwarding) { t.HSTS.IncludeSubdomains = e.hstsSubdomains })
	given("hsts-preload", func(t *fleet.HostTLS, _ *fleet.Forwarding) { t.HSTS.Preload = e.hstsPreload })
	given("client-ca", func(t *fleet.HostTLS, _ *fleet.Forwarding) { t.ClientCA = ca })
	given("client-auth", func(t *fleet.HostTLS, _ *fleet.Forwarding) {
		if t.ClientAuth = auth; auth == fleet.ClientAuthNone {
			t.ClientCA = ""
		}
	})
	given("affinity", func(_ *fleet.HostTLS, f *fleet.Forwarding) { f.Affinity = affinity })
	given("health-path", func(_ *fleet.HostTLS, f *fleet.Forwarding) {
		if f.Health.Path = e.healthPath; e.healthPath == "" {
			f.Health = fleet.HealthCheck{}
		}
	})
	given("health-interval", func(_ *fleet.HostTLS, f *fleet.Forwarding) { f.Health.IntervalSeconds = seconds(e.interval) })
	given("health-timeout", func(_ *fleet.HostTLS, f *fleet.Forwarding) { f.Health.TimeoutSeconds = seconds(e.probeTimeout) })
	given("unhealthy", func(_ *fleet.HostTLS, f *fleet.Forwarding) { f.Health.Unhealthy = e.unhealthy })
	given("healthy", func(_ *fleet.HostTLS, f *fleet.Forwarding) { f.Health.Healthy = e.healthy })
	given("connect-timeout", func(_ *fleet.HostTLS, f *fleet.Forwarding) { f.ConnectSeconds = seconds(e.connect) })
	given("response-timeout", func(_ *fleet.HostTLS, f *fleet.Forwarding) { f.ResponseSeconds = seconds(e.response) })
	given("max-connections", func(_ *fleet.HostTLS, f *fleet.Forwarding) { f.MaxConnections = e.connections })
	return out, nil
}

// readCA reads and checks a file of CA certificates; empty for no file.
func readCA(file, field string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fleet.Invalid(field, "the file of CA certificates cannot be read: %v", err)
	}
	if _, err := fleet.ParseCAs(field, string(b)); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return string(b), nil
}

// editHost changes a host that is still as it is read, by what edit makes of it.
func (a *app) editHost(cmd *cobra.Command, typed string, edit func(client.HostView) (client.HostUpdate, error), show func(client.HostView) error) error {
	s, err := a.tenantSession(cmd)
	if err != nil {
		return err
	}
	path, _, err := s.hostPath(typed)
	if err != nil {
		return err
	}
	var before []byte
	var read client.HostView
	if err := s.read(cmd.Context(), path, nil, &before, &read); err != nil {
		return err
	}
	in, err := edit(read)
	if err != nil {
		return err
	}
	raw, err := s.Raw(cmd.Context(), http.MethodPatch, path, nil, in, client.IfMatch(read))
	if err != nil {
		return s.explain(cmd.Context(), path, before, err)
	}
	return answer(a, raw, show)
}

// tlsText says in short how clients reach a host; nothing for what every host has.
func tlsText(t fleet.HostTLS) string {
	var parts []string
	if t.MinVersion != "" {
		parts = append(parts, "TLS "+t.MinVersion+" or newer")
	}
	if h := t.HSTS.Header(); h != "" {
		parts = append(parts, "HSTS "+h)
	}
	if t.ClientAuth != fleet.ClientAuthNone {
		parts = append(parts, "client certificates "+string(t.ClientAuth))
	}
	return strings.Join(parts, ", ")
}

// forwardingText says in short how requests reach the origins; nothing for what every host has.
func forwardingText(f fleet.Forwarding) string {
	var parts []string
	if f.Affinity == fleet.AffinityClientIP {
		parts = append(parts, "by client IP")
	}
	if f.Health.Path != "" {
		parts = append(parts, fmt.Sprintf("checked at %s every %s", f.Health.Path, f.Health.WithDefaults().Interval()))
	}
	for _, n := range []struct {
		text  string
		value int
	}{{"connect within %ds", f.ConnectSeconds}, {"answer within %ds", f.ResponseSeconds}, {"at most %d connections", f.MaxConnections}} {
		if n.value != 0 {
			parts = append(parts, fmt.Sprintf(n.text, n.value))
		}
	}
	return strings.Join(parts, ", ")
}
