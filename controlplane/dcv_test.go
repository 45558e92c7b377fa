package controlplane_test

import (
	"context"
	"slices"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// serve answers for the zone on loopback, until the test ends.
func (z *edgeZone) serve(t *testing.T) (addr string) {
	t.Helper()
	s, err := dns.Listen(dns.Options{Listen: "127.0.0.1:0", Source: z.src, Telemetry: observability.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.Addr().String()
}

// txt asks for the values at the name that a certificate record leads to.
func txt(t *testing.T, server string, h fleet.Host) (values []string, rcode int) {
	t.Helper()
	m := new(mdns.Msg)
	m.SetQuestion(h.DCVName("edge.example")+".", mdns.TypeTXT)
	c := mdns.Client{Timeout: 10 * time.Second}
	a, _, err := c.ExchangeContext(t.Context(), m, server)
	if err != nil {
		t.Fatal(err)
	}
	for _, rr := range a.Answer {
		if v, ok := rr.(*mdns.TXT); ok {
			values = append(values, v.Txt...)
		}
	}
	slices.Sort(values)
	return values, a.Rcode
}

func TestANameAndItsWildcardShareTheirCertificateRecord(t *testing.T) {
	z := newEdgeZone(t)
	server := z.serve(t)
	base := fleet.Host{Name: "shop.example.com", Tenant: "acme", Desired: fleet.HostDesired{Label: "base"}}
	wild := fleet.Host{Name: "*.shop.example.com", Tenant: "acme", Desired: fleet.HostDesired{Label: "wild", DCVLabel: "base"}}
	if b, w := base.Records("edge.example")[0], wild.Records("edge.example")[0]; b != w {
		t.Errorf("two records at one name: %+v, %+v", b, w)
	}
	answer := func(h fleet.Host, response string) fleet.Challenge {
		return fleet.Challenge{Host: h.Name, Tenant: h.Tenant, Type: fleet.ChallengeDNS01, Token: response, Response: response}
	}
	z.write(func(tx *state.Tx) {
		for _, h := range []fleet.Host{base, wild} {
			tx.PutHost(h)
			tx.PutLabel(fleet.Label{Label: h.Desired.Label, Host: h.Name})
		}
		tx.PutChallenge(answer(base, "for-the-name"))
		tx.PutChallenge(answer(wild, "for-the-wildcard"))
	})
	expect := func(what string, h fleet.Host, rcode int, want ...string) {
		t.Helper()
		if got, code := txt(t, server, h); !slices.Equal(got, want) || code != rcode {
			t.Errorf("%s: %q (%s), want %q", what, got, mdns.RcodeToString[code], want)
		}
	}
	own := wild
	own.Desired.DCVLabel = ""
	expect("two orders at one time", base, mdns.RcodeSuccess, "for-the-name", "for-the-wildcard")
	expect("the wildcard's own label", own, mdns.RcodeNameError)
	z.write(func(tx *state.Tx) { tx.DeleteChallenge(base.Name, fleet.ChallengeDNS01, "for-the-name") })
	expect("one order is done", base, mdns.RcodeSuccess, "for-the-wildcard")

	// The customer's record stays when the name goes, and so does what it leads to.
	z.write(func(tx *state.Tx) { tx.DeleteHost(base.Name) })
	expect("the name was deleted", wild, mdns.RcodeSuccess, "for-the-wildcard")
	z.answers(t, "base")
	z.answers(t, "wild", "198.51.100.1", "198.51.100.2")
	if got := slices.Sorted(z.src.Labels()); !slices.Equal(got, []string{"all", "base", "eu", "wild"}) {
		t.Errorf("labels to transfer: %q", got)
	}
	z.write(func(tx *state.Tx) { tx.DeleteHost(wild.Name) })
	expect("both were deleted", base, mdns.RcodeNameError)
	if got := slices.Sorted(z.src.Labels()); !slices.Equal(got, []string{"all", "eu"}) {
		t.Errorf("labels to transfer: %q", got)
	}
}

// A CNAME that its owner left behind must not lead to whoever comes next (takeover of a dangling CNAME).
func TestTheRecordsOfADeletedHostLeadNowhere(t *testing.T) {
	z := newEdgeZone(t)
	server := z.serve(t)
	old := fleet.Host{Name: "shop.example.com", Tenant: "acme", Desired: fleet.HostDesired{Label: "old"}}
	next := fleet.Host{Name: old.Name, Tenant: "beta", Desired: fleet.HostDesired{Label: "next"}}
	ask := func(label string) int {
		m := new(mdns.Msg)
		m.SetQuestion(label+".edge.example.", mdns.TypeA)
		c := mdns.Client{Timeout: 10 * time.Second}
		a, _, err := c.ExchangeContext(t.Context(), m, server)
		if err != nil {
			t.Fatal(err)
		}
		return a.Rcode
	}
	z.write(func(tx *state.Tx) {
		tx.PutHost(old)
		tx.PutLabel(fleet.Label{Label: "old", Host: old.Name})
	})
	if got := ask("old"); got != mdns.RcodeSuccess {
		t.Fatal(mdns.RcodeToString[got])
	}
	deleting := old
	deleting.Desired.DeletingSince = time.Now()
	z.write(func(tx *state.Tx) { tx.PutHost(deleting) })
	for what, change := range map[string]func(*state.Tx){
		"while it is being deleted": func(*state.Tx) {},
		"when it is gone":           func(tx *state.Tx) { tx.DeleteHost(old.Name) },
	} {
		z.write(change)
		if got := ask("old"); got != mdns.RcodeNameError {
			t.Errorf("%s: %s", what, mdns.RcodeToString[got])
		}
	}
	z.write(func(tx *state.Tx) {
		tx.DeleteHost(old.Name)
		tx.PutTenant(fleet.Tenant{ID: "beta", Spec: fleet.TenantSpec{Group: "default"}})
		tx.PutHost(next)
		tx.PutLabel(fleet.Label{Label: "next", Host: next.Name})
		tx.PutChallenge(fleet.Challenge{Host: next.Name, Tenant: "beta", Type: fleet.ChallengeDNS01, Token: "t", Response: "beta's"})
	})
	if got := ask("old"); got != mdns.RcodeNameError {
		t.Errorf("another tenant has the name: %s", mdns.RcodeToString[got])
	}
	if values, code := txt(t, server, old); code != mdns.RcodeNameError || len(values) != 0 {
		t.Errorf("the certificate record of the old label: %q, %s", values, mdns.RcodeToString[code])
	}
	if got := ask("next"); got != mdns.RcodeSuccess {
		t.Errorf("its own label: %s", mdns.RcodeToString[got])
	}
}
