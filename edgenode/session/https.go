package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

const (
	// httpsTimeout bounds one poll of one member, blobTimeout the transfer of one blob from one member.
	httpsTimeout = 10 * time.Second
	blobTimeout  = 2 * time.Minute
	// maxHeadSet bounds the answer to a poll, in bytes.
	maxHeadSet = 1 << 20
)

// errNoMembers: there is no address to try.
var errNoMembers = fleet.NewError(fleet.ErrUnavailable, "members", "no member's API address is known")

// httpsClient talks to the members' API with the node's certificate.
type httpsClient struct{ client *http.Client }

func newHTTPSClient(o Options) *httpsClient {
	return &httpsClient{client: &http.Client{
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: requestTimeout}).DialContext,
			TLSClientConfig:       mtls.ClientTLS(o.Source, o.APIRoots, "", nil),
			TLSHandshakeTimeout:   requestTimeout,
			ResponseHeaderTimeout: httpsTimeout,
			// Short, so that a renewed certificate is soon the one in use.
			IdleConnTimeout: 30 * time.Second,
			MaxIdleConns:    8,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *httpsClient) close() { c.client.CloseIdleConnections() }

// poll asks the members in turn until one answers.
func (c *httpsClient) poll(ctx context.Context, addresses []string, body []byte) (fleet.HeadSet, error) {
	failed := error(errNoMembers)
	for i, a := range addresses {
		set, err := c.pollOne(ctx, a, body)
		if err == nil {
			return set, nil
		}
		if i == 0 {
			failed = nil
		}
		failed = errors.Join(failed, err)
	}
	return fleet.HeadSet{}, failed
}

func (c *httpsClient) pollOne(ctx context.Context, address string, body []byte) (fleet.HeadSet, error) {
	ctx, cancel := context.WithTimeout(ctx, httpsTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+"/v1/edge/poll", bytes.NewReader(body))
	if err != nil {
		return fleet.HeadSet{}, fmt.Errorf("poll by https: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.client.Do(req)
	if err != nil {
		return fleet.HeadSet{}, fmt.Errorf("poll by https: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxHeadSet+1))
	if err != nil {
		return fleet.HeadSet{}, fmt.Errorf("poll by https: %w", err)
	}
	if res.StatusCode != http.StatusOK || len(b) > maxHeadSet {
		return fleet.HeadSet{}, fmt.Errorf("%w: poll by https: %s answered %s with %d bytes", fleet.ErrUnavailable, address, res.Status, len(b))
	}
	var set fleet.HeadSet
	if err := json.Unmarshal(b, &set); err != nil {
		return fleet.HeadSet{}, fmt.Errorf("poll by https: malformed answer of %s: %w", address, err)
	}
	return set, nil
}

// blob completes t; a member that breaks off is followed by the next where it stopped.
func (c *httpsClient) blob(ctx context.Context, addresses []string, t *transfer) error {
	failed := error(errNoMembers)
	for i, a := range addresses {
		err := c.blobOne(ctx, a, t)
		if err == nil {
			return nil
		}
		if i == 0 {
			failed = nil
		}
		failed = errors.Join(failed, fmt.Errorf("blob %s by https: %w", t.digest.Short(), err))
	}
	return failed
}

func (c *httpsClient) blobOne(ctx context.Context, address string, t *transfer) error {
	ctx, cancel := context.WithTimeout(ctx, blobTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/v1/edge/blobs/"+string(t.digest), nil)
	if err != nil {
		return err
	}
	if len(t.data) > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", len(t.data)))
	}
	res, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	size, err := blobSize(res, t)
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	if err := t.expect(size); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := res.Body.Read(buf)
		if addErr := t.add(buf[:n]); addErr != nil {
			return addErr
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if !t.done() {
		return io.ErrUnexpectedEOF
	}
	return t.verify()
}

// blobSize is the size of the whole blob by the response's headers. A member that ignored the range starts anew.
func blobSize(res *http.Response, t *transfer) (int64, error) {
	switch res.StatusCode {
	case http.StatusOK:
		t.reset()
		if res.ContentLength < 0 {
			return 0, fleet.NewError(fleet.ErrCorrupt, "blob", "the answer has no length")
		}
		return res.ContentLength, nil
	case http.StatusPartialContent:
		// Content-Range: bytes <first>-<last>/<size>
		span, total, ok := strings.Cut(res.Header.Get("Content-Range"), "/")
		size, err := strconv.ParseInt(total, 10, 64)
		if !ok || err != nil || !strings.HasPrefix(span, fmt.Sprintf("bytes %d-", len(t.data))) {
			return 0, fleet.NewError(fleet.ErrCorrupt, "blob", "the answer is another range than asked for")
		}
		return size, nil
	}
	return 0, fmt.Errorf("%w: answered %s", fleet.ErrUnavailable, res.Status)
}
