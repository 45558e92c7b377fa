package api

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
	"github.com/edgefleet/edgefleet/tls/issuance"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

func (a *API) registerCerts() {
	const path = "/v1/tenants/{tenant}/hosts/{host}/certificate"
	handle(a, op("cert-list", http.MethodGet, "/v1/certs", "Certificates, those that end first before the others; a tenant sees its own", anyToken, fleet.PermHostsRead, fleet.DutyConsole), a.certList)
	handle(a, op("host-certificate", http.MethodGet, path, "The host's certificate and how it stands", tenantOwn, fleet.PermHostsRead, fleet.DutyConsole), a.certShow)
	handle(a, op("cert-renew", http.MethodPost, path+"/renew", "Renew the host's certificate now", tenantOwn, fleet.PermHostsWrite, fleet.DutyConsole).changes(command.TypeCertificateRenew).answering(http.StatusOK), a.certRenew)
	handle(a, op("cert-upload", http.MethodPost, path, "Upload a certificate for the host, with its chain and key, in place of what it has", tenantOwn, fleet.PermHostsWrite, fleet.DutyConsole).changes(command.TypeCertificateUpload).answering(http.StatusOK), a.certUpload)
	handle(a, op("cert-remove", http.MethodPost, path+"/remove", "Take an uploaded certificate back: the edge orders one again, where it may", tenantOwn, fleet.PermHostsWrite, fleet.DutyConsole).changes(command.TypeCertificateRemove).answering(http.StatusOK), a.certRemove)
	handle(a, op("cert-revoke", http.MethodPost, path+"/revoke", "Have the host's certificate replaced, and then revoked by its authority", tenantOwn, fleet.PermHostsWrite, fleet.DutyConsole).changes(command.TypeCertificateRevoke).answering(http.StatusOK), a.certRevoke)
}

// CertListQuery chooses certificates.
type CertListQuery struct {
	Tenant   string `query:"tenant" maxLength:"63" doc:"only those of this tenant"`
	Expiring string `query:"expiring" maxLength:"40" doc:"only those that end within this time, such as 336h"`
	ListQuery
}

