package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// The headers of conditional requests (RFC 9110, section 13).
const (
	headerIfMatch     = "If-Match"
	headerIfNoneMatch = "If-None-Match"
)

// revised is an object with a revision.
type revised interface{ AtRevision() uint64 }

// etag is the entity tag of a revision.
func etag(revision uint64) string { return strconv.Quote(itoa(revision)) }

type conditionKey struct{}

// condition reads what the caller holds its change against: If-Match with the ETag that it has read, or with * for any
// revision; a PUT that must make the object says If-None-Match: *.
func (op operation) condition(ctx huma.Context) (command.Put, error) {
	if !op.held {
		return command.Put{}, nil
	}
	match, none := strings.TrimSpace(ctx.Header(headerIfMatch)), strings.TrimSpace(ctx.Header(headerIfNoneMatch))
	switch {
	case op.method == http.MethodPut && match == "" && none == "*":
		return command.Put{Create: true}, nil
	case none != "":
		return command.Put{}, fleet.Invalid(headerIfNoneMatch, "%s needs If-Match, not If-None-Match: %.80q", op.id, none)
	case match == "":
		return command.Put{}, fleet.NewError(fleet.ErrNoCondition, headerIfMatch,
			"%s changes an object that others change too: send If-Match with the ETag of what you have read, or If-Match: * to change it whatever it is%s", op.id, op.orNew())
	case match == "*":
		return command.Put{}, nil
	}
	digits, quoted := strings.CutPrefix(match, `"`)
	digits, closed := strings.CutSuffix(digits, `"`)
	revision, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || revision == 0 || !quoted || !closed {
		return command.Put{}, fleet.Invalid(headerIfMatch, "%.80q is neither one ETag of this API, such as \"17\" with its quotes, nor *", match)
	}
	return command.Put{IfRevision: revision}, nil
}

// orNew names the other condition that a PUT may have.
func (op operation) orNew() string {
	if op.method == http.MethodPut {
		return "; If-None-Match: * makes a new one"
	}
	return ""
}

// condition is what the caller of a held operation asked for.
func condition(ctx context.Context) command.Put {
	put, _ := ctx.Value(conditionKey{}).(command.Put)
	return put
}

// conditionOn is the condition of a read-modify-write: the caller's, else that nothing came between since m was read.
func conditionOn(ctx context.Context, m fleet.Meta) command.Put {
	put := condition(ctx)
	if put.IfRevision == 0 {
		put.IfRevision = m.Revision
	}
	return put
}

// amendTries bounds how often a change with If-Match: * is made again.
const amendTries = 16

// amend runs a read-modify-write; with If-Match: *, again when another change came between.
func amend[T any](ctx context.Context, change func() (T, error)) (T, error) {
	for i := 1; ; i++ {
		out, err := change()
		if !errors.Is(err, fleet.ErrChanged) || condition(ctx).IfRevision != 0 || i == amendTries || ctx.Err() != nil {
			return out, err
		}
	}
}

// describeCondition says in the OpenAPI document which answers have an ETag and which requests need one.
func (a *API) describeCondition(op operation, answer reflect.Type) {
	item := a.huma.OpenAPI().Paths[op.path]
	described := operationOf(item, op.method)
	if op.held {
		described.Parameters = append(described.Parameters, &huma.Param{
			Name: headerIfMatch, In: "header", Required: op.method != http.MethodPut, Schema: &huma.Schema{Type: huma.TypeString}, Example: `"17"`,
			Description: "the ETag of the object as it was read, or * for whatever it is",
		})
		if op.method == http.MethodPut {
			described.Parameters = append(described.Parameters, &huma.Param{
				Name: headerIfNoneMatch, In: "header", Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{"*"}},
				Description: "* makes the object and refuses if it is there; instead of If-Match",
			})
		}
	}
	body, ok := answer.FieldByName("Body")
	if !ok || !body.Type.Implements(reflect.TypeFor[revised]()) {
		return
	}
	for status, res := range described.Responses {
		if status < "3" {
			setHeader(res, "ETag", "revision of the object, for If-Match")
		}
	}
}

func setHeader(res *huma.Response, name, description string) {
	if res.Headers == nil {
		res.Headers = map[string]*huma.Param{}
	}
	res.Headers[name] = &huma.Header{Description: description, Schema: &huma.Schema{Type: huma.TypeString}}
}

// operationOf returns the description of a method.
func operationOf(item *huma.PathItem, method string) *huma.Operation {
	switch method {
	case http.MethodGet:
		return item.Get
	case http.MethodPut:
		return item.Put
	case http.MethodPost:
		return item.Post
	case http.MethodPatch:
		return item.Patch
	}
	return item.Delete
}
