package api

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgefleet/edgefleet/controlplane/audit"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// typeNDJSON is JSON objects, one a line.
const typeNDJSON = "application/x-ndjson"

func (a *API) registerAudit() {
	handle(a, op("audit-list", http.MethodGet, "/v1/audit", "Audit entries; a tenant sees its own", anyToken, fleet.PermAuditRead, fleet.DutyConsole), a.auditList)
	handle(a, op("audit-export", http.MethodGet, "/v1/audit/export", "One part of a verifiable export of the audit log; a tenant gets its own entries", anyToken, fleet.PermAuditRead, fleet.DutyConsole), a.auditExport)
	handle(a, op("audit-key", http.MethodGet, "/v1/audit/key", "The key that exports are verified with", anyToken, fleet.PermAuditRead, fleet.DutyConsole), a.auditKey)
	handle(a, op("audit-held", http.MethodGet, "/v1/cluster/audit/held", "The audit segments that this member holds", membersOnly, fleet.PermMember, fleet.DutyCloud).locally(), a.auditHeld)
	handle(a, op("audit-segment", http.MethodGet, "/v1/cluster/audit/segments/{digest}", "A member fetches an audit segment", membersOnly, fleet.PermMember, fleet.DutyCloud).locally(), a.auditSegment)
	for path, kind := range map[string]string{"/v1/audit/export": typeNDJSON, "/v1/cluster/audit/segments/{digest}": typeNDJSON} {
		schema := &huma.Schema{Type: huma.TypeString, Format: "binary"}
		a.huma.OpenAPI().Paths[path].Get.Responses["200"].Content = map[string]*huma.MediaType{kind: {Schema: schema}}
	}
}

// AuditQuery selects audit entries.
type AuditQuery struct {
	Cursor    string    `query:"cursor" maxLength:"20" pattern:"^[0-9]*$" doc:"where the page starts: next of the page before; it is the sequence number of the last entry there"`
	Newest    bool      `query:"newest" doc:"newest first"`
	Tenant    string    `query:"tenant" maxLength:"63" doc:"only entries of this tenant"`
	Actor     string    `query:"actor" maxLength:"128" doc:"only what this actor did, such as token/tok-1"`
	Operation string    `query:"operation" maxLength:"64" doc:"only this operation, such as host_put"`
	Object    string    `query:"object" maxLength:"600" doc:"only what was done to this object, such as host/api.example.com"`
	RequestID string    `query:"request_id" maxLength:"64" doc:"only what this request did"`
	Since     time.Time `query:"since" doc:"not before"`
	Until     time.Time `query:"until" doc:"before"`
	Limit     int       `query:"limit" minimum:"1" maximum:"100" default:"50" doc:"entries a page; a page may hold fewer although there is a next"`
	ReadQuery
}

func (a *API) auditList(ctx context.Context, in *AuditQuery) (*Body[client.Page[fleet.AuditEntry]], error) {
	after, err := strconv.ParseUint(cmp.Or(in.Cursor, "0"), 10, 64)
	if err != nil {
		return nil, fleet.Invalid("query.cursor", "%q is not a cursor of this list: use next of the page before, or the number of an entry", in.Cursor)
	}
	q := audit.Query{
		Actor: in.Actor, Operation: in.Operation, Object: in.Object, RequestID: in.RequestID, Since: in.Since, Until: in.Until,
		After: after, Newest: in.Newest, Limit: in.Limit,
	}
	if q.Tenant, err = auditTenant(ctx, in.Tenant); err != nil {
		return nil, err
	}
	p, err := a.o.Audit.List(ctx, q)
	if err != nil {
		return nil, err
	}
	out := client.Page[fleet.AuditEntry]{Items: p.Entries}
	if out.Items == nil {
		out.Items = []fleet.AuditEntry{}
	}
	if p.Next > 0 {
		out.Next = itoa(p.Next)
	}
	return &Body[client.Page[fleet.AuditEntry]]{Body: out}, nil
}

// auditTenant is whose entries the caller gets: a tenant's token its own, an operator those it asks for, or all.
func auditTenant(ctx context.Context, asked string) (fleet.TenantID, error) {
	own := callerOf(ctx).token.Tenant
	if own != "" && asked != "" && fleet.TenantID(asked) != own {
		return "", fleet.NewError(fleet.ErrNotFound, "tenant", "tenant %s does not exist, or this token may not see it", asked)
	}
	return orDefault(own, fleet.TenantID(asked)), nil
}

// AuditExportQuery asks for one part of an export.
type AuditExportQuery struct {
	From   uint64 `query:"from" minimum:"1" default:"1" doc:"first entry of the part; after a part, to+1 of that part"`
	To     uint64 `query:"to" doc:"last entry of the whole export, until of its first part; default: the newest"`
	Tenant string `query:"tenant" maxLength:"63" doc:"only entries of this tenant"`
	ReadQuery
}

// BytesOutput is an answer that is no JSON object.
type BytesOutput struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (a *API) auditExport(ctx context.Context, in *AuditExportQuery) (*BytesOutput, error) {
	if err := a.o.Keys.Check(); err != nil {
		return nil, err
	}
	tenant, err := auditTenant(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	b, err := a.o.Audit.Export(ctx, audit.Export{Tenant: tenant, From: in.From, Until: in.To, Sign: a.o.Keys.SignAudit, Now: a.o.Now().UTC()})
	return &BytesOutput{ContentType: typeNDJSON, Body: b}, err
}

func (a *API) auditKey(context.Context, *ReadQuery) (*Body[client.AuditKey], error) {
	c, _ := a.view().Cluster()
	der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(c.AuditKey))
	if err != nil {
		return nil, fmt.Errorf("encode audit key: %w", err)
	}
	sum := sha256.Sum256(c.AuditKey)
	return &Body[client.AuditKey]{Body: client.AuditKey{
		Cluster: c.ID, PEM: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), Fingerprint: hex.EncodeToString(sum[:]),
	}}, nil
}

func (a *API) auditHeld(context.Context, *struct{}) (*Body[client.AuditHeld], error) {
	return &Body[client.AuditHeld]{Body: client.AuditHeld{Digests: a.o.Audit.Held()}}, nil
}

// SegmentPath names an audit segment.
type SegmentPath struct {
	Digest string `path:"digest" maxLength:"71" doc:"sha256:<64 hex digits>"`
}

func (a *API) auditSegment(_ context.Context, in *SegmentPath) (*BytesOutput, error) {
	d := fleet.Digest(in.Digest)
	if err := d.Validate(); err != nil {
		return nil, err
	}
	b, err := a.o.Audit.File(d)
	return &BytesOutput{ContentType: typeNDJSON, Body: b}, err
}
