package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// scope says who may call an operation.
type scope int

const (
	// nobody, so that an operation that says nothing is refused.
	nobody scope = iota
	// operators only.
	operators
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

// place says which member answers; by default the leader does, and any member a read that asks for stale data.
type place int

const (
	// here: the member that is asked, because it is about that member, or because it must work without a leader.
	here place = iota + 1
	// leaderFirst: the leader, else the member that is asked.
	leaderFirst
)

// operation declares one endpoint: who may call it, the permission that it takes, and which duty it exercises.
type operation struct {
	id, method, path, summary string
	scope                     scope
	permission                fleet.Permission
	duty                      fleet.DutyID

	place  place
	status int
	// held operations change an object that exists, at the revision that the caller has read.
	held bool
	// upload is how many bytes of a body the handler reads itself, as they arrive; 0: the body is JSON and read before.
	upload int64
	// keyless operations do more than their command, so that a key cannot stand for all of it.
	keyless bool
	// long operations last for as long as the caller likes.
	long bool
	// crowded operations are what all nodes ask for at one time, after an outage say: they share a limit.
	crowded bool
	// audit is the command that the operation leaves in the audit log.
	audit command.Type
}

func op(id, method, path, summary string, s scope, permission fleet.Permission, duty fleet.DutyID) operation {
	return operation{id: id, method: method, path: path, summary: summary, scope: s, permission: permission, duty: duty}
}

func (op operation) locally() operation {
	op.place = here
	return op
}

func (op operation) leaderFirst() operation {
	op.place = leaderFirst
	return op
}

// changes says what the operation does to the state.
func (op operation) changes(t command.Type) operation {
	op.audit = t
	return op
}

// withRevision is for a change of an object that has a revision: it needs If-Match.
func (op operation) withRevision() operation {
	op.held = true
	return op
}

// withoutKey is for an operation that an idempotency key cannot cover: it may take effect each time that it is asked for.
func (op operation) withoutKey() operation {
	op.keyless = true
	return op
}

// ofTheCrowd is for what every node asks for.
func (op operation) ofTheCrowd() operation {
	op.crowded = true
	return op
}

// answering is for a POST that makes no object: its status is not 201.
func (op operation) answering(status int) operation {
	op.status = status
	return op
}

// pattern is the operation's in the mux.
func (op operation) pattern() string { return op.method + " " + op.path }

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
	Consistency string `query:"consistency" enum:"linearizable,stale" default:"linearizable" doc:"stale is answered by any member, also without a leader; Edgefleet-Index and Edgefleet-Age (ms) say what it includes"`
	MaxAge      string `query:"max_age" maxLength:"40" doc:"refuse (503) a stale answer of a member that heard from the leader longer ago, such as 10s"`
}

// Body wraps an answer.
type Body[T any] struct {
	// ETag is the object's revision; none if the answer is no object.
	ETag string `header:"ETag" hidden:"true"`
	// Replayed says that the change was made before, under the same idempotency key.
	Replayed string `header:"Idempotency-Replayed" hidden:"true"`
	Body     T
}

// tag fills in the entity tag.
func (b *Body[T]) tag() {
	if o, ok := any(b.Body).(revised); ok && o.AtRevision() > 0 {
		b.ETag = etag(o.AtRevision())
	}
}

// Input wraps a request body.
type Input[T any] struct {
	Body T
}

// Empty is the answer of a deletion: an empty object.
type Empty struct{}

// handle registers an operation. The handler runs after authorisation and gets an error mapped to a problem.
func handle[I, O any](a *API, op operation, h func(ctx context.Context, in *I) (*O, error)) {
	_, body := reflect.TypeFor[I]().FieldByName("Body")
	body = body || op.upload > 0
	o := huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Summary: op.summary, DefaultStatus: op.status,
		Tags:         []string{"v1"},
		MaxBodyBytes: maxBody + 1, BodyReadTimeout: -1, // readBody has read it
		Extensions:  map[string]any{"x-duty": string(op.duty), "x-permission": string(op.permission), "x-scope": op.scope.String()},
		Responses:   a.problems(op, body),
		Middlewares: huma.Middlewares{a.guard(op)},
	}
	if risky[op.id] != nil {
		o.Extensions["x-four-eyes"] = true
		o.Responses["202"] = &huma.Response{Description: "waits for a second person", Content: map[string]*huma.MediaType{
			"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[fleet.Approval](), true, "Approval")},
		}}
	}
	if op.audit != 0 {
		o.Extensions["x-audit"] = op.audit.String()
	}
	switch op.scope {
	case operators, tenantOwn, anyToken:
		o.Security = []map[string][]string{{"token": {}}}
	case nodesOnly, membersOnly:
		o.Security = []map[string][]string{{"mtls": {}}}
	case public:
		o.Security = []map[string][]string{{}}
	case nobody:
	}
	if op.method == http.MethodPost && op.status == 0 {
		o.DefaultStatus = http.StatusCreated
	}
	a.ops[op.pattern()] = op
	huma.Register(a.huma, o, func(ctx context.Context, in *I) (*O, error) {
		out, err := a.once(ctx, new(O), func() (any, error) {
			approved, err := a.hold(ctx, op, in)
			if err != nil {
				return nil, err
			}
			return h(approved, in)
		})
		if err == nil {
			if t, ok := out.(interface{ tag() }); ok {
				t.tag()
			}
			o, _ := out.(*O)
			return o, nil
		}
		var held heldError
		if errors.As(err, &held) {
			return nil, held
		}
		c, err := callerOf(ctx), a.refusal(ctx, err)
		p := problem(endedCause(ctx, err), c)
		if takenBack(ctx, err) {
			return nil, p // nobody sees it: the request is passed on
		}
		if p.Status >= http.StatusInternalServerError {
			a.o.Telemetry.Logger.WarnContext(ctx, "request failed", "operation", op.id, "request_id", c.requestID, "err", err)
		}
		return nil, p
	})
	a.describeCondition(op, reflect.TypeFor[O]())
	a.describeOnce(op)
	a.describeWait(op)
}

