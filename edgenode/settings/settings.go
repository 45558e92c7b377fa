// Package settings reads the configuration file of an edge host, which its supervisor and its worker share.
//
// It owns the fields, their defaults and their checks; an error names the file, the line and the field. It opens nothing
// but that file, and nothing in the file is secret: the join token has a file of its own.
package settings

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Settings is the configuration of an edge host.
type Settings struct {
	// DataDir holds the identity, the last-known-good state and the event spool. Required.
	DataDir string `yaml:"data_dir"`
	// Node is the id that this node asks for when it enrols; empty lets the control plane choose.
	Node fleet.NodeID `yaml:"node"`
	// Addresses are the public addresses that DNS answers with for this node, 1 to 16. Required.
	Addresses []netip.Addr `yaml:"addresses"`
	// HTTPSListen is where TLS clients connect; default ":443".
	HTTPSListen string `yaml:"https_listen"`
	// HTTPListen is where plain HTTP clients connect, for redirects and ACME challenges; default ":80".
	HTTPListen string `yaml:"http_listen"`
	// AdminListen serves /metrics, /healthz, /readyz and /debug/pprof; default "127.0.0.1:9180", "off" for none.
	AdminListen string `yaml:"admin_listen"`
	// ControlPlane lists members' API addresses as host:port, for first contact. Required; later ones are learned.
	ControlPlane []string `yaml:"control_plane"`
	// JoinTokenFile holds the one-time join token that the first start needs; without it EDGEFLEET_JOIN_TOKEN is used.
	JoinTokenFile string `yaml:"join_token_file"`
	// Worker is the path of the edgenode program; default is edgenode next to the running program.
	Worker string `yaml:"worker"`
	// PollInterval is how often the control plane is asked for heads, 1s to 10m; default 30s.
	PollInterval time.Duration `yaml:"poll_interval"`
	// HeartbeatInterval is how often the node reports, 1s to 1m; default 5s.
	HeartbeatInterval time.Duration `yaml:"heartbeat_interval"`
	// DrainTimeout bounds how long a stopping worker may finish requests, 1s to 10m; default 15s.
	DrainTimeout time.Duration `yaml:"drain_timeout"`
	// LeaveDNS is for how long a node that is asked to stop goes on serving, 0s to 10m, while DNS and resolvers forget it:
	// the zone's TTL, and some seconds for the control plane; default 25s.
	LeaveDNS time.Duration `yaml:"leave_dns"`
	// WAF tunes the detection of attacks.
	WAF WAF `yaml:"waf"`
	// OriginCAFile holds certificates (PEM) that origins are verified with instead of the system's.
	OriginCAFile string `yaml:"origin_ca_file"`
	// Resolver is the DNS server, IP:port, that finds origins; empty uses the system's.
	Resolver string `yaml:"resolver"`
	// OTLPEndpoint receives traces and metrics, for example http://127.0.0.1:4318; empty sends none.
	OTLPEndpoint string `yaml:"otlp_endpoint"`
	// LogLevel is debug, info, warn or error; default info.
	LogLevel string `yaml:"log_level"`
	// LogFormat is text or json; default text.
	LogFormat string `yaml:"log_format"`
}

// WAF tunes the detection of attacks.
type WAF struct {
	// Paranoia is the core rule set's paranoia level, 1 to 4; default 1.
	Paranoia int `yaml:"paranoia"`
	// BodyLimit is how many bytes of a request's body are judged, 1024 to 8388608; default 131072.
	BodyLimit int `yaml:"body_limit"`
}

// AdminOff as AdminListen means that there is no admin listener.
const AdminOff = "off"

// beforeFile has the defaults of settings of which the zero value has a meaning.
func beforeFile() Settings {
	var s Settings
	setDefault(&s.LeaveDNS, 25*time.Second)
	return s
}

