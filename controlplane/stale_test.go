package controlplane_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestALeaderThatLostItsMajorityGrowsOld(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three members and loses two")
	}
	c := start(t, 3)
	c.addTenant("acme")
	leader := c.leader()
	var age client.Freshness
	cl := c.must(client.New(client.Options{
		Addrs: []string{c.members[leader].config.APIListen}, CACert: c.cacert, Token: c.token, Timeout: 10 * time.Second,
		Reads: client.Reads{Stale: true, Seen: func(f client.Freshness) { age = f }},
	}))
	read := func() (client.Freshness, error) {
		err := cl.Do(t.Context(), http.MethodGet, "/v1/tenants/acme", nil, nil, nil)
		return age, err
	}
	if f, err := read(); err != nil || !f.Aged || f.Age != 0 || f.Index == 0 || f.Incarnation != 1 {
		t.Fatalf("while it leads: %+v, %v", f, err)
	}
	for i, m := range c.members {
		if i != leader {
			m.stop(t)
		}
	}
	var first client.Freshness
	c.await("it has an age", func() bool {
		f, err := read()
		first = f
		return err == nil && f.Aged && f.Age > 0
	})
	c.await("which grows", func() bool {
		f, err := read()
		return err == nil && f.Aged && f.Age > first.Age+200*time.Millisecond && f.Index >= first.Index
	})
	err := cl.Do(t.Context(), http.MethodGet, "/v1/tenants/acme", map[string][]string{"max_age": {"100ms"}}, nil, nil)
	if !errors.Is(err, fleet.ErrUnavailable) || fleet.AsError(err).Field != "query.max_age" {
		t.Errorf("whoever does not bear it got %v", err)
	}
}
