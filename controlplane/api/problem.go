package api

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

const (
	typeProblem = "application/problem+json"
	// problemType and the kind make the type of a problem: a name, not an address.
	problemType = "urn:edgefleet:problem:"
)

// problemError is a Problem as huma writes it, with its headers.
type problemError struct {
	*client.Problem
	header http.Header
}

// GetStatus implements huma.StatusError.
func (p problemError) GetStatus() int { return p.Status }

// GetHeaders implements huma.HeadersError.
func (p problemError) GetHeaders() http.Header { return p.header }

// ContentType implements huma.ContentTypeFilter.
func (problemError) ContentType(string) string { return typeProblem }

// newProblem makes a problem whose status is not the one of its kind.
func newProblem(status int, kind, field, detail string) problemError {
	return problemError{&client.Problem{
		Type: problemType + kind, Title: http.StatusText(status), Status: status, Detail: detail, Kind: kind, Field: field,
	}, http.Header{}}
}

// problem turns an error into what the caller sees. Internal errors show nothing but the ids of request and trace.
func problem(err error, c caller) problemError {
	var p problemError
	if !errors.As(err, &p) {
		k, e := fleet.KindOf(err), fleet.AsError(err)
		p = newProblem(k.Status, k.Name, e.Field, e.Message)
		if k.Status == http.StatusInternalServerError {
			p.Field, p.Detail = "", "internal error; the members' logs have the request id"
		}
	}
	p.RequestID, p.TraceID = c.requestID, c.traceID
	p.OutcomeUnknown = errors.Is(err, fleet.ErrOutcomeUnknown)
	var retry retryError
	switch {
	case errors.As(err, &retry):
		p.header.Set("Retry-After", strconv.Itoa(max(1, int((retry.after+time.Second-1)/time.Second))))
	case p.Kind == "unavailable", p.Kind == "rate_limited":
		p.header.Set("Retry-After", "1")
	case p.Status == http.StatusUnauthorized:
		p.header.Set("WWW-Authenticate", `Bearer realm="edgefleet"`)
	}
	return p
}

// retryError says when to try again.
type retryError struct {
	error
	after time.Duration
}

func (e retryError) Unwrap() error { return e.error }

func writeProblem(w http.ResponseWriter, p problemError) {
	maps.Copy(w.Header(), p.header)
	w.Header().Set("Content-Type", typeProblem)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // a client that went away
}

// transformError makes huma's own errors, for example of validation, problems like ours: the first detail says which
// field.
func transformError(ctx huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := newProblem(e.Status, kindOf(e.Status), "", e.Detail)
	for i, d := range e.Errors {
		if i == 0 {
			p.Field = d.Location
		}
		p.Detail += ": " + d.Message
		if d.Location != "" {
			p.Detail += " (" + d.Location + ")"
		}
	}
	return problem(p, callerOf(ctx.Context())), nil
}

func kindOf(status int) string {
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType, http.StatusNotAcceptable:
		return "invalid"
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return "not_found"
	case http.StatusRequestEntityTooLarge:
		return "too_large"
	case http.StatusRequestTimeout:
		return "timeout"
	}
	return "internal"
}
