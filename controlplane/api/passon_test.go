package api_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// errHandedOver is what a member answers that does not lead any more and has proposed nothing.
var errHandedOver = fmt.Errorf("apply: %w: %w", fleet.ErrUnavailable, fleet.ErrNotLeader)

func TestARequestThatWasNotProposedIsPassedOnToTheNextLeader(t *testing.T) {
	for name, at := range map[string]int{"through the leader that hands over": 0, "through a follower": 1, "through the next leader": 2} {
		t.Run(name, func(t *testing.T) {
			f := open(t, 3)
			f.log.refuse = func(id fleet.MemberID) error {
				if id == "m1" {
					f.log.leader = "m3"
					return errHandedOver
				}
				return nil
			}
			f.at(at, f.operator).call("POST", "/v1/tenants", client.TenantCreate{ID: "acme"}).want(http.StatusCreated)
			f.at(at, f.operator).call("GET", "/v1/tenants/acme", nil).want(http.StatusOK)
		})
	}
}

func TestARequestWhoseOutcomeIsUnknownIsNotRepeated(t *testing.T) {
	f := open(t, 2)
	proposed := 0
	f.log.refuse = func(_ fleet.MemberID) error {
		proposed++
		f.log.leader = "m2"
		return fmt.Errorf("apply: %w: leadership was lost", fleet.ErrUnavailable)
	}
	f.at(0, f.operator).call("POST", "/v1/tenants", client.TenantCreate{ID: "acme"}).want(http.StatusServiceUnavailable)
	if proposed != 1 {
		t.Errorf("proposed %d times", proposed)
	}
}

func TestAReadIsPassedOnWhateverCameOfIt(t *testing.T) {
	f := open(t, 2)
	reads := 0
	f.log.readIndex = func() (uint64, error) {
		if reads++; reads == 1 {
			f.log.leader = "m2"
			return 0, fmt.Errorf("read: %w: leadership was lost", fleet.ErrUnavailable)
		}
		return 1, nil
	}
	f.at(0, f.operator).call("GET", "/v1/tenants", nil).want(http.StatusOK)
	if reads != 2 {
		t.Errorf("read %d times", reads)
	}
}

func TestARefusalByAMemberThatDoesNotLeadAnyMoreIsNotGiven(t *testing.T) {
	f := open(t, 2)
	f.tenant("acme", "") // known to both
	deposed := func() {
		f.log.readIndex = nil
		f.lead("m1")
		f.log.mu.Lock()
		defer f.log.mu.Unlock()
		f.log.readIndex = func() (uint64, error) {
			f.log.readIndex, f.log.leader = nil, "m2" // it learns that m2 leads
			return 0, fmt.Errorf("read: %w: leadership was lost", fleet.ErrUnavailable)
		}
	}
	f.lag(0, true)
	f.lead("m2")
	f.at(1, f.operator).call("POST", "/v1/tenants", client.TenantCreate{ID: "new"}).want(http.StatusCreated)
	var made client.TokenCreated
	f.at(1, f.operator).call("POST", "/v1/tenants/new/tokens", client.TokenCreate{}).want(http.StatusCreated).into(&made)
	host := map[string]any{"name": "a.example.com", "origin": "https://origin.example.com"}
	for name, call := range map[string]func() answer{
		"that there is no such tenant": func() answer { return f.op().call("POST", "/v1/tenants/new/tokens", client.TokenCreate{}) },
		"that it may not be changed":   func() answer { return f.op().call("PATCH", "/v1/tenants/new", map[string]any{"description": "x"}) },
		"that the token is not known":  func() answer { return f.at(0, made.Secret).call("POST", "/v1/tenants/new/hosts", host) },
	} {
		deposed()
		if got := call(); got.status == 401 || got.status == 403 || got.status == 404 || got.status >= 500 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	f.lag(0, false)
	f.lead("m1")
	f.op().call("DELETE", "/v1/tenants/none", nil).want(http.StatusNotFound)
}

func TestANewLeaderDecidesNothingBeforeItHasWhatWasCommitted(t *testing.T) {
	f := open(t, 2)
	f.lag(0, true)
	f.lead("m2")
	f.at(1, f.operator).call("POST", "/v1/tenants", client.TenantCreate{ID: "acme"}).want(http.StatusCreated)
	f.lead("m1")
	f.log.settled = func(id fleet.MemberID) error {
		for _, m := range f.log.members {
			if m.id == id {
				m.lags = false
				m.catchUp()
			}
		}
		return nil
	}
	f.op().call("POST", "/v1/tenants/acme/tokens", client.TokenCreate{}).want(http.StatusCreated)
}
