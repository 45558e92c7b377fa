package fleet

import (
	"cmp"
	"strings"
	"time"
)

// Affinity is how a host's requests are spread over its origins.
type Affinity string

// How requests are spread.
const (
	// AffinityNone: the origins take turns.
	AffinityNone Affinity = ""
	// AffinityClientIP: a client's requests go to the same origin while that is healthy.
	AffinityClientIP Affinity = "client_ip"
)

// Forwarding is how a host's requests reach its origins. The zero value is round robin, no active checks, and the nodes'
// own limits. It is comparable.
type Forwarding struct {
	Affinity Affinity `json:"affinity,omitempty" enum:",client_ip" doc:"client_ip keeps a client at one origin; default: they take turns"`
	// Health has nodes ask the origins how they are; they are not asked while its Path is empty.
	Health HealthCheck `json:"health,omitzero"`
	// ConnectSeconds bounds getting a connection to an origin, its handshake included; 0 is 5.
	ConnectSeconds int `json:"connect_seconds,omitempty" minimum:"0" maximum:"60" doc:"bound on getting a connection; default 5"`
	// ResponseSeconds bounds the wait for the headers of an answer; 0 is 60.
	ResponseSeconds int `json:"response_seconds,omitempty" minimum:"0" maximum:"600" doc:"bound on the wait for an answer's headers; default 60"`
	// MaxConnections bounds the connections of one node to one origin; 0 does not.
	MaxConnections int `json:"max_connections,omitempty" minimum:"0" maximum:"10000" doc:"bound on the connections of one node to one origin; default none"`
}

// HealthCheck is how nodes ask an origin how it is.
type HealthCheck struct {
	// Path is requested by GET; an answer of 200 to 399 is healthy. Empty does not check.
	Path string `json:"path,omitempty" maxLength:"1024" doc:"path that nodes request; an answer of 200 to 399 is healthy" example:"/healthz"`
	// IntervalSeconds is the time between two requests of one node, 0 is 10; TimeoutSeconds bounds one, 0 is 5.
	IntervalSeconds int `json:"interval_seconds,omitempty" minimum:"0" maximum:"3600" doc:"default 10"`
	TimeoutSeconds  int `json:"timeout_seconds,omitempty" minimum:"0" maximum:"60" doc:"default 5"`
	// Unhealthy and Healthy are how many answers in a row change what is thought of an origin; 0 is 3 and 2.
	Unhealthy int `json:"unhealthy,omitempty" minimum:"0" maximum:"20" doc:"failures in a row that take an origin out; default 3"`
	Healthy   int `json:"healthy,omitempty" minimum:"0" maximum:"20" doc:"successes in a row that bring it back; default 2"`
}

// WithDefaults fills in what is not set.
func (h HealthCheck) WithDefaults() HealthCheck {
	h.IntervalSeconds, h.TimeoutSeconds = cmp.Or(h.IntervalSeconds, 10), cmp.Or(h.TimeoutSeconds, 5)
	h.Unhealthy, h.Healthy = cmp.Or(h.Unhealthy, 3), cmp.Or(h.Healthy, 2)
	return h
}

// Interval is the time between two requests, Timeout bounds one; both of a check with its defaults.
func (h HealthCheck) Interval() time.Duration { return time.Duration(h.IntervalSeconds) * time.Second }

// Timeout bounds one request.
func (h HealthCheck) Timeout() time.Duration { return time.Duration(h.TimeoutSeconds) * time.Second }

// Validate checks f.
func (f Forwarding) Validate() error {
	if f.Affinity != AffinityNone && f.Affinity != AffinityClientIP {
		return Invalid("forwarding.affinity", "%q is not a way to spread requests: use client_ip, or leave it empty for turns", string(f.Affinity))
	}
	h := f.Health
	for _, n := range []struct {
		field      string
		value, max int
	}{
		{"connect_seconds", f.ConnectSeconds, 60},
		{"response_seconds", f.ResponseSeconds, 600},
		{"max_connections", f.MaxConnections, 10_000},
		{"health.interval_seconds", h.IntervalSeconds, 3600},
		{"health.timeout_seconds", h.TimeoutSeconds, 60},
		{"health.unhealthy", h.Unhealthy, 20},
		{"health.healthy", h.Healthy, 20},
	} {
		if n.value < 0 || n.value > n.max {
			return Invalid("forwarding."+n.field, "%s of %d is out of range: give 0, for the default, to %d", n.field, n.value, n.max)
		}
	}
	if h == (HealthCheck{}) {
		return nil
	}
	switch {
	case h.Path == "":
		return Invalid("forwarding.health.path", "a health check needs a path: give one such as /healthz")
	case len(h.Path) > maxHealthPath || h.Path[0] != '/' || strings.ContainsFunc(h.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }):
		return Invalid("forwarding.health.path", "%.80q is not a path: it begins with '/', is at most %d bytes long, and has printable ASCII only", h.Path, maxHealthPath)
	}
	return nil
}

// maxHealthPath bounds the path of a health check, in bytes.
const maxHealthPath = 1024

// validateEdge checks the shape of what is here; a host's own Validate does it with those of its other parts.
func (s HostSpec) validateEdge() error {
	if err := s.TLS.Validate(); err != nil {
		return err
	}
	if err := s.Forwarding.Validate(); err != nil {
		return err
	}
	for _, o := range s.Origins {
		if err := o.validateTLS(); err != nil {
			return err
		}
	}
	return nil
}

// validateTLS checks how an origin is verified.
func (o Origin) validateTLS() error {
	if o.ServerName == "" && o.CA == "" {
		return nil
	}
	if secure := strings.HasPrefix(strings.ToLower(o.URL), "https://"); !secure && !o.IsConsul() {
		return Invalid("origin", "%s is not reached by TLS, so that it has no TLS name and no CA: leave them out, or use https", o.URL)
	}
	if o.ServerName != "" {
		if _, err := ParseHostName(o.ServerName); err != nil {
			return Invalid("origin", "%s: %q is not the name of a certificate: give a full name such as origin.example.com", o.URL, o.ServerName)
		}
	}
	if o.CA != "" {
		return checkCAText("origin", o.CA)
	}
	return nil
}

// CABytes is what s brings along of certificates of authorities, in bytes.
func (s HostSpec) CABytes() int {
	n := len(s.TLS.ClientCA)
	for _, o := range s.Origins {
		n += len(o.CA)
	}
	return n
}

// CheckCAs reads the certificates of authorities in s. It is for those who take a host's spec, and for nodes; what is in
// the replicated log was checked by them.
func (s HostSpec) CheckCAs() error {
	if s.TLS.ClientCA != "" {
		if _, err := ParseCAs("tls.client_ca", s.TLS.ClientCA); err != nil {
			return err
		}
	}
	for _, o := range s.Origins {
		if o.CA != "" {
			if _, err := ParseCAs("origin", o.CA); err != nil {
				return err
			}
		}
	}
	return nil
}

// Extended reports whether s has anything that members of the first log format do not know.
func (s HostSpec) Extended() bool {
	if s.TLS != (HostTLS{}) || s.Forwarding != (Forwarding{}) || s.Certificate != CertificateACME || s.FailPolicy != (FailPolicy{}) || s.Mode == ModeSafeBlocking || s.Mode == ModeInherit {
		return true
	}
	for _, o := range s.Origins {
		if o.ServerName != "" || o.CA != "" || strings.HasPrefix(strings.ToLower(o.URL), "h2c:") {
			return true
		}
	}
	return false
}
