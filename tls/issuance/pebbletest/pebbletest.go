// Package pebbletest runs Let's Encrypt's test certificate authority, Pebble, for tests: the real ACME server as a
// process of its own on loopback, with a directory that its clients verify. The process ends with the test.
package pebbletest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// startTimeout bounds building and starting Pebble.
const startTimeout = 3 * time.Minute

// Options say how the CA looks at the world.
type Options struct {
	// Resolver is the host:port of the DNS server (TCP) that it asks; required.
	Resolver string
	// HTTPPort is where it looks for HTTP-01 answers.
	HTTPPort int
	// TLSPort is where it looks for TLS-ALPN-01 answers.
	TLSPort int
	// Slow has it sleep up to a second before it looks.
	Slow bool
	// RejectNonces is the percentage of good nonces that it refuses.
	RejectNonces int
	// ExternalAccounts, if any, are the MAC keys (base64url) by key id of the accounts that it demands.
	ExternalAccounts map[string]string
	// Validity of certificates in seconds; 0 means 90 days.
	Validity int
}

// Pebble is a running CA.
type Pebble struct {
	// Directory is the ACME directory's URL; its HTTPS server is verified by Roots.
	Directory string
	Roots     *x509.CertPool

	management string
	log        *counter
}

// Orders counts the orders that the CA made.
func (p *Pebble) Orders() int { return int(p.log.orders.Load()) }

// Replaced counts the orders that named the certificate that they replace.
func (p *Pebble) Replaced() int { return int(p.log.replaced.Load()) }

// counter reads the CA's log.
type counter struct {
	orders, replaced atomic.Int64
	rest             []byte // used by the goroutine that copies the output only
}

// Write counts in whole lines.
func (c *counter) Write(b []byte) (int, error) {
	c.rest = append(c.rest, b...)
	for {
		line, rest, ok := bytes.Cut(c.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		c.rest = rest
		switch {
		case bytes.Contains(line, []byte("Added order ")):
			c.orders.Add(1)
		case bytes.Contains(line, []byte("is a replacement of")):
			c.replaced.Add(1)
		}
	}
}

// Start runs a CA until t ends.
func Start(t *testing.T, o Options) *Pebble {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	program := build(ctx, t)
	// Pebble cannot listen on port 0 and say where: pick free ports, and again if somebody else takes them.
	for range 5 {
		if p, ok := try(ctx, t, program, o); ok {
			return p
		}
	}
	t.Fatal("Pebble does not start")
	return nil
}

// build returns the program that go.mod's tool line names, from the build cache if it is there.
func build(ctx context.Context, t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(ctx, "go", "tool", "-n", "pebble")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("build Pebble: %v\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

func try(ctx context.Context, t *testing.T, program string, o Options) (*Pebble, bool) {
	t.Helper()
	dir := t.TempDir()
	roots := certificate(t, dir)
	listen, management := freeAddr(t), freeAddr(t)
	if o.Validity == 0 {
		o.Validity = 90 * 24 * 3600
	}
	profile := map[string]any{"description": "test", "validityPeriod": o.Validity}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": management, "httpPort": o.HTTPPort, "tlsPort": max(1, o.TLSPort),
		"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"retryAfter": map[string]int{"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa", "profiles": map[string]any{"default": profile},
		"domainBlocklist":                []string{"blocked.example"},
		"externalAccountBindingRequired": len(o.ExternalAccounts) > 0, "externalAccountMACKeys": o.ExternalAccounts,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-config", filepath.Join(dir, "config.json"), "-dnsserver", o.Resolver)
	sleep := "PEBBLE_VA_NOSLEEP=1"
	if o.Slow {
		sleep = "PEBBLE_VA_SLEEPTIME=1"
	}
	cmd.Env = append(os.Environ(), sleep, fmt.Sprintf("PEBBLE_WFE_NONCEREJECT=%d", o.RejectNonces), "PEBBLE_AUTHZREUSE=0")
	log := &counter{}
	cmd.Stdout = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start Pebble: %v", err)
	}
	exited := make(chan struct{})
	go func() { defer close(exited); _ = cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-exited })
	p := &Pebble{Directory: "https://" + listen + "/dir", Roots: roots, management: "https://" + management, log: log}
	return p, p.ready(ctx, exited)
}

// ready waits for the directory; false means that the process ended.
func (p *Pebble) ready(ctx context.Context, exited <-chan struct{}) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := p.get(ctx, p.Directory); err == nil {
			if _, err = p.get(ctx, p.management+"/roots/0"); err == nil {
				return true
			}
		}
		select {
		case <-exited:
			return false
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

func (p *Pebble) get(ctx context.Context, url string) ([]byte, error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.Roots}, DisableKeepAlives: true}
	client := http.Client{Transport: transport}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// IssuerRoots verifies the certificates that the CA issues.
func (p *Pebble) IssuerRoots(t *testing.T) *x509.CertPool {
	t.Helper()
	b, err := p.get(t.Context(), p.management+"/roots/0")
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(b) {
		t.Fatalf("get the CA's root: %v", err)
	}
	return pool
}

// certificate writes a self-signed certificate for loopback and returns what trusts it.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pebble directory"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, b := range map[string][]byte{"cert.pem": certPEM, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pool
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
