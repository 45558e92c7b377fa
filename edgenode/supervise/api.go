package supervise

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	apiTimeout = 20 * time.Second
	// maxAnswer bounds an answer of the API, in bytes.
	maxAnswer = 1 << 20
)

// api posts to members of the control plane.
type api struct{ client *http.Client }

func newAPI(config *tls.Config) api {
	return api{&http.Client{
		Timeout: apiTimeout,
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (a api) close() { a.client.CloseIdleConnections() }

// refusal is an answer that asking again does not change.
type refusal struct{ err error }

func (r refusal) Error() string { return r.err.Error() }
func (r refusal) Unwrap() error { return r.err }

// postAny asks the members in turn until one answers or refuses. A server that is not the pinned one is a refusal only when
// no other member could be asked.
func (a api) postAny(ctx context.Context, addresses []string, path string, in, out any) error {
	var failed error
	denied := false
	for _, address := range addresses {
		err := a.post(ctx, address, path, in, out)
		if err == nil {
			return nil
		}
		if _, ok := errors.AsType[refusal](err); ok {
			return err
		}
		denied = denied || errors.Is(err, fleet.ErrDenied)
		failed = errors.Join(failed, fmt.Errorf("%s: %w", address, err))
	}
	if denied {
		return refusal{failed}
	}
	return failed
}

func (a api) post(ctx context.Context, address, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return err
	}
	if res.StatusCode/100 == 2 {
		return json.Unmarshal(b, out)
	}
	return answered(res, b)
}

// answered turns a problem (RFC 9457) into an error; the statuses that a person must act on are refusals.
func answered(res *http.Response, body []byte) error {
	var problem struct {
		Detail string `json:"detail"`
		Kind   string `json:"kind"`
		Field  string `json:"field"`
	}
	if json.Unmarshal(body, &problem) != nil || problem.Detail == "" {
		problem.Detail = "answered " + res.Status
	}
	err := &fleet.Error{Kind: problem.Kind, Field: problem.Field, Message: problem.Detail}
	final := []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusConflict, http.StatusUnprocessableEntity}
	if slices.Contains(final, res.StatusCode) {
		return refusal{err}
	}
	// Anything else is the member's trouble, whatever its problem says.
	return fmt.Errorf("%w: %s", fleet.ErrUnavailable, problem.Detail)
}
