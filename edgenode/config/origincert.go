package config

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"maps"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// maxServers bounds what one certificate for origins is for.
const maxServers = fleet.MaxOriginsPerHost * fleet.MaxInstances

// OriginCerts are the certificates that are shown to the origins of one host. Nil has none.
type OriginCerts struct {
	// id names what is in here, whatever key it came sealed by.
	id        string
	byAddress map[string]*tls.Certificate
}

// NewOriginCerts makes those of a host, by the address (host:port) of the origin; id names them.
func NewOriginCerts(id string, byAddress map[string]*tls.Certificate) *OriginCerts {
	return &OriginCerts{id: id, byAddress: byAddress}
}

// Of returns the certificate for the origin at e; nil if there is none.
func (c *OriginCerts) Of(e fleet.Endpoint) *tls.Certificate {
	if c == nil {
		return nil
	}
	return c.byAddress[e.Address()]
}

// Same reports whether c and o are the same certificates.
func (c *OriginCerts) Same(o *OriginCerts) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.id == o.id
}

// decodeOriginCerts opens a tenant's certificates for origins; epochs are told which group keys that took.
func decodeOriginCerts(tenant fleet.TenantID, certs []fleet.BundleOriginCert, group fleet.GroupName, keys keyset, epochs map[uint64]bool) (map[fleet.HostName]*OriginCerts, error) {
	out := map[fleet.HostName]*OriginCerts{}
	for _, bc := range certs {
		cert, epoch, err := openOriginCert(tenant, bc, group, keys)
		if err != nil {
			return nil, err
		}
		epochs[epoch] = true
		before := out[bc.Host]
		if before == nil {
			before = &OriginCerts{}
		}
		sum := sha256.Sum256([]byte(before.id + "\n" + bc.Origin + "\n" + bc.SPKI + "\n" + bc.Chain))
		next := NewOriginCerts(hex.EncodeToString(sum[:]), map[string]*tls.Certificate{})
		maps.Copy(next.byAddress, before.byAddress)
		servers := bc.Servers
		if len(servers) == 0 {
			servers = []string{bc.Origin}
		}
		if err := atMost("servers", len(servers), maxServers); err != nil {
			return nil, err
		}
		for _, url := range servers {
			e, err := fleet.Origin{URL: url}.Parse()
			if err != nil {
				return nil, err
			}
			if e.Scheme == "https" {
				next.byAddress[e.Address()] = cert
			}
		}
		out[bc.Host] = next
	}
	return out, nil
}

// openOriginCert unseals the private key, which stays in memory, and matches it to the chain.
func openOriginCert(tenant fleet.TenantID, c fleet.BundleOriginCert, group fleet.GroupName, keys keyset) (*tls.Certificate, uint64, error) {
	if _, err := fleet.ParseHost(string(c.Host)); err != nil {
		return nil, 0, err
	}
	if len(c.Chain) > fleet.MaxOriginChainBytes {
		return nil, 0, fleet.NewError(fleet.ErrTooLarge, "chain", "a chain of %d bytes; the limit is %d", len(c.Chain), fleet.MaxOriginChainBytes)
	}
	der, epoch, err := keys.open(group, c.Key, keyring.OriginKeyAAD(fleet.OriginCert{Tenant: tenant, Host: c.Host, Origin: c.Origin, SPKI: c.SPKI, Generation: c.Generation}))
	if err != nil {
		return nil, 0, err
	}
	defer clear(der)
	cert, err := tls.X509KeyPair([]byte(c.Chain), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		return nil, 0, fleet.Invalid("chain", "key and chain of %s for %s do not belong together: %v", c.Host, c.Origin, err)
	}
	if spki := spkiOf(cert.Leaf); spki != c.SPKI {
		return nil, 0, fleet.Invalid("spki", "the leaf has the public key %.12s, the bundle says %.12s", spki, c.SPKI)
	}
	return &cert, epoch, nil
}
