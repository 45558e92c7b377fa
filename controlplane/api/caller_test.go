package api_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

// as is a way to call a member.
type as struct {
	f     *fixture
	addr  string
	token string
	http  *http.Client
	// header is added to each request.
	header http.Header
}

func (f *fixture) at(i int, token string, cert ...tls.Certificate) as {
	var shown *tls.Certificate
	if len(cert) > 0 {
		shown = &cert[0]
	}
	tr := &http.Transport{TLSClientConfig: f.tls(shown), ForceAttemptHTTP2: true}
	f.t.Cleanup(tr.CloseIdleConnections)
	return as{f: f, addr: f.members[i].addr, token: token, http: &http.Client{Transport: tr, Timeout: patience}, header: http.Header{}}
}

// op is the operator at the leader.
func (f *fixture) op() as { return f.at(0, f.operator) }

func (a as) with(name, value string) as {
	a.header = a.header.Clone()
	a.header.Add(name, value)
	return a
}

// without leaves a header out that call would add.
func (a as) without(name string) as {
	a.header = a.header.Clone()
	a.header[name] = nil
	return a
}

// http1 calls by HTTP/1.1.
func (a as) http1() as {
	tr := &http.Transport{TLSClientConfig: a.http.Transport.(*http.Transport).TLSClientConfig.Clone()} //nolint:forcetypeassert // made by at
	tr.TLSClientConfig.NextProtos = nil
	a.f.t.Cleanup(tr.CloseIdleConnections)
	a.http = &http.Client{Transport: tr, Timeout: patience}
	return a
}

// answer is what came back.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
	client.Problem
}

// call sends body, if any: a string or []byte as it is, else as JSON.
func (a as) call(method, path string, body any) answer {
	a.f.t.Helper()
	t := a.f.t
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		rd = strings.NewReader(b)
	case io.Reader:
		rd = b
	default:
		raw, err := json.Marshal(b)
		must(t, err)
		rd = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+a.addr+path, rd)
	must(t, err)
	if rd != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if method == http.MethodPatch || method == http.MethodDelete {
		req.Header.Set("If-Match", "*") // whatever it is, unless the test says otherwise
	}
	maps.Copy(req.Header, a.header)
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	res, err := a.http.Do(req)
	must(t, err)
	defer func() { _ = res.Body.Close() }()
	out := answer{t: t, status: res.StatusCode, header: res.Header}
	out.body, err = io.ReadAll(res.Body)
	must(t, err)
	if res.StatusCode >= 400 {
		out.checkProblem(method + " " + path)
	}
	return out
}

// checkProblem holds every error of every test against RFC 9457 and our additions to it.
func (a *answer) checkProblem(what string) {
	a.t.Helper()
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		a.t.Errorf("%s: %d with content type %q: %.200s", what, a.status, ct, a.body)
		return
	}
	must(a.t, json.Unmarshal(a.body, &a.Problem))
	p := a.Problem
	if (a.status == 429 || a.status == 503) && a.header.Get("Retry-After") == "" && p.Kind != "sealed" {
		a.t.Errorf("%s: %d does not say when to try again", what, a.status)
	}
	if p.Type != "urn:edgefleet:problem:"+p.Kind || p.Title == "" || p.Status != a.status || p.Detail == "" || p.Kind == "" ||
		p.RequestID == "" || len(p.TraceID) != 32 || p.RequestID != a.header.Get("X-Request-Id") || len(a.header.Values("X-Request-Id")) != 1 {
		a.t.Errorf("%s: incomplete problem %s (X-Request-Id %v)", what, a.body, a.header.Values("X-Request-Id"))
	}
}

func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Errorf("got %d %s, want %d", a.status, a.body, status)
	}
	return a
}

func (a answer) into(v any) {
	a.t.Helper()
	must(a.t, json.Unmarshal(a.body, v))
}
