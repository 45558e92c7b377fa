package faulttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// Standing is how a member stands after the faults.
type Standing struct {
	Member fleet.MemberID
	View   *state.View
	// Ready is why it is not ready for work; nil if it is.
	Ready error
}

// CheckFleet holds a fleet that was broken and healed against every invariant. All members must have come to rest: nobody
// writes, and everyone has applied everything.
func CheckFleet(t testing.TB, l *Ledger, members []Standing) {
	t.Helper()
	for _, v := range Violations(l, members) {
		t.Error(v)
	}
}

// Violations lists what CheckFleet finds.
func Violations(l *Ledger, members []Standing) []string {
	if len(members) == 0 {
		return []string{"there is no member to check"}
	}
	for _, m := range members {
		if m.View != nil {
			l.Applied(m.Member, m.View, true) // equal hash at equal index
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &checker{ledger: l, found: slices.Clone(l.violations)}
	c.standings(members)
	for _, m := range members {
		if m.View == nil {
			continue
		}
		c.member = m.Member
		c.view = m.View
		entries := m.View.AuditAfter("", 0, 1<<30)
		c.audit(entries)
		c.revisions(entries)
		c.heads()
		c.certificates()
		break // all others have the same state, by its hash
	}
	return c.found
}

type checker struct {
	ledger *Ledger
	member fleet.MemberID
	view   *state.View
	found  []string
}

func (c *checker) say(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

func (c *checker) standings(members []Standing) {
	var at uint64
	for i, m := range members {
		if m.Ready != nil {
			c.say("member %s is not ready: %v", m.Member, m.Ready)
		}
		if m.View == nil {
			c.say("member %s has no state", m.Member)
			continue
		}
		if index := m.View.Index(); i == 0 {
			at = index
		} else if index != at {
			c.say("member %s is at index %d, %s at %d", m.Member, index, members[0].Member, at)
		}
	}
}

// audit checks the chain, and that each mutation left exactly the entries that its client may expect.
func (c *checker) audit(entries []fleet.AuditEntry) {
	if err := fleet.VerifyAudit(entries); err != nil {
		c.say("audit chain of member %s: %v", c.member, err)
	}
	if len(entries) > 0 && entries[0].Seq != 1 {
		c.say("the audit chain of member %s starts at entry %d", c.member, entries[0].Seq)
	}
	byRequest := map[string][]fleet.AuditEntry{}
	for _, e := range entries {
		if e.RequestID != "" {
			byRequest[e.RequestID] = append(byRequest[e.RequestID], e)
		}
	}
	for _, m := range c.ledger.acknowledged {
		if n := applied(entries, m); m.Mark != "" && n != 1 {
			c.say("the acknowledged change %s of %s was applied %d times", m.Mark, m.Object, n)
		}
		if m.Replayed {
			continue
		}
		got := byRequest[m.RequestID]
		switch {
		case len(got) != 1:
			c.say("the acknowledged change %s of %s (request %s, revision %d) has %d audit entries", m.Mark, m.Object, m.RequestID, m.Revision, len(got))
		case got[0].Object != m.Object, !bytes.Contains(got[0].After, []byte(m.Mark)):
			c.say("the audit entry of the acknowledged change %s of %s is of %s: %s", m.Mark, m.Object, got[0].Object, got[0].After)
		}
	}
	for _, m := range c.ledger.refused {
		if m.RequestID != "" && len(byRequest[m.RequestID]) > 0 {
			c.say("the refused change %s of %s (request %s) took effect", m.Mark, m.Object, m.RequestID)
		}
	}
	for _, m := range c.ledger.unknown {
		if n := applied(entries, m); n > 1 {
			c.say("the change %s of %s, whose outcome its client does not know, was applied %d times", m.Mark, m.Object, n)
		}
	}
}

// applied counts the entries of a change.
func applied(entries []fleet.AuditEntry, m Mutation) (n int) {
	for _, e := range entries {
		if e.Object == m.Object && m.Mark != "" && bytes.Contains(e.After, []byte(m.Mark)) && !bytes.Contains(e.Before, []byte(m.Mark)) {
			n++
		}
	}
	return n
}

// revisions checks that each object's revisions only grow, and that no object is behind what a client was told.
func (c *checker) revisions(entries []fleet.AuditEntry) {
	last := map[string]uint64{}
	for _, e := range entries {
		var after struct {
			Revision uint64 `json:"revision"`
		}
		if len(e.After) == 0 || json.Unmarshal(e.After, &after) != nil || after.Revision == 0 {
			continue
		}
		if after.Revision <= last[e.Object] || after.Revision > c.view.Index() {
			c.say("audit entry %d has %s at revision %d, after %d, in a state of index %d", e.Seq, e.Object, after.Revision, last[e.Object], c.view.Index())
		}
		last[e.Object] = after.Revision
	}
	for _, m := range c.ledger.acknowledged {
		if m.Revision > last[m.Object] {
			c.say("%s is at revision %d, but revision %d (%s) was acknowledged", m.Object, last[m.Object], m.Revision, m.Mark)
		}
	}
}

// heads checks that no head that anyone ever had is newer than those of the state.
func (c *checker) heads() {
	for v := range maps.Keys(c.ledger.heads) {
		h, ok := c.view.Head(v.group, v.kind)
		if !ok || h.Version.Compare(v.version) < 0 {
			c.say("head %s/%s is at %v, but %v was committed", v.group, v.kind, h.Version, v.version)
		}
	}
	for _, n := range c.view.Nodes() {
		for _, r := range n.Observed.Heads {
			if h, ok := c.view.Head(n.Spec.Group, r.Kind); !ok || h.Version.Compare(r.Version) < 0 {
				c.say("node %s has head %s at %v, the fleet is at %v", n.ID, r.Kind, r.Version, h.Version)
			}
		}
	}
}

// certificates checks that no order or certificate is torn.
func (c *checker) certificates() {
	for _, cert := range c.view.Certificates() {
		h, ok := c.view.Host(cert.Host)
		if !ok || h.Tenant != cert.Tenant {
			c.say("the certificate of %s belongs to no host of tenant %s", cert.Host, cert.Tenant)
		}
		if cert.Chain == "" || cert.SPKI == "" || len(cert.Key.Ciphertext) == 0 {
			c.say("the certificate of %s is torn: it lacks its chain, its key or the key's hash", cert.Host)
		}
	}
	for _, o := range c.view.Orders() {
		if h, ok := c.view.Host(o.Host); !ok || h.Tenant != o.Tenant {
			c.say("order %s belongs to no host of tenant %s", o.ID, o.Tenant)
		}
	}
	for _, ch := range c.view.Challenges() {
		if _, ok := c.view.Host(ch.Host); !ok {
			c.say("a challenge of %s belongs to no host", ch.Host)
		}
	}
}
