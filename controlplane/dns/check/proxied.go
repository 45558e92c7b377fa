package check

import (
	"net/netip"
	"strings"
)

// proxies are CDNs that answer for a name in its owner's stead, by the networks that they publish and by the names that
// they give out. Where a name leads behind them cannot be seen in DNS.
var proxies = []struct {
	name     string
	networks []netip.Prefix
	suffixes []string
}{
	{
		"Cloudflare", networks(
			"173.245.48.0/20", "103.21.244.0/22", "103.22.200.0/22", "103.31.4.0/22", "141.101.64.0/18", "108.162.192.0/18", "190.93.240.0/20", "188.114.96.0/20",
			"197.234.240.0/22", "198.41.128.0/17", "162.158.0.0/15", "104.16.0.0/13", "104.24.0.0/14", "172.64.0.0/13", "131.0.72.0/22",
			"2400:cb00::/32", "2606:4700::/32", "2803:f800::/32", "2405:b500::/32", "2405:8100::/32", "2a06:98c0::/29", "2c0f:f248::/32",
		), []string{"cdn.cloudflare.net"},
	},
	{"Fastly", networks("151.101.0.0/16", "199.232.0.0/16", "146.75.0.0/17", "2a04:4e40::/32", "2a04:4e42::/32"), []string{"fastly.net", "fastlylb.net"}},
	{"Amazon CloudFront", nil, []string{"cloudfront.net"}},
	{"Akamai", nil, []string{"edgekey.net", "edgesuite.net", "akamaiedge.net", "akamai.net"}},
	{"Azure Front Door", nil, []string{"azurefd.net", "azureedge.net"}},
	{"Imperva", nil, []string{"incapdns.net", "impervadns.net"}},
	{"Bunny", nil, []string{"b-cdn.net"}},
}

func networks(cidrs ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(cidrs))
	for i, c := range cidrs {
		out[i] = netip.MustParsePrefix(c)
	}
	return out
}

// proxyOf is the CDN that one of the names or addresses belongs to; empty if none.
func proxyOf(names []string, addrs []netip.Addr) string {
	for _, p := range proxies {
		for _, n := range names {
			for _, s := range p.suffixes {
				if n == s || strings.HasSuffix(n, "."+s) {
					return p.name
				}
			}
		}
		for _, a := range addrs {
			for _, net := range p.networks {
				if net.Contains(a) {
					return p.name
				}
			}
		}
	}
	return ""
}
