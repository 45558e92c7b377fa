package fleet_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
)

// forms are the ways in which the IPv4 address w.x.y.z, given as four bytes, can be written as an address.
var forms = map[string]func(b [4]byte) netip.Addr{
	"plain":  netip.AddrFrom4,
	"mapped": func(b [4]byte) netip.Addr { return v6("::ffff:0:0", b, 12) },
	"mapped with a zone": func(b [4]byte) netip.Addr {
		return v6("::ffff:0:0", b, 12).WithZone("eth0")
	},
	"compatible": func(b [4]byte) netip.Addr { return v6("::", b, 12) },
	"translated": func(b [4]byte) netip.Addr { return v6("::ffff:0:0:0", b, 12) },
	"NAT64":      func(b [4]byte) netip.Addr { return v6("64:ff9b::", b, 12) },
	"6to4":       func(b [4]byte) netip.Addr { return v6("2002::", b, 2) },
}

func v6(prefix string, b [4]byte, at int) netip.Addr {
	a := netip.MustParseAddr(prefix).As16()
	copy(a[at:], b[:])
	return netip.AddrFrom16(a)
}

func TestOriginGuardRefusesEveryFormOfANonPublicIPv4Address(t *testing.T) {
	for _, addr := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "172.16.0.1", "172.31.255.255",
		"192.0.0.8", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
		"169.254.169.254", "169.254.170.2", "169.254.0.1", "168.63.129.16", "100.100.100.200", "192.0.0.192",
	} {
		b := netip.MustParseAddr(addr).As4()
		for form, make := range forms {
			if a := make(b); fleet.CheckOriginAddr(a, nil, nil) == nil {
				t.Errorf("%s (%s as %s) is allowed", a, form, addr)
			}
		}
	}
}

func TestOriginGuardAllowsPublicAddresses(t *testing.T) {
	for _, addr := range []string{"203.0.113.10", "8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "192.0.1.1", "223.255.255.255"} {
		b := netip.MustParseAddr(addr).As4()
		for form, make := range forms {
			if err := fleet.CheckOriginAddr(make(b), nil, nil); err != nil {
				t.Errorf("%s as %s: %v", addr, form, err)
			}
		}
	}
	for _, addr := range []string{"2001:db8::1", "2606:4700:4700::1111", "2a00:1450::1"} {
		if err := fleet.CheckOriginAddr(netip.MustParseAddr(addr), nil, nil); err != nil {
			t.Error(addr, err)
		}
	}
}

func TestOriginGuardRefusesNonPublicIPv6Addresses(t *testing.T) {
	for _, addr := range []string{
		"::", "::1", "::2", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "ff02::1",
		"64:ff9b:1::a00:1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:20::1",
		"fd00:ec2::254", "fd00:c1::a9fe:a9fe", "fd20:ce::254", "fe80::a9fe:a9fe",
		"1::1", "64:ff9b:2::1", "4000::1", "5f00::1", "7fff::1", "8000::1", "e000::1", "::fffe:a00:1", "::1:0:0",
	} {
		if err := fleet.CheckOriginAddr(netip.MustParseAddr(addr), nil, nil); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := fleet.CheckOriginAddr(netip.Addr{}, nil, nil); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("no address: %v", err)
	}
}

func TestOperatorOpensPrivateRangesAndNeverMetadata(t *testing.T) {
	allowed := []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"),
	}
	for _, addr := range []string{"10.1.2.3", "127.0.0.1", "192.168.0.1", "fd12::1"} {
		if err := fleet.CheckOriginAddr(netip.MustParseAddr(addr), allowed, nil); err != nil {
			t.Errorf("%s although opened: %v", addr, err)
		}
	}
	for _, addr := range []string{
		"169.254.169.254", "169.254.170.2", "169.254.10.10", "168.63.129.16", "100.100.100.200", "192.0.0.192",
		"fd00:ec2::254", "fd00:c1::a9fe:a9fe", "fd20:ce::254", "fe80::a9fe:a9fe", "fe80::a9fe:a9fe%eth0",
	} {
		a := netip.MustParseAddr(addr)
		tried := map[string]netip.Addr{"plain": a}
		if a.Is4() {
			for form, make := range forms {
				tried[form] = make(a.As4())
			}
		}
		for form, a := range tried {
			if err := fleet.CheckOriginAddr(a, allowed, nil); err == nil || !strings.Contains(err.Error(), "never allowed") {
				t.Errorf("%s as %s (%s): %v", addr, form, a, err)
			}
		}
	}
	ten := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for form, make := range forms {
		if err := fleet.CheckOriginAddr(make([4]byte{10, 1, 2, 3}), ten, nil); err != nil {
			t.Errorf("10.1.2.3 as %s although opened: %v", form, err)
		}
	}
	err := fleet.CheckOriginAddr(netip.MustParseAddr("192.168.0.1"), ten, nil)
	if err == nil || !strings.Contains(err.Error(), "--allow-origin 192.168.0.0/16") {
		t.Errorf("the refusal does not say how to open the range: %v", err)
	}
}

