package harness

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Ports of the CA.
const (
	portACME        = "14000"
	portACMEControl = "15000"
)

// pebbleLimit bounds the start of the CA.
const pebbleLimit = 20 * time.Second

// Pebble is Let's Encrypt's test CA, as a process of its own (package ca).
type Pebble struct {
	*Process
	// Directory is the URL of the ACME directory, whose server Authority (a file) verifies.
	Directory, Authority string
	// Roots verify what it issues; RootsFile has them as PEM.
	Roots     *x509.CertPool
	RootsFile string
	// HTTP trusts the directory's server.
	HTTP *http.Client
}

// StartPebble starts the CA; it proves names by what names resolves. It waits for nothing on purpose, refuses no nonces,
// and proves every name anew. A
// patient one leaves the processors to what is measured.
func (e *Env) StartPebble(ctx context.Context, names *Names, patient bool) (*Pebble, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	host, err := e.Host()
	if err != nil {
		return nil, err
	}
	certs, err := e.Certificates("pebble", host)
	if err != nil {
		return nil, err
	}
	control := net.JoinHostPort(host, portACMEControl)
	p := &Pebble{Directory: "https://" + net.JoinHostPort(host, portACME) + "/dir", Authority: certs.CA}
	authority, err := pool(certs.CA)
	if err != nil {
		return nil, err
	}
	p.HTTP = &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 64}}
	p.Process, err = e.Start(Command{
		Name: "ca", Path: self, Args: []string{
			"ca", "--listen", net.JoinHostPort(host, portACME), "--management", control, "--cert", certs.Cert, "--key", certs.Key,
			"--resolver", names.Address(), "--http-port", strconv.Itoa(PortHTTP), "--tls-port", strconv.Itoa(PortHTTPS),
		},
		Env: []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0"}, Patient: patient,
	})
	if err != nil {
		return nil, err
	}
	return p, p.ready(ctx, e, "https://"+control+"/roots/0")
}

// ready waits until the CA answers, and takes its root.
func (p *Pebble) ready(ctx context.Context, e *Env, url string) error {
	return Until(ctx, pebbleLimit, 50*time.Millisecond, func(ctx context.Context) error {
		if err := p.Alive(); err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		res, err := p.HTTP.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		root, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		if err != nil {
			return err
		}
		p.Roots = x509.NewCertPool()
		if res.StatusCode != http.StatusOK || !p.Roots.AppendCertsFromPEM(root) {
			return fleet.NewError(fleet.ErrUnavailable, "pebble", "the CA answers %s to %s and no certificate", res.Status, url)
		}
		p.RootsFile, err = e.WriteFile("pebble/roots.pem", root)
		return err
	})
}

// pool reads the certificates of a file.
func pool(file string) (*x509.CertPool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(b) {
		return nil, fleet.Invalid("certificates", "%s holds no certificate", file)
	}
	return p, nil
}
