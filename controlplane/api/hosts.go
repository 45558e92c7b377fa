package api

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"net/http"
	"strings"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hostname"
	"github.com/edgefleet/edgefleet/fleet/hoststate"
)

func (a *API) registerHosts() {
	handle(a, op("host-list", http.MethodGet, "/v1/tenants/{tenant}/hosts", "A tenant's hosts", tenantOwn, fleet.PermHostsRead, fleet.DutyConsole), a.hostList)
	handle(a, op("host-create", http.MethodPost, "/v1/tenants/{tenant}/hosts", "Protect a host; the answer has the DNS records to set", tenantOwn, fleet.PermHostsWrite, fleet.DutyConsole).changes(command.TypeHostPut), a.hostCreate)
	handle(a, op("host-show", http.MethodGet, "/v1/tenants/{tenant}/hosts/{host}", "A host with its conditions and DNS records", tenantOwn, fleet.PermHostsRead, fleet.DutyConsole), a.hostShow)
	handle(a, op("host-update", http.MethodPatch, "/v1/tenants/{tenant}/hosts/{host}", "Change a host's origins, mode, regions, TLS, forwarding, fail policy or where its certificate comes from", tenantOwn, fleet.PermHostsWrite, fleet.DutyConsole).changes(command.TypeHostPut).withRevision(), a.hostUpdate)
	handle(a, op("host-check", http.MethodPost, "/v1/tenants/{tenant}/hosts/{host}/check", "Look at the host's DNS now", tenantOwn, fleet.PermHostsWrite, fleet.DutyConsole).answering(http.StatusOK), a.hostCheck)
	handle(a, op("host-delete", http.MethodDelete, "/v1/tenants/{tenant}/hosts/{host}", "Stop protecting a host", tenantOwn, fleet.PermHostsWrite, fleet.DutyConsole).changes(command.TypeHostRetire).withRevision(), a.hostDelete)
}

// HostPath names a host.
type HostPath struct {
	TenantPath
	Host string `path:"host" maxLength:"253" doc:"host name"`
}

// HostRead names a host to read.
type HostRead struct {
	HostPath
	ReadQuery
}

func (a *API) host(p HostPath) (fleet.Host, error) {
	name := fleet.HostName(strings.TrimSuffix(strings.ToLower(p.Host), "."))
	h, ok := a.view().Host(name)
	if !ok || h.Tenant != p.tenant() {
		return fleet.Host{}, fleet.NewError(fleet.ErrNotFound, "host", "host %s does not exist", name)
	}
	return h, nil
}

func (a *API) hostView(h fleet.Host) *Body[client.HostView] {
	v := a.view()
	cluster, _ := v.Cluster()
	resolved, _ := v.HostOrigins(h.Name)
	return &Body[client.HostView]{Body: client.HostView{Host: h, Records: h.Records(cluster.Zone), Advice: hoststate.Advise(h.Observed), Services: resolved.Services}}
}

func (a *API) hostList(_ context.Context, in *TenantList) (*Body[client.Page[fleet.Host]], error) {
	return page(a.view().HostsAfter(in.tenant(), in.Cursor, in.Limit+1), in.Limit, func(h fleet.Host) string { return string(h.Name) }), nil
}

func (a *API) hostShow(_ context.Context, in *HostRead) (*Body[client.HostView], error) {
	h, err := a.host(in.HostPath)
	if err != nil {
		return nil, err
	}
	return a.hostView(h), nil
}

// HostCreateInput protects a host.
type HostCreateInput struct {
	TenantPath
	Body client.HostCreate
}

func (a *API) hostCreate(ctx context.Context, in *HostCreateInput) (*Body[client.HostView], error) {
	name, err := hostname.Canonical(in.Body.Name)
	if err != nil {
		return nil, err
	}
	cluster, _ := a.view().Cluster()
	if err := hostname.Reserved(name, cluster.Zone, nil); err != nil {
		return nil, err
	}
	spec := fleet.HostSpec{Origins: in.Body.Origins, Mode: orDefault(in.Body.Mode, fleet.ModeMonitoring), Regions: in.Body.Regions}
	set(&spec.TLS, in.Body.TLS)
	set(&spec.Forwarding, in.Body.Forwarding)
	if spec.Certificate, err = fleet.ParseCertificatePolicy(in.Body.Certificate); err != nil {
		return nil, err
	}
	h, err := a.putHost(ctx, nil, command.HostPut{Put: command.Put{Create: true}, Name: name, Tenant: in.tenant(), Label: newLabel(), Spec: spec, Exclusive: true})
	if err != nil {
		return nil, err
	}
	return a.hostView(h), nil
}

