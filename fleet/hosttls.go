package fleet

import (
	"crypto/x509"
	"encoding/pem"
	"strconv"
	"strings"
)

// Limits on the certificates of authorities that a host brings along.
const (
	// MaxCABytes bounds one bundle of CA certificates, in bytes of PEM.
	MaxCABytes = 16 << 10
	// MaxCACertificates bounds the certificates in it.
	MaxCACertificates = 16
	// MaxTenantCABytes bounds the bundles of all of a tenant's hosts: they travel in one bundle (MaxBundleBytes).
	MaxTenantCABytes = 4 << 20
	// MaxHSTSSeconds is two years, which is what lists of preloaded names ask for at most.
	MaxHSTSSeconds = 2 * 365 * 24 * 3600
	// minPreloadSeconds is what the list of preloaded names asks for at least.
	minPreloadSeconds = 365 * 24 * 3600
)

// HostTLS is how clients reach a host. The zero value is TLS 1.2 or newer for everybody. It is comparable.
type HostTLS struct {
	// MinVersion is 1.2 or 1.3; empty is 1.2.
	MinVersion string `json:"min_version,omitempty" enum:",1.2,1.3" doc:"oldest version of TLS: 1.2 (default) or 1.3"`
	// HSTS is what browsers are told; no header of the edge's when its MaxAge is 0.
	HSTS HSTS `json:"hsts,omitzero"`
	// ClientAuth says whether clients show a certificate; empty does not ask for one.
	ClientAuth ClientAuth `json:"client_auth,omitempty" enum:",optional,required" doc:"whether clients show a certificate: optional or required; default no"`
	// ClientCA are the certificates (PEM) of the authorities that sign those of clients.
	ClientCA string `json:"client_ca,omitempty" maxLength:"16384" doc:"CA certificates, PEM, that clients' certificates are verified with"`
}

// HSTS is a Strict-Transport-Security header (RFC 6797).
type HSTS struct {
	// MaxAge is in seconds; 0 sends no header, so that the origin's own, if any, passes.
	MaxAge            int  `json:"max_age,omitempty" minimum:"0" doc:"seconds for which browsers use HTTPS only; 0 sends no header"`
	IncludeSubdomains bool `json:"include_subdomains,omitempty"`
	// Preload consents to being built into browsers, which is hard to undo.
	Preload bool `json:"preload,omitempty" doc:"consents to being built into browsers, which is hard to undo"`
}

// ClientAuth is whether clients of a host show a certificate.
type ClientAuth string

// What a host asks of clients.
const (
	// ClientAuthNone asks for no certificate.
	ClientAuthNone ClientAuth = ""
	// ClientAuthOptional verifies a certificate if the client has one.
	ClientAuthOptional ClientAuth = "optional"
	// ClientAuthRequired refuses clients without one in the handshake.
	ClientAuthRequired ClientAuth = "required"
)

// Header is the value of Strict-Transport-Security; empty for none.
func (h HSTS) Header() string {
	if h.MaxAge == 0 {
		return ""
	}
	v := "max-age=" + strconv.Itoa(h.MaxAge)
	if h.IncludeSubdomains {
		v += "; includeSubDomains"
	}
	if h.Preload {
		v += "; preload"
	}
	return v
}

// Validate checks the shape of t. It does not read the certificates: see ParseCAs.
func (t HostTLS) Validate() error {
	if t.MinVersion != "" && t.MinVersion != "1.2" && t.MinVersion != "1.3" {
		return Invalid("tls.min_version", "%q is not a version of TLS that the edge speaks: use 1.2 or 1.3", t.MinVersion)
	}
	switch h := t.HSTS; {
	case h.MaxAge < 0 || h.MaxAge > MaxHSTSSeconds:
		return Invalid("tls.hsts", "a max-age of %d seconds: give 0, for no header, to %d (two years)", h.MaxAge, MaxHSTSSeconds)
	case h.MaxAge == 0 && (h.IncludeSubdomains || h.Preload):
		return Invalid("tls.hsts", "subdomains and preload need a max-age: give one, such as %d seconds", minPreloadSeconds)
	case h.Preload && (h.MaxAge < minPreloadSeconds || !h.IncludeSubdomains):
		return Invalid("tls.hsts", "preload needs subdomains and a max-age of a year (%d seconds) or more", minPreloadSeconds)
	}
	switch t.ClientAuth {
	case ClientAuthNone:
		if t.ClientCA != "" {
			return Invalid("tls.client_auth", "there are client CA certificates, and clients are asked for none: set client_auth to required or optional")
		}
		return nil
	case ClientAuthOptional, ClientAuthRequired:
		if t.ClientCA == "" {
			return Invalid("tls.client_ca", "clients are to show certificates, and there is no CA to verify them with: give its certificate, PEM")
		}
		return checkCAText("tls.client_ca", t.ClientCA)
	}
	return Invalid("tls.client_auth", "%q is not a kind of client authentication: use optional or required, or leave it empty", string(t.ClientAuth))
}

// checkCAText checks the size and the armour of a bundle of certificates. What is in them is for ParseCAs, outside of the
// replicated log: what a version of the standard library takes for a certificate must not decide there.
func checkCAText(field, text string) error {
	if len(text) > MaxCABytes {
		return NewError(ErrTooLarge, field, "%d bytes of CA certificates; the limit is %d", len(text), MaxCABytes)
	}
	n := 0
	for rest := []byte(text); len(strings.TrimSpace(string(rest))) > 0; n++ {
		var block *pem.Block
		switch block, rest = pem.Decode(rest); {
		case block == nil:
			return Invalid(field, "what is given are not certificates in PEM: they begin with -----BEGIN CERTIFICATE-----")
		case strings.Contains(block.Type, "PRIVATE KEY"):
			return Invalid(field, "there is a private key among the CA certificates: give certificates only, and take that key for compromised if it was meant to stay secret")
		case block.Type != "CERTIFICATE":
			return Invalid(field, "a PEM block is a %.40q: give CERTIFICATE blocks only", block.Type)
		}
	}
	if n == 0 || n > MaxCACertificates {
		return Invalid(field, "%d CA certificates: give 1 to %d", n, MaxCACertificates)
	}
	return nil
}

// ParseCAs reads a bundle of CA certificates; every one must be one that may sign.
func ParseCAs(field, text string) (*x509.CertPool, error) {
	if err := checkCAText(field, text); err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	block, rest := pem.Decode([]byte(text))
	for i := 1; block != nil; i++ {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, Invalid(field, "certificate %d cannot be read: %v", i, err)
		}
		if !c.IsCA || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
			return nil, Invalid(field, "certificate %d (%.80s) is not a CA's: give the certificate of the authority that signed, not the signed one", i, c.Subject)
		}
		pool.AddCert(c)
		block, rest = pem.Decode(rest)
	}
	return pool, nil
}
