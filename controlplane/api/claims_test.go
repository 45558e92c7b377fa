package api_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func claimOf(name string) client.HostCreate {
	return client.HostCreate{Name: name, Origins: []fleet.Origin{{URL: "https://203.0.113.9"}}}
}

func TestNamesAboveAndBelowAnotherTenantsAreRefused(t *testing.T) {
	f := open(t, 1)
	red, blue := f.at(0, f.tenant("red", "")), f.at(0, f.tenant("blue", ""))
	red.call("POST", "/v1/tenants/red/hosts", claimOf("shop.example.com")).want(201)
	for _, name := range []string{
		"shop.example.com", "SHOP.Example.com", "shop.example.com.", "api.shop.example.com", "a.b.shop.example.com", "API.SHOP.EXAMPLE.COM.", "example.com", "ａpi.shop.example.com",
	} {
		a := blue.call("POST", "/v1/tenants/blue/hosts", claimOf(name)).want(409)
		if !strings.Contains(a.Detail, "CLAIMED_ELSEWHERE") || strings.Contains(a.Detail, "red") {
			t.Errorf("%s: %s", name, a.Detail)
		}
	}
	for _, name := range []string{"*.example.com", "*.shop.example.com"} {
		if a := blue.call("POST", "/v1/tenants/blue/hosts", claimOf(name)).want(409); !strings.Contains(a.Detail, "CLAIMED_ELSEWHERE") {
			t.Errorf("%s: %s", name, a.Detail)
		}
	}
	red.call("POST", "/v1/tenants/red/hosts", claimOf("*.wild.example.com")).want(201)
	blue.call("POST", "/v1/tenants/blue/hosts", claimOf("api.wild.example.com")).want(409)
	for _, name := range []string{"api.shop.example.com", "example.com", "*.shop.example.com"} {
		red.call("POST", "/v1/tenants/red/hosts", claimOf(name)).want(201)
	}
	blue.call("POST", "/v1/tenants/blue/hosts", claimOf("myshop.example.org")).want(201)
}

func TestOneOfTwoClaimsAtATimeWins(t *testing.T) {
	f := open(t, 3)
	red, blue := f.at(1, f.tenant("red", "")), f.at(2, f.tenant("blue", ""))
	for i := range 10 {
		parent := fmt.Sprintf("p%d.example.com", i)
		var claiming sync.WaitGroup
		statuses := make([]int, 2)
		claiming.Go(func() { statuses[0] = red.call("POST", "/v1/tenants/red/hosts", claimOf(parent)).status })
		claiming.Go(func() { statuses[1] = blue.call("POST", "/v1/tenants/blue/hosts", claimOf("api."+parent)).status })
		claiming.Wait()
		if statuses[0]+statuses[1] != 201+409 {
			t.Errorf("%s: %v", parent, statuses)
		}
	}
}
