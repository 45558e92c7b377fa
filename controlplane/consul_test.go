package controlplane_test

import (
	"context"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/discovery/consultest"
	"github.com/edgefleet/edgefleet/fleet"
)

// withConsul makes a member's configuration look for the others in Consul.
func withConsul(cfg controlplane.Config, address string) controlplane.Config {
	cfg.Consul.Address = address
	cfg.Consul.TTL = 5 * time.Second
	cfg.RetryJoin = []string{"consul", cfg.Advertise + ":1"} // the static one answers nobody
	cfg.ReapAfter = time.Second
	return cfg
}

func TestConsul(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two members and a Consul server")
	}
	t.Parallel()
	s := consultest.Start(t)
	c := &cluster{t: t, kek: filepath.Join(t.TempDir(), "kek")}
	first := withConsul(newConfig(t, "m1", c.kek), s.Address)
	out, err := controlplane.Init(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	c.token = out.Token
	c.cacert, err = os.ReadFile(out.CACert)
	check(t, err)
	c.run(first)
	c.leader()
	const members, edges = "edgefleet-controlplane", "edgefleet-edge"
	health := func(service string, want map[string]string) {
		t.Helper()
		c.await(service+" is registered as it is", func() bool { return maps.Equal(s.Health(service), want) })
	}

	t.Run("a second member finds the first by Consul, and joins for its token alone", func(t *testing.T) {
		health(members, map[string]string{"m1": "passing"})
		s.Register("stranger", members, strings.Split(s.Address, ":")[0], 8500) // no member: the pin sees through it
		tok, err := client.Post[client.JoinTokenCreated](t.Context(), c.client(), "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinMember})
		if err != nil {
			t.Fatal(err)
		}
		second := withConsul(newConfig(t, "m2", c.kek), s.Address)
		var mu sync.Mutex
		var said []string
		joined, err := controlplane.JoinDiscovered(t.Context(), second, tok.Secret, func(line string) { mu.Lock(); defer mu.Unlock(); said = append(said, line) })
		if err != nil || joined != out.Cluster {
			t.Fatal(err, said)
		}
		if text := strings.Join(said, "\n"); strings.Contains(text, strings.Split(tok.Secret, ".")[2]) {
			t.Errorf("progress shows the token: %s", text)
		}
		s.Deregister("stranger")
		c.run(second)
		health(members, map[string]string{"m1": "passing", "m2": "passing"})
	})

	m := c.enrol("n1", "198.51.100.1", 0)
	beat, stop := c.heart(m)
	t.Run("an edge node is registered as its heartbeats say", func(t *testing.T) {
		health(edges, map[string]string{"n1": "passing"})
		leaders, _, err := s.API.Health().Service(members, "leader", true, nil)
		if err != nil || len(leaders) != 1 {
			t.Errorf("%d leaders: %v", len(leaders), err)
		}
		cordon := func(on bool) {
			t.Helper()
			check(t, c.client().Do(t.Context(), http.MethodPatch, "/v1/nodes/n1", nil, client.NodeUpdate{Cordoned: &on}, nil, client.IfMatchAny()))
		}
		cordon(true)
		health(edges, map[string]string{"n1": "maintenance"})
		cordon(false)
		health(edges, map[string]string{"n1": "passing"})
		stop()
		health(edges, map[string]string{"n1": "critical"})
		beat()
		health(edges, map[string]string{"n1": "passing"})
	})

	tenant(t, c.client(), "acme")
	services := func() []fleet.ResolvedOrigin {
		h, err := client.Get[client.HostView](t.Context(), c.client(), "/v1/tenants/acme/hosts/www.acme.example", nil)
		if err != nil {
			return nil
		}
		return h.Services
	}
	resolved := func(state fleet.ConditionState, reason string, want ...string) {
		t.Helper()
		var got []fleet.ResolvedOrigin
		defer func() {
			if t.Failed() {
				t.Logf("%+v", got)
			}
		}()
		c.await("the host has the instances", func() bool {
			got = services()
			var urls []string
			for _, s := range got {
				for _, i := range s.Instances {
					urls = append(urls, i.URL)
				}
			}
			return len(got) == 1 && got[0].Condition.State == state && got[0].Condition.Reason == reason && slices.Equal(urls, want)
		})
	}
	t.Run("a service that is an origin is followed", func(t *testing.T) {
		if _, err := client.Post[client.HostView](t.Context(), c.client(), "/v1/tenants/acme/hosts", client.HostCreate{Name: "www.acme.example", Origins: []fleet.Origin{{URL: "consul://web?scheme=https"}}}); err != nil {
			t.Fatal(err)
		}
		resolved(fleet.ConditionWaiting, fleet.ReasonOriginUnresolved)
		s.Register("w1", "web", "203.0.113.7", 8443)
		resolved(fleet.ConditionTrue, "", "https://203.0.113.7:8443")
		s.Register("w1", "web", "203.0.113.8", 8443)
		s.Register("w2", "web", "10.0.0.1", 8443)
		resolved(fleet.ConditionFalse, fleet.ReasonOriginRefused, "https://203.0.113.8:8443")
		if r := services()[0].Refused; len(r) != 1 || !strings.Contains(r[0].Reason, "--allow-origin 10.0.0.0/8") {
			t.Errorf("refused: %+v", r)
		}
		allow := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		check(t, c.client().Do(t.Context(), http.MethodPatch, "/v1/tenants/acme", nil, client.TenantUpdate{AllowedOrigins: &allow}, nil, client.IfMatchAny()))
		resolved(fleet.ConditionTrue, "", "https://10.0.0.1:8443", "https://203.0.113.8:8443")
		s.Deregister("w2")
		resolved(fleet.ConditionTrue, "", "https://203.0.113.8:8443")
		s.Deregister("w1")
		resolved(fleet.ConditionFalse, fleet.ReasonOriginNoInstance, "https://203.0.113.8:8443")
	})

	t.Run("without Consul writes go on, and what was known stays", func(t *testing.T) {
		s.Kill()
		c.await("the check warns", func() bool {
			p, err := client.Get[client.Page[fleet.Check]](t.Context(), c.client(), "/v1/cluster/checks", nil)
			return err == nil && slices.ContainsFunc(p.Items, func(k fleet.Check) bool {
				return k.Name == "consul" && k.State == fleet.CheckWarn && strings.Contains(k.Detail, "traffic and writes go on")
			})
		})
		tenant(t, c.client(), "meanwhile")
		resolved(fleet.ConditionFalse, fleet.ReasonOriginNoInstance, "https://203.0.113.8:8443")
		res, err := http.Get("http://" + first.AdminListen + "/readyz")
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("not ready: %v %v", res, err)
		} else {
			_ = res.Body.Close()
		}
		s.Begin()
		health(members, map[string]string{"m1": "passing", "m2": "passing"})
		health(edges, map[string]string{"n1": "passing"})
		s.Register("w1", "web", "203.0.113.9", 8443)
		resolved(fleet.ConditionTrue, "", "https://203.0.113.9:8443")
	})

	t.Run("what is revoked, removed or stopped is deregistered", func(t *testing.T) {
		stop()
		check(t, c.client().Do(t.Context(), http.MethodDelete, "/v1/nodes/n1", nil, nil, nil, client.IfMatchAny()))
		health(edges, map[string]string{})
		lead := c.leader()
		other := c.members[1-lead]
		other.stop(t)
		health(members, map[string]string{string(c.members[lead].config.Member): "passing"})
	})
}

// heart sends the heartbeats of a machine to all members from beat on, until stop.
func (c *cluster) heart(m machine) (beat, stop func()) {
	cl := c.node(m, 0)
	var group sync.WaitGroup
	end := func() {}
	beat = func() {
		ctx, cancel := context.WithCancel(c.t.Context())
		end = cancel
		group.Go(func() {
			for ctx.Err() == nil {
				_, _ = client.Post[fleet.HeadSet](ctx, cl, "/v1/edge/poll", reportOf(m.Node)) // the next one counts
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
	stop = func() { end(); group.Wait() }
	c.t.Cleanup(stop)
	beat()
	return beat, stop
}
