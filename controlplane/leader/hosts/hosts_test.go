package hosts_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/issuance"
)

func ders(chain string) [][]byte {
	var out [][]byte
	for rest := []byte(chain); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return out
		}
		out = append(out, b.Bytes)
	}
}

// leafOf is what a certificate says.
func leafOf(t *testing.T, c fleet.CertificateRecord) *x509.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(ders(c.Chain)[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// listenAll serves on one port of every edge's address.
func listenAll(t *testing.T, serve func(net.Listener)) uint16 {
	t.Helper()
	for range 20 {
		first, err := net.Listen("tcp", edgeAddrs["n1"].String()+":0")
		if err != nil {
			t.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", net.JoinHostPort(edgeAddrs["n2"].String(), strconv.Itoa(port)))
		if err != nil {
			_ = first.Close()
			continue
		}
		for _, l := range []net.Listener{first, second} {
			go serve(l)
			t.Cleanup(func() { _ = l.Close() })
		}
		return uint16(port)
	}
	t.Fatal("no port is free on both addresses")
	return 0
}

func active(_ *state.View, h fleet.Host) bool { return h.Observed.Status == fleet.StatusActive }

func TestHostsBecomeActiveAgainstARealCA(t *testing.T) {
	w := newWorld(t)
	l := w.loop(nil)
	w.background(l.Run)

	t.Run("by the certificate record, before traffic moves, and then with it", func(t *testing.T) {
		h := w.host(t, "acme", "dns.example.com", "l1")
		got := w.wait(t, h.Name, "waiting for its records", func(_ *state.View, h fleet.Host) bool { return h.Observed.Phase == fleet.PhasePendingDNS })
		if o := got.Observed.Ownership; o.Reason != fleet.ReasonDNSMissing || o.Action != "set _acme-challenge.dns.example.com CNAME l1.dcv.edge.example" || o.NextCheck.IsZero() {
			t.Errorf("ownership %+v", o)
		}
		records := h.Records(zone)
		w.set(records[0])
		got = w.wait(t, h.Name, "a verified certificate", func(_ *state.View, h fleet.Host) bool { return h.Observed.Phase == fleet.PhaseActive })
		if got.Observed.Challenge != fleet.ChallengeDNS01 || got.Observed.Status != fleet.StatusPending || got.Observed.Certificate.State != fleet.ConditionTrue {
			t.Errorf("before traffic: %+v", got.Observed)
		}
		w.set(records[1])
		got = w.wait(t, h.Name, "active", active)
		c, _ := w.state.Read().Certificate(h.Name)
		if c.Generation != 1 || got.Observed.VerifiedGeneration != 1 || !got.Observed.Certificate.NextCheck.Equal(c.RenewAt()) || len(w.state.Read().OrdersOf(h.Name)) != 0 {
			t.Errorf("%+v with certificate generation %d", got.Observed, c.Generation)
		}
	})
	t.Run("by traffic alone", func(t *testing.T) {
		h := w.host(t, "acme", "http.example.com", "l2")
		w.set(h.Records(zone)[1])
		if got := w.wait(t, h.Name, "active", active); got.Observed.Challenge != fleet.ChallengeHTTP01 {
			t.Errorf("%+v", got.Observed)
		}
	})
	t.Run("a name and the wildcard over it by one certificate record", func(t *testing.T) {
		name, wildcard := w.host(t, "acme", "both.example.com", "l3"), w.host(t, "acme", "*.both.example.com", "l4")
		record := name.Records(zone)[0]
		if other := wildcard.Records(zone)[0]; record != other {
			t.Fatalf("two records: %+v, %+v", record, other)
		}
		w.set(record)
		for _, h := range []fleet.Host{name, wildcard} {
			w.wait(t, h.Name, "a certificate", func(v *state.View, _ fleet.Host) bool {
				_, ok := v.Certificate(h.Name)
				return ok
			})
		}
	})
	t.Run("renewal gets a new key and is verified again", func(t *testing.T) {
		before, _ := w.state.Read().Certificate("dns.example.com")
		w.mu.Lock()
		w.skew = 62 * 24 * time.Hour
		w.mu.Unlock()
		l.Check("dns.example.com")
		got := w.wait(t, "dns.example.com", "its second certificate", func(_ *state.View, h fleet.Host) bool { return h.Observed.VerifiedGeneration == 2 })
		after, _ := w.state.Read().Certificate("dns.example.com")
		if after.SPKI == before.SPKI || after.Generation != 2 || got.Observed.Phase != fleet.PhaseRenewing { // by the clock here, the next one is due
			t.Errorf("generation %d, %+v", after.Generation, got.Observed)
		}
	})
	t.Run("a handshake sees another key, and an edge that is away", func(t *testing.T) {
		shake := hosts.NewHandshake(w.ca.IssuerRoots(t), w.secure)
		if err := shake(t.Context(), "http.example.com", "other", []netip.Addr{edgeAddrs["n1"]}); !errors.Is(err, fleet.ErrStale) {
			t.Errorf("another key: %v", err)
		}
		if err := shake(t.Context(), "nobody.example.com", "x", []netip.Addr{edgeAddrs["n1"]}); err == nil {
			t.Error("no certificate is no error")
		}
		if err := shake(t.Context(), "http.example.com", "x", []netip.Addr{netip.MustParseAddr("127.0.0.99")}); err == nil {
			t.Error("an edge that is away is no error")
		}
	})
	w.wait(t, "dns.example.com", "no challenges", func(v *state.View, _ fleet.Host) bool { return len(v.Challenges()) == 0 })
}

// stalled is an Issuer that never finishes.
type stalled struct{ called chan fleet.HostName }

func (s stalled) Issue(ctx context.Context, r issuance.Request) ([]byte, error) {
	s.called <- r.Host
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func (stalled) Renewal(context.Context, []byte) (issuance.Window, bool, error) {
	return issuance.Window{}, false, nil
}

func TestANewLeaderGoesOnWithTheSameKey(t *testing.T) {
	w := newWorld(t)
	h := w.host(t, "acme", "api.example.com", "l1")
	w.set(h.Records(zone)...)
	s := stalled{make(chan fleet.HostName, 1)}
	first := w.loop(func(o *hosts.Options) { o.Authorities[0].Issuer = s })
	ctx, lose := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- first.Run(ctx) }()
	<-s.called
	w.must(t, command.ChallengePut{Challenge: fleet.Challenge{Type: fleet.ChallengeHTTP01, Host: h.Name, Token: "left-behind", Response: "x"}})
	lose()
	if err := <-done; err != nil {
		t.Fatalf("losing leadership: %v", err)
	}
	orders := w.state.Read().OrdersOf(h.Name)
	if len(orders) != 1 || orders[0].Attempts != 0 {
		t.Fatalf("orders %+v", orders)
	}

	w.background(w.loop(nil).Run)
	w.wait(t, h.Name, "active", active)
	c, _ := w.state.Read().Certificate(h.Name)
	if c.SPKI != orders[0].SPKI || c.Generation != orders[0].Generation {
		t.Errorf("certificate for another key than the order's")
	}
	w.wait(t, h.Name, "no challenges", func(v *state.View, _ fleet.Host) bool { return len(v.Challenges()) == 0 })
}

// ready is a Resolver for whom all records are right, or none.
type ready bool

func (r ready) CheckHost(context.Context, fleet.Host, fleet.HostName, []netip.Addr) (fleet.DNSFinding, error) {
	v := fleet.DNSVerdict{OK: bool(r), Reason: fleet.ReasonDNSMissing, Message: "no CNAME"}
	if r {
		v = fleet.DNSVerdict{OK: true}
	}
	return fleet.DNSFinding{Certificate: v, Traffic: v}, nil
}

func (ready) Preflight(context.Context, fleet.Host, fleet.HostName, []netip.Addr, fleet.ChallengeType, fleet.CAIdentity) (fleet.DNSVerdict, error) {
	return fleet.DNSVerdict{OK: true}, nil
}

// refusing is an Issuer that notes who asks, takes a while, and fails.
type refusing struct {
	mu    sync.Mutex
	err   error
	asked []fleet.HostName
	at    []time.Time
	most  int
	now   int
}

func (r *refusing) Issue(_ context.Context, q issuance.Request) ([]byte, error) {
	r.mu.Lock()
	r.asked, r.at = append(r.asked, q.Host), append(r.at, time.Now())
	r.now++
	r.most = max(r.most, r.now)
	r.mu.Unlock()
	time.Sleep(time.Second) // in a bubble
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now--
	if r.err == nil {
		panic("a defect")
	}
	return nil, r.err
}

func (*refusing) Renewal(context.Context, []byte) (issuance.Window, bool, error) {
	return issuance.Window{}, false, nil
}

func (r *refusing) times() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.at)
}

// bubble runs test with a loop over m in fake time.
func bubble(t *testing.T, issuer hosts.Issuer, records ready, workers int, test func(t *testing.T, m *machine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		now := func() time.Time { return time.Now().UTC() }
		fetch := func(fleet.Digest) ([]byte, error) { return nil, fleet.ErrNotFound }
		l, err := hosts.New(hosts.Options{
			State: m.state, Proposer: m, Fetch: fetch, Resolver: records, Authorities: of(issuer),
			Challenges: &hosts.Challenges{State: m.state, Proposer: m, Fetch: fetch, Now: now}, Sealer: m.kek, Workers: workers,
			Handshake: func(context.Context, fleet.HostName, string, []netip.Addr) error { return nil }, Telemetry: observability.Discard(), Now: now,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := m.loop
		m.tenant(t, "big")
		m.tenant(t, "small")
		go func() { done <- l.Run(ctx) }()
		test(t, m)
		cancel()
		if err := <-done; err != nil && !errors.Is(err, fleet.ErrUnavailable) {
			t.Error(err)
		}
	})
}

func TestWorkersAreBoundedAndFair(t *testing.T) {
	r := &refusing{err: &issuance.Problem{Type: "dns", Detail: "no", Status: 400}}
	bubble(t, r, true, 2, func(t *testing.T, m *machine) {
		for _, n := range []fleet.HostName{"a.big.example", "b.big.example", "c.big.example", "d.big.example", "e.big.example", "f.big.example"} {
			m.host(t, "big", n, string(n[0])+"1")
		}
		m.host(t, "small", "only.small.example", "s1")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if r.most != 2 || len(r.asked) != 7 {
			t.Errorf("%d at one time, asked %v", r.most, r.asked)
		}
		for i, h := range r.asked {
			if h == "only.small.example" && i > 3 {
				t.Errorf("the small tenant waited for %d orders of the big one", i)
			}
		}
	})
}

func TestFailuresBackOff(t *testing.T) {
	for _, tc := range []struct {
		name   string
		err    error
		reason string
		// pauses are the least and the most between attempts.
		least, most []time.Duration
	}{
		{
			"validation failures", &issuance.Problem{Type: "dns", Detail: "no TXT", Status: 400}, fleet.ReasonCARejected,
			[]time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour},
			[]time.Duration{2 * time.Minute, 11 * time.Minute, 101 * time.Minute, 25 * time.Hour},
		},
		{
			"a rate limit is obeyed exactly", &issuance.Problem{Type: "rateLimited", Detail: "slow down", Status: 429, RetryAfter: 3 * time.Hour}, fleet.ReasonCARateLimited,
			[]time.Duration{3 * time.Hour, 3 * time.Hour},
			[]time.Duration{3*time.Hour + 2*time.Second, 3*time.Hour + 2*time.Second},
		},
		{
			"a CA that is away is asked again soon", &issuance.Problem{Detail: "connection refused"}, fleet.ReasonCAUnavailable,
			[]time.Duration{30 * time.Second, 5 * time.Minute, time.Minute}, // from the third on, the CA rests for all
			[]time.Duration{92 * time.Second, 16 * time.Minute, 5 * time.Minute},
		},
		{"a panic is a failure of that host", nil, fleet.ReasonCAUnavailable, []time.Duration{30 * time.Second}, []time.Duration{92 * time.Second}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &refusing{err: tc.err}
			bubble(t, r, true, 4, func(t *testing.T, m *machine) {
				m.host(t, "big", "a.big.example", "a1")
				for minutes := 0; len(r.times()) <= len(tc.least) && minutes < 3*24*60; minutes++ {
					time.Sleep(time.Minute)
					synctest.Wait()
				}
				at := r.times()
				var out []string
				for i, least := range tc.least {
					if i+1 >= len(at) {
						out = append(out, "no attempt")
						continue
					}
					if d := at[i+1].Sub(at[i]); d < least || d > tc.most[i] {
						out = append(out, d.String())
					}
				}
				if d := cmp.Diff([]string(nil), out); d != "" {
					t.Errorf("pauses: %s", d)
				}
				h, _ := m.state.Read().Host("a.big.example")
				if c := h.Observed.Certificate; c.Reason != tc.reason || c.State != fleet.ConditionFalse || c.Message == "" {
					t.Errorf("certificate %+v", c)
				}
				if orders := m.state.Read().OrdersOf(h.Name); len(orders) != 1 {
					t.Errorf("%d orders: each attempt must use the same key", len(orders))
				}
			})
		})
	}
}

func TestTheLoopEndsWithoutAQuorum(t *testing.T) {
	bubble(t, &refusing{}, false, 1, func(t *testing.T, m *machine) {
		m.host(t, "big", "a.big.example", "a1")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		m.mu.Lock()
		m.down = true
		m.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-m.loop:
			if !errors.Is(err, fleet.ErrUnavailable) {
				t.Errorf("ended with %v", err)
			}
			m.loop <- err
		default:
			t.Error("still runs")
		}
	})
}

func TestADeletedHostIsForgotten(t *testing.T) {
	r := &refusing{err: &issuance.Problem{Type: "dns", Detail: "no", Status: 400}}
	bubble(t, r, true, 1, func(t *testing.T, m *machine) {
		m.host(t, "big", "a.big.example", "a1")
		time.Sleep(500 * time.Millisecond)
		m.must(t, command.HostDelete{Name: "a.big.example", Tenant: "big"})
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(r.asked) != 1 || len(m.state.Read().Orders()) != 0 {
			t.Errorf("asked %v, orders %v", r.asked, m.state.Read().Orders())
		}
	})
}
