package api

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

func (a *API) registerOrigins() {
	handle(a, op("origin-list", http.MethodGet, "/v1/tenants/{tenant}/hosts/{host}/origins", "A host's origins, and the certificates that nodes show to them", tenantOwn, fleet.PermHostsRead, fleet.DutyConsole), a.originList)
	handle(a, op("origin-certificate-set", http.MethodPost, "/v1/tenants/{tenant}/hosts/{host}/origins/certificate", "Give nodes a certificate to show to an origin, in place of the one before", tenantOwn, fleet.PermHostsWrite, fleet.DutyConsole).changes(command.TypeOriginCertPut).answering(http.StatusOK), a.originCertSet)
	handle(a, op("origin-certificate-delete", http.MethodPost, "/v1/tenants/{tenant}/hosts/{host}/origins/certificate/delete", "Show no certificate to an origin any more; the answer is the one that was shown", tenantOwn, fleet.PermHostsWrite, fleet.DutyConsole).changes(command.TypeOriginCertDelete).answering(http.StatusOK), a.originCertDelete)
}

func (a *API) originList(_ context.Context, in *HostRead) (*Body[client.OriginViews], error) {
	h, err := a.host(in.HostPath)
	if err != nil {
		return nil, err
	}
	v := a.view()
	out := client.OriginViews{Host: h.Name, Origins: []client.OriginView{}, Nodes: []fleet.NodeID{}}
	health := a.originHealth(h, &out)
	for _, o := range h.Spec.Origins {
		view := client.OriginView{Origin: o}
		if c, ok := v.OriginCert(h.Name, o.URL); ok {
			view.Certificate = &c.OriginCert
		}
		view.Out = health(o)
		out.Origins = append(out.Origins, view)
	}
	return &Body[client.OriginViews]{Body: out}, nil
}

// OriginCertInput gives a certificate.
type OriginCertInput struct {
	HostPath
	Body client.OriginCertSet
}

func (a *API) originCertSet(ctx context.Context, in *OriginCertInput) (*Body[fleet.OriginCert], error) {
	if err := a.o.Keys.Check(); err != nil {
		return nil, err
	}
	cert, key, err := readOriginCert(in.Body, a.o.Now())
	if err != nil {
		return nil, err
	}
	defer clear(key)
	c, err := amend(ctx, func() (fleet.OriginCert, error) {
		h, err := a.host(in.HostPath)
		if err != nil {
			return fleet.OriginCert{}, err
		}
		cert.Host, cert.Tenant = h.Name, h.Tenant
		if err := cert.Validate(h); err != nil {
			return fleet.OriginCert{}, err
		}
		before, _ := a.view().OriginCert(h.Name, cert.Origin)
		cert.Generation = before.Generation + 1
		sealed, err := a.o.Keys.Sealer.Seal(key, keyring.OriginKeyAAD(cert))
		if err != nil {
			return fleet.OriginCert{}, fmt.Errorf("seal key: %w", err)
		}
		return propose[fleet.OriginCert](ctx, a, command.OriginCertPut{Certificate: fleet.OriginCertRecord{OriginCert: cert, Key: sealed}})
	})
	return &Body[fleet.OriginCert]{Body: c}, err
}

// OriginCertDeleteInput names an origin.
type OriginCertDeleteInput struct {
	HostPath
	Body client.OriginCertDelete
}

func (a *API) originCertDelete(ctx context.Context, in *OriginCertDeleteInput) (*Body[fleet.OriginCert], error) {
	h, err := a.host(in.HostPath)
	if err != nil {
		return nil, err
	}
	c, err := propose[fleet.OriginCert](ctx, a, command.OriginCertDelete{Host: h.Name, Tenant: h.Tenant, Origin: in.Body.Origin})
	return &Body[fleet.OriginCert]{Body: c}, err
}

// names are a certificate's for people; long ones are cut.
func names(c *x509.Certificate) (subject, issuer string) {
	const most = 512
	cut := func(s string) string { return s[:min(len(s), most)] }
	return cut(c.Subject.String()), cut(c.Issuer.String())
}
