package hosts_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/issuance"
)

const firstCA, secondCA = "https://first.example/dir", "https://second.example/dir"

// office is a certificate authority in fake time: it signs, or answers with err.
type office struct {
	key *ecdsa.PrivateKey

	mu    sync.Mutex
	err   error
	asked []time.Time
	hosts []fleet.HostName
	// replaced are the hosts of which a certificate was named that is replaced.
	replaced []fleet.HostName
}

func newOffice(t *testing.T) *office {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &office{key: key}
}

func (o *office) fail(err error) {
	o.mu.Lock()
	o.err = err
	o.mu.Unlock()
}

func (o *office) requests() (at []time.Time, of []fleet.HostName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.asked), slices.Clone(o.hosts)
}

// Issue implements hosts.Issuer.
func (o *office) Issue(ctx context.Context, r issuance.Request) ([]byte, error) {
	if r.URL == "" {
		if err := r.Save(ctx, true, ""); err != nil {
			return nil, err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked, o.hosts = append(o.asked, time.Now()), append(o.hosts, r.Host)
	if r.Replaces != "" {
		o.replaced = append(o.replaced, r.Host)
	}
	if o.err != nil {
		return nil, o.err
	}
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(o.asked))), Subject: pkix.Name{CommonName: "office"}, DNSNames: csr.DNSNames,
		NotBefore: time.Now(), NotAfter: time.Now().Add(90 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, csr.PublicKey, o.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// Renewal implements hosts.Issuer.
func (*office) Renewal(context.Context, []byte) (issuance.Window, bool, error) {
	return issuance.Window{}, false, nil
}

// named is an authority's identity.
func named(domain string) func(context.Context) (fleet.CAIdentity, error) {
	return func(context.Context) (fleet.CAIdentity, error) {
		return fleet.CAIdentity{Domains: []string{domain}}, nil
	}
}

// picky is a Resolver for whom all is right but what CAA forbids.
type picky struct {
	ready
	forbids map[string]bool
}

func (p picky) Preflight(_ context.Context, h fleet.Host, _ fleet.HostName, _ []netip.Addr, _ fleet.ChallengeType, ca fleet.CAIdentity) (fleet.DNSVerdict, error) {
	if p.forbids[ca.Name()+" "+string(h.Name)] {
		return fleet.DNSVerdict{Reason: fleet.ReasonCAAForbidden, Message: "it allows another"}, nil
	}
	return fleet.DNSVerdict{OK: true}, nil
}

// town is a loop with two authorities in fake time.
type town struct {
	*machine
	first, second *office
	stop          func()
	t             *testing.T
	options       hosts.Options
}

// lead starts a loop as a new leader does.
func (w *town) lead() {
	w.t.Helper()
	l, err := hosts.New(w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
}

// pass lets time go by, and everything that is due in it happen.
func (w *town) pass(d time.Duration) {
	time.Sleep(d) // in a bubble
	synctest.Wait()
}

// renew has a host's certificate renewed now.
func (w *town) renew(h fleet.HostName) {
	w.t.Helper()
	c, _ := w.state.Read().Certificate(h)
	w.must(w.t, command.RenewalPlan{Host: h, Generation: c.Generation, Renewal: fleet.Renewal{At: time.Now(), Source: fleet.RenewalRequested}})
}

// served has the certificates count as verified through the edges, of which there are none here.
func (w *town) served() {
	w.t.Helper()
	for _, c := range w.state.Read().Certificates() {
		h, _ := w.state.Read().Host(c.Host)
		h.Observed.VerifiedGeneration = c.Generation
		w.must(w.t, command.HostObserve{Name: h.Name, Tenant: h.Tenant, Observed: h.Observed})
	}
	w.pass(time.Second)
}

func (w *town) certified(h fleet.HostName) string {
	c, _ := w.state.Read().Certificate(h)
	return c.Authority
}

func inTown(t *testing.T, limits hosts.Limits, forbids map[string]bool, test func(*testing.T, *town)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &town{machine: newMachine(t), first: newOffice(t), second: newOffice(t), t: t}
		now := func() time.Time { return time.Now().UTC() }
		fetch := func(fleet.Digest) ([]byte, error) { return nil, fleet.ErrNotFound }
		w.options = hosts.Options{
			State: w.state, Proposer: w.machine, Fetch: fetch, Resolver: picky{true, forbids}, Sealer: w.kek, Now: now, Telemetry: observability.Discard(),
			Authorities: []hosts.Authority{
				{Directory: firstCA, Issuer: w.first, Identity: named("first"), Limits: limits}, {Directory: secondCA, Issuer: w.second, Identity: named("second")},
			},
			Challenges: &hosts.Challenges{State: w.state, Proposer: w.machine, Fetch: fetch, Now: now},
			Handshake:  func(context.Context, fleet.HostName, string, []netip.Addr) error { return nil },
		}
		w.tenant(t, "acme")
		w.tenant(t, "beta")
		w.lead()
		test(t, w)
		w.stop()
	})
}

var (
	errAway    = &issuance.Problem{Type: "serverInternal", Detail: "no service", Status: 503}
	errLimited = &issuance.Problem{Type: "rateLimited", Detail: "too many requests", Status: 429, RetryAfter: 90 * time.Minute}
)

func TestTheSecondAuthorityIsAskedWhenTheFirstHasNotAnsweredThreeTimes(t *testing.T) {
	inTown(t, hosts.Limits{}, map[string]bool{"second only.example.com": true}, func(t *testing.T, w *town) {
		w.first.fail(errAway)
		w.host(t, "acme", "a.example.com", "l1")
		w.pass(time.Hour)
		asked, _ := w.first.requests()
		if w.certified("a.example.com") != secondCA || len(asked) < 3 {
			t.Fatalf("certificate by %q after %d requests of the first authority", w.certified("a.example.com"), len(asked))
		}
		if at, _ := w.second.requests(); len(at) != 1 || at[0].Before(asked[2]) {
			t.Errorf("the second was asked at %v, the first at %v", at, asked)
		}
		if o := w.state.Read().Authority(firstCA); !o.Away() || o.Problem == "" || o.Rest.IsZero() {
			t.Errorf("%+v", o)
		}
		// Where CAA forbids the second, an order waits for the first.
		w.host(t, "acme", "only.example.com", "l2")
		w.pass(time.Hour)
		if _, of := w.second.requests(); slices.Contains(of, "only.example.com") {
			t.Error("an authority was asked that CAA forbids")
		}
		// It goes back to the first when that answers.
		w.first.fail(nil)
		w.pass(time.Hour)
		w.host(t, "acme", "b.example.com", "l3")
		w.pass(time.Minute)
		if got := w.certified("only.example.com") + " " + w.certified("b.example.com"); got != firstCA+" "+firstCA {
			t.Errorf("certificates by %s", got)
		}
		// The renewal goes to the first, which has nothing that it could replace.
		w.renew("a.example.com")
		w.renew("b.example.com")
		w.pass(time.Minute)
		if c, _ := w.state.Read().Certificate("a.example.com"); c.Authority != firstCA || c.Generation != 2 {
			t.Errorf("generation %d by %s", c.Generation, c.Authority)
		}
		if slices.Contains(w.first.replaced, "a.example.com") || !slices.Contains(w.first.replaced, "b.example.com") {
			t.Errorf("the first authority was told of replacing %v", w.first.replaced)
		}
	})
}

func TestAnAuthorityThatCAAForbidsIsNotAsked(t *testing.T) {
	forbids := map[string]bool{"first a.example.com": true, "first b.example.com": true, "second b.example.com": true}
	inTown(t, hosts.Limits{}, forbids, func(t *testing.T, w *town) {
		w.host(t, "acme", "a.example.com", "l1")
		w.host(t, "acme", "b.example.com", "l2")
		w.pass(time.Hour)
		if _, of := w.first.requests(); len(of) != 0 || w.certified("a.example.com") != secondCA {
			t.Errorf("the first was asked for %v; certificate by %q", of, w.certified("a.example.com"))
		}
		h, _ := w.state.Read().Host("b.example.com")
		if _, of := w.second.requests(); slices.Contains(of, "b.example.com") || h.Observed.Certificate.Reason != fleet.ReasonCAAForbidden {
			t.Errorf("the second was asked for %v, %+v", of, h.Observed.Certificate)
		}
	})
}

func TestALimitOfTheAccountHoldsForAllOrdersAndOverAChangeOfLeader(t *testing.T) {
	inTown(t, hosts.Limits{}, nil, func(t *testing.T, w *town) {
		w.first.fail(errLimited)
		w.host(t, "acme", "a.example.com", "l1")
		w.pass(time.Minute)
		at, _ := w.first.requests()
		if len(at) != 1 {
			t.Fatalf("asked at %v", at)
		}
		until := at[0].Add(errLimited.RetryAfter)
		w.stop()
		w.lead()
		w.first.fail(nil)
		w.host(t, "beta", "b.beta.example", "l2")
		w.pass(time.Until(until) - time.Second)
		if at, _ := w.first.requests(); len(at) != 1 {
			t.Fatalf("it was not left alone: asked at %v, allowed at %s", at, until)
		}
		h, _ := w.state.Read().Host("b.beta.example")
		if c := h.Observed.Certificate; c.Reason != fleet.ReasonCARateLimited || !c.NextCheck.Equal(until) {
			t.Errorf("%+v, allowed at %s", c, until)
		}
		w.pass(2 * time.Second)
		if w.certified("a.example.com") != firstCA || w.certified("b.beta.example") != firstCA {
			t.Errorf("not asked as soon as it is allowed: %v", w.state.Read().Orders())
		}
	})
}

func TestALimitOfADomainHoldsForThatNameOnly(t *testing.T) {
	inTown(t, hosts.Limits{}, nil, func(t *testing.T, w *town) {
		w.first.fail(&issuance.Problem{Type: "rateLimited", Detail: `too many certificates (50) already issued for "example.com"`, Status: 429, RetryAfter: 24 * time.Hour})
		w.host(t, "acme", "a.example.com", "l1")
		w.pass(time.Minute)
		w.first.fail(nil)
		w.host(t, "beta", "b.beta.example", "l2")
		w.pass(time.Minute)
		w.served()
		if at, _ := w.first.requests(); len(at) != 2 || w.certified("b.beta.example") != firstCA {
			t.Errorf("asked %d times, certificate by %q", len(at), w.certified("b.beta.example"))
		}
		w.pass(24 * time.Hour)
		if w.certified("a.example.com") != firstCA {
			t.Error("not asked again")
		}
	})
}

func TestBudgetsAreKept(t *testing.T) {
	t.Run("orders of the account, of which some are kept for renewals", func(t *testing.T) {
		inTown(t, hosts.Limits{Orders: 10}, nil, func(t *testing.T, w *town) {
			for i := range 12 {
				w.host(t, []fleet.TenantID{"acme", "beta"}[i%2], fleet.HostName(fmt.Sprintf("h%d.site%d.example", i, i)), fmt.Sprintf("l%d", i))
			}
			w.pass(time.Minute)
			if at, _ := w.first.requests(); len(at) != 9 {
				t.Errorf("%d orders of new hosts, the budget is 10 with one for renewals", len(at))
			}
			_, of := w.first.requests()
			w.renew(of[0])
			w.pass(time.Minute)
			if at, _ := w.first.requests(); len(at) != 10 {
				t.Errorf("%d orders with a renewal", len(at))
			}
			waiting := 0
			for _, h := range w.state.Read().Hosts() {
				if c := h.Observed.Certificate; c.Reason == fleet.ReasonCARateLimited && c.NextCheck.After(time.Now().Add(2*time.Hour)) && c.Message != "" {
					waiting++
				}
			}
			if waiting != 3 {
				t.Errorf("%d hosts say what they wait for", waiting)
			}
			if _, of := w.second.requests(); len(of) != 0 {
				t.Errorf("the second authority was asked for %v", of)
			}
			w.served()
			w.pass(3*time.Hour + 15*time.Minute)
			if n := len(w.state.Read().Certificates()); n != 12 {
				t.Errorf("%d certificates after the window", n)
			}
		})
	})
	t.Run("failures of one name", func(t *testing.T) {
		inTown(t, hosts.Limits{Failures: 2}, nil, func(t *testing.T, w *town) {
			w.first.fail(&issuance.Problem{Type: "dns", Detail: "no TXT", Status: 400, Ended: true})
			w.host(t, "acme", "a.example.com", "l1")
			w.pass(59 * time.Minute)
			if at, _ := w.first.requests(); len(at) != 2 {
				t.Errorf("failed at %v within an hour", at)
			}
			w.pass(5 * time.Hour)
			if at, _ := w.first.requests(); len(at) < 3 {
				t.Errorf("failed at %v", at)
			}
		})
	})
	t.Run("certificates of a registered domain", func(t *testing.T) {
		inTown(t, hosts.Limits{Certificates: 2}, nil, func(t *testing.T, w *town) {
			for i, h := range []fleet.HostName{"a.shop.example.co.uk", "b.example.co.uk", "c.example.co.uk", "other.co.uk"} {
				w.host(t, "acme", h, fmt.Sprintf("l%d", i))
				w.pass(time.Minute)
				w.served()
			}
			if _, of := w.first.requests(); !slices.Equal(of, []fleet.HostName{"a.shop.example.co.uk", "b.example.co.uk", "other.co.uk"}) {
				t.Errorf("asked for %v", of)
			}
			w.pass(7 * 24 * time.Hour)
			if w.certified("c.example.co.uk") != firstCA {
				t.Error("no certificate after a week")
			}
		})
	})
}

func TestAnAuthorityThatIsAwayForDaysIsAskedSeldomAndNotByAllAtOnceWhenItIsBack(t *testing.T) {
	inTown(t, hosts.Limits{}, nil, func(t *testing.T, w *town) {
		const names, days = 24, 2
		w.host(t, "acme", "old.example.com", "old")
		w.pass(time.Minute)
		w.served()
		w.first.fail(errAway)
		w.second.fail(errAway)
		for i := range names {
			w.host(t, "acme", fleet.HostName(fmt.Sprintf("h%d.example.com", i)), fmt.Sprintf("l%d", i))
		}
		w.renew("old.example.com")
		w.pass(days * 24 * time.Hour)
		for _, o := range []*office{w.first, w.second} {
			// One probe a rest, which is seven to fifteen minutes.
			if at, _ := o.requests(); len(at) > days*24*60/7+names || len(at) < days*24*60/60 {
				t.Errorf("asked %d times in %d days", len(at), days)
			}
		}
		if c, ok := w.state.Read().Certificate("old.example.com"); !ok || c.Generation != 1 {
			t.Errorf("the old certificate is %+v", c)
		}
		if h, _ := w.state.Read().Host("h1.example.com"); h.Observed.Certificate.Reason != fleet.ReasonCAUnavailable || h.Observed.Certificate.Message == "" {
			t.Errorf("%+v", h.Observed.Certificate)
		}
		back := time.Now()
		w.first.fail(nil)
		w.pass(2 * time.Hour)
		at, _ := w.first.requests()
		at = slices.DeleteFunc(at, func(t time.Time) bool { return t.Before(back) })
		if n := len(w.state.Read().Certificates()); n != names+1 || len(at) == 0 {
			t.Fatalf("%d certificates, asked %d times since it is back", n, len(at))
		}
		for i := range at {
			if i >= names/3 && at[i].Sub(at[i-names/3]) < 5*time.Second {
				t.Fatalf("a third of all orders within %s", at[i].Sub(at[i-names/3]))
			}
		}
		if a := w.state.Read().Authority(firstCA); a.Away() || !a.Rest.IsZero() {
			t.Errorf("%+v", a)
		}
	})
}
