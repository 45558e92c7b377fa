package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// scope says who may call an operation.
type scope int

const (
	// operators only.
	operators scope = iota
	// tenantOwn: the tenant named in the path, and operators.
	tenantOwn
	// anyToken: every valid token; the handler shows each only its own.
	anyToken
	// nodesOnly and membersOnly: a certificate of a node or a member.
	nodesOnly
	membersOnly
	// public: nobody is asked who they are; the body proves what is needed.
	public
)

// operation declares one endpoint: who may call it and which duty it exercises.
type operation struct {
	id, method, path, summary string
	scope                     scope
	duty                      fleet.DutyID
}

// caller is who called: at most one of token, node and member is set.
type caller struct {
	token     fleet.Token
	node      fleet.NodeID
	member    fleet.MemberID
	source    string
	requestID string
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// TenantPath is the path parameter of a tenant's objects.
type TenantPath struct {
	Tenant string `path:"tenant" maxLength:"63" doc:"tenant id"`
}

func (p TenantPath) tenant() fleet.TenantID { return fleet.TenantID(p.Tenant) }

// ListQuery are the query parameters of every list.
type ListQuery struct {
	Cursor string `query:"cursor" maxLength:"512" doc:"where the page starts: next of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"50" doc:"objects a page"`
	ReadQuery
}

// ReadQuery chooses how fresh a read must be.
type ReadQuery struct {
	Consistency string `query:"consistency" enum:"linearizable,stale" default:"linearizable" doc:"stale is answered by any member, also without a leader"`
}

// Body wraps an answer.
type Body[T any] struct {
	Body T
}

// Input wraps a request body.
type Input[T any] struct {
	Body T
}

// Empty is the answer of a deletion.
type Empty struct{}

type tenantScoped interface{ tenant() fleet.TenantID }

// handle registers an operation. The handler runs after authorisation and gets an error mapped to a problem.
func handle[I, O any](a *API, op operation, h func(ctx context.Context, in *I) (*O, error)) {
	o := huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Summary: op.summary,
		Tags: []string{"v1"}, MaxBodyBytes: maxBody, BodyReadTimeout: 10 * time.Second,
		Extensions: map[string]any{"x-duty": string(op.duty)},
		Errors:     []int{401, 403, 404, 409, 422, 429, 503},
	}
	switch op.scope {
	case operators, tenantOwn, anyToken:
		o.Security = []map[string][]string{{"token": {}}}
	case nodesOnly, membersOnly:
		o.Security = []map[string][]string{{"mtls": {}}}
	case public:
	}
	if op.method == http.MethodPost && op.scope != nodesOnly && op.scope != membersOnly {
		o.DefaultStatus = http.StatusCreated
	}
	huma.Register(a.huma, o, func(ctx context.Context, in *I) (*O, error) {
		c := callerOf(ctx)
		var tenant fleet.TenantID
		if t, ok := any(in).(tenantScoped); ok {
			tenant = t.tenant()
		}
		err := a.authorize(op, c, tenant)
		if err == nil {
			var out *O
			if out, err = h(ctx, in); err == nil {
				return out, nil
			}
		}
		p := problem(err, c.requestID)
		if p.Status >= http.StatusInternalServerError {
			a.o.Telemetry.Logger.WarnContext(ctx, "request failed", "operation", op.id, "request_id", c.requestID, "err", err)
		}
		return nil, statusProblem{p}
	})
}

// authorize holds a caller against an operation: role, tenant, duty. Deny by default.
func (a *API) authorize(op operation, c caller, tenant fleet.TenantID) error {
	denied := fleet.NewError(fleet.ErrDenied, "", "%s needs %s", op.id, op.scope)
	switch op.scope {
	case public:
		return nil
	case nodesOnly:
		if c.node == "" {
			return denied
		}
		return nil
	case membersOnly:
		if c.member == "" {
			return denied
		}
		return nil
	case operators, tenantOwn, anyToken:
	}
	if c.token.ID == "" {
		return fleet.NewError(fleet.ErrUnauthenticated, "token", "no valid API token: set FLEETCTL_TOKEN, or send 'Authorization: Bearer <token>'")
	}
	form := fleet.SecurityEdge
	if op.scope == tenantOwn {
		t, ok := a.view().Tenant(tenant)
		if c.token.Role == fleet.RoleTenant && c.token.Tenant != tenant || !ok {
			// A tenant learns nothing of others, not even whether they exist.
			return fleet.NewError(fleet.ErrNotFound, "tenant", "tenant %s does not exist, or this token may not see it", tenant)
		}
		form = t.Spec.Form
	}
	if op.scope == operators && c.token.Role != fleet.RoleOperator {
		return denied
	}
	return fleet.Authorize(op.duty, form, c.token.Party())
}

func (s scope) String() string {
	switch s {
	case operators:
		return "an operator token"
	case tenantOwn, anyToken:
		return "an API token"
	case nodesOnly:
		return "a node's certificate"
	case membersOnly:
		return "a member's certificate"
	case public:
		return "nothing"
	}
	return strconv.Itoa(int(s))
}

func (a *API) view() *state.View { return a.o.State.Read() }

// header says who proposes.
func (a *API) header(ctx context.Context) command.Header {
	c := callerOf(ctx)
	h := command.Header{Time: a.o.Now().UTC(), RequestID: c.requestID, Actor: fleet.Actor{Source: c.source, Party: fleet.Vendor}}
	switch {
	case c.token.ID != "":
		h.Name, h.Party = "token/"+string(c.token.ID), c.token.Party()
	case c.node != "":
		h.Name = "node/" + string(c.node)
	case c.member != "":
		h.Name = "member/" + string(c.member)
	default:
		h.Name = "anonymous"
	}
	return h
}

// propose commits a command as the caller and returns the object it answers.
func propose[T any](ctx context.Context, a *API, b command.Body) (T, error) {
	var zero T
	obj, err := a.o.Consensus.Propose(ctx, a.header(ctx), b)
	if err != nil {
		return zero, err
	}
	t, _ := obj.(T)
	return t, nil
}

// page cuts one more than limit objects to a page.
func page[T any](items []T, limit int, id func(T) string) *Body[client.Page[T]] {
	p := client.Page[T]{Items: items}
	if len(items) > limit {
		p.Items = items[:limit]
		p.Next = id(p.Items[limit-1])
	}
	if p.Items == nil {
		p.Items = []T{}
	}
	return &Body[client.Page[T]]{Body: p}
}
