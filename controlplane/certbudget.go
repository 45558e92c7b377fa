package controlplane

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hostname"
)

// maxBudgetNames bounds the domains and names that are shown of one authority.
const maxBudgetNames = 20

// certBudget is how much may still be asked of the certificate authorities.
func (m *member) certBudget() client.CertBudget {
	return budgetOf(m.state.Read(), utcNow(), m.c.ACME, m.c.ACMESecond)
}

func budgetOf(v *state.View, now time.Time, authorities ...ACME) client.CertBudget {
	out := client.CertBudget{Authorities: []client.AuthorityBudget{}}
	for _, a := range authorities {
		if a.Directory != "" {
			out.Authorities = append(out.Authorities, authorityBudget(v, a.Directory, a.limits(), now))
		}
	}
	for _, o := range v.Orders() {
		if strings.HasPrefix(o.Problem, fleet.ReasonCARateLimited+":") {
			out.Waiting++
		}
	}
	return out
}

func authorityBudget(v *state.View, directory string, limits hosts.Limits, now time.Time) client.AuthorityBudget {
	a := v.Authority(directory)
	out := client.AuthorityBudget{Directory: directory, State: "ok", Reserved: hosts.Reserved(limits.Orders)}
	switch {
	case a.Away():
		out.State, out.Since, out.Until, out.Problem = "away", a.Since, a.Rest, a.Problem
	case now.Before(a.Limited):
		out.State, out.Until, out.Problem = "limited", a.Limited, a.Problem
	}
	out.Orders.Used, out.Orders.Free = a.Ordered(now, limits.Orders)
	if out.Orders.Limit = limits.Orders; limits.Orders == 0 {
		out.Orders.Free = time.Time{}
	}
	out.Domains = spentDomains(v, directory, limits.Certificates, now)
	for _, o := range v.Orders() {
		if failed := o.RecentFailures(now); len(failed) > 0 && (o.Authority == "" || o.Authority == directory) {
			b := client.Budget{Used: len(failed), Limit: limits.Failures}
			if limits.Failures > 0 && len(failed) >= limits.Failures {
				b.Free = failed[len(failed)-limits.Failures].Add(fleet.FailureWindow)
			}
			out.Names = append(out.Names, client.NamedBudget{Name: o.Host, Budget: b})
		}
	}
	out.Names = most(out.Names)
	return out
}

// spentDomains counts the certificates of each registered domain within a week.
func spentDomains(v *state.View, directory string, limit int, now time.Time) []client.NamedBudget {
	used := map[string]int{}
	for _, c := range v.Certificates() {
		if c.Authority == directory && now.Before(c.NotBefore.Add(fleet.CertificateWindow)) {
			used[hostname.Registered(c.Host)]++
		}
	}
	var out []client.NamedBudget
	for domain, n := range used {
		b := client.Budget{Used: n, Limit: limit}
		if limit > 0 && n >= limit {
			_, b.Free = hosts.Issued(v, directory, domain, now, limit)
		}
		out = append(out, client.NamedBudget{Name: fleet.HostName(domain), Budget: b})
	}
	return most(out)
}

// most are those that have used the most.
func most(in []client.NamedBudget) []client.NamedBudget {
	slices.SortFunc(in, func(a, b client.NamedBudget) int {
		return cmp.Or(cmp.Compare(b.Used, a.Used), cmp.Compare(a.Name, b.Name))
	})
	return in[:min(len(in), maxBudgetNames)]
}

// checkAuthorities says whether a certificate authority is away or limits us.
func (m *member) checkAuthorities() fleet.Check {
	c := fleet.Check{Name: "certificate authorities", State: fleet.CheckOK}
	var said []string
	for _, a := range m.certBudget().Authorities {
		name := fleet.AuthorityName(a.Directory)
		switch a.State {
		case "away":
			c.State = fleet.CheckWarn
			said = append(said, name+" has not answered since "+a.Since.Format(time.RFC3339)+": "+a.Problem)
		case "limited":
			c.State = fleet.CheckWarn
			said = append(said, name+" wants to be left alone until "+a.Until.Format(time.RFC3339)+": "+a.Problem)
		default:
			said = append(said, name+" answers")
		}
	}
	if c.Detail = strings.Join(said, "; "); len(said) == 0 {
		c.Detail = "none is configured (acme.directory)"
	}
	if c.State == fleet.CheckWarn {
		c.Detail += "; certificates that are there go on serving: see the RUNBOOK's CA down"
	}
	return c
}
