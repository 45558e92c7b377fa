package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// risky names the acts that need two people where the access policy says so: by operation, with the question whether
// this request is one. What takes access away is not among them: somebody who left is out at once.
var risky = map[string]func(a *API, in any) bool{
	"cluster-member-remove": always,
	"access-update":         always,
	"snapshot-restore":      always,
	"kek-rotate":            always,
	"operator-user-create": func(a *API, in any) bool {
		i, ok := in.(*Input[client.UserCreate])
		return ok && a.powerful(i.Body.Roles)
	},
	"operator-user-update": func(a *API, in any) bool {
		i, ok := in.(*OperatorUserUpdateInput)
		return ok && i.Body.Roles != nil && a.powerful(*i.Body.Roles)
	},
	"operator-user-enable": func(a *API, in any) bool {
		i, ok := in.(*IDPath)
		if !ok {
			return false
		}
		u, _ := a.view().User(fleet.UserID(i.ID))
		return a.powerful(u.Spec.Roles)
	},
	"operator-role-create": func(_ *API, in any) bool {
		i, ok := in.(*Input[client.RoleCreate])
		return ok && fleet.Powerful(fleet.NewPermissionSet(i.Body.Permissions...))
	},
}

func always(*API, any) bool { return true }

// powerful reports whether roles of the vendor decide about access or members.
func (a *API) powerful(roles []fleet.RoleName) bool {
	return fleet.Powerful(a.view().RolePermissions("", roles...))
}

// heldError answers a request that waits for a second person: 202, with the approval.
type heldError struct{ fleet.Approval }

// Error implements error.
func (h heldError) Error() string { return "approval " + string(h.ID) + " is waited for" }

// GetStatus implements huma.StatusError.
func (heldError) GetStatus() int { return http.StatusAccepted }

// hold stores a risky request for a second person to approve, and returns it as a heldError; without an error the request
// goes on, in the context that is returned.
func (a *API) hold(ctx context.Context, op operation, in any) (context.Context, error) {
	is, named := risky[op.id]
	c := callerOf(ctx)
	if !named || c.approval != "" || !a.view().Access().FourEyes || !is(a, in) {
		return ctx, nil
	}
	if !c.token.Own() {
		return ctx, notOwn("asked for")
	}
	ap := fleet.Approval{
		ID: fleet.ApprovalID(newID("ap")), Operation: op.id, Method: c.request.Method, Path: c.request.URL.RequestURI(), Reason: c.reason,
		IfMatch: c.request.Header.Get(headerIfMatch), Requester: c.token.Owner, Token: c.token.ID, ExpiresAt: a.o.Now().UTC().Add(fleet.ApprovalLife),
	}
	var err error
	if ap.Body, err = c.held(op, in); err != nil {
		return ctx, err
	}
	asked, again := a.asked(ap)
	switch {
	case again && asked.State == fleet.ApprovalPending:
		return ctx, heldError{asked}
	case again && op.upload > 0:
		return context.WithValue(ctx, uploadKey{}, asked), nil
	}
	obj, err := a.o.Consensus.Propose(ctx, a.header(ctx), command.ApprovalPut{Approval: ap})
	if err != nil {
		return ctx, err
	}
	made, _ := obj.(fleet.Approval)
	return ctx, heldError{made}
}

// held is what an approval keeps of a request's body: all of it, or the digest of an upload.
func (c caller) held(op operation, in any) (string, error) {
	if op.upload > 0 {
		return digestOf(in)
	}
	if c.request.GetBody == nil {
		return "", nil
	}
	rd, err := c.request.GetBody()
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(rd)
	if err != nil {
		return "", fmt.Errorf("read the request again: %w", err)
	}
	return string(b), nil
}

// asked finds the same request of the same person that was made before and still counts.
func (a *API) asked(like fleet.Approval) (fleet.Approval, bool) {
	now := a.o.Now()
	for _, ap := range a.view().Approvals() {
		same := ap.Operation == like.Operation && ap.Method == like.Method && ap.Path == like.Path && ap.Body == like.Body && ap.IfMatch == like.IfMatch
		open := ap.State == fleet.ApprovalPending || ap.State == fleet.ApprovalApproved
		if same && open && ap.Requester == like.Requester && now.Before(ap.ExpiresAt) {
			return ap, true
		}
	}
	return fleet.Approval{}, false
}

func notOwn(what string) error {
	return fleet.NewError(fleet.ErrDenied, "token", "this needs two people, and is %s with a person's token that nobody else knows: not a service token, nor one that somebody made for you ('fleetctl token rotate' makes your first one your own)", what)
}

func (a *API) registerApprovals() {
	handle(a, op("approval-list", http.MethodGet, "/v1/approvals", "Requests that wait for a second person, or did", operators, fleet.PermUsersRead, fleet.DutyAccess), a.approvalList)
	handle(a, op("approval-show", http.MethodGet, "/v1/approvals/{id}", "A request that waits for a second person, or did", operators, fleet.PermUsersRead, fleet.DutyAccess), a.approvalShow)
	handle(a, op("approval-approve", http.MethodPost, "/v1/approvals/{id}/approve", "Approve what another person asked for, and carry it out", operators, fleet.PermApprovalsDecide, fleet.DutyAccess).changes(command.TypeApprovalDecide).withoutKey().answering(http.StatusOK), a.approvalApprove)
	handle(a, op("approval-deny", http.MethodPost, "/v1/approvals/{id}/deny", "Deny what another person asked for, or take back one's own request", operators, fleet.PermSelf, fleet.DutyAccess).changes(command.TypeApprovalDecide).answering(http.StatusOK), a.approvalDeny)
}

