package config

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/netip"
	"slices"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
	"github.com/edgefleet/edgefleet/tls/alpn"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/sni"
)

// maxChainBytes bounds a certificate chain, maxChallengeBytes a challenge's token and answer.
const (
	maxChainBytes     = 64 << 10
	maxChallengeBytes = 1 << 10
)

// maxAllowedOrigins is the limit that Tenant.Validate has.
const maxAllowedOrigins = 64

func decodeConfig(tenant fleet.TenantID, b []byte, o Options) (part, error) {
	var c fleet.ConfigBundle
	if err := fleet.DecodeStrict(b, &c); err != nil {
		return part{}, err
	}
	if err := owned(tenant, c.Tenant); err != nil {
		return part{}, err
	}
	if err := atMost("hosts", len(c.Hosts), fleet.MaxHostsPerTenant); err != nil {
		return part{}, err
	}
	if err := atMost("allowed_origins", len(c.AllowedOrigins), maxAllowedOrigins); err != nil {
		return part{}, err
	}
	p := part{hosts: make([]*Host, 0, len(c.Hosts))}
	seen := make(map[fleet.HostName]bool, len(c.Hosts))
	for _, hc := range c.Hosts {
		h, err := NewHost(tenant, hc, c.AllowedOrigins, o.OwnAddresses)
		if err != nil {
			return part{}, fmt.Errorf("host %q: %w", hc.Name, err)
		}
		if seen[h.Name] {
			return part{}, fleet.NewError(fleet.ErrConflict, "host", "host %s is in the bundle twice", h.Name)
		}
		seen[h.Name] = true
		p.hosts = append(p.hosts, h)
	}
	return p, nil
}

// NewHost makes a host of a tenant's configuration, checked as if nobody had done so before.
func NewHost(tenant fleet.TenantID, c fleet.HostConfig, allowed []netip.Prefix, own []netip.Addr) (*Host, error) {
	check := fleet.Host{Name: c.Name, Tenant: tenant, Spec: fleet.HostSpec{Origins: c.Origins, Mode: c.Mode, Regions: c.Regions, TLS: c.TLS, Forwarding: c.Forwarding, FailPolicy: c.FailPolicy}}
	if err := check.Validate(); err != nil {
		return nil, err
	}
	h := &Host{Name: c.Name, Tenant: tenant, Mode: c.Mode, AllowedOrigins: allowed, Forwarding: c.Forwarding, Plain: c.Plain, FailPolicy: c.FailPolicy}
	if err := h.demand(check.Spec); err != nil {
		return nil, err
	}
	for _, origin := range c.Origins {
		e, err := origin.Parse()
		if err != nil {
			return nil, err
		}
		if a, err := netip.ParseAddr(e.Host); err == nil {
			if err := fleet.CheckOriginAddr(a, allowed, own); err != nil {
				return nil, err
			}
		}
		h.Origins = append(h.Origins, e)
	}
	return h, nil
}

func decodeRuleset(tenant fleet.TenantID, b []byte) (part, error) {
	var r fleet.RulesetBundle
	if err := fleet.DecodeStrict(b, &r); err != nil {
		return part{}, err
	}
	if err := owned(tenant, r.Tenant); err != nil {
		return part{}, err
	}
	if err := atMost("rules", len(r.Rules), fleet.MaxRulesPerTenant); err != nil {
		return part{}, err
	}
	set, err := rules.Compile(r.Rules)
	return part{rules: set}, err
}

