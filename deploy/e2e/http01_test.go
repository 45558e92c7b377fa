package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// addHost protects a host of the demo tenant.
func (f *wholeFleet) addHost(t *testing.T, name fleet.HostName, origin string) client.HostView {
	t.Helper()
	in := client.HostCreate{Name: string(name), Origins: []fleet.Origin{{URL: origin}}, Mode: fleet.ModeBlock}
	h, err := client.Post[client.HostView](t.Context(), f.tenant(t), tenantPath(f.Tenant, "hosts"), in)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// awaitHost waits until a host is as ok wants it.
func (f *wholeFleet) awaitHost(t *testing.T, name fleet.HostName, what string, ok func(fleet.HostObserved) bool) fleet.HostObserved {
	t.Helper()
	c, path := f.tenant(t), tenantPath(f.Tenant, "hosts/"+string(name))
	var last client.HostView
	defer func() {
		if t.Failed() {
			t.Logf("%s: %+v", name, last.Observed)
		}
	}()
	await(t, fmt.Sprintf("%s is %s", name, what), func() bool {
		h, err := client.Get[client.HostView](t.Context(), c, path, nil)
		if err == nil {
			last = h
		}
		return err == nil && ok(h.Observed)
	})
	return last.Observed
}

func active(o fleet.HostObserved) bool { return o.Status == fleet.StatusActive }

// record is the DNS record of a purpose that the owner of a host is asked to set.
func record(t *testing.T, h client.HostView, purpose string) fleet.Record {
	t.Helper()
	for _, r := range h.Records {
		if r.Purpose == purpose {
			return r
		}
	}
	t.Fatalf("no record for %s among %v", purpose, h.Records)
	return fleet.Record{}
}

// visitors are one for each edge.
func (f *wholeFleet) visitors(t *testing.T, host fleet.HostName) []visitor {
	t.Helper()
	var vs []visitor
	for _, e := range f.Edges {
		vs = append(vs, newVisitor(t, host, e.Address, pool(t, f.ACMERoots)))
	}
	return vs
}

func TestHTTP01(t *testing.T) {
	t.Parallel()
	f := sharedFleet(t)
	const name fleet.HostName = "www.shop.example"
	h := f.addHost(t, name, f.Origin)
	traffic := record(t, h, "traffic")
	f.setDNS(t, traffic.Name, traffic.Type, traffic.Value)
	o := f.awaitHost(t, name, "active", active)
	if o.Challenge != fleet.ChallengeHTTP01 {
		t.Errorf("challenge %q", o.Challenge)
	}
	vs := f.visitors(t, name)
	if len(vs) < 2 {
		t.Fatalf("%d edges", len(vs))
	}
	for _, v := range vs {
		if status, body, err := v.get(t.Context(), "https", "/hello"); err != nil || status != http.StatusOK || !strings.Contains(body, "origin of "+string(name)) {
			t.Errorf("%s: %d %q %v", v.edge, status, body, err)
		}
		const unknown = "/.well-known/acme-challenge/of-the-customers-own-client"
		for _, scheme := range []string{"http", "https"} {
			if status, body, err := v.get(t.Context(), scheme, unknown); err != nil || status != http.StatusOK || !strings.Contains(body, "saw GET "+unknown) {
				t.Errorf("%s: an unknown token over %s: %d %q %v", v.edge, scheme, status, body, err)
			}
		}
	}
	f.holdsAudit(t, name)
	f.holdsEvents(t, name, vs)
}

// holdsAudit looks for what happened to the host: claimed, a challenge published and withdrawn, a certificate committed.
// The chain of all entries must hold, and no order of the host may be by DNS or fail.
func (f *wholeFleet) holdsAudit(t *testing.T, name fleet.HostName) {
	t.Helper()
	var entries []fleet.AuditEntry
	for next := "0"; next != ""; {
		p, err := client.Get[client.Page[fleet.AuditEntry]](t.Context(), f.operator(t), "/v1/audit", map[string][]string{"cursor": {next}, "limit": {"100"}})
		if err != nil {
			t.Fatal(err)
		}
		entries, next = append(entries, p.Items...), p.Next
	}
	if err := fleet.VerifyAudit(entries); err != nil {
		t.Error(err)
	}
	var seen []string
	for _, e := range entries {
		if !strings.Contains(e.Object, string(name)) && !strings.Contains(string(e.After), string(name)) {
			continue
		}
		seen = append(seen, e.Operation+" "+e.Object)
		var order fleet.Order
		if e.Operation == "order_put" && (json.Unmarshal(e.After, &order) != nil || order.Challenge != fleet.ChallengeHTTP01 || order.Problem != "") {
			t.Errorf("order %s", e.After)
		}
	}
	rest := seen
	for _, want := range []string{"host_put", "order_put", "challenge_put", "challenge_delete", "certificate_commit"} {
		i := 0
		for i < len(rest) && !strings.HasPrefix(rest[i], want+" ") {
			i++
		}
		if i == len(rest) {
			t.Fatalf("no %s in its place in the audit log of %s: %q", want, name, seen)
		}
		if want != "challenge_delete" { // it is cleaned up before or after the certificate is committed
			rest = rest[i+1:]
		}
	}
}

// holdsEvents attacks through each edge and waits for the events.
func (f *wholeFleet) holdsEvents(t *testing.T, name fleet.HostName, vs []visitor) {
	t.Helper()
	c := f.tenant(t)
	for i, v := range vs {
		page := marker("http01")
		v.wants(t, http.StatusForbidden, attack(page))
		var e fleet.Event
		await(t, "the event of "+page, func() (ok bool) {
			e, ok = eventOf(t, c, f.Tenant, page)
			return ok
		})
		if e.Host != name || e.Status != fleet.Blocked || string(e.NodeID) != f.Edges[i].ID {
			t.Errorf("event %+v", e)
		}
	}
}

func TestWrongDNSIsExplainedAndCorrected(t *testing.T) {
	t.Parallel()
	f := sharedFleet(t)
	const name fleet.HostName = "wrong.shop.example"
	h := f.addHost(t, name, f.Origin)
	cert, traffic := record(t, h, "certificate"), record(t, h, "traffic")
	f.setDNS(t, cert.Name, cert.Type, "somewhere.example")
	o := f.awaitHost(t, name, "told about both records", func(o fleet.HostObserved) bool {
		return o.Ownership.Reason == fleet.ReasonDNSWrongTarget && o.Routing.Reason == fleet.ReasonDNSMissing
	})
	explains(t, o.Ownership, "set "+cert.Name+" CNAME "+cert.Value, "somewhere.example")
	explains(t, o.Routing, "set "+traffic.Name+" CNAME "+traffic.Value, "no CNAME and no address")
	if o.Status != fleet.StatusPending || o.Phase != fleet.PhasePendingDNS || o.Challenge != "" {
		t.Errorf("status %s, phase %s, challenge %q", o.Status, o.Phase, o.Challenge)
	}
	f.setDNS(t, traffic.Name, "A", "192.0.2.7")
	o = f.awaitHost(t, name, "told about the address", func(o fleet.HostObserved) bool { return o.Routing.Reason == fleet.ReasonDNSWrongTarget })
	explains(t, o.Routing, "set "+traffic.Name+" CNAME "+traffic.Value, "192.0.2.7")

	f.setDNS(t, traffic.Name, "A")
	f.setDNS(t, traffic.Name, traffic.Type, traffic.Value)
	f.setDNS(t, cert.Name, cert.Type, cert.Value)
	if _, err := client.Post[client.HostView](t.Context(), f.tenant(t), tenantPath(f.Tenant, "hosts/"+string(name)+"/check"), nil); err != nil {
		t.Error(err)
	}
	if o = f.awaitHost(t, name, "active", active); o.Challenge != fleet.ChallengeDNS01 || o.Ownership.Action+o.Routing.Action != "" {
		t.Errorf("%+v", o)
	}
	for _, v := range f.visitors(t, name) {
		v.wants(t, http.StatusOK, "/")
	}
}

// explains holds what a condition tells a person against what to do and what is seen.
func explains(t *testing.T, c fleet.Condition, action, seen string) {
	t.Helper()
	if c.Action != action || !strings.Contains(c.Message, seen) || c.State != fleet.ConditionWaiting || c.NextCheck.IsZero() {
		t.Errorf("condition %+v; want action %q and a message with %q", c, action, seen)
	}
}
