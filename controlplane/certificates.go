package controlplane

import (
	"context"
	"crypto/x509"
	"os"
	"strings"

	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/controlplane/leader/revocations"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/issuance"
)

// openHosts makes the leader's loop over hosts; without the KEK there is none, and hosts wait. Without an ACME directory
// nothing is ordered, and uploaded certificates are served.
func (m *member) openHosts(ctx context.Context) error {
	if m.keys == nil {
		return nil
	}
	if m.c.ACME.Directory == "" {
		m.tel.Logger.WarnContext(ctx, "no certificates will be ordered: acme.directory is not set; uploaded ones are served", "member", m.c.Member)
	}
	edgeRoots, err := roots("trusted_edge_roots_file", m.c.TrustedEdgeRootsFile)
	if err != nil {
		return err
	}
	challenges := &hosts.Challenges{State: m.state, Proposer: m.raft, Fetch: m.lib.Blob, Now: utcNow, Logger: m.tel.Logger}
	authorities, err := m.authorities(challenges)
	if err != nil {
		return err
	}
	if len(authorities) > 0 {
		m.revocations = &revocations.Loop{State: m.state, Proposer: m.raft, Authority: revokers(authorities), Logger: m.tel.Logger, Now: utcNow}
	}
	m.hosts, err = hosts.New(hosts.Options{
		State: m.state, Proposer: m.raft, Fetch: m.lib.Blob, Resolver: m.check, Authorities: authorities, Challenges: challenges,
		Sealer: m.keys.Sealer, Handshake: hosts.NewHandshake(edgeRoots, m.c.EdgeHTTPSPort), Telemetry: m.tel,
	})
	return err
}

// revokers finds the authority that revokes what it issued.
func revokers(authorities []hosts.Authority) func(string) revocations.Authority {
	var first revocations.Authority
	known := map[string]revocations.Authority{}
	for _, a := range authorities {
		if r, ok := a.Issuer.(revocations.Authority); ok {
			if known[a.Directory] = r; first == nil {
				first = r
			}
		}
	}
	return func(directory string) revocations.Authority {
		if r, ok := known[directory]; ok {
			return r
		}
		return first
	}
}

// externalAccount is nil for a CA that demands none.
func (a ACME) externalAccount(field string) (*issuance.ExternalAccount, error) {
	if a.ExternalAccountID == "" {
		return nil, nil
	}
	key, err := os.ReadFile(a.ExternalAccountKeyFile)
	if err != nil {
		return nil, fleet.Invalid(field+".external_account_key_file", "%s.external_account_key_file: cannot read the key: %v", field, err)
	}
	return &issuance.ExternalAccount{KeyID: a.ExternalAccountID, MACKey: strings.TrimRight(strings.TrimSpace(string(key)), "=")}, nil
}

// recheck makes the leader look at a host at once; on other members it has no effect.
func (m *member) recheck(h fleet.HostName) {
	if m.hosts != nil {
		m.hosts.Check(h)
	}
}

// roots reads the certificates of a file; nil, the system's, without one.
func roots(field, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fleet.Invalid(field, "%s: cannot read the certificates: %v", field, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fleet.Invalid(field, "%s: %s holds no PEM certificate", field, file)
	}
	return pool, nil
}
