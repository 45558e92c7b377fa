package fleet

import (
	"strings"
	"time"
)

// CertificatePolicy says where the certificate of a host comes from.
type CertificatePolicy string

// The policies.
const (
	// CertificateACME: the control plane orders and renews it, unless an uploaded one is there.
	CertificateACME CertificatePolicy = ""
	// CertificateOwn: only what the customer uploads; nothing is ordered.
	CertificateOwn CertificatePolicy = "own"
	// CertificateNone: nothing is ordered, and the edge answers over plain HTTP without a redirect: another CDN in front of
	// it has the visitors' TLS.
	CertificateNone CertificatePolicy = "none"
)

// ParseCertificatePolicy reads acme, own or none; empty is acme.
func ParseCertificatePolicy(s string) (CertificatePolicy, error) {
	switch p := CertificatePolicy(strings.TrimSpace(strings.ToLower(s))); p {
	case CertificateOwn, CertificateNone, CertificateACME:
		return p, nil
	case "acme":
		return CertificateACME, nil
	}
	return "", Invalid("certificate", "%q is no way to get a certificate: use acme (ordered and renewed by the edge), own (uploaded) or none (another CDN in front has the visitors' TLS)", s)
}

// String is acme, own or none.
func (p CertificatePolicy) String() string {
	if p == CertificateACME {
		return "acme"
	}
	return string(p)
}

// Validate reports whether p is one of the policies, as they are stored.
func (p CertificatePolicy) Validate() error {
	if p != CertificateACME && p != CertificateOwn && p != CertificateNone {
		return Invalid("certificate", "%q is no way to get a certificate: use acme, own or none", string(p))
	}
	return nil
}

// SourceUploaded is the source of a certificate that its owner uploaded; an empty source is the ACME authority.
const SourceUploaded = "uploaded"

// Own reports whether c was uploaded, and not removed since: the control plane never replaces it.
func (c Certificate) Own() bool { return c.Source == SourceUploaded && c.RemovedAt.IsZero() }

// UploadNotices are how long before the end of a certificate that the control plane cannot renew people are told so.
var UploadNotices = []time.Duration{30 * 24 * time.Hour, 14 * 24 * time.Hour, 7 * 24 * time.Hour}
