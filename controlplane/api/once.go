package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// The headers of idempotent changes (draft-ietf-httpapi-idempotency-key-header).
const (
	headerKey      = "Idempotency-Key"
	headerReplayed = "Idempotency-Replayed"
)

// once is the idempotency key of one request.
type once struct {
	command.Once
	// used: the request has applied its one command.
	used bool
}

type onceKey struct{}

func onceOf(ctx context.Context) *once {
	k, _ := ctx.Value(onceKey{}).(*once)
	return k
}

// errReplay ends a handler whose command had taken effect before.
var errReplay = errors.New("applied before under the same idempotency key")

// takesKey reports whether the operation is remembered by its key: what people and programs change. Nodes and members
// need none: a join token admits one, and what they say of themselves may be said twice.
func (op operation) takesKey() bool {
	return op.audit != 0 && !op.keyless && (op.scope == operators || op.scope == tenantOwn || op.scope == anyToken)
}

// withKey puts the request's idempotency key, if it has one that counts, into ctx. The body was read before.
func (a *API) withKey(ctx context.Context, r *http.Request, op operation, c caller) (context.Context, error) {
	values := r.Header.Values(headerKey)
	if len(values) == 0 || !op.takesKey() || c.token.ID == "" {
		return ctx, nil
	}
	key := strings.TrimSpace(values[0])
	if inner, ok := strings.CutPrefix(key, `"`); ok { // a string of structured fields (RFC 9651)
		key, _ = strings.CutSuffix(inner, `"`)
	}
	odd := strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
	if len(values) > 1 || key == "" || len(key) > fleet.MaxKeyLength || odd {
		return ctx, fleet.Invalid(headerKey, "give one idempotency key of 1 to %d visible ASCII characters, such as a UUID", fleet.MaxKeyLength)
	}
	k := &once{Once: command.Once{Caller: c.keyOwner(), Key: key, Expires: a.o.Now().UTC().Add(fleet.KeyLife)}}
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%s\n%s\n%s\n", k.Caller, r.Method, r.URL.RequestURI()) // a hash takes everything
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return ctx, err
		}
		if _, err := io.Copy(sum, body); err != nil {
			return ctx, fmt.Errorf("digest of the request: %w", err)
		}
	}
	k.Request = hex.EncodeToString(sum.Sum(nil))
	return context.WithValue(ctx, onceKey{}, k), nil
}

// keyOwner is whose key it is: the tenant's, so that a retry may come with its next token, else the token's own.
func (c caller) keyOwner() string {
	if c.token.Tenant != "" {
		return "tenant/" + string(c.token.Tenant)
	}
	return c.name()
}

// once runs a handler, unless what it does was done before under the same idempotency key: then it fills empty with the
// answer of that time. The key is looked up again after an error, because the state that made the handler refuse may be
// the effect of the same request.
func (a *API) once(ctx context.Context, empty any, handler func() (any, error)) (any, error) {
	k := onceOf(ctx)
	if k == nil {
		return handler()
	}
	if done, err := a.remembered(ctx, k, empty); done || err != nil {
		return empty, err
	}
	out, err := handler()
	if err != nil {
		if done, again := a.remembered(ctx, k, empty); done {
			return empty, again
		}
	}
	return out, err
}

// remembered answers from the state, if it knows the key.
func (a *API) remembered(ctx context.Context, k *once, out any) (bool, error) {
	o, ok := a.view().Once(k.Caller, k.Key)
	if !ok || !a.o.Now().Before(o.Expires) {
		return false, nil
	}
	if o.Request != k.Request {
		return false, fleet.NewError(fleet.ErrKeyReused, headerKey, "the idempotency key %q was used for another request: repeat that one as it was, or take a new key", k.Key)
	}
	if sum := sha256.Sum256(o.Answer); hex.EncodeToString(sum[:]) != o.AnswerSum {
		return false, fleet.NewError(fleet.ErrCorrupt, headerKey, "the answer that is remembered for the idempotency key is damaged")
	}
	return true, a.restore(ctx, out, o)
}

// restore makes an answer of the object that a change had answered.
func (a *API) restore(ctx context.Context, out any, o fleet.Once) error {
	b, ok := out.(interface {
		restore(ctx context.Context, a *API, o fleet.Once) error
	})
	if !ok {
		return fmt.Errorf("an answer of type %T cannot be given again", out)
	}
	return b.restore(ctx, a, o)
}

// Said with the object in place of a secret that was shown when it was made.
const shownOnce = "the secret was shown once, when this was made, and is not stored; if it is lost, revoke this one and make another"

func (b *Body[T]) restore(ctx context.Context, a *API, o fleet.Once) error {
	b.Replayed = "true"
	if len(o.Answer) > 0 {
		if err := json.Unmarshal(o.Answer, &b.Body); err != nil {
			return fmt.Errorf("remembered answer: %w", err)
		}
	}
	switch v := any(&b.Body).(type) {
	case *client.HostView:
		cluster, _ := a.view().Cluster()
		v.Records = v.Host.Records(cluster.Zone)
	case *client.CertificateView:
		var c fleet.Certificate
		if err := json.Unmarshal(o.Answer, &c); err != nil {
			return fmt.Errorf("remembered answer: %w", err)
		}
		*v = a.fullView(c)
	case *client.Settled:
		*v = a.settle(ctx, o.Index)
	case *client.KEKStatus:
		*v = a.kekStatus(ctx)
	case *client.UserEnded:
		v.Settled = a.settle(ctx, o.Index)
	case *client.TokenCreated:
		v.Note = shownOnce
	case *client.JoinTokenCreated:
		v.Note = shownOnce
	}
	return nil
}

// describeOnce says in the OpenAPI document which operations take a key.
func (a *API) describeOnce(op operation) {
	if !op.takesKey() {
		return
	}
	described := operationOf(a.huma.OpenAPI().Paths[op.path], op.method)
	length := fleet.MaxKeyLength
	described.Parameters = append(described.Parameters, &huma.Param{
		Name: headerKey, In: "header", Schema: &huma.Schema{Type: huma.TypeString, MaxLength: &length}, Example: "8e03978e-40d5-43dd-bc93-6894a57f9324",
		Description: "makes the change once, however often the same request is sent with the same key within 24 hours; another request with it is 422",
	})
	for status, res := range described.Responses {
		if status < "3" {
			setHeader(res, headerReplayed, "true: the change was made before under the same key, and this is its answer again")
		}
	}
}
