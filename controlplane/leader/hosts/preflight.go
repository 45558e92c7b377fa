package hosts

import (
	"context"
	"net/netip"

	"github.com/edgefleet/edgefleet/fleet"
)

// preflight looks for what would make the CA refuse, for its failures are counted and a look is not. A CA of which
// the directory cannot be read is asked for the certificate all the same: what it says then is what people need to know.
func (l *Loop) preflight(ctx context.Context, h fleet.Host, zone fleet.HostName, edge []netip.Addr, via fleet.ChallengeType, of *Authority) fleet.DNSVerdict {
	var ca fleet.CAIdentity
	if of.Identity != nil {
		var err error
		if ca, err = of.Identity(ctx); err != nil {
			l.o.Telemetry.Logger.DebugContext(ctx, "certificate authority not known to CAA", "host", string(h.Name), "err", err)
		}
	}
	v := fleet.DNSVerdict{}
	err := fence(func() (err error) {
		v, err = l.o.Resolver.Preflight(ctx, h, zone, edge, via, ca)
		return err
	})
	if err != nil {
		return fleet.DNSVerdict{Reason: fleet.ReasonDNSServfail, Message: err.Error()}
	}
	return v
}
