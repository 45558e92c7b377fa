package controlplane

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// Join gets this member an identity in the cluster that the join token is of, from the member whose API is at address.
// The token's pin proves that the answer comes from that cluster. The KEK reaches this host by other means.
func Join(ctx context.Context, c Config, token, address string) (cluster fleet.ClusterID, err error) {
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 4 || parts[0] != "efm1" {
		return "", badJoinToken()
	}
	if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
		return "", fleet.Invalid("address", "%q is not the API address of a member: give --address host:port, such as 203.0.113.1:8440", address)
	}
	existed, err := c.requireEmpty("join")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.discard(existed))
		}
	}()
	_, keyPEM, csr, err := newKey()
	if err != nil {
		return "", err
	}
	_, apiKeyPEM, apiCSR, err := newKey()
	if err != nil {
		return "", err
	}
	cl, err := client.New(client.Options{Addrs: []string{address}, TLS: mtls.PinnedTLS(parts[3])})
	if err != nil {
		return "", err
	}
	got, err := client.Post[client.MemberJoined](ctx, cl, "/v1/cluster/join", client.MemberJoin{
		Token: token, Member: c.advertised(observability.Version), CSR: string(csr), APICSR: string(apiCSR), Sent: time.Now().UTC(),
	})
	if err != nil {
		return "", err
	}
	m := membership{Cluster: got.Cluster.ID, Member: c.Member, Zone: got.Cluster.Zone, MemberCA: got.Cluster.MemberCA, NodeCA: got.Cluster.NodeCA, APICA: got.Cluster.APICA}
	for _, peer := range got.Members {
		if peer.ID != c.Member {
			m.Peers = append(m.Peers, peer.API)
		}
	}
	if err := mtls.WriteIdentity(c.certFile("member"), c.keyFile("member"), []byte(got.Certificate), keyPEM); err != nil {
		return "", err
	}
	if err := mtls.WriteIdentity(c.certFile("api"), c.keyFile("api"), []byte(got.APICertificate), apiKeyPEM); err != nil {
		return "", err
	}
	return m.Cluster, c.save(m)
}