func TestOriginGuardRefusesTheEdgeItselfInEveryForm(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")}
	open := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	for form, make := range forms {
		if err := fleet.CheckOriginAddr(make([4]byte{198, 51, 100, 7}), open, own); err == nil || !strings.Contains(err.Error(), "edge itself") {
			t.Errorf("%s: %v", form, err)
		}
	}
	if err := fleet.CheckOriginAddr(own[1], nil, own); err == nil {
		t.Error("own IPv6 address is allowed")
	}
	if err := fleet.CheckOriginAddr(netip.MustParseAddr("198.51.100.8"), nil, own); err != nil {
		t.Error(err)
	}
}

func TestOriginURLs(t *testing.T) {
	for in, want := range map[string]string{
		"http://203.0.113.10":            "203.0.113.10:80",
		"https://203.0.113.10":           "203.0.113.10:443",
		"https://App.Example.NET:8443/":  "app.example.net:8443",
		"https://app.example.net.":       "app.example.net:443",
		"http://[2001:db8::1]:8080":      "[2001:db8::1]:8080",
		"https://[::ffff:203.0.113.10]/": "[::ffff:203.0.113.10]:443",
	} {
		e, err := fleet.Origin{URL: in}.Parse()
		if err != nil || e.Address() != want {
			t.Errorf("%s: got %s, %v", in, e.Address(), err)
		}
	}
	for _, in := range []string{
		"", "203.0.113.10", "ftp://203.0.113.10", "https://", "https://user:pw@a.example.net", "https://a.example.net/path",
		"https://a.example.net?q", "https://a.example.net?q=1", "https://a.example.net#f", "https://a.example.net:0", "https://a.example.net:65536",
		"https://a.example.net:-1", "https://localhost", "https://a_b.example.net", "https://exa mple.net", "https://0x7f.1", "https://127.1",
		"https://2130706433", "https://[fe80::1%25eth0]", "https://a..example.net", "//a.example.net", "https://a.example.net\x00",
	} {
		if e, err := (fleet.Origin{URL: in}).Parse(); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%q: got %+v, %v", in, e, err)
		}
	}
}

func FuzzOriginParse(f *testing.F) {
	for _, s := range []string{"https://203.0.113.10:8443", "http://[::ffff:10.0.0.1]", "https://a.example.net./"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		e, err := fleet.Origin{URL: in}.Parse()
		if err != nil {
			return
		}
		again, err := fleet.Origin{URL: e.Scheme + "://" + e.Address()}.Parse()
		if err != nil || again != e || e.Port == 0 {
			t.Errorf("%q: %+v, then %+v, %v", in, e, again, err)
		}
	})
}

func host() fleet.Host {
	return fleet.Host{Name: "api.example.com", Tenant: "acme", Spec: fleet.HostSpec{Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.10"}}}}
}

func TestOriginsThatLeadBackToTheEdgeAreRefused(t *testing.T) {
	for _, o := range []string{
		"https://x1.edge.example.net", "https://x1.edge.example.net.", "https://EDGE.example.net", "https://api.example.com", "https://api.example.com.",
		"https://198.51.100.7", "http://10.0.0.1", "not a url",
	} {
		h := host()
		h.Spec.Origins = append(h.Spec.Origins, fleet.Origin{URL: o})
		if err := h.CheckOrigins("edge.example.net", nil, []netip.Addr{netip.MustParseAddr("198.51.100.7")}); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", o, err)
		}
	}
	if err := host().CheckOrigins("edge.example.net", nil, nil); err != nil {
		t.Error(err)
	}
}
