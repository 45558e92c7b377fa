// Package sni is the edge's certificate table: it finds the certificate for the name that a client asks for in its
// TLS handshake.
//
// It owns one immutable index behind an atomic pointer: a lookup takes no lock, allocates nothing and never waits,
// whatever a replacement does at the same time. It loads, verifies and unseals nothing, and it never asks the control
// plane: what is not in the table is not served, and asking for it leaves no trace here.
//
// A name takes 48 bytes beside itself and the certificate, twice that while the table is replaced.
package sni

import (
	"crypto/tls"
	"strings"
	"sync/atomic"

	"github.com/edgefleet/edgefleet/fleet"
)

// Entry is one name with the certificate to show for it.
type Entry struct {
	// Name is an exact host name, or a wildcard such as *.example.com, which stands for names with one label more than
	// example.com and not for example.com. An exact name comes before a wildcard.
	Name fleet.HostName
	// Certificate is shared by all handshakes and must not change after Replace.
	Certificate *tls.Certificate
}

// Table maps host names to certificates. The zero value is an empty table; all methods may be called at once.
type Table struct {
	index atomic.Pointer[index]
}

// Replace makes entries the whole table. Handshakes that have begun go on with what they found. If a name occurs
// twice, the last entry counts; an entry without a certificate is left out.
func (t *Table) Replace(entries []Entry) {
	t.index.Store(newIndex(entries))
}

// Len is the number of names in the table.
func (t *Table) Len() int {
	i := t.index.Load()
	if i == nil {
		return 0
	}
	return i.names
}

// Lookup finds the certificate for a name as clients write it: in any case, with or without the trailing dot.
func (t *Table) Lookup(name string) (*tls.Certificate, bool) {
	i := t.index.Load()
	if i == nil {
		return nil, false
	}
	name = canonical(name)
	label, parent, found := strings.Cut(name, ".")
	if !found || label == "" || label == "*" {
		c := i.find(i.exactHash(name), name)
		return c, c != nil
	}
	// The first slot of the wildcard is asked for before that of the name is there, so that one wait is for both.
	wild := i.wildHash(parent)
	first := i.slots[i.home(wild)].hash
	if c := i.find(i.exactHash(name), name); c != nil {
		return c, true
	}
	if first > wild {
		return nil, false
	}
	c := i.find(wild, parent)
	return c, c != nil
}

// GetCertificate is for tls.Config.GetCertificate. An unknown name, or none, gives neither certificate nor error:
// crypto/tls then looks into Config.Certificates and, if that is empty, as it must be here, ends the handshake with
// the alert unrecognized_name (RFC 6066 section 3). An error would be sent as internal_error, which tells the client to
// try again. Callers that count refused names wrap this method and count nil certificates.
func (t *Table) GetCertificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, _ := t.Lookup(h.ServerName)
	return c, nil
}

// canonical is the form of fleet.HostName; it does not allocate for names that are in it already. Letters beyond ASCII
// are left alone: some of them have a lower case within it.
func canonical(name string) string {
	name = strings.TrimSuffix(name, ".")
	for i := range len(name) {
		if 'A' <= name[i] && name[i] <= 'Z' {
			return strings.Map(func(r rune) rune {
				if 'A' <= r && r <= 'Z' {
					return r + ('a' - 'A')
				}
				return r
			}, name)
		}
	}
	return name
}
