package devfleet

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/websocket"
	"golang.org/x/sync/errgroup"
)

// visitor reaches the demo host through one given edge, as a browser would whose DNS answered with that edge.
type visitor struct {
	name   string
	addr   string
	host   string
	roots  *x509.CertPool
	client *http.Client
}

// newVisitor verifies the edge's certificate against roots. With fresh every request makes its own connection.
func newVisitor(name, addr, host string, roots *x509.CertPool, fresh bool) *visitor {
	v := &visitor{name: name, addr: addr, host: host, roots: roots}
	v.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, addr)
		},
		TLSClientConfig: v.tls(), ForceAttemptHTTP2: true, DisableKeepAlives: fresh,
	}}
	return v
}

func (v *visitor) tls() *tls.Config {
	return &tls.Config{ServerName: v.host, RootCAs: v.roots, MinVersion: tls.VersionTLS12}
}

func (v *visitor) close() { v.client.CloseIdleConnections() }

// do makes one request and returns its status and the first 64 KiB of its body.
func (v *visitor) do(ctx context.Context, method, path, contentType string, body io.Reader) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+net.JoinHostPort(v.host, fmt.Sprint(portHTTPS))+path, body)
	if err != nil {
		return 0, "", fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("User-Agent", "devfleet/1.0")
	req.Header.Set("Accept", "*/*")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("%s: %w", v.name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return resp.StatusCode, string(b), fmt.Errorf("%s: read answer to %s: %w", v.name, path, err)
	}
	return resp.StatusCode, string(b), nil
}

// want makes a request and reports any status but the wanted one.
func (v *visitor) want(ctx context.Context, status int, method, path, contentType string, body io.Reader) (string, error) {
	got, text, err := v.do(ctx, method, path, contentType, body)
	if err != nil {
		return "", err
	}
	if got != status {
		return "", fmt.Errorf("%s answered %d to %s %s, wanted %d: %s", v.name, got, method, path, status, strings.TrimSpace(text[:min(len(text), 200)]))
	}
	return text, nil
}

func (v *visitor) get(ctx context.Context, status int, path string) error {
	_, err := v.want(ctx, status, http.MethodGet, path, "", nil)
	return err
}

// attackPath is a textbook SQL injection in a query; page tells attacks apart in events.
func attackPath(page string) string {
	return "/" + page + "?id=" + url.QueryEscape("' OR 1=1--")
}

// benign makes the requests that a customer's application lives on.
func (v *visitor) benign(ctx context.Context) error {
	text, err := v.want(ctx, http.StatusOK, http.MethodGet, "/hello", "", nil)
	if err != nil {
		return err
	}
	if !strings.Contains(text, v.host) || !strings.Contains(text, "/hello") {
		return fmt.Errorf("%s: the answer to GET /hello is not the origin's: %q", v.name, text)
	}
	const body = `{"item":"tea","amount":3}`
	text, err = v.want(ctx, http.StatusOK, http.MethodPost, "/echo", "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	if text != body {
		return fmt.Errorf("%s: POST /echo came back as %q", v.name, text)
	}
	if err := v.webSocket(ctx); err != nil {
		return fmt.Errorf("%s: websocket: %w", v.name, err)
	}
	return nil
}

func (v *visitor) webSocket(ctx context.Context) error {
	cfg, err := websocket.NewConfig("wss://"+v.host+"/ws", "https://"+v.host)
	if err != nil {
		return err
	}
	cfg.Header.Set("User-Agent", "devfleet/1.0")
	tlsConfig := v.tls()
	tlsConfig.NextProtos = []string{"http/1.1"}
	conn, err := (&tls.Dialer{Config: tlsConfig}).DialContext(ctx, "tcp", v.addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	ws, err := websocket.NewClient(cfg, conn)
	if err != nil {
		return err
	}
	for i := range 3 {
		sent, got := fmt.Sprintf("message %d", i), ""
		if err := websocket.Message.Send(ws, sent); err != nil {
			return err
		}
		if err := websocket.Message.Receive(ws, &got); err != nil {
			return err
		}
		if got != sent {
			return fmt.Errorf("sent %q, got %q", sent, got)
		}
	}
	return nil
}

// upload streams size bytes without saying how many there are, and compares what the origin counted.
func (v *visitor) upload(ctx context.Context, size int64) error {
	sum := sha256.New()
	// The reader is neither of the types whose length net/http knows, so the body is sent in chunks.
	body := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), sum)
	text, err := v.want(ctx, http.StatusOK, http.MethodPost, "/upload", "application/octet-stream", body)
	if err != nil {
		return err
	}
	var r Receipt
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return fmt.Errorf("%s: decode the origin's receipt %q: %w", v.name, text, err)
	}
	if want := (Receipt{size, hex.EncodeToString(sum.Sum(nil))}); r != want {
		return fmt.Errorf("%s: the origin received %+v, sent were %+v", v.name, r, want)
	}
	return nil
}

// stream is a steady flow of benign requests through several edges.
type stream struct {
	group  errgroup.Group
	ending chan struct{}

	mu       sync.Mutex
	total    int
	failures []string
}

// startStream sends a request every 10 ms through each visitor, one at a time.
func startStream(ctx context.Context, vs []*visitor) *stream {
	s := &stream{ending: make(chan struct{})}
	for _, v := range vs {
		s.group.Go(func() error {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-s.ending:
					return nil
				case <-tick.C:
				}
				err := v.get(ctx, http.StatusOK, "/stream")
				s.mu.Lock()
				s.total++
				if err != nil {
					s.failures = append(s.failures, err.Error())
				}
				s.mu.Unlock()
			}
		})
	}
	return s
}

// stop lets open requests finish. The error tells how many of how many failed, and how the first did.
func (s *stream) stop() (total int, err error) {
	close(s.ending)
	if err := s.group.Wait(); err != nil {
		return s.total, err
	}
	if len(s.failures) > 0 {
		return s.total, fmt.Errorf("%d of %d requests failed, the first with: %s", len(s.failures), s.total, s.failures[0])
	}
	return s.total, nil
}
