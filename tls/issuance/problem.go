package issuance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgefleet/edgefleet/fleet"
)

// maxDetail bounds what is kept of the CA's text, which may quote what a customer's server answered.
const maxDetail = 1024

// Problem is why the CA issued no certificate.
type Problem struct { //nolint:errname // a problem document is what RFC 8555 and RFC 9457 call it
	// Type is the ACME error without its namespace, such as rateLimited or dns; empty when the CA could not be asked.
	Type string
	// Detail is the CA's text, or what went wrong on the way to it.
	Detail string
	// Status is the HTTP status, 0 when the CA could not be asked.
	Status int
	// RetryAfter is how long the CA wants to be left alone; 0 when it does not say.
	RetryAfter time.Duration
	// Ended: the CA's order is over, and the next attempt makes another.
	Ended bool

	err error
}

// Error is the CA's text with the type before it.
func (p *Problem) Error() string {
	if p.Type == "" {
		return p.Detail
	}
	return p.Type + ": " + p.Detail
}

// Unwrap returns what the ACME client reported.
func (p *Problem) Unwrap() error { return p.err }

// Reason is the stable code for a host's condition.
func (p *Problem) Reason() string {
	switch {
	case p.Type == "rateLimited" || p.Status == http.StatusTooManyRequests:
		return fleet.ReasonCARateLimited
	case p.Type == "caa":
		return fleet.ReasonCAAForbidden
	case p.Type == "rejectedIdentifier" || p.Type == "unsupportedIdentifier":
		return fleet.ReasonCARejectedName
	case p.Type == "" || p.Type == "serverInternal" || p.Status >= http.StatusInternalServerError:
		return fleet.ReasonCAUnavailable
	}
	return fleet.ReasonCARejected
}

// reasonOf is the outcome of a failed order in metrics.
func reasonOf(err error) string {
	var p *Problem
	if errors.As(err, &p) {
		return p.Reason()
	}
	return "internal"
}

// explain turns what the ACME client returned into what Issue promises.
func (f *flow) explain(ctx context.Context, err error) error {
	f.mu.Lock()
	retryAfter := f.retryAfter
	f.mu.Unlock()
	var p acme.Problem
	switch {
	case f.local != nil:
		return f.local
	case errors.As(err, &p):
		limited := p.Type == acme.ProblemTypeRateLimited || p.Status == http.StatusTooManyRequests
		return &Problem{
			Type: strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace), Detail: clip(detail(p)), Status: p.Status, RetryAfter: retryAfter, err: err,
			// A refusal for now leaves the order as it is, and so does what may be an answer to nothing.
			Ended: f.ended || (!limited && p.Status < http.StatusInternalServerError && p.Type != acme.ProblemTypeServerInternal),
		}
	case errors.Is(context.Cause(ctx), context.Canceled):
		return context.Cause(ctx)
	}
	return &Problem{Detail: clip(fmt.Sprintf("the CA could not be asked: %v", err)), RetryAfter: retryAfter, Ended: f.ended, err: err}
}

// detail joins the problem with those it is made of.
func detail(p acme.Problem) string {
	parts := []string{p.Detail}
	for _, sub := range p.Subproblems {
		parts = append(parts, strings.TrimSpace(sub.Identifier.Value+" "+sub.Detail))
	}
	return strings.Join(parts, "; ")
}

// clip shortens s and drops control characters, which could play with a terminal.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + "…"
	}
	return s
}
