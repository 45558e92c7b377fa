package hosts

import (
	"context"
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hostname"
)

// Limits are what an authority allows; 0 means that there is no limit.
type Limits struct {
	// Orders of our account within three hours.
	Orders int
	// Failures of one name within an hour.
	Failures int
	// Certificates of one registered domain within a week; renewals do not count.
	Certificates int
}

// Reserved is how many of a number of orders are kept for renewals: a host that serves comes before one that waits.
func Reserved(orders int) int { return orders / 10 }

// budget says that an order which ca has not made yet would go beyond what it allows; nil if it would not.
func (l *Loop) budget(ca *Authority, o fleet.OrderRecord, now time.Time) *wait {
	v, limits := l.o.State.Read(), ca.Limits
	renewal := o.Generation > 1
	name := fleet.AuthorityName(ca.Directory)
	if most := limits.Orders; most > 0 {
		if !renewal {
			most -= Reserved(most)
		}
		if n, free := v.Authority(ca.Directory).Ordered(now, most); n >= most {
			return limited(free, "the budget of %d orders in 3 hours at %s is spent, of which %d are for renewals", limits.Orders, name, Reserved(limits.Orders))
		}
	}
	if failed := o.RecentFailures(now); limits.Failures > 0 && len(failed) >= limits.Failures {
		return limited(failed[len(failed)-limits.Failures].Add(fleet.FailureWindow), "%d validations of %s failed within an hour, as many as %s allows", len(failed), o.Host, name)
	}
	if limits.Certificates > 0 && !renewal {
		domain := hostname.Registered(o.Host)
		if n, free := Issued(v, ca.Directory, domain, now, limits.Certificates); n >= limits.Certificates {
			return limited(free, "%s issued %d certificates of %s within a week, as many as it allows", name, n, domain)
		}
	}
	return nil
}

func limited(until time.Time, format string, args ...any) *wait {
	return &wait{reason: fleet.ReasonCARateLimited, message: fmt.Sprintf(format, args...), until: until}
}

// Issued counts the certificates of a registered domain by one authority within the last week, and says when there will
// be fewer than limit.
func Issued(v *state.View, directory, domain string, now time.Time, limit int) (n int, free time.Time) {
	count := func(h fleet.HostName) {
		c, ok := v.Certificate(h)
		if !ok || c.Authority != directory || !now.Before(c.NotBefore.Add(fleet.CertificateWindow)) {
			return
		}
		n++
		// One that is as old as this or older leaves first.
		if at := c.NotBefore.Add(fleet.CertificateWindow); free.IsZero() || at.Before(free) {
			free = at
		}
	}
	count(fleet.HostName(domain))
	for h := range v.HostsBelow(fleet.HostName(domain)) {
		count(h.Name)
	}
	if n < limit {
		free = time.Time{}
	}
	return n, free
}

// save is the request's Save: that an order is asked for is counted and held against the budget in one step.
func (l *Loop) save(ca *Authority, o fleet.OrderRecord) func(context.Context, bool, string) error {
	return func(ctx context.Context, asked bool, url string) error {
		if url == "" {
			l.asking.Lock()
			defer l.asking.Unlock()
			if w := l.budget(ca, o, l.o.Now()); w != nil {
				return w
			}
		}
		progress := command.OrderProgress{ID: o.ID, Asked: asked, URL: url, Authority: ca.Directory}
		if _, err := l.o.Proposer.Propose(ctx, leader.Header(name, l.o.Now()), progress); err != nil {
			return fmt.Errorf("commit order progress: %w", err)
		}
		return nil
	}
}
