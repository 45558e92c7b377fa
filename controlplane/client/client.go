// Package client speaks the public API: what fleetctl, tests and other programs use.
//
// It owns requests, errors and pages, not the meaning of objects. It retries reads that no
// member answered, and changes whose outcome is unknown: those carry an idempotency key, so that they are made once.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Options configure a Client.
type Options struct {
	// Addrs are the members' API addresses, host:port or https URLs; they are tried in order.
	Addrs []string
	// Token is the API token; empty for calls that need none.
	Token string
	// CACert is the PEM of the API's certificate authority; empty means the system's.
	CACert []byte
	// TLS replaces the TLS configuration made from CACert.
	TLS *tls.Config
	// Key is the idempotency key of every change; empty makes one for each.
	Key string
	// Reason is kept with every change in the audit log.
	Reason string
	// Timeout bounds one request with its repetitions; default 30 s.
	Timeout time.Duration
	// Reads says how fresh the answers of reads must be; the zero value is linearizable.
	Reads Reads
}

// Reads says what reads may answer.
type Reads struct {
	// Stale: any member answers from its own state, without a leader too.
	Stale bool
	// MaxAge refuses a stale answer of a member that heard from the leader longer ago; 0 does not.
	MaxAge time.Duration
	// Seen, if set, is told what each answer includes.
	Seen func(Freshness)
}

// maxBody bounds an answer.
const maxBody = 64 << 20

// dialTimeout bounds one attempt to connect: a member that is away must not keep the next from being asked.
const dialTimeout = 5 * time.Second

// Client calls the API.
type Client struct {
	addrs []string
	token string
	key   string
	// reason is sent with every request; the API keeps it with changes.
	reason  string
	timeout time.Duration
	reads   Reads
	http    *http.Client
	// stream is http without a limit on the whole answer.
	stream *http.Client
}

// New checks the options; it does not connect.
func New(o Options) (*Client, error) {
	if len(o.Addrs) == 0 {
		return nil, fleet.Invalid("addr", "no API address: set FLEETCTL_ADDR, pass --addr, or create a context")
	}
	tc := o.TLS
	if tc == nil {
		tc = &tls.Config{MinVersion: tls.VersionTLS13}
		if len(o.CACert) > 0 {
			tc.RootCAs = x509.NewCertPool()
			if !tc.RootCAs.AppendCertsFromPEM(o.CACert) {
				return nil, fleet.Invalid("cacert", "the CA certificate holds no PEM certificate")
			}
		}
	}
	c := &Client{token: o.Token, key: o.Key, reason: o.Reason, reads: o.Reads}
	for _, a := range o.Addrs {
		if !strings.Contains(a, "://") {
			a = "https://" + a
		}
		u, err := url.Parse(a)
		if err != nil || u.Host == "" || u.Scheme != "https" {
			return nil, fleet.Invalid("addr", "%q is not an API address such as 127.0.0.1:8440 or https://api.example.net", a)
		}
		c.addrs = append(c.addrs, strings.TrimSuffix(u.String(), "/"))
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	c.timeout = o.Timeout
	transport := &http.Transport{
		TLSClientConfig: tc, ForceAttemptHTTP2: true,
		DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, TLSHandshakeTimeout: dialTimeout,
		// A stream may be silent for hours; pings notice a member that is gone.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
	// The API never redirects: following one would take the token to an address that nobody chose.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &http.Client{Timeout: o.Timeout, Transport: transport, CheckRedirect: stay}
	c.stream = &http.Client{Transport: transport, CheckRedirect: stay}
	return c, nil
}

// Close ends connections that wait for the next call.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do sends in as JSON (nil: no body) and decodes the answer into out (nil: not looked at). Errors that the API answered
// are *Problem; an API that cannot be reached is ErrUnavailable and says which addresses were tried.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, in, out any, opts ...Option) error {
	raw, err := c.Raw(ctx, method, path, query, in, opts...)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("decode the answer of %s %s: %w", method, path, err)
	}
	return nil
}

// Raw is Do with the answer as it came.
func (c *Client) Raw(ctx context.Context, method, path string, query url.Values, in any, opts ...Option) ([]byte, error) {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
	}
	r := newRequest(method, path, query, body, opts)
	if method == http.MethodGet {
		r.query = c.stale(query)
	}
	if method == http.MethodGet || c.token == "" || r.unrepeatable {
		return c.try(ctx, r)
	}
	return c.change(ctx, r)
}

