package fleet

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Reasons of the condition of an origin that is a Consul service.
const (
	// ReasonOriginUnresolved: there never was an instance to send requests to; the edge answers for the host as for one
	// that it does not know.
	ReasonOriginUnresolved = "ORIGIN_UNRESOLVED"
	// ReasonOriginNoInstance: no instance is healthy now, and the last ones that were are kept.
	ReasonOriginNoInstance = "ORIGIN_NO_INSTANCE"
	// ReasonOriginRefused: an instance has an address that an origin must not have.
	ReasonOriginRefused = "ORIGIN_REFUSED"
)

// HostOrigins is what the Consul services among a host's origins stand for. It is written by the leader only.
type HostOrigins struct {
	Host     HostName         `json:"host"`
	Tenant   TenantID         `json:"tenant"`
	Services []ResolvedOrigin `json:"services"`
}

// ResolvedOrigin is one origin that is a Consul service.
type ResolvedOrigin struct {
	// URL is the origin as the host's spec has it.
	URL string `json:"url"`
	// Instances are the servers that requests are sent to, sorted.
	Instances []Origin `json:"instances"`
	// Refused are healthy instances that requests are not sent to.
	Refused []RefusedInstance `json:"refused,omitempty"`
	// Condition is true when the instances are what Consul says.
	Condition Condition `json:"condition"`
}

// RefusedInstance is an instance that a host must not have as its origin.
type RefusedInstance struct {
	// Instance is its URL.
	Instance string `json:"instance"`
	// Reason says why, and what to do.
	Reason string `json:"reason"`
}

// Instance is where one instance of a service listens. It comes from a registry and may be anything.
type Instance struct {
	// Address is an IP address or a name.
	Address string
	// Port is 0 where the registry has none: the scheme's.
	Port int
}

// Origin is the instance as an origin.
func (i Instance) Origin(scheme string) Origin {
	host := i.Address
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		host = "[" + host + "]"
	}
	if i.Port != 0 {
		host = net.JoinHostPort(i.Address, strconv.Itoa(i.Port))
	}
	return Origin{URL: scheme + "://" + host}
}

// CheckInstance refuses an instance of a service as CheckOrigins does an origin that a person wrote.
func (h Host) CheckInstance(o Origin, zone HostName, allowed []netip.Prefix, own []netip.Addr) error {
	h.Spec.Origins = []Origin{o}
	return h.CheckOrigins(zone, allowed, own)
}

// Servers are the origins of h as edge nodes need them: services are replaced by their instances, as far as allowed still
// permits. None are left when no service has an instance yet.
func (h Host) Servers(resolved HostOrigins, allowed []netip.Prefix) []Origin {
	named := false
	for _, o := range h.Spec.Origins {
		named = named || o.IsConsul()
	}
	if !named {
		return h.Spec.Origins
	}
	var out []Origin
	have := map[string]bool{}
	add := func(o Origin) {
		if !have[o.URL] && len(out) < MaxOriginsPerHost {
			have[o.URL] = true
			out = append(out, o)
		}
	}
	for _, o := range h.Spec.Origins {
		if !o.IsConsul() {
			add(o)
			continue
		}
		for _, r := range resolved.Services {
			if r.URL != o.URL {
				continue
			}
			for _, i := range r.Instances {
				// The tenant's ranges may have changed since; a node would refuse all that the tenant has for one address.
				if h.CheckInstance(i, "", allowed, nil) == nil {
					i.ServerName, i.CA = o.ServerName, o.CA // as the service was named with them
					if !strings.HasPrefix(i.URL, "https://") {
						i.ServerName, i.CA = "", ""
					}
					add(i)
				}
			}
		}
	}
	return out
}
