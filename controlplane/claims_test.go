package controlplane_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// claimedThroughTwoMembers has two tenants claim names above and below each other at one time, each through a member of
// its own.
func (c *cluster) claimedThroughTwoMembers(t *testing.T) {
	t.Helper()
	tenant(t, c.client(), "north")
	tenant(t, c.client(), "south")
	for i, pair := range [][2]string{
		{"claims0.example", "www.claims0.example"},
		{"a.b.claims1.example", "claims1.example"},
		{"*.claims2.example", "www.claims2.example"},
		{"a.claims3.example", "*.claims3.example"},
		{"claims4.example", "CLAIMS4.example."},
		{"bücher.claims5.example", "a.xn--bcher-kva.claims5.example"},
		{"BÜCHER.claims6.example", "bücher.claims6.example."},
	} {
		var errs [2]error
		var claiming sync.WaitGroup
		for j, of := range []string{"north", "south"} {
			claiming.Go(func() {
				claim := client.HostCreate{Name: pair[j], Origins: []fleet.Origin{{URL: "https://203.0.113.9"}}}
				_, errs[j] = client.Post[client.HostView](t.Context(), c.at((i+j)%len(c.members)), fmt.Sprintf("/v1/tenants/%s/hosts", of), claim)
			})
		}
		claiming.Wait()
		if won := errs[0] == nil; won == (errs[1] == nil) {
			t.Errorf("%v: %v", pair, errs)
		}
		if lost := errors.Join(errs[:]...); !errors.Is(lost, fleet.ErrConflict) {
			t.Errorf("%v: %v", pair, lost)
		}
	}
}