// guard refuses callers before their input is looked at.
func (a *API) guard(op operation) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		c := callerOf(ctx.Context())
		if err := cmp.Or(a.still(ctx.Context()), a.authorize(op, c, fleet.TenantID(ctx.Param("tenant")))); err != nil {
			if err = a.refusal(ctx.Context(), err); takenBack(ctx.Context(), err) {
				return
			}
			_, w := humago.Unwrap(ctx)
			writeProblem(w, problem(err, c))
			return
		}
		put, err := op.condition(ctx)
		if err != nil {
			_, w := humago.Unwrap(ctx)
			writeProblem(w, problem(err, c))
			return
		}
		next(huma.WithValue(ctx, conditionKey{}, put))
	}
}

// authorize holds a caller against an operation: role, tenant, duty. Deny by default.
func (a *API) authorize(op operation, c caller, tenant fleet.TenantID) error {
	switch op.scope {
	case public:
		return nil
	case nodesOnly, membersOnly:
		if op.scope == nodesOnly && c.node != "" || op.scope == membersOnly && c.member != "" {
			return nil
		}
		if c.anonymous() {
			return fleet.NewError(fleet.ErrUnauthenticated, "certificate", "%s needs %s", op.id, op.scope)
		}
	case operators, tenantOwn, anyToken:
		if c.token.ID == "" {
			return fleet.NewError(fleet.ErrUnauthenticated, "token", "no valid API token: set FLEETCTL_TOKEN, or send 'Authorization: Bearer <token>'")
		}
		return a.authorizeToken(op, c.token, tenant)
	case nobody:
	}
	return fleet.NewError(fleet.ErrDenied, "", "%s needs %s", op.id, op.scope)
}

func (a *API) authorizeToken(op operation, t fleet.Token, tenant fleet.TenantID) error {
	form := fleet.SecurityEdge
	switch {
	case t.Role != fleet.RoleOperator && t.Role != fleet.RoleTenant, op.scope == operators && t.Role != fleet.RoleOperator:
		return fleet.NewError(fleet.ErrDenied, "", "%s needs %s", op.id, op.scope)
	case op.scope == tenantOwn:
		own, ok := a.view().Tenant(tenant)
		if !ok || t.Role == fleet.RoleTenant && t.Tenant != tenant {
			// A tenant learns nothing of others, not even whether they exist.
			return fleet.NewError(fleet.ErrNotFound, "tenant", "tenant %s does not exist, or this token may not see it", tenant)
		}
		form = own.Spec.Form
	}
	if err := a.require(t, op.permission); err != nil {
		return err
	}
	return fleet.Authorize(op.duty, form, t.Party())
}

// authorizeGroup holds an operator against the form of a node group: who owns its nodes decides about them.
func (a *API) authorizeGroup(ctx context.Context, duty fleet.DutyID, name fleet.GroupName) error { //nolint:unparam // each operation names its duty
	g, ok := a.view().Group(name)
	if !ok {
		return fleet.NewError(fleet.ErrNotFound, "group", "node group %s does not exist", name)
	}
	return fleet.Authorize(duty, g.Spec.Form, callerOf(ctx).token.Party())
}

func (s scope) String() string {
	switch s {
	case nobody:
		return "what nobody has"
	case operators:
		return "an operator token"
	case tenantOwn:
		return "an operator token or the tenant's API token"
	case anyToken:
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
	h := command.Header{Time: a.o.Now().UTC(), RequestID: c.requestID, Reason: c.reason, Approval: c.approval, Actor: fleet.Actor{
		Name: c.name(), Source: c.source, Party: fleet.Vendor, User: c.token.Owner, ApprovedBy: c.approvedBy,
	}}
	if c.token.ID != "" {
		h.Party = c.token.Party()
	}
	return h
}

// propose commits a command as the caller and returns the object it answers.
func propose[T any](ctx context.Context, a *API, b command.Body) (T, error) {
	var zero T
	h, k := a.header(ctx), onceOf(ctx)
	if k != nil {
		if k.used {
			return zero, fmt.Errorf("%s: a second command under one idempotency key, which covers one", b.Type())
		}
		h.Once = &k.Once
	}
	obj, err := a.o.Consensus.Propose(ctx, h, b)
	if err != nil {
		return zero, err
	}
	if k != nil {
		k.used = true
	}
	if _, ok := obj.(command.Replay); ok {
		return zero, errReplay
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
