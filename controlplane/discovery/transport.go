package discovery

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// maxAnswer bounds an answer of Consul, in bytes, maxToken the file of the token.
const (
	maxAnswer = 16 << 20
	maxToken  = 4 << 10
)

func httpClient(o Options) (*http.Client, error) {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 3 * time.Second, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fleet.Invalid("consul.ca_file", "cannot be read: %v", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fleet.Invalid("consul.ca_file", "%s has no certificate in PEM: give the one that signed the agents' certificates", o.CAFile)
		}
	}
	if o.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile); err != nil {
			return nil, fleet.Invalid("consul.cert_file", "cannot be used with key_file: %v", err)
		}
		t.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile) // it may have been renewed
			return &cert, err
		}
	}
	return &http.Client{Transport: &transport{next: t, tokenFile: o.TokenFile}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("consul redirects, which its API does not: check consul.address")
	}}, nil
}

// transport adds the token to a request and bounds the answer.
type transport struct {
	next      http.RoundTripper
	tokenFile string
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("X-Consul-Token") // whatever the environment says
	if t.tokenFile != "" {
		token, err := readToken(t.tokenFile)
		if err != nil {
			return nil, err
		}
		r.Header.Set("X-Consul-Token", token)
	}
	res, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = &limited{ReadCloser: res.Body, left: maxAnswer}
	return res, nil
}

func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fleet.Invalid("consul.token_file", "cannot be read: %v", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fleet.Invalid("consul.token_file", "cannot be read: %v", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || len(b) > maxToken || strings.ContainsAny(token, "\r\n") {
		return "", fleet.Invalid("consul.token_file", "%s holds no ACL token: write the token's SecretID into it, alone", path)
	}
	return token, nil
}

// limited fails when a body is too long: half of an answer must not pass for the whole.
type limited struct {
	io.ReadCloser
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, fmt.Errorf("the answer is longer than %d bytes", int64(maxAnswer))
	}
	return n, err
}
