package fleet

import (
	"net/url"
	"slices"
	"strings"
)

// Limits on origins that are Consul services.
const (
	// MaxConsulServices bounds the different services that all hosts name together: the leader keeps one blocking query
	// open for each, and an agent of Consul takes 200 connections from one client by default.
	MaxConsulServices = 128
	// MaxInstances bounds the instances that are taken of one service.
	MaxInstances = MaxOriginsPerHost
	// maxConsulTags and maxConsulName bound the rest of such an origin.
	maxConsulTags = 8
	maxConsulName = 128
)

// ConsulOrigin is an origin that is a Consul service, such as consul://web?dc=eu1&tag=blue&scheme=https: its healthy
// instances are where requests go.
type ConsulOrigin struct {
	// Service is the service's name.
	Service string
	// Datacenter is Consul's; empty is that of the agent that is asked.
	Datacenter string
	// Tags are those that an instance must have, all of them, sorted.
	Tags []string
	// Scheme is http, unless the origin says https.
	Scheme string
}

// IsConsul reports whether o is, or was meant to be, a Consul service.
func (o Origin) IsConsul() bool { return len(o.URL) >= 7 && strings.EqualFold(o.URL[:7], "consul:") }

// Validate checks the shape of o, whether it is a server or a Consul service.
func (o Origin) Validate() error {
	if o.IsConsul() {
		_, err := o.ParseConsul()
		return err
	}
	_, err := o.Parse()
	return err
}

// ParseConsul checks the shape of an origin that is a Consul service.
func (o Origin) ParseConsul() (ConsulOrigin, error) {
	const want = "give consul://SERVICE, and where needed ?dc=DATACENTER&tag=TAG&scheme=https"
	u, err := url.Parse(o.URL)
	if err != nil || !o.IsConsul() || u.Host == "" || u.Port() != "" || u.User != nil || (u.Path != "" && u.Path != "/") || u.Fragment != "" {
		return ConsulOrigin{}, Invalid("origin", "%q is not a Consul service: %s", o.URL, want)
	}
	c := ConsulOrigin{Service: u.Hostname(), Scheme: "http"}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return ConsulOrigin{}, Invalid("origin", "%q is not a Consul service: %s", o.URL, want)
	}
	names := []string{c.Service}
	for key, values := range q {
		switch {
		case key == "tag" && len(values) <= maxConsulTags:
			c.Tags = slices.Compact(slices.Sorted(slices.Values(values)))
			names = append(names, values...)
		case key == "dc" && len(values) == 1:
			c.Datacenter = values[0]
			names = append(names, values[0])
		case key == "scheme" && len(values) == 1 && (values[0] == "http" || values[0] == "https"):
			c.Scheme = values[0]
		default:
			return ConsulOrigin{}, Invalid("origin", "%q: %q may not be, or may not have that value; %s", o.URL, key, want)
		}
	}
	if i := slices.IndexFunc(names, func(n string) bool { return !consulName(n) }); i >= 0 {
		return ConsulOrigin{}, Invalid("origin", "%q: %q is not a name that Consul gives: use 1 to %d of letters, digits, '-', '_', '.', '=' and ':'", o.URL, names[i], maxConsulName)
	}
	return c, nil
}

// consulName admits what services, data centers and tags are called, and nothing that means something in a path or a query.
func consulName(s string) bool {
	odd := func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune("-_.=:", r)
	}
	return s != "" && len(s) <= maxConsulName && strings.Trim(s, ".") != "" && !strings.ContainsFunc(s, odd)
}

// Query names the instances that c asks Consul for; origins that differ in their scheme only share them.
func (c ConsulOrigin) Query() string {
	q := url.Values{}
	if c.Datacenter != "" {
		q.Set("dc", c.Datacenter)
	}
	if len(c.Tags) > 0 {
		q["tag"] = c.Tags
	}
	if len(q) == 0 {
		return c.Service
	}
	return c.Service + "?" + q.Encode()
}