// try sends r to the members until one answers.
func (c *Client) try(ctx context.Context, r request) ([]byte, error) {
	res, err := c.send(ctx, c.http, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it was read to its end, or is given up
	raw, err := read(res)
	if err == nil && r.method == http.MethodGet {
		for _, tell := range []func(Freshness){c.reads.Seen, r.seen} {
			if tell != nil {
				tell(freshness(res.Header))
			}
		}
	}
	var p *Problem
	if errors.Is(err, fleet.ErrUnavailable) && r.method != http.MethodGet && !errors.As(err, &p) {
		return nil, outcomeUnknownError{err} // the answer broke off
	}
	return raw, err
}

// send tries the addresses in order until one answers; the next is tried if the request certainly was not sent, or if
// it changes nothing.
func (c *Client) send(ctx context.Context, h *http.Client, r request) (*http.Response, error) {
	var last error
	for i, addr := range c.addrs {
		res, err := c.sendTo(ctx, h, addr, r)
		if err == nil {
			return res, nil
		}
		last = err
		if ctx.Err() != nil || !notSent(err) && r.method != http.MethodGet {
			err := unreachable(ctx, c.addrs[:i+1], last)
			if r.method != http.MethodGet && !notSent(last) {
				return nil, outcomeUnknownError{err}
			}
			return nil, err
		}
	}
	return nil, unreachable(ctx, c.addrs, last)
}

func (c *Client) sendTo(ctx context.Context, h *http.Client, addr string, r request) (*http.Response, error) {
	u := addr + r.path
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u, bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	maps.Copy(req.Header, r.header)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.reason != "" {
		req.Header.Set("Edgefleet-Reason", c.reason)
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	var connected atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}
	res, err := h.Do(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	if err != nil && connected.Load() {
		err = connectedError{err}
	}
	return res, err
}

// connectedError is an error of a request that had a connection, and so may have been sent, whatever came after it: the
// transport sends a request with an idempotency key again by itself when the connection breaks, and may find nobody then.
type connectedError struct{ error }

// Unwrap gives the error itself.
func (e connectedError) Unwrap() error { return e.error }

// notSent reports whether the request certainly did not reach the API, so that another member may get it.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" && !errors.As(err, new(connectedError))
}

func unreachable(ctx context.Context, addrs []string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	var unknown x509.UnknownAuthorityError
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // the URL is in the message already
	}
	switch {
	case errors.Is(err, fleet.ErrDenied): // a pinned authority that is not there says what to do itself
		return fleet.NewError(fleet.ErrDenied, "token", "the API at %s: %v", strings.Join(addrs, ", "), err)
	case errors.As(err, &unknown):
		return fleet.NewError(fleet.ErrUnavailable, "cacert", "the API at %s has a certificate of an unknown authority: set FLEETCTL_CACERT to the cluster's api-ca.crt", strings.Join(addrs, ", "))
	case errors.Is(err, context.DeadlineExceeded) && !notSent(err):
		return fleet.NewError(fleet.ErrTimeout, "addr", "the API at %s did not answer in time: %v", strings.Join(addrs, ", "), err)
	}
	return fleet.NewError(fleet.ErrUnavailable, "addr", "the API at %s cannot be reached (%v): check the address (FLEETCTL_ADDR, --addr or --address), or name another member", strings.Join(addrs, ", "), err)
}

// Problem is an error that the API answered (RFC 9457).
//
//nolint:errname // the name of the RFC
type Problem struct {
	Type   string `json:"type,omitempty"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Kind is the machine-readable code, Field what the error is about.
	Kind  string `json:"kind"`
	Field string `json:"field,omitempty"`
	// RequestID finds the request in the members' logs, TraceID in traces.
	RequestID string `json:"request_id,omitempty"`
	TraceID   string `json:"trace_id,omitempty"`
	// OutcomeUnknown: a change may or may not have taken effect. Repeat it with the same Idempotency-Key.
	OutcomeUnknown bool `json:"outcome_unknown,omitempty"`
}

// Error is the detail, written for people.
func (p *Problem) Error() string { return p.Detail }

// Unwrap returns the sentinel of the kind.
func (p *Problem) Unwrap() error {
	return &fleet.Error{Kind: p.Kind, Field: p.Field, Message: p.Detail}
}

// Is makes errors.Is find fleet.ErrOutcomeUnknown.
func (p *Problem) Is(target error) bool {
	return p.OutcomeUnknown && target == fleet.ErrOutcomeUnknown
}

func read(res *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("%w: read the answer: %w", fleet.ErrUnavailable, err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("%w: the answer has more than %d bytes: ask for less", fleet.ErrTooLarge, maxBody)
	}
	if res.StatusCode == http.StatusAccepted {
		held := &Held{}
		if err := json.Unmarshal(body, &held.Approval); err == nil && held.ID != "" {
			return nil, held
		}
	}
	if res.StatusCode < 300 {
		return body, nil
	}
	p := &Problem{}
	if err := json.Unmarshal(body, p); err != nil || p.Kind == "" {
		return nil, fmt.Errorf("%w: the API answered %s, which is not one of its own errors: is the address right?", fleet.ErrUnavailable, res.Status)
	}
	return nil, p
}

// Get reads one object.
func Get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	var out T
	return out, c.Do(ctx, http.MethodGet, path, query, nil, &out)
}

// Post sends in and reads what was made.
func Post[T any](ctx context.Context, c *Client, path string, in any) (T, error) {
	var out T
	return out, c.Do(ctx, http.MethodPost, path, nil, in, &out)
}

// All reads every page of a list.
func All[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	var items []T
	q := url.Values{}
	maps.Copy(q, query)
	for {
		page, err := Get[Page[T]](ctx, c, path, q)
		if err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
		if page.Next == "" {
			return items, nil
		}
		if page.Next == q.Get("cursor") {
			return nil, fmt.Errorf("%w: the pages of %s do not end", fleet.ErrCorrupt, path)
		}
		q.Set("cursor", page.Next)
	}
}