// newLabel makes an unguessable DNS label: 130 bits.
func newLabel() string {
	b := make([]byte, 17)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return "h" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))[:26]
}

// HostUpdateInput changes a host.
type HostUpdateInput struct {
	HostPath
	Body client.HostUpdate
}

func (a *API) hostUpdate(ctx context.Context, in *HostUpdateInput) (*Body[client.HostView], error) {
	h, err := amend(ctx, func() (fleet.Host, error) {
		h, err := a.host(in.HostPath)
		if err != nil {
			return h, err
		}
		before := h.Spec.Origins
		set(&h.Spec.Origins, in.Body.Origins)
		set(&h.Spec.Mode, in.Body.Mode)
		set(&h.Spec.Regions, in.Body.Regions)
		set(&h.Spec.TLS, in.Body.TLS)
		set(&h.Spec.Forwarding, in.Body.Forwarding)
		set(&h.Spec.FailPolicy, in.Body.FailPolicy)
		if in.Body.Certificate != nil {
			if h.Spec.Certificate, err = fleet.ParseCertificatePolicy(*in.Body.Certificate); err != nil {
				return h, err
			}
		}
		return a.putHost(ctx, before, command.HostPut{Put: conditionOn(ctx, h.Meta), Name: h.Name, Tenant: h.Tenant, Spec: h.Spec})
	})
	if err != nil {
		return nil, err
	}
	return a.hostView(h), nil
}

func (a *API) hostCheck(_ context.Context, in *HostPath) (*Body[client.HostView], error) {
	h, err := a.host(*in)
	if err != nil {
		return nil, err
	}
	if h.Deleting() {
		return nil, fleet.NewError(fleet.ErrConflict, "host", "host %s is being deleted: its DNS is not looked at any more", h.Name)
	}
	a.o.Recheck(h.Name)
	return a.hostView(h), nil
}

// HostDeleteInput deletes a host.
type HostDeleteInput struct {
	HostPath
	Force bool `query:"force" doc:"delete although DNS still points here (operators only, with a reason)"`
}

func (a *API) hostDelete(ctx context.Context, in *HostDeleteInput) (*Body[Empty], error) {
	h, err := a.host(in.HostPath)
	if err != nil {
		return nil, err
	}
	if h.Deleting() {
		return &Body[Empty]{}, nil
	}
	if err := a.mayDelete(ctx, h, in.Force); err != nil {
		return nil, err
	}
	_, err = propose[fleet.Host](ctx, a, command.HostRetire{Name: h.Name, Tenant: h.Tenant, IfRevision: condition(ctx).IfRevision})
	return &Body[Empty]{}, err
}

// mayDelete refuses to break the visitors of a host.
func (a *API) mayDelete(ctx context.Context, h fleet.Host, force bool) error {
	if force {
		if callerOf(ctx).token.Role != fleet.RoleOperator {
			return fleet.NewError(fleet.ErrDenied, "force", "only an operator may delete a host by force: change its DNS record first, then delete it without")
		}
		if callerOf(ctx).reason == "" {
			return fleet.Invalid("reason", "deleting %s although its DNS may point at the edge breaks its visitors: say why with --reason (header %s)", h.Name, headerReason)
		}
		return nil
	}
	pointing, err := a.o.PointsHere(ctx, h)
	switch {
	case err != nil:
		return fleet.NewError(fleet.ErrConflict, "host", "DNS of %s cannot be looked up (%v), and deleting a host whose record points at the edge would break visitors: try again", h.Name, err)
	case pointing:
		return fleet.NewError(fleet.ErrConflict, "host", "DNS of %s still points at the edge, so deleting it would break visitors: change the record first, then delete", h.Name)
	}
	return nil
}
