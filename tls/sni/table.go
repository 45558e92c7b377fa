// Package sni is the edge's certificate table: it finds the certificate for the name that a client asks for in its
// TLS handshake.
//
// It owns one immutable map behind an atomic pointer: a lookup takes no lock and never waits, whatever a
// replacement does at the same time. It loads, verifies and unseals nothing, and it never asks the control plane:
// what is not in the table is not served.
package sni

import (
	"crypto/tls"
	"strings"
	"sync/atomic"

	"github.com/edgefleet/edgefleet/fleet"
)

// Entry is one name with the certificate to show for it.
type Entry struct {
	// Name is the exact host name; there are no wildcards, because each protected host has its own certificate.
	Name fleet.HostName
	// Certificate is shared by all handshakes and must not change after Replace.
	Certificate *tls.Certificate
}

// Table maps host names to certificates. The zero value is an empty table; all methods may be called at once.
type Table struct {
	names atomic.Pointer[map[string]*tls.Certificate]
}

// Replace makes entries the whole table. Handshakes that have begun go on with what they found. If a name occurs
// twice, the last entry counts; an entry without a certificate is left out.
func (t *Table) Replace(entries []Entry) {
	names := make(map[string]*tls.Certificate, len(entries))
	for _, e := range entries {
		if e.Certificate != nil {
			names[string(e.Name)] = e.Certificate
		}
	}
	t.names.Store(&names)
}

// Len is the number of names in the table.
func (t *Table) Len() int {
	names := t.names.Load()
	if names == nil {
		return 0
	}
	return len(*names)
}

// Lookup finds the certificate for a name as clients write it: in any case, with or without the trailing dot.
func (t *Table) Lookup(name string) (*tls.Certificate, bool) {
	names := t.names.Load()
	if names == nil {
		return nil, false
	}
	c, ok := (*names)[canonical(name)]
	return c, ok
}

// GetCertificate is for tls.Config.GetCertificate. An unknown name, or none, gives neither certificate nor error:
// crypto/tls then looks into Config.Certificates and, if that is empty, as it must be here, ends the handshake with
// the alert unrecognized_name (RFC 6066 section 3). An error would be sent as internal_error, which tells the client to
// try again. Callers that count refused names wrap this method and count nil certificates.
func (t *Table) GetCertificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, _ := t.Lookup(h.ServerName)
	return c, nil
}

// canonical is the form of fleet.HostName; it does not allocate for names that are in it already.
func canonical(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
