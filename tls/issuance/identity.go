package issuance

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgefleet/edgefleet/fleet"
)

// Identity is whom CAA records have to allow, as the CA's directory says; no domains if it says nothing.
func (i *Issuer) Identity(ctx context.Context) (fleet.CAIdentity, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: i.o.Roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	c := acme.Client{Directory: i.o.Directory, HTTPClient: &http.Client{Transport: transport, Timeout: 10 * time.Second}}
	d, err := c.GetDirectory(ctx)
	if err != nil {
		return fleet.CAIdentity{}, fmt.Errorf("read the directory of the certificate authority: %w", err)
	}
	if d.Meta == nil {
		return fleet.CAIdentity{}, nil
	}
	return fleet.CAIdentity{Domains: d.Meta.CAAIdentities}, nil
}
