package hosts_test

import (
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/dns/check"
	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/issuance/pebbletest"
)

func TestTLSALPN01IsTheLastChoiceWherePort80IsClosed(t *testing.T) {
	w := newWorld(t)
	closed := uint16(1) // nobody listens there
	w.background(w.loop(func(o *hosts.Options) {
		o.Resolver = &check.Resolver{Servers: []string{w.resolver}, HTTPPort: closed}
	}).Run)
	vias := make(chan fleet.ChallengeType, 1)
	h := w.host(t, "acme", "handshake.example.com", "l1")
	w.set(h.Records(zone)[1])
	w.wait(t, h.Name, "an answer to a challenge", func(v *state.View, _ fleet.Host) bool {
		all := v.Challenges()
		if len(all) == 0 {
			return false
		}
		vias <- all[0].Type
		return true
	})
	if via := <-vias; via != fleet.ChallengeTLSALPN01 {
		t.Errorf("the challenge is %s", via)
	}
	w.wait(t, h.Name, "active", active)
	if n := w.ca.Orders(); n != 1 {
		t.Errorf("%d orders at the CA", n)
	}
	w.wait(t, h.Name, "no challenges", func(v *state.View, _ fleet.Host) bool { return len(v.Challenges()) == 0 })
}

func TestAWildcardIsCertifiedByDNS01(t *testing.T) {
	w := newWorld(t)
	w.background(w.loop(nil).Run)
	h := w.host(t, "acme", "*.shop.example.com", "lw")
	w.set(h.Records(zone)[0])
	w.wait(t, h.Name, "a certificate", func(v *state.View, h fleet.Host) bool {
		_, ok := v.Certificate(h.Name)
		return ok
	})
	c, _ := w.state.Read().Certificate(h.Name)
	if err := leafOf(t, c).VerifyHostname("anything.shop.example.com"); err != nil {
		t.Error(err)
	}
	if w.ca.Orders() != 1 {
		t.Errorf("%d orders at the CA", w.ca.Orders())
	}
}

func TestBadNoncesAndSlowValidationCostNoOrder(t *testing.T) {
	w := newWorldWith(t, pebbletest.Options{RejectNonces: 20, Slow: true})
	w.background(w.loop(nil).Run)
	var names []fleet.HostName
	for i, label := range []string{"la", "lb", "lc"} {
		h := w.host(t, "acme", fleet.HostName(label+".example.com"), label)
		w.set(h.Records(zone)[i%2], h.Records(zone)[1])
		names = append(names, h.Name)
	}
	for _, n := range names {
		w.wait(t, n, "active", active)
		c, _ := w.state.Read().Certificate(n)
		if c.Generation != 1 || time.Until(c.NotAfter) <= 0 || c.Authority != w.ca.Directory {
			t.Errorf("%s: generation %d until %s by %s", n, c.Generation, c.NotAfter, c.Authority)
		}
	}
	if n := w.ca.Orders(); n != len(names) {
		t.Errorf("%d orders at the CA for %d names", n, len(names))
	}
	if a := w.state.Read().Authority(w.ca.Directory); a.Away() {
		t.Errorf("%+v", a)
	}
}
