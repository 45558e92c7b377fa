package fleet

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Origin is a server that a host's requests are forwarded to.
type Origin struct {
	// URL is scheme, host and optional port: https://203.0.113.10, http://app.example.net:8080, or h2c://203.0.113.10:50051
	// for HTTP/2 without TLS.
	URL string `json:"url"`
	// ServerName is what the origin's certificate must be for; empty is the name in URL, or the host's where that is an
	// address.
	ServerName string `json:"server_name,omitempty" maxLength:"253" doc:"name that the origin's certificate must have; default: the one in url, or the host's where that is an address"`
	// CA are the certificates (PEM) that the origin's is verified with; empty are those that the node trusts.
	CA string `json:"ca,omitempty" maxLength:"16384" doc:"CA certificates, PEM, that the origin's certificate is verified with; default: those that nodes trust"`
}

// Endpoint is the parsed form of an origin.
type Endpoint struct {
	// Scheme is http, https or h2c.
	Scheme string
	// Host is an IP address or a host name.
	Host string
	// Port is never zero.
	Port uint16
	// ServerName and CA are the origin's.
	ServerName, CA string
}

// Address is host:port for dialling.
func (e Endpoint) Address() string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

// Parse checks the shape of o. It does not check addresses: see CheckOriginAddr.
func (o Origin) Parse() (Endpoint, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" {
		return Endpoint{}, Invalid("origin", "%q is not a URL such as https://203.0.113.10:8443", o.URL)
	}
	// Without its final dot, a name compares equal to the same name without it.
	e := Endpoint{Scheme: u.Scheme, Host: strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), ServerName: o.ServerName, CA: o.CA}
	switch u.Scheme {
	case "http", "h2c":
		e.Port = 80
	case "https":
		e.Port = 443
	default:
		return Endpoint{}, Invalid("origin", "%q: the scheme must be http or https, or h2c for HTTP/2 without TLS", o.URL)
	}
	if u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return Endpoint{}, Invalid("origin", "%q: give scheme, host and port only", o.URL)
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return Endpoint{}, Invalid("origin", "%q: %q is not a port", o.URL, p)
		}
		e.Port = uint16(n)
	}
	if a, err := netip.ParseAddr(e.Host); err == nil {
		if a.Zone() != "" {
			return Endpoint{}, Invalid("origin", "%q: an address with a zone means something else on every node", o.URL)
		}
		return e, nil
	}
	if _, err := ParseHostName(e.Host); err != nil {
		return Endpoint{}, Invalid("origin", "%q: %q is neither an IP address nor a host name", o.URL, e.Host)
	}
	return e, nil
}

// metadataAddrs answer with credentials inside clouds; nobody may open them.
var metadataAddrs = []netip.Prefix{
	netip.MustParsePrefix("169.254.169.254/32"),
	netip.MustParsePrefix("169.254.170.2/32"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("168.63.129.16/32"),
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("192.0.0.192/32"),
	netip.MustParsePrefix("fd00:ec2::/32"),
	netip.MustParsePrefix("fd00:c1::/32"),
	netip.MustParsePrefix("fd20:ce::/32"),
	netip.MustParsePrefix("fe80::a9fe:a9fe/128"),
}

// nonPublic is refused unless an operator opened it for the tenant (IANA special-purpose registries, RFC 6890).
var nonPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/128"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("fec0::/10"), netip.MustParsePrefix("ff00::/8"),
	// What is left outside of 2000::/3 is not assigned to anybody's servers.
	netip.MustParsePrefix("::/3"), netip.MustParsePrefix("4000::/2"), netip.MustParsePrefix("8000::/1"),
}

var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
	compat = netip.MustParsePrefix("::/96")
	siit   = netip.MustParsePrefix("::ffff:0:0:0/96")
)

// embeddedIPv4 unwraps the forms in which an IPv4 address hides in an IPv6 one: mapped, compatible, translated (SIIT),
// NAT64 and 6to4. Teredo hides a relay's choice of address and is refused whole with 2001::/23.
func embeddedIPv4(a netip.Addr) netip.Addr {
	a = a.WithZone("").Unmap()
	b := a.As16()
	switch {
	case !a.Is6():
	case nat64.Contains(a), siit.Contains(a), compat.Contains(a) && a != netip.IPv6Loopback() && a != netip.IPv6Unspecified():
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixTo4.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}

// CheckOriginAddr refuses an address that an origin must not have: metadata services always, own addresses of the
// edge always, non-public ranges unless one of allowed contains them. It is called when the origin is stored and
// again with the address that is being dialled, because DNS may answer differently then (rebinding).
func CheckOriginAddr(a netip.Addr, allowed []netip.Prefix, own []netip.Addr) error {
	if !a.IsValid() {
		return Invalid("origin", "origin address is empty: give the address of your own server")
	}
	a = embeddedIPv4(a)
	for _, o := range own {
		if embeddedIPv4(o) == a {
			return Invalid("origin", "origin address %s is the edge itself: requests would loop; give the address of your own server", a)
		}
	}
	for _, p := range metadataAddrs {
		if p.Contains(a) {
			return Invalid("origin", "origin address %s is a link-local or metadata address, which is never allowed", a)
		}
	}
	for _, p := range nonPublic {
		if !p.Contains(a) {
			continue
		}
		for _, ok := range allowed {
			if ok.Contains(a) {
				return nil
			}
		}
		return Invalid("origin", "origin address %s is not public (%s): an operator can allow it for this tenant with "+
			"'fleetctl tenant update TENANT --allow-origin %s'", a, p, p)
	}
	return nil
}
