// Package sample reads one HTTP request that a person wrote down: as it goes over the wire, or as a command line of curl.
//
// It owns those two forms and nothing else: it sends nothing, reads no files and judges nothing. Every error says what was
// not understood.
package sample

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// MaxBytes bounds a request that is read, in bytes.
const MaxBytes = 512 << 10

// Request is a request as a person wrote it.
type Request struct {
	Method string      `json:"method" maxLength:"64" example:"GET"`
	Scheme string      `json:"scheme,omitempty" enum:",https,http" doc:"default https"`
	Proto  string      `json:"proto,omitempty" enum:",HTTP/1.1,HTTP/2.0" doc:"default HTTP/1.1"`
	Host   string      `json:"host" maxLength:"300" example:"shop.example.com"`
	URI    string      `json:"uri" maxLength:"65536" doc:"path and query" example:"/?q=x"`
	Header http.Header `json:"header,omitempty"`
	Body   []byte      `json:"body,omitempty" doc:"base64"`
}

// Validate checks r, and fills in what is left out.
func (r *Request) Validate() error {
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	if r.Scheme == "" {
		r.Scheme = "https"
	}
	if r.Proto == "" {
		r.Proto = "HTTP/1.1"
	}
	if r.URI == "" {
		r.URI = "/"
	}
	switch {
	case r.Host == "":
		return fleet.Invalid("host", "for which host is the request? it has no Host header, and no host was named")
	case len(r.Body) > MaxBytes:
		return fleet.NewError(fleet.ErrTooLarge, "body", "the body has %d bytes; the limit is %d", len(r.Body), MaxBytes)
	case !strings.HasPrefix(r.URI, "/") && r.URI != "*" || strings.ContainsFunc(r.URI, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return fleet.Invalid("uri", "%.80q is not a path: it begins with '/'", r.URI)
	}
	return nil
}

// Parse parses r into points as an edge does that inspects the first inspected bytes of a body.
func (r Request) Parse(inspected int) *request.Request {
	in := request.Input{Method: r.Method, Scheme: r.Scheme, Proto: r.Proto, Host: r.Host, URI: r.URI, Header: r.Header, Body: r.Body}
	if in.Header == nil {
		in.Header = http.Header{}
	}
	if len(in.Body) > inspected {
		in.Body, in.Truncated = in.Body[:inspected], true
	}
	return request.Parse(in, request.Limits{})
}

// Raw reads a request as it goes over the wire. Lines may end with a newline alone. A body without a Content-Length goes to
// the end.
func Raw(b []byte) (Request, error) {
	if len(b) > MaxBytes {
		return Request{}, fleet.NewError(fleet.ErrTooLarge, "request", "the request has more than %d bytes", MaxBytes)
	}
	head, body := split(b)
	r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("\r\n\r\n"), bytes.NewReader(body))))
	if err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = errors.New("it ends too early")
		}
		return Request{}, fleet.Invalid("request", "this is not an HTTP request: %v; it begins with a line such as GET /?q=x HTTP/1.1, then headers, an empty line and the body", err)
	}
	out := Request{Method: r.Method, Scheme: "https", Proto: "HTTP/1.1", Host: r.Host, URI: r.RequestURI, Header: r.Header}
	if r.ProtoMajor == 2 {
		out.Proto = "HTTP/2.0"
	}
	if r.URL.IsAbs() {
		out.Scheme, out.URI = r.URL.Scheme, r.URL.RequestURI()
	}
	switch {
	case len(r.TransferEncoding) > 0:
		if out.Body, err = io.ReadAll(r.Body); err != nil {
			return Request{}, fleet.Invalid("request", "the chunked body cannot be read: %v", err)
		}
	case r.ContentLength >= 0 && r.Header.Get("Content-Length") != "":
		if int64(len(body)) < r.ContentLength {
			return Request{}, fleet.Invalid("request", "the body has %d bytes, and Content-Length says %d: leave it out, and the body goes to the end of the file", len(body), r.ContentLength)
		}
		out.Body = body[:r.ContentLength]
	default:
		out.Body = body
	}
	return out, nil
}

// split cuts a request at its first empty line.
func split(b []byte) (head, body []byte) {
	for _, sep := range []string{"\r\n\r\n", "\n\n"} {
		if head, body, found := bytes.Cut(b, []byte(sep)); found && !bytes.Contains(head, []byte("\n\n")) {
			return head, body
		}
	}
	return bytes.TrimRight(b, "\r\n"), nil
}

// fromURL takes the target of a request apart.
func (r *Request) fromURL(text string) error {
	if !strings.Contains(text, "://") {
		text = "http://" + text // as curl does
	}
	u, err := url.Parse(text)
	blank := strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c == 0x7f })
	if err != nil || blank || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fleet.Invalid("url", "%.200q is not an absolute URL such as https://shop.example.com/?q=x", text)
	}
	r.Scheme, r.Host, r.URI = u.Scheme, u.Host, u.RequestURI()
	return nil
}

// length sets the header that a client sends with a body.
func (r *Request) length() {
	if len(r.Body) > 0 && r.Header.Get("Content-Length") == "" {
		r.Header.Set("Content-Length", strconv.Itoa(len(r.Body)))
	}
}
