package issuance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"

	"github.com/mholt/acmez/v3/acme"
)

const (
	// maxPages and maxLooks bound the search for an order that was not stored: the newest are looked at.
	maxPages = 512
	maxLooks = 32
	// maxList bounds one page of the account's list of orders.
	maxList = 1 << 20
)

// lost finds the order that the CA may have made for a caller that died before it stored the URL. Only an order that was
// not finalized can be one: its URL is stored before that. CAs without a list of orders (RFC 8555 section 7.1.2.1) answer
// a second request for the same name with the order that is open.
func (f *flow) lost(ctx context.Context) (acme.Order, bool, error) {
	var urls []string
	next := f.with.Orders
	for page := 0; next != "" && page < maxPages; page++ {
		a, err := f.recording(ctx, next)
		if err != nil {
			return acme.Order{}, false, fmt.Errorf("list orders: %w", err)
		}
		var list struct {
			Orders []string `json:"orders"`
		}
		if err := json.Unmarshal(a.body, &list); err != nil {
			return acme.Order{}, false, fmt.Errorf("list orders: %w", err)
		}
		urls, next = append(urls, list.Orders...), a.next
	}
	slices.Reverse(urls) // the newest are last where the list has an order
	for _, url := range urls[:min(len(urls), maxLooks)] {
		o, err := f.issuer.client.GetOrder(ctx, f.with, acme.Order{Location: url})
		if err != nil {
			if gone(err) {
				continue
			}
			return o, false, fmt.Errorf("look for order: %w", err)
		}
		open := o.Status == acme.StatusPending || o.Status == acme.StatusReady
		if open && len(o.Identifiers) == 1 && o.Identifiers[0].Value == f.csr.DNSNames[0] {
			return o, true, nil
		}
	}
	return acme.Order{}, false, nil
}

// answer is what the CA answered to a request that the client has no type for.
type answer struct {
	body []byte
	next string
}

// recording makes an authenticated request for url and returns what was answered.
func (f *flow) recording(ctx context.Context, url string) (answer, error) {
	f.mu.Lock()
	f.record = true
	f.mu.Unlock()
	_, err := f.issuer.client.GetOrder(ctx, f.with, acme.Order{Location: url})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record = false
	return f.recorded, err
}

// listener hears what the CA answers in the headers, which the client does not return.
type listener struct{ wire http.RoundTripper }

var nextLink = regexp.MustCompile(`<([^>]+)>;\s*rel="next"`)

// RoundTrip implements http.RoundTripper.
func (l listener) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.wire.RoundTrip(req)
	f, ok := req.Context().Value(flowKey{}).(*flow)
	if err != nil || !ok {
		return resp, err
	}
	f.heard(resp.StatusCode, resp.Header)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.record || req.Method != http.MethodPost || resp.StatusCode != http.StatusOK {
		return resp, nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxList))
	_ = resp.Body.Close() // it was read
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	f.recorded = answer{body: b}
	for _, link := range resp.Header.Values("Link") {
		if m := nextLink.FindStringSubmatch(link); m != nil {
			f.recorded.next = m[1]
		}
	}
	return resp, nil
}
