package state

import "github.com/edgefleet/edgefleet/fleet"

// Revocations has the certificates that authorities are to revoke or have revoked, until they end.
const Revocations Table = "revocations"

// Revocation returns a revocation.
func (v *View) Revocation(id string) (fleet.RevocationRecord, bool) {
	return get[fleet.RevocationRecord](v, Revocations, indexID, id)
}

// Revocations lists the revocations.
func (v *View) Revocations() []fleet.RevocationRecord {
	return list[fleet.RevocationRecord](v, Revocations, indexID)
}

// RevocationsOf lists those of a host.
func (v *View) RevocationsOf(h fleet.HostName) []fleet.RevocationRecord {
	return list[fleet.RevocationRecord](v, Revocations, indexHost, string(h))
}

// PutRevocation stores a revocation.
func (t *Tx) PutRevocation(r fleet.RevocationRecord) { put(t, Revocations, r) }

// DeleteRevocation removes a revocation.
func (t *Tx) DeleteRevocation(id string) { del(t, Revocations, indexID, id) }

// DeleteCertificate removes a host's certificate with its key.
func (t *Tx) DeleteCertificate(h fleet.HostName) {
	t.touch(h)
	del(t, Certificates, indexID, string(h))
}
