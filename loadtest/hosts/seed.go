package hosts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// seeded is a large state that a fleet starts with.
type seeded struct {
	n      int
	prefix string
	// tenantHosts is how many hosts a tenant has.
	tenantHosts int
}

func (s seeded) host(i int) fleet.HostName {
	return fleet.HostName(fmt.Sprintf("www.%s%06d.example", s.prefix, i))
}

func (s seeded) tenant(i int) fleet.TenantID {
	return fleet.TenantID(fmt.Sprintf("%s-%d", s.prefix, i/s.tenantHosts))
}

func (s seeded) label(i int) string { return fmt.Sprintf("%s%012d", s.prefix, i) }

// put adds a host with its tenant and label.
func (s seeded) put(tx *state.Tx, i int, origin string, o fleet.HostObserved) {
	now := time.Now().UTC()
	meta := fleet.Meta{Revision: 1, CreatedAt: now, UpdatedAt: now}
	if i%s.tenantHosts == 0 {
		tx.PutTenant(fleet.Tenant{ID: s.tenant(i), Spec: fleet.TenantSpec{Name: "load", Form: fleet.SecurityEdge, Group: fleet.DefaultGroup, AllowedOrigins: loopback}, Meta: meta})
	}
	tx.PutHost(fleet.Host{
		Name: s.host(i), Tenant: s.tenant(i), Spec: fleet.HostSpec{Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: origin}}},
		Desired: fleet.HostDesired{Label: s.label(i)}, Observed: o, Meta: meta,
	})
	tx.PutLabel(fleet.Label{Label: s.label(i), Host: s.host(i)})
}

// broken adds hosts whose records have been wrong for three days, and are looked at as often as that deserves.
func (s seeded) broken(store *state.Store, origin string) {
	tx := store.Write()
	defer tx.Abort()
	now := time.Now().UTC()
	for i := range s.n {
		// Hourly; the looks are spread.
		next := now.Add(time.Duration(i) * time.Hour / time.Duration(s.n))
		c := fleet.Condition{State: fleet.ConditionWaiting, Reason: fleet.ReasonDNSMissing, Message: "there is no record", Since: now.Add(-72 * time.Hour), NextCheck: next}
		s.put(tx, i, origin, fleet.HostObserved{
			Phase: fleet.PhasePendingDNS, Status: fleet.StatusPending, Ownership: c, Routing: c,
			Certificate: fleet.Condition{State: fleet.ConditionWaiting, Message: "the certificate is ordered once DNS allows it", Since: c.Since},
		})
	}
	tx.Commit()
}

// breaks says how the names of broken are broken: each in one of four ways.
func (s seeded) breaks(name string) (harness.Failure, bool) {
	_, rest, ok := strings.Cut(name, "www."+s.prefix)
	if !ok || len(rest) < 6 {
		return 0, false
	}
	return harness.Failure(rest[5]-'0') % 4, true
}

// authority issued what is served at the beginning.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	a := &authority{key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "loadtest before"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-80 * 24 * time.Hour), NotAfter: now.Add(24 * time.Hour),
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a, nil
}

// roots verify what a issued.
func (a *authority) roots() *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM([]byte(a.pem))
	return p
}

// issue makes a certificate with its sealed key. It does not name its authority's key, so that it is renewed as one whose
// successor replaces nothing that the CA knows.
func (a *authority) issue(kek *keyring.KEK, tenant fleet.TenantID, host fleet.HostName, serial int64, end, due time.Time) (fleet.CertificateRecord, error) {
	var rec fleet.CertificateRecord
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return rec, fmt.Errorf("make key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return rec, fmt.Errorf("encode key: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return rec, fmt.Errorf("encode key: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: a.cert.NotBefore, NotAfter: end, DNSNames: []string{string(host)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key)
	if err != nil {
		return rec, fmt.Errorf("make certificate: %w", err)
	}
	sum := sha256.Sum256(public)
	spki := hex.EncodeToString(sum[:])
	if rec.Key, err = kek.Seal(private, keyring.CertKeyAAD(tenant, host, spki, 1)); err != nil {
		return rec, fmt.Errorf("seal key of %s: %w", host, err)
	}
	now := time.Now().UTC()
	rec.Certificate = fleet.Certificate{
		Host: host, Tenant: tenant, Generation: 1, SPKI: spki, Serial: fmt.Sprintf("%x", serial), Issuer: "CN=" + a.cert.Subject.CommonName,
		Chain:     string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + a.pem,
		NotBefore: leaf.NotBefore.UTC().Truncate(time.Second), NotAfter: end, Renewal: fleet.Renewal{At: due, Source: fleet.RenewalRequested},
		Meta: fleet.Meta{Revision: 1, CreatedAt: now, UpdatedAt: now},
	}
	return rec, nil
}

// active adds hosts that serve, with certificates that are due at a moment and last until another.
func (s seeded) active(store *state.Store, a *authority, kekFile, origin string, due, end time.Time) error {
	kek, err := keyring.LoadKEK(kekFile)
	if err != nil {
		return err
	}
	records := make([]fleet.CertificateRecord, s.n)
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(4)
	const chunk = 512
	for from := 0; from < s.n; from += chunk {
		g.Go(func() error {
			for i := from; i < min(from+chunk, s.n); i++ {
				rec, err := a.issue(kek, s.tenant(i), s.host(i), int64(i+2), end, due)
				if err != nil {
					return err
				}
				mu.Lock()
				records[i] = rec
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	tx := store.Write()
	defer tx.Abort()
	now := time.Now().UTC()
	for i := range s.n {
		ok := fleet.Condition{State: fleet.ConditionTrue, Since: now.Add(-72 * time.Hour), NextCheck: now.Add(time.Hour + time.Duration(i)*time.Hour/time.Duration(s.n))}
		certificate := ok
		certificate.NextCheck = due
		s.put(tx, i, origin, fleet.HostObserved{
			Phase: fleet.PhaseActive, Status: fleet.StatusActive, Challenge: fleet.ChallengeDNS01, VerifiedGeneration: 1, Ownership: ok, Routing: ok, Certificate: certificate,
		})
		tx.PutCertificate(records[i])
	}
	tx.Commit()
	return nil
}

// setRecords does what all the customers of active were asked to do.
func (s seeded) setRecords(w *world) error {
	for i := range s.n {
		h := fleet.Host{Name: s.host(i), Desired: fleet.HostDesired{Label: s.label(i)}}
		if err := w.setRecords(customer{host: h.Name, records: h.Records(harness.Zone)}); err != nil {
			return err
		}
	}
	return nil
}
