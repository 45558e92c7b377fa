package controlplane

import (
	"net/url"
	"strings"

	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/certstore"
	"github.com/edgefleet/edgefleet/tls/issuance"
)

// maxCAANames bounds the names of an authority.
const maxCAANames = 16

func (a ACME) validate(field string) error {
	if u, err := url.Parse(a.Directory); a.Directory != "" && (err != nil || u.Scheme != "https") {
		return fleet.Invalid(field+".directory", "%q is not the https URL of an ACME directory", a.Directory)
	}
	if (a.ExternalAccountID == "") != (a.ExternalAccountKeyFile == "") {
		return fleet.Invalid(field+".external_account_id", "an external account needs both: set %s.external_account_id and %s.external_account_key_file to what the CA gave you, or neither", field, field)
	}
	if len(a.CAA) > maxCAANames {
		return fleet.Invalid(field+".caa", "%d names of one certificate authority; the limit is %d", len(a.CAA), maxCAANames)
	}
	for _, name := range a.CAA {
		if _, err := fleet.ParseHostName(name); err != nil {
			return fleet.Invalid(field+".caa", "%q is not a name as in a CAA record, such as letsencrypt.org", name)
		}
	}
	for _, n := range []int{a.Limits.Orders, a.Limits.Failures, a.Limits.Certificates} {
		if n < -1 {
			return fleet.Invalid(field+".limits", "%d is not a limit: give a number, 0 for the default, or -1 for none", n)
		}
	}
	return nil
}

// letsEncrypt are the limits that Let's Encrypt publishes.
var letsEncrypt = hosts.Limits{Orders: 300, Failures: 5, Certificates: 50}

// limits are what holds for the authority.
func (a ACME) limits() hosts.Limits {
	var l hosts.Limits
	if u, err := url.Parse(a.Directory); err == nil && strings.HasSuffix(u.Hostname(), ".letsencrypt.org") {
		l = letsEncrypt
	}
	set := func(limit *int, n int) {
		if n != 0 {
			*limit = max(n, 0)
		}
	}
	set(&l.Orders, a.Limits.Orders)
	set(&l.Failures, a.Limits.Failures)
	set(&l.Certificates, a.Limits.Certificates)
	return l
}

// authority makes the client of one certificate authority.
func (m *member) authority(a ACME, field string, challenges *hosts.Challenges) (hosts.Authority, error) {
	caRoots, err := roots(field+".ca_file", a.CAFile)
	if err != nil {
		return hosts.Authority{}, err
	}
	account, err := a.externalAccount(field)
	if err != nil {
		return hosts.Authority{}, err
	}
	issuer, err := issuance.New(issuance.Options{
		Directory: a.Directory, Email: a.Email, Roots: caRoots, Profile: a.Profile, CAA: a.CAA,
		Storage:    certstore.New(&hosts.Accounts{State: m.state, Proposer: m.raft, Now: utcNow}, m.keys.Sealer),
		Challenges: challenges, ExternalAccount: account, Telemetry: m.tel,
	})
	return hosts.Authority{Directory: a.Directory, Issuer: issuer, Identity: issuer.Identity, Limits: a.limits()}, err
}

// authorities are the certificate authorities that are configured.
func (m *member) authorities(challenges *hosts.Challenges) ([]hosts.Authority, error) {
	if m.c.ACME.Directory == "" {
		return nil, nil
	}
	first, err := m.authority(m.c.ACME, "acme", challenges)
	if err != nil || m.c.ACMESecond.Directory == "" {
		return []hosts.Authority{first}, err
	}
	second, err := m.authority(m.c.ACMESecond, "acme_second", challenges)
	return []hosts.Authority{first, second}, err
}