func (a *API) certList(ctx context.Context, in *CertListQuery) (*Body[client.Page[client.CertificateView]], error) {
	tenant, err := auditTenant(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	var until time.Time
	if in.Expiring != "" {
		d, err := time.ParseDuration(in.Expiring)
		if err != nil || d <= 0 {
			return nil, fleet.Invalid("query.expiring", "%q is no time: give one such as 336h (two weeks)", in.Expiring)
		}
		until = a.o.Now().Add(d)
	}
	after, host, err := certCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	v := a.view()
	certs := v.CertificatesEnding(tenant, after, host, until, in.Limit+1)
	s := a.serving(v)
	views := make([]client.CertificateView, len(certs))
	for i, c := range certs {
		views[i] = s.view(c)
		views[i].Chain = "" // a page of them would be large; the certificate itself shows it
	}
	return page(views, in.Limit, func(c client.CertificateView) string {
		return strconv.FormatInt(c.NotAfter.Unix(), 10) + "." + string(c.Host)
	}), nil
}

// certCursor reads where a page starts: the end of a certificate and its host.
func certCursor(s string) (time.Time, fleet.HostName, error) {
	if s == "" {
		return time.Unix(0, 0), "", nil
	}
	end, host, ok := strings.Cut(s, ".")
	seconds, err := strconv.ParseInt(end, 10, 64)
	if !ok || err != nil || seconds < 0 {
		return time.Time{}, "", fleet.Invalid("query.cursor", "%q is not a cursor of this list: use next of the page before", s)
	}
	return time.Unix(seconds, 0), fleet.HostName(host), nil
}

// servingView makes views of certificates, and remembers what the bundles of tenants hold.
type servingView struct {
	api   *API
	state *state.View
	roots map[fleet.GroupName]map[fleet.TenantID]fleet.Digest
	certs map[fleet.TenantID]map[fleet.HostName]uint64
}

func (a *API) serving(v *state.View) *servingView {
	return &servingView{api: a, state: v, roots: map[fleet.GroupName]map[fleet.TenantID]fleet.Digest{}, certs: map[fleet.TenantID]map[fleet.HostName]uint64{}}
}

func (s *servingView) view(c fleet.Certificate) client.CertificateView {
	v := client.CertificateView{
		Certificate: c, Source: orDefault(c.Source, "acme"), KeyType: issuance.KeyType([]byte(c.Chain)), Names: issuance.Names([]byte(c.Chain)),
	}
	h, _ := s.state.Host(c.Host)
	v.Verified = h.Observed.VerifiedGeneration == c.Generation
	if h.Spec.Certificate == fleet.CertificateACME && !c.Own() {
		v.RenewAt = c.RenewAt()
	}
	if cond := h.Observed.Certificate; cond.State != fleet.ConditionTrue && cond.Reason != "" {
		v.Blocked = cond.Reason + ": " + cond.Message
	}
	for _, o := range s.state.OrdersOf(c.Host) {
		v.Order = &o.Order
		if o.Problem != "" && v.Blocked == "" {
			v.Blocked, _, _ = strings.Cut(o.Problem, "\n")
		}
	}
	for _, r := range s.state.RevocationsOf(c.Host) {
		if r.Tenant == c.Tenant {
			v.Revocations = append(v.Revocations, r.Revocation)
		}
	}
	slices.SortFunc(v.Revocations, func(a, b fleet.Revocation) int { return cmp.Compare(b.Generation, a.Generation) })
	v.Served, v.Edges = s.count(h, c)
	return v
}

// count is how many of the edges that are up for a host have acknowledged its certificate.
func (s *servingView) count(h fleet.Host, c fleet.Certificate) (served, edges int) {
	t, _ := s.state.Tenant(h.Tenant)
	head, _ := s.state.Head(t.Spec.Group, fleet.HeadCerts)
	published := s.published(t, head.Root)[h.Name] >= c.Generation
	for _, n := range s.state.NodesOf(t.Spec.Group) {
		if n.Observed.State != fleet.NodeUp || !n.Observed.Serving || len(h.Spec.Regions) > 0 && !slices.Contains(h.Spec.Regions, n.Spec.Region) {
			continue
		}
		edges++
		if r, _ := n.Observed.Head(fleet.HeadCerts); published && r.Applied(head.Version) {
			served++
		}
	}
	return served, edges
}

// published are the generations in a tenant's bundle below the committed head. A bundle that is not here, because the head
// just moved on or this member has no key, reads as empty.
func (s *servingView) published(t fleet.Tenant, root fleet.Digest) map[fleet.HostName]uint64 {
	if known, ok := s.certs[t.ID]; ok {
		return known
	}
	out := map[fleet.HostName]uint64{}
	s.certs[t.ID] = out
	if s.api.o.Library == nil || root == "" {
		return out
	}
	bundles, ok := s.roots[t.Spec.Group]
	if !ok {
		bundles, _ = bundle.Index(root, s.api.o.Library.Blob)
		s.roots[t.Spec.Group] = bundles
	}
	digest, ok := bundles[t.ID]
	if !ok {
		return out
	}
	raw, err := bundle.Blob(digest, s.api.o.Library.Blob)
	var b fleet.CertsBundle
	if err != nil || json.Unmarshal(raw, &b) != nil {
		return out
	}
	for _, c := range b.Certificates {
		out[c.Host] = max(out[c.Host], c.Generation)
	}
	return out
}

// certificate is a host's certificate.
func (a *API) certificate(p HostPath) (fleet.Host, fleet.Certificate, error) {
	h, err := a.host(p)
	if err != nil {
		return h, fleet.Certificate{}, err
	}
	c, ok := a.view().Certificate(h.Name)
	if !ok {
		return h, c.Certificate, fleet.NewError(fleet.ErrNotFound, "certificate", "host %s has no certificate yet: %s", h.Name, h.Observed.Certificate.Message)
	}
	return h, c.Certificate, nil
}

func (a *API) certView(c fleet.Certificate, err error) (*Body[client.CertificateView], error) {
	if err != nil {
		return nil, err
	}
	return &Body[client.CertificateView]{Body: a.fullView(c)}, nil
}

// fullView is the view of one certificate by itself.
func (a *API) fullView(c fleet.Certificate) client.CertificateView {
	v := a.serving(a.view()).view(c)
	if c.Own() {
		v.Warnings = issuance.UploadWarnings(c.Chain, nil, a.o.Now())
	}
	return v
}

func (a *API) certShow(_ context.Context, in *HostRead) (*Body[client.CertificateView], error) {
	_, c, err := a.certificate(in.HostPath)
	return a.certView(c, err)
}

func (a *API) certRenew(ctx context.Context, in *HostPath) (*Body[client.CertificateView], error) {
	h, c, err := a.certificate(*in)
	if err != nil {
		return nil, err
	}
	return a.certView(propose[fleet.Certificate](ctx, a, command.CertificateRenew{Host: h.Name, Tenant: h.Tenant, Generation: c.Generation}))
}

func (a *API) certRemove(ctx context.Context, in *HostPath) (*Body[client.CertificateView], error) {
	h, c, err := a.certificate(*in)
	if err != nil {
		return nil, err
	}
	return a.certView(propose[fleet.Certificate](ctx, a, command.CertificateRemove{Host: h.Name, Tenant: h.Tenant, Generation: c.Generation}))
}

// CertRevokeInput revokes a certificate.
type CertRevokeInput struct {
	HostPath
	Body client.CertificateRevoke
}

func (a *API) certRevoke(ctx context.Context, in *CertRevokeInput) (*Body[client.CertificateView], error) {
	h, c, err := a.certificate(in.HostPath)
	if err != nil {
		return nil, err
	}
	if callerOf(ctx).reason == "" {
		return nil, fleet.Invalid("reason", "revoking the certificate of %s cannot be taken back: say why with --reason (header %s)", h.Name, headerReason)
	}
	return a.certView(propose[fleet.Certificate](ctx, a, command.CertificateRevoke{
		Host: h.Name, Tenant: h.Tenant, Generation: c.Generation, Reason: orDefault(in.Body.Cause, fleet.RevokeKeyCompromise), Now: in.Body.Now,
	}))
}

// CertUploadInput uploads a certificate.
type CertUploadInput struct {
	HostPath
	Body client.CertificateUpload
}

// certUpload seals the key before anything of it is proposed, so that the log, snapshots and backups hold ciphertext only.
func (a *API) certUpload(ctx context.Context, in *CertUploadInput) (*Body[client.CertificateView], error) {
	h, err := a.host(in.HostPath)
	if err != nil {
		return nil, err
	}
	if err := a.o.Keys.Check(); err != nil {
		return nil, err
	}
	u, err := issuance.CheckUpload(h.Name, in.Body.Certificate, in.Body.Key, nil, a.o.Now())
	if err != nil {
		return nil, err
	}
	defer clear(u.Key)
	return a.certView(amend(ctx, func() (fleet.Certificate, error) {
		before, _ := a.view().Certificate(h.Name)
		generation := before.Generation + 1
		sealed, err := a.o.Keys.Sealer.Seal(u.Key, keyring.CertKeyAAD(h.Tenant, h.Name, u.SPKI, generation))
		if err != nil {
			return fleet.Certificate{}, err
		}
		return propose[fleet.Certificate](ctx, a, command.CertificateUpload{Certificate: fleet.CertificateRecord{Key: sealed, Certificate: fleet.Certificate{
			Host: h.Name, Tenant: h.Tenant, Generation: generation, Chain: u.Chain, SPKI: u.SPKI, Serial: u.Serial, Issuer: u.Issuer,
			NotBefore: u.NotBefore.UTC(), NotAfter: u.NotAfter.UTC(), Source: fleet.SourceUploaded,
		}}})
	}))
}
