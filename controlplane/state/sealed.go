package state

import (
	"maps"
	"slices"

	"github.com/edgefleet/edgefleet/fleet"
)

// Sealed are rows that hold a secret which a key-encryption key seals. The cluster's own secrets are not among them: they
// change with the key, in one command.
type Sealed struct {
	Certificates []fleet.CertificateRecord
	Orders       []fleet.OrderRecord
	Entries      []fleet.Entry
	Origins      []fleet.OriginCertRecord
	// By counts them by the name of the key.
	By map[string]int
}

// Count is how many they are.
func (s Sealed) Count() int {
	return len(s.Certificates) + len(s.Orders) + len(s.Entries) + len(s.Origins)
}

// Keys are the names of the keys that seal them.
func (s Sealed) Keys() []string { return slices.Sorted(maps.Keys(s.By)) }

// NotSealedBy lists the rows whose secret another key-encryption key seals than the one of that name.
func (v *View) NotSealedBy(kek string) Sealed {
	s := Sealed{By: map[string]int{}}
	other := func(key string) bool {
		if key == kek {
			return false
		}
		s.By[key]++
		return true
	}
	for c := range rows[fleet.CertificateRecord](v.txn.Get(string(Certificates), indexID)) {
		if other(c.Key.Key) {
			s.Certificates = append(s.Certificates, c)
		}
	}
	for o := range rows[fleet.OrderRecord](v.txn.Get(string(Orders), indexID)) {
		if other(o.Key.Key) {
			s.Orders = append(s.Orders, o)
		}
	}
	for e := range rows[fleet.Entry](v.txn.Get(string(Entries), indexID)) {
		var sealed fleet.Sealed
		if fleet.DecodeStrict(e.Value, &sealed) == nil && other(sealed.Key) { // what is not sealed at all is its reader's to complain about
			s.Entries = append(s.Entries, e)
		}
	}
	for o := range rows[fleet.OriginCertRecord](v.txn.Get(string(OriginCerts), indexID)) {
		if other(o.Key.Key) {
			s.Origins = append(s.Origins, o)
		}
	}
	return s
}
