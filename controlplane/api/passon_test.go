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
