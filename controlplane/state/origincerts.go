package state

import (
	"github.com/hashicorp/go-memdb"

	"github.com/edgefleet/edgefleet/fleet"
)

// OriginCerts has the certificates that nodes show to origins.
const OriginCerts Table = "origin_certificates"

func originCertsTable() *memdb.TableSchema {
	return table(OriginCerts, compound("Host", "Origin"), by(indexHost, "Host"), by(indexTenant, "Tenant"))
}

// OriginCert returns the certificate that is shown to an origin of a host.
func (v *View) OriginCert(h fleet.HostName, origin string) (fleet.OriginCertRecord, bool) {
	return get[fleet.OriginCertRecord](v, OriginCerts, indexID, string(h), origin)
}

// OriginCertsOf lists those that are shown to the origins of a host.
func (v *View) OriginCertsOf(h fleet.HostName) []fleet.OriginCertRecord {
	return list[fleet.OriginCertRecord](v, OriginCerts, indexHost, string(h))
}

// OriginCertsOfTenant lists those of all hosts of a tenant.
func (v *View) OriginCertsOfTenant(t fleet.TenantID) []fleet.OriginCertRecord {
	return list[fleet.OriginCertRecord](v, OriginCerts, indexTenant, string(t))
}

// PutOriginCert stores such a certificate.
func (t *Tx) PutOriginCert(c fleet.OriginCertRecord) { put(t, OriginCerts, c) }

// DeleteOriginCert removes it.
func (t *Tx) DeleteOriginCert(h fleet.HostName, origin string) {
	del(t, OriginCerts, indexID, string(h), origin)
}
