package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"strings"
)

// status asks one member of etcd who leads, by its JSON gateway.
func (c *etcdCluster) status(ctx context.Context, url string) (st etcdStatus, err error) {
	ca, err := os.ReadFile(c.certs.CA)
	if err != nil {
		return st, err
	}
	pair, err := tls.LoadX509KeyPair(c.certs.Cert, c.certs.Key)
	if err != nil {
		return st, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v3/maintenance/status", strings.NewReader("{}"))
	if err != nil {
		return st, err
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return st, err
	}
	defer func() { _ = res.Body.Close() }()
	return st, json.NewDecoder(res.Body).Decode(&st)
}
