package controlplane

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// renewPause is how often a member looks at its own certificates, which last a year.
const renewPause = time.Hour

// issueMember makes a key for this member and signs its certificate.
func (c Config) issueMember(cluster fleet.ClusterID, join fleet.TokenID, k *keys.Keys, now time.Time) error {
	key, keyPEM, _, err := newKey()
	if err != nil {
		return err
	}
	cert, err := k.MemberCA.SignJoined(cluster, c.Member, join, key.Public(), now)
	if err != nil {
		return err
	}
	return mtls.WriteIdentity(c.certFile("member"), c.keyFile("member"), cert, keyPEM)
}

// issueAPI makes a key for this member's API and signs its certificate.
func (c Config) issueAPI(k *keys.Keys, now time.Time) error {
	key, keyPEM, _, err := newKey()
	if err != nil {
		return err
	}
	cert, err := k.APICA.SignServer([]string{c.Advertise, "localhost"}, key.Public(), now)
	if err != nil {
		return err
	}
	return mtls.WriteIdentity(c.certFile("api"), c.keyFile("api"), mtls.ServerChain(cert, k.APICA.CertPEM()), keyPEM)
}

// renew keeps this member's certificates from ending, which would take it from the cluster, and all members that were
// made on one day at one time.
func (m *member) renew(ctx context.Context) error {
	tick := time.NewTicker(renewPause)
	defer tick.Stop()
	for {
		if err := m.c.renewOwn(m.trust, m.keys, time.Now()); err != nil {
			m.tel.Logger.ErrorContext(ctx, "this member's certificates are not renewed", "member", m.c.Member, "err", err)
		}
		m.forward.CloseIdleConnections() // a connection shows the certificate that it began with for as long as it lasts
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// renewOwn signs anew what is past half of its life.
func (c Config) renewOwn(t trust, k *keys.Keys, now time.Time) error {
	var errs []error
	for _, own := range []struct {
		source *mtls.Source
		issue  func() error
	}{
		{t.source, func() error {
			return c.issueMember(t.Cluster, fleet.TokenID(t.source.Certificate().Leaf.Subject.SerialNumber), k, now)
		}},
		{t.apiSource, func() error { return c.issueAPI(k, now) }},
	} {
		leaf := own.source.Certificate().Leaf
		if now.Before(halfLife(leaf)) {
			continue
		}
		err := k.Check()
		if err == nil {
			err = errors.Join(own.issue(), own.source.Reload())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func halfLife(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 2)
}
