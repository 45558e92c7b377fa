package hoststate_test

import (
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestVisitorsOfAWildcardProveNothing(t *testing.T) {
	f := finding(missing, right)
	f.DNSOnly = true
	o := look(claimed().Observed, f, t0)
	if o.Challenge != "" || o.Ownership.State != fleet.ConditionWaiting || o.Ownership.Reason != fleet.ReasonDNSMissing || o.Routing.State != fleet.ConditionTrue {
		t.Errorf("%+v", o)
	}
	f.Certificate = right
	if o = look(o, f, t0); o.Challenge != fleet.ChallengeDNS01 || o.Ownership.State != fleet.ConditionTrue {
		t.Errorf("with the certificate record: %+v", o)
	}
}
