package devfleet

import (
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
	"slices"
	"time"
)

// pebbleEnv: no waiting before a validation, no nonces refused on purpose, every authorization proved anew.
var pebbleEnv = []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0"}

// acmeProfile is the one certificate profile that Pebble offers.
const acmeProfile = "tlsserver"

// pebbleFiles are the paths of what Pebble reads, and of the CA that signed its own certificate.
type pebbleFiles struct{ config, ca, cert, key string }

func (w *workdir) pebbleFiles() pebbleFiles {
	return pebbleFiles{w.join(caDir, "config.json"), w.join(caDir, "ca.pem"), w.join(caDir, "cert.pem"), w.join(caDir, "key.pem")}
}

// preparePebble writes Pebble's configuration and a certificate for its address from a CA that exists for that alone.
func preparePebble(files pebbleFiles, l layout, now time.Time) error {
	cfg := map[string]any{"pebble": map[string]any{
		"listenAddress":           at(l.pebbleIP(), portACME),
		"managementListenAddress": at(l.pebbleIP(), portACMEControl),
		"certificate":             files.cert,
		"privateKey":              files.key,
		"httpPort":                portHTTP,
		"tlsPort":                 portHTTPS,
		"keyAlgorithm":            "ecdsa",
		"retryAfter":              map[string]int{"authz": 1, "order": 1},
		"profiles":                map[string]any{acmeProfile: map[string]any{"description": "for servers", "validityPeriod": 7_776_000}},
	}}
	b, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return fmt.Errorf("encode pebble configuration: %w", err)
	}
	if err := os.WriteFile(files.config, b, 0o600); err != nil {
		return fmt.Errorf("write pebble configuration: %w", err)
	}
	return writePebbleCertificate(files, net.ParseIP(l.pebbleIP()), now)
}

func writePebbleCertificate(files pebbleFiles, ip net.IP, now time.Time) error {
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "devfleet ACME server"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: ip.String()}, IPAddresses: []net.IP{ip},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generate key: %w", err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generate key: %w", err)
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return fmt.Errorf("sign certificate: %w", err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		return fmt.Errorf("sign certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	for _, f := range []struct {
		path, kind string
		der        []byte
	}{{files.ca, "CERTIFICATE", caDER}, {files.cert, "CERTIFICATE", leafDER}, {files.key, "PRIVATE KEY", keyDER}} {
		if err := os.WriteFile(f.path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600); err != nil {
			return fmt.Errorf("write certificate: %w", err)
		}
	}
	return nil
}

// fetchRoots asks Pebble for the root that it issues from (it makes a new one at every start) and appends it to a file.
func fetchRoots(ctx context.Context, url, caFile, rootsFile string) error {
	pool, err := loadPool(caFile)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask pebble for its root: %w", err)
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 2 * time.Second}).Do(req)
	if err != nil {
		return fmt.Errorf("ask pebble for its root: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	root, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask pebble for its root: status %s: %w", resp.Status, err)
	}
	if block, _ := pem.Decode(root); block == nil {
		return fmt.Errorf("ask pebble for its root: %d bytes that are not PEM", len(root))
	}
	old, err := os.ReadFile(rootsFile)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("read roots: %w", err)
	}
	return writeFile(rootsFile, slices.Concat(old, root))
}

func loadPool(file string) (*x509.CertPool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}

// writeFile replaces a file at once: readers see the old content or the new.
func writeFile(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