func (s Settings) withDefaults() Settings {
	setDefault(&s.HTTPSListen, ":443")
	setDefault(&s.HTTPListen, ":80")
	setDefault(&s.AdminListen, "127.0.0.1:9180")
	setDefault(&s.PollInterval, 30*time.Second)
	setDefault(&s.HeartbeatInterval, 5*time.Second)
	setDefault(&s.DrainTimeout, 15*time.Second)
	setDefault(&s.WAF.Paranoia, 1)
	setDefault(&s.WAF.BodyLimit, 128<<10)
	setDefault(&s.LogLevel, "info")
	setDefault(&s.LogFormat, "text")
	return s
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check returns the first problem; its Field is the YAML path of the setting.
func (s Settings) check() error {
	if s.DataDir == "" || !filepath.IsAbs(s.DataDir) {
		return fleet.Invalid("data_dir", "%q is not an absolute path: give one such as /var/lib/edgefleet", s.DataDir)
	}
	if s.Node != "" {
		if err := fleet.ValidateID("node", s.Node); err != nil {
			return err
		}
	}
	if n := len(s.Addresses); n == 0 || n > 16 {
		return fleet.Invalid("addresses", "%d addresses: give the 1 to 16 public IP addresses of this node", n)
	}
	for _, check := range []func() error{s.checkListeners, s.checkControlPlane, s.checkRanges} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s Settings) checkListeners() error {
	listeners := []struct{ field, value string }{
		{"https_listen", s.HTTPSListen}, {"http_listen", s.HTTPListen}, {"admin_listen", s.AdminListen},
	}
	for _, l := range listeners {
		if l.field == "admin_listen" && l.value == AdminOff {
			continue
		}
		if !hostPort(l.value, true) {
			return fleet.Invalid(l.field, "%q is not an address to listen at: give IP:port or :port", l.value)
		}
	}
	if s.Resolver != "" {
		if _, err := netip.ParseAddrPort(s.Resolver); err != nil {
			return fleet.Invalid("resolver", "%q is not a DNS server's IP:port", s.Resolver)
		}
	}
	return nil
}

func (s Settings) checkControlPlane() error {
	if n := len(s.ControlPlane); n == 0 || n > 64 {
		return fleet.Invalid("control_plane", "%d members: give the API addresses (host:port) of 1 to 64", n)
	}
	for _, a := range s.ControlPlane {
		if !hostPort(a, false) {
			return fleet.Invalid("control_plane", "%q is not the API address of a member: give host:port", a)
		}
	}
	if s.OTLPEndpoint == "" {
		return nil
	}
	if u, err := url.Parse(s.OTLPEndpoint); err != nil || u.Host == "" {
		return fleet.Invalid("otlp_endpoint", "%q is not a URL such as http://127.0.0.1:4318", s.OTLPEndpoint)
	}
	return nil
}

func (s Settings) checkRanges() error {
	durations := []struct {
		field            string
		value, low, high time.Duration
	}{
		{"poll_interval", s.PollInterval, time.Second, 10 * time.Minute},
		{"heartbeat_interval", s.HeartbeatInterval, time.Second, time.Minute},
		{"drain_timeout", s.DrainTimeout, time.Second, 10 * time.Minute},
		{"leave_dns", s.LeaveDNS, 0, 10 * time.Minute},
	}
	for _, d := range durations {
		if d.value < d.low || d.value > d.high {
			return fleet.Invalid(d.field, "%s is out of range: give %s to %s", d.value, d.low, d.high)
		}
	}
	if s.WAF.Paranoia < 1 || s.WAF.Paranoia > 4 {
		return fleet.Invalid("waf.paranoia", "%d is not a paranoia level: give 1 to 4", s.WAF.Paranoia)
	}
	if s.WAF.BodyLimit < 1<<10 || s.WAF.BodyLimit > 8<<20 {
		return fleet.Invalid("waf.body_limit", "%d bytes: give 1024 to 8388608", s.WAF.BodyLimit)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, s.LogLevel) {
		return fleet.Invalid("log_level", "%q is not a level: use debug, info, warn or error", s.LogLevel)
	}
	if s.LogFormat != "text" && s.LogFormat != "json" {
		return fleet.Invalid("log_format", "%q is not a format: use text or json", s.LogFormat)
	}
	return nil
}

// hostPort reports whether s is host:port; the host may be missing and the port 0 only when it is to listen.
func hostPort(s string, listen bool) bool {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	return err == nil && perr == nil && (listen || host != "" && n > 0)
}

// The directories below DataDir.
const (
	identityDir = "identity"
	stateDir    = "state"
	spoolDir    = "spool"
	sessionDir  = "session"
)

// IdentityDir holds the node's keys and what it trusts.
func (s Settings) IdentityDir() string { return filepath.Join(s.DataDir, identityDir) }

// StateDir holds the last-known-good heads and blobs.
func (s Settings) StateDir() string { return filepath.Join(s.DataDir, stateDir) }

// SpoolDir holds events that are not stored by the control plane yet.
func (s Settings) SpoolDir() string { return filepath.Join(s.DataDir, spoolDir) }

// SessionDir holds the members' addresses as last learned.
func (s Settings) SessionDir() string { return filepath.Join(s.DataDir, sessionDir) }
