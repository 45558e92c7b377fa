package client

import (
	"net/http"
	"net/url"
	"strconv"
)

// request is one request, whichever member gets it.
type request struct {
	method, path string
	query        url.Values
	body         []byte
	header       http.Header
	unrepeatable bool
	// seen, if set, is told what the answer includes.
	seen func(Freshness)
}

// Option is something about one request that is not in its path or body.
type Option func(*request)

// IfMatch changes an object only if it is still as it was read; else the answer is fleet.ErrChanged.
func IfMatch(read interface{ AtRevision() uint64 }) Option {
	return header("If-Match", strconv.Quote(strconv.FormatUint(read.AtRevision(), 10)))
}

// IfMatchAny changes an object whatever it is.
func IfMatchAny() Option { return header("If-Match", "*") }

// IfNoneMatch makes an object by PUT only if there is none.
func IfNoneMatch() Option { return header("If-None-Match", "*") }

// Key is the idempotency key of a change, in place of one that the client makes.
func Key(key string) Option { return header(headerKey, key) }

// Unrepeatable is for a change that the API cannot remember by a key: when its outcome is unknown, it is not sent again.
func Unrepeatable() Option { return func(r *request) { r.unrepeatable = true } }

func header(name, value string) Option {
	return func(r *request) { r.header.Set(name, value) }
}

func newRequest(method, path string, query url.Values, body []byte, opts []Option) request {
	r := request{method: method, path: path, query: query, body: body, header: http.Header{}}
	for _, o := range opts {
		o(&r)
	}
	return r
}