func decodeCerts(tenant fleet.TenantID, b []byte, group fleet.GroupName, keys keyset) (part, error) {
	var c fleet.CertsBundle
	if err := fleet.DecodeStrict(b, &c); err != nil {
		return part{}, err
	}
	if err := owned(tenant, c.Tenant); err != nil {
		return part{}, err
	}
	if err := atMost("certificates", len(c.Certificates), fleet.MaxHostsPerTenant); err != nil {
		return part{}, err
	}
	if err := atMost("challenges", len(c.Challenges), fleet.MaxHostsPerTenant); err != nil {
		return part{}, err
	}
	p := part{epochs: map[uint64]bool{}, validations: map[fleet.HostName]*tls.Certificate{}}
	// While a certificate is being replaced a host has two; the table shows the one that comes last.
	slices.SortStableFunc(c.Certificates, func(a, b fleet.BundleCert) int { return cmp.Compare(a.Generation, b.Generation) })
	for _, bc := range c.Certificates {
		cert, epoch, err := openCertificate(tenant, bc, group, keys)
		if err != nil {
			return part{}, fmt.Errorf("certificate of %q: %w", bc.Host, err)
		}
		p.epochs[epoch] = true
		p.entries = append(p.entries, sni.Entry{Name: bc.Host, Certificate: cert})
	}
	if err := atMost("origins", len(c.Origins), fleet.MaxHostsPerTenant*fleet.MaxOriginsPerHost); err != nil {
		return part{}, err
	}
	var err error
	if p.origins, err = decodeOriginCerts(tenant, c.Origins, group, keys, p.epochs); err != nil {
		return part{}, err
	}
	for _, ch := range c.Challenges {
		if _, err := fleet.ParseHost(string(ch.Host)); err != nil {
			return part{}, fmt.Errorf("challenge of %q: %w", ch.Host, err)
		}
		if ch.Token == "" || len(ch.Token) > maxChallengeBytes || len(ch.Response) > maxChallengeBytes {
			return part{}, fleet.Invalid("challenge", "challenge of %s: token and answer have 1 to %d bytes", ch.Host, maxChallengeBytes)
		}
		switch ch.Type {
		case "":
			p.challenges = append(p.challenges, ch)
		case fleet.ChallengeTLSALPN01:
			var err error
			if p.validations[ch.Host], err = alpn.Certificate(ch.Host, ch.Response); err != nil {
				return part{}, err
			}
		case fleet.ChallengeDNS01, fleet.ChallengeHTTP01: // the first is not the edges', the second has no type here
			fallthrough
		default:
			return part{}, fleet.Invalid("challenge", "challenge of %s: %q is not answered by edges", ch.Host, ch.Type)
		}
	}
	return p, nil
}

// openCertificate unseals the private key, which stays in memory, and matches it to the chain.
func openCertificate(tenant fleet.TenantID, c fleet.BundleCert, group fleet.GroupName, keys keyset) (*tls.Certificate, uint64, error) {
	if _, err := fleet.ParseHost(string(c.Host)); err != nil {
		return nil, 0, err
	}
	if len(c.Chain) > maxChainBytes {
		return nil, 0, fleet.NewError(fleet.ErrTooLarge, "chain", "a chain of %d bytes; the limit is %d", len(c.Chain), maxChainBytes)
	}
	der, epoch, err := keys.open(group, c.Key, keyring.CertKeyAAD(tenant, c.Host, c.SPKI, c.Generation))
	if err != nil {
		return nil, 0, err
	}
	defer clear(der)
	cert, err := tls.X509KeyPair([]byte(c.Chain), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		return nil, 0, fleet.Invalid("chain", "key and chain do not belong together: %v", err)
	}
	if spki := spkiOf(cert.Leaf); spki != c.SPKI {
		return nil, 0, fleet.Invalid("spki", "the leaf has the public key %.12s, the bundle says %.12s", spki, c.SPKI)
	}
	if err := cert.Leaf.VerifyHostname(string(c.Host)); err != nil {
		return nil, 0, fleet.Invalid("chain", "the certificate is for another name: %v", err)
	}
	return &cert, epoch, nil
}

func spkiOf(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

func owned(index, bundle fleet.TenantID) error {
	if index != bundle {
		return fleet.Invalid("tenant", "the bundle names tenant %q", bundle)
	}
	return nil
}

func atMost(field string, n, limit int) error {
	if n > limit {
		return fleet.NewError(fleet.ErrTooLarge, field, "%d %s; the limit is %d", n, field, limit)
	}
	return nil
}