type approvalBody = Body[fleet.Approval]

func (a *API) approvalList(_ context.Context, _ *ReadQuery) (*Body[client.Page[fleet.Approval]], error) {
	out := client.Page[fleet.Approval]{Items: a.view().Approvals()}
	if out.Items == nil {
		out.Items = []fleet.Approval{}
	}
	return &Body[client.Page[fleet.Approval]]{Body: out}, nil
}

func (a *API) approval(id string) (fleet.Approval, error) {
	ap, ok := a.view().Approval(fleet.ApprovalID(id))
	if !ok {
		return ap, fleet.NewError(fleet.ErrNotFound, "approval", "approval %s does not exist", id)
	}
	return ap, nil
}

func (a *API) approvalShow(_ context.Context, in *IDRead) (*approvalBody, error) {
	ap, err := a.approval(in.ID)
	return &approvalBody{Body: ap}, err
}

func (a *API) approvalDeny(ctx context.Context, in *IDPath) (*approvalBody, error) {
	ap, err := a.approval(in.ID)
	if err != nil {
		return nil, err
	}
	c := callerOf(ctx)
	if c.token.Owner == "" || ap.Requester != c.token.Owner {
		if err := a.require(c.token, fleet.PermApprovalsDecide); err != nil {
			return nil, err
		}
	}
	ap, err = propose[fleet.Approval](ctx, a, command.ApprovalDecide{ID: ap.ID, By: c.token.Owner})
	return &approvalBody{Body: ap}, err
}

// approvalApprove decides, then carries the request out in the name of both. A member that stops in between leaves it
// approved: the approver repeats the call, and it counts once all the same.
func (a *API) approvalApprove(ctx context.Context, in *IDPath) (*approvalBody, error) {
	ap, err := a.approval(in.ID)
	if err != nil {
		return nil, err
	}
	c := callerOf(ctx)
	op, known := a.operation(ap.Operation)
	switch {
	case !c.token.Own():
		return nil, notOwn("approved")
	case !known:
		return nil, fleet.NewError(fleet.ErrConflict, "approval", "this member does not know the operation %s: is it older than the one that was asked?", ap.Operation)
	}
	if err := a.authorize(op, caller{token: c.token}, ""); err != nil {
		return nil, err
	}
	if ap.State != fleet.ApprovalApproved || ap.Approver != c.token.Owner {
		ap, err = propose[fleet.Approval](ctx, a, command.ApprovalDecide{ID: ap.ID, Approve: true, By: c.token.Owner})
		if err != nil {
			return nil, err
		}
	}
	if op.upload == 0 { // else the requester uploads again
		err = a.carryOut(ctx, op, ap, c)
	}
	if err != nil {
		return nil, err
	}
	ap, err = a.approval(in.ID)
	return &approvalBody{Body: ap}, err
}

func (a *API) operation(id string) (operation, bool) {
	for _, op := range a.ops {
		if op.id == id {
			return op, true
		}
	}
	return operation{}, false
}

// carryOut serves the stored request as its requester, who must still be allowed to ask, with the approver beside them.
func (a *API) carryOut(ctx context.Context, op operation, ap fleet.Approval, approver caller) error {
	var failed string
	requester, ok := a.current(ap.Token)
	switch {
	case !ok || requester.Owner != ap.Requester:
		failed = "the requester's token ended meanwhile: ask again"
	case op.audit == 0: // no command marks it: it is marked before it begins, so that it happens once at most
		if err := a.finishApproval(ctx, ap.ID, ""); err != nil {
			return err
		}
		fallthrough
	default:
		failed = a.replay(ctx, ap, caller{
			token: requester, reason: ap.Reason, source: approver.source, requestID: approver.requestID, approval: ap.ID, approvedBy: approver.token.Owner,
		})
	}
	if now, err := a.approval(string(ap.ID)); failed == "" || err != nil || now.State != fleet.ApprovalApproved {
		return err
	}
	return a.finishApproval(ctx, ap.ID, failed)
}

func (a *API) finishApproval(ctx context.Context, id fleet.ApprovalID, failed string) error {
	_, err := propose[any](ctx, a, command.ApprovalFinish{ID: id, Failed: failed != "", Detail: failed})
	return err
}

// replay serves the request within this member and returns what went wrong, empty if nothing did.
func (a *API) replay(ctx context.Context, ap fleet.Approval, as caller) string {
	r, err := http.NewRequestWithContext(ctx, ap.Method, ap.Path, bytes.NewReader([]byte(ap.Body)))
	if err != nil {
		return "the stored request cannot be read"
	}
	if ap.Body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if ap.IfMatch != "" {
		r.Header.Set(headerIfMatch, ap.IfMatch)
	}
	as.request = r
	w := &replayed{header: http.Header{}, status: http.StatusOK}
	a.mux.ServeHTTP(w, r.WithContext(context.WithValue(ctx, callerKey{}, as)))
	if w.status < 300 {
		return ""
	}
	var p client.Problem
	if json.Unmarshal(w.body.Bytes(), &p) != nil || p.Detail == "" {
		p.Detail = http.StatusText(w.status)
	}
	return fmt.Sprintf("%d: %.500s", w.status, p.Detail)
}

// replayed keeps the answer to a request that was carried out.
type replayed struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (r *replayed) Header() http.Header { return r.header }

// Write implements http.ResponseWriter.
func (r *replayed) Write(b []byte) (int, error) { return r.body.Write(b) }

// WriteHeader implements http.ResponseWriter.
func (r *replayed) WriteHeader(status int) { r.status = status }
