package fleet_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestAnOriginMayBeAConsulService(t *testing.T) {
	for url, want := range map[string]fleet.ConsulOrigin{
		"consul://web":                        {Service: "web", Scheme: "http"},
		"consul://Web_1.x?dc=eu1&tag=b&tag=a": {Service: "Web_1.x", Datacenter: "eu1", Tags: []string{"a", "b"}, Scheme: "http"},
		"consul://web?scheme=https&tag=v=1:2": {Service: "web", Tags: []string{"v=1:2"}, Scheme: "https"},
		"consul://web/?tag=a&tag=a":           {Service: "web", Tags: []string{"a"}, Scheme: "http"},
	} {
		o := fleet.Origin{URL: url}
		got, err := o.ParseConsul()
		if err != nil || !o.IsConsul() || o.Validate() != nil {
			t.Errorf("%s: %v", url, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", url, diff)
		}
		if _, err := o.Parse(); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s is a server: %v", url, err)
		}
	}
	for _, url := range []string{
		"consul:web", "consul://", "consul://web:80", "consul://u@web", "consul://web/v1", "consul://web#x", "consul://..", "consul://w%20b", "consul://web?port=1",
		"consul://web?dc=a&dc=b", "consul://web?dc=", "consul://web?tag=a/b", "consul://web?tag=a%26token=x", "consul://web?scheme=ftp", "consul://web?a;b",
		"consul://" + strings.Repeat("a", 129), "consul://web?" + strings.Repeat("tag=a&", 9), "Consul://we b",
	} {
		o := fleet.Origin{URL: url}
		if c, err := o.ParseConsul(); !errors.Is(err, fleet.ErrInvalid) || o.Validate() == nil {
			t.Errorf("%s is a service: %+v %v", url, c, err)
		}
	}
	if o := (fleet.Origin{URL: "https://consul.example.net"}); o.IsConsul() || o.Validate() != nil {
		t.Error("a server called consul is a service")
	}
}

func TestOneQueryForWhatIsTheSame(t *testing.T) {
	query := func(url string) string {
		c, err := fleet.Origin{URL: url}.ParseConsul()
		if err != nil {
			t.Fatal(err)
		}
		return c.Query()
	}
	if a, b := query("consul://web?tag=b&tag=a&dc=x"), query("consul://web?dc=x&scheme=https&tag=a&tag=b"); a != b || a != "web?dc=x&tag=a&tag=b" {
		t.Error(a, b)
	}
	if a := query("consul://web?scheme=https"); a != "web" {
		t.Error(a)
	}
}

func TestInstancesAsOrigins(t *testing.T) {
	for want, i := range map[string]fleet.Instance{
		"http://203.0.113.7:8080":      {Address: "203.0.113.7", Port: 8080},
		"http://203.0.113.7":           {Address: "203.0.113.7"},
		"http://[2001:db8::1]:8080":    {Address: "2001:db8::1", Port: 8080},
		"http://[2001:db8::1]":         {Address: "2001:db8::1"},
		"http://app.example.net:65535": {Address: "app.example.net", Port: 65535},
	} {
		got := i.Origin("http")
		if _, err := got.Parse(); got.URL != want || err != nil {
			t.Errorf("got %s (%v), want %s", got.URL, err, want)
		}
	}
	for _, i := range []fleet.Instance{{}, {Address: "a/b"}, {Address: "x@203.0.113.7"}, {Address: "203.0.113.7", Port: -1}, {Address: "203.0.113.7", Port: 65536}, {Address: "one"}, {Address: "fe80::1%eth0", Port: 80}} {
		if _, err := i.Origin("http").Parse(); err == nil {
			t.Errorf("%+v is an origin", i)
		}
	}
}

func TestTheServersOfAHost(t *testing.T) {
	h := fleet.Host{Name: "a.example.com", Spec: fleet.HostSpec{Origins: []fleet.Origin{{URL: "https://203.0.113.1"}, {URL: "consul://web"}}}}
	known := func(urls ...string) fleet.HostOrigins {
		r := fleet.ResolvedOrigin{URL: "consul://web"}
		for _, u := range urls {
			r.Instances = append(r.Instances, fleet.Origin{URL: u})
		}
		return fleet.HostOrigins{Host: h.Name, Services: []fleet.ResolvedOrigin{{URL: "consul://old", Instances: []fleet.Origin{{URL: "http://203.0.113.9"}}}, r}}
	}
	var all []string
	for range 2 * fleet.MaxOriginsPerHost {
		all = append(all, "http://203.0.113."+string(rune('0'+len(all)%10))+":"+string(rune('1'+len(all)/10)))
	}
	for _, tt := range []struct {
		name    string
		known   fleet.HostOrigins
		allowed []netip.Prefix
		want    int
		last    string
	}{
		{"nothing is known yet", fleet.HostOrigins{}, nil, 1, "https://203.0.113.1"},
		{"instances take the place of the service", known("http://203.0.113.7", "http://203.0.113.8"), nil, 3, "http://203.0.113.8"},
		{"an instance that is there twice counts once", known("http://203.0.113.7", "http://203.0.113.7"), nil, 2, "http://203.0.113.7"},
		{"an instance that is not allowed any more is left out", known("http://10.0.0.1", "http://203.0.113.7"), nil, 2, "http://203.0.113.7"},
		{"one that is allowed stays", known("http://10.0.0.1"), []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, 2, "http://10.0.0.1"},
		{"there are no more than a host may have", known(all...), nil, fleet.MaxOriginsPerHost, all[fleet.MaxOriginsPerHost-2]},
	} {
		got := h.Servers(tt.known, tt.allowed)
		if len(got) != tt.want || got[len(got)-1].URL != tt.last {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	h.Spec.Origins = h.Spec.Origins[1:]
	if got := h.Servers(fleet.HostOrigins{}, nil); len(got) != 0 {
		t.Errorf("servers from nothing: %v", got)
	}
}
