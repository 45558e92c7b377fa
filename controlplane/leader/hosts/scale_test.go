package hosts_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/issuance"
)

// slow is a resolver for which names of the tenant big are broken, and take their time to say so.
type slow struct {
	mu        sync.Mutex
	now, most int
	asked     []fleet.HostName
}

func (s *slow) CheckHost(_ context.Context, h fleet.Host, _ fleet.HostName, _ []netip.Addr) (fleet.DNSFinding, error) {
	s.mu.Lock()
	s.now++
	s.most = max(s.most, s.now)
	s.asked = append(s.asked, h.Name)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.now--
		s.mu.Unlock()
	}()
	if h.Tenant == "small" {
		return finding(right, right), nil
	}
	time.Sleep(8 * time.Second) // in a bubble
	return finding(missing, missing), nil
}

func (*slow) Preflight(context.Context, fleet.Host, fleet.HostName, []netip.Addr, fleet.ChallengeType, fleet.CAIdentity) (fleet.DNSVerdict, error) {
	return right, nil
}

func (s *slow) before(h fleet.HostName) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, a := range s.asked {
		if a == h {
			return i
		}
	}
	return -1
}

var (
	right   = fleet.DNSVerdict{OK: true}
	missing = fleet.DNSVerdict{Reason: fleet.ReasonDNSMissing, Message: "no CNAME", Action: "set it"}
)

func finding(certificate, traffic fleet.DNSVerdict) fleet.DNSFinding {
	return fleet.DNSFinding{Certificate: certificate, Traffic: traffic}
}

// broken puts hosts of the tenant big into the state whose records have been wrong for a time, and that are due.
func (m *machine) broken(n int, since time.Duration) {
	at := time.Now().UTC()
	c := fleet.Condition{State: fleet.ConditionWaiting, Reason: fleet.ReasonDNSMissing, Since: at.Add(-since), NextCheck: at}
	tx := m.state.Write()
	for i := range n {
		h := fleet.Host{Name: fleet.HostName(fmt.Sprintf("h%05d.big.example", i)), Tenant: "big", Desired: fleet.HostDesired{Label: fmt.Sprintf("b%d", i)}}
		h.Observed = fleet.HostObserved{Phase: fleet.PhasePendingDNS, Status: fleet.StatusPending, Ownership: c, Routing: c, Certificate: fleet.Condition{State: fleet.ConditionWaiting, Since: c.Since}}
		tx.PutHost(h)
	}
	tx.Commit()
}

func TestBrokenNamesDoNotDelayOthers(t *testing.T) {
	for _, tc := range []struct {
		name  string
		hosts int
		since time.Duration
		// most is after how many others a host of another tenant is looked at.
		most int
	}{
		{"ten thousand that have been broken for a month", 10_000, 30 * 24 * time.Hour, 40},
		{"two thousand that were added now", 2_000, 0, 80},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &slow{}
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				m.tenant(t, "big")
				m.tenant(t, "small")
				m.broken(tc.hosts, tc.since)
				l := scaled(t, m, r)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- l.Run(ctx) }()
				time.Sleep(5 * time.Second)
				r.mu.Lock()
				before := len(r.asked)
				r.mu.Unlock()
				begin := time.Now()
				m.host(t, "small", "new.small.example", "s1")
				m.wait(t, "new.small.example", "an order", func(v *state.View, _ fleet.Host) bool { return len(v.OrdersOf("new.small.example")) > 0 })
				if waited := time.Since(begin); waited > 10*time.Second {
					t.Errorf("it waited for %s", waited)
				}
				if at := r.before("new.small.example"); at < 0 || at-before > tc.most {
					t.Errorf("it was looked at after %d others", at-before)
				}
				time.Sleep(20 * time.Minute) // all of them get their turn
				seen := map[fleet.HostName]bool{}
				r.mu.Lock()
				if r.most > lookups {
					t.Errorf("%d lookups at one time", r.most)
				}
				for _, h := range r.asked {
					seen[h] = seen[h] || strings.HasSuffix(string(h), ".big.example")
				}
				r.mu.Unlock()
				if n := len(seen) - 1; n < min(tc.hosts, 20*60/8*lookups/2-lookups) {
					t.Errorf("only %d of the broken names were looked at", n)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

const lookups = 32

// scaled is a loop over m with a CA that is away.
func scaled(tb testing.TB, m *machine, r hosts.Resolver) *hosts.Loop {
	tb.Helper()
	now := func() time.Time { return time.Now().UTC() }
	fetch := func(fleet.Digest) ([]byte, error) { return nil, fleet.ErrNotFound }
	l, err := hosts.New(hosts.Options{
		State: m.state, Proposer: m, Fetch: fetch, Resolver: r, Authorities: of(&refusing{err: &issuance.Problem{Detail: "away"}}),
		Challenges: &hosts.Challenges{State: m.state, Proposer: m, Fetch: fetch, Now: now}, Sealer: m.kek, Lookups: lookups,
		Handshake: func(context.Context, fleet.HostName, string, []netip.Addr) error { return nil }, Telemetry: observability.Discard(), Now: now,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// BenchmarkWake is one wake of the loop with 100,000 hosts that serve, for a change of one of them.
func BenchmarkWake(b *testing.B) {
	m := newMachine(b)
	m.tenant(b, "big")
	const n = 100_000
	now := time.Now().UTC()
	ok := fleet.Condition{State: fleet.ConditionTrue, Since: now, NextCheck: now.Add(time.Hour)}
	tx := m.state.Write()
	for i := range n {
		h := fleet.Host{Name: fleet.HostName(fmt.Sprintf("h%05d.big.example", i)), Tenant: "big", Desired: fleet.HostDesired{Label: fmt.Sprintf("b%d", i)}}
		c := fleet.Certificate{Host: h.Name, Tenant: "big", Generation: 1, NotBefore: now, NotAfter: now.Add(90 * 24 * time.Hour)}
		certificate := ok
		certificate.NextCheck = c.RenewAt()
		h.Observed = fleet.HostObserved{
			Phase: fleet.PhaseActive, Status: fleet.StatusActive, Challenge: fleet.ChallengeDNS01, VerifiedGeneration: 1, Ownership: ok, Routing: ok, Certificate: certificate,
		}
		tx.PutHost(h)
		tx.PutCertificate(fleet.CertificateRecord{Certificate: c})
	}
	tx.Commit()
	step := hosts.Steps(scaled(b, m, &slow{}))
	for {
		wake, err := step(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if wake.After(time.Now().Add(time.Second)) {
			break
		}
	}
	v := m.state.Read()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		h, _ := v.Host(fleet.HostName(fmt.Sprintf("h%05d.big.example", i%n)))
		i++
		m.must(b, command.HostObserve{Name: h.Name, Tenant: h.Tenant, Observed: h.Observed})
		if _, err := step(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
