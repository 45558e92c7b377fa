package state

import (
	"fmt"
	"iter"
	"slices"

	"github.com/hashicorp/go-memdb"

	"github.com/edgefleet/edgefleet/fleet"
)

// View is an immutable view of the state; it may be kept and used from several goroutines. Objects are returned by
// value; their slices and maps are shared and must not be changed. Lists are in the order of the objects' ids.
type View struct {
	txn *memdb.Txn
	of  *generation
	// reads, if set, collects what is read by id or index.
	reads *Reads
}

func get[T any](v *View, table Table, index string, args ...any) (T, bool) {
	var zero T
	changed, raw, err := v.txn.FirstWatch(string(table), index, args...)
	if err != nil {
		panic(fmt.Sprintf("state: get from %s: %v", table, err)) // only a wrong index name can cause it
	}
	row, ok := raw.(*T)
	if !ok {
		v.reads.miss(table, index, args, changed)
		return zero, false
	}
	v.reads.add(changed)
	return *row, true
}

func rows[T any](it memdb.ResultIterator, err error) iter.Seq[T] {
	if err != nil {
		panic(fmt.Sprintf("state: list: %v", err))
	}
	return func(yield func(T) bool) {
		for raw := it.Next(); raw != nil; raw = it.Next() {
			row, ok := raw.(*T)
			if ok && !yield(*row) {
				return
			}
		}
	}
}

func list[T any](v *View, table Table, index string, args ...any) []T {
	it, err := v.txn.Get(string(table), index, args...)
	if err == nil {
		v.reads.add(it.WatchCh())
	}
	return slices.Collect(rows[T](it, err))
}

// after returns at most limit rows whose id is greater than cursor and which keep accepts.
func after[T any](v *View, table Table, cursor string, limit int, id func(T) string, keep func(T) bool) []T {
	var out []T
	for row := range rows[T](v.txn.LowerBound(string(table), indexID, cursor)) {
		if id(row) == cursor || !keep(row) {
			continue
		}
		if len(out) == limit {
			break
		}
		out = append(out, row)
	}
	return out
}

// Index is the log index that the view includes.
func (v *View) Index() uint64 {
	a, _ := get[applied](v, Applied, indexID, "applied")
	return a.Index
}

// Cluster returns the cluster; false before it was initialised.
func (v *View) Cluster() (fleet.ClusterRecord, bool) {
	for c := range rows[fleet.ClusterRecord](v.txn.Get(string(Clusters), indexID)) {
		return c, true
	}
	return fleet.ClusterRecord{}, false
}

// Member returns a member.
func (v *View) Member(id fleet.MemberID) (fleet.Member, bool) {
	return get[fleet.Member](v, Members, indexID, string(id))
}

// Members lists the members.
func (v *View) Members() []fleet.Member { return list[fleet.Member](v, Members, indexID) }

// Group returns a node group.
func (v *View) Group(n fleet.GroupName) (fleet.Group, bool) {
	return get[fleet.Group](v, Groups, indexID, string(n))
}

// Groups lists the node groups.
func (v *View) Groups() []fleet.Group { return list[fleet.Group](v, Groups, indexID) }

// Tenant returns a tenant.
func (v *View) Tenant(id fleet.TenantID) (fleet.Tenant, bool) {
	return get[fleet.Tenant](v, Tenants, indexID, string(id))
}

// Tenants lists the tenants.
func (v *View) Tenants() []fleet.Tenant { return list[fleet.Tenant](v, Tenants, indexID) }

// TenantsOf yields the tenants that a node group serves.
func (v *View) TenantsOf(g fleet.GroupName) iter.Seq[fleet.Tenant] {
	return func(yield func(fleet.Tenant) bool) {
		for t := range rows[fleet.Tenant](v.txn.Get(string(Tenants), indexID)) {
			if t.Spec.Group == g && !yield(t) {
				return
			}
		}
	}
}

// TenantsAfter lists at most limit tenants with ids after cursor.
func (v *View) TenantsAfter(cursor string, limit int) []fleet.Tenant {
	return after(v, Tenants, cursor, limit, func(t fleet.Tenant) string { return string(t.ID) }, func(fleet.Tenant) bool { return true })
}

// Token returns an API token.
func (v *View) Token(id fleet.TokenID) (fleet.TokenRecord, bool) {
	return get[fleet.TokenRecord](v, Tokens, indexID, string(id))
}

// TokensAfter lists at most limit tokens of one tenant, or of all for the empty tenant, with ids after cursor; which of
// them is for keep to say, if there is one.
func (v *View) TokensAfter(tenant fleet.TenantID, cursor string, limit int, keep ...func(fleet.Token) bool) []fleet.TokenRecord {
	return after(v, Tokens, cursor, limit, func(t fleet.TokenRecord) string { return string(t.ID) }, func(t fleet.TokenRecord) bool {
		return (tenant == "" || t.Tenant == tenant) && (len(keep) == 0 || keep[0](t.Token))
	})
}

// Host returns a host.
func (v *View) Host(n fleet.HostName) (fleet.Host, bool) {
	return get[fleet.Host](v, Hosts, indexID, string(n))
}

// Hosts lists all hosts.
func (v *View) Hosts() []fleet.Host { return list[fleet.Host](v, Hosts, indexID) }

// HostsOf lists a tenant's hosts.
func (v *View) HostsOf(t fleet.TenantID) []fleet.Host {
	return list[fleet.Host](v, Hosts, indexTenant, string(t))
}

// HostsAfter lists at most limit hosts of one tenant, or of all for the empty tenant, with names after cursor.
func (v *View) HostsAfter(tenant fleet.TenantID, cursor string, limit int) []fleet.Host {
	return after(v, Hosts, cursor, limit, func(h fleet.Host) string { return string(h.Name) },
		func(h fleet.Host) bool { return tenant == "" || h.Tenant == tenant })
}

// Label returns an issued label.
func (v *View) Label(l string) (fleet.Label, bool) { return get[fleet.Label](v, Labels, indexID, l) }

// Rule returns a rule.
func (v *View) Rule(id fleet.RuleID) (fleet.Rule, bool) {
	return get[fleet.Rule](v, Rules, indexID, string(id))
}

// RulesOf lists a tenant's rules.
func (v *View) RulesOf(t fleet.TenantID) []fleet.Rule {
	return list[fleet.Rule](v, Rules, indexTenant, string(t))
}

// RulesAfter lists at most limit rules of a tenant with ids after cursor.
func (v *View) RulesAfter(tenant fleet.TenantID, cursor string, limit int) []fleet.Rule {
	return after(v, Rules, cursor, limit, func(r fleet.Rule) string { return string(r.ID) },
		func(r fleet.Rule) bool { return r.Tenant == tenant })
}

// JoinToken returns a join token.
func (v *View) JoinToken(id fleet.TokenID) (fleet.JoinTokenRecord, bool) {
	return get[fleet.JoinTokenRecord](v, JoinTokens, indexID, string(id))
}

// Node returns a node.
func (v *View) Node(id fleet.NodeID) (fleet.Node, bool) {
	return get[fleet.Node](v, Nodes, indexID, string(id))
}

// Nodes lists the nodes, revoked ones included.
func (v *View) Nodes() []fleet.Node { return list[fleet.Node](v, Nodes, indexID) }

// NodesOf lists the nodes of a group that are not revoked.
func (v *View) NodesOf(g fleet.GroupName) []fleet.Node {
	return slices.DeleteFunc(v.Nodes(), func(n fleet.Node) bool { return n.Spec.Group != g || !n.Identity.RevokedAt.IsZero() })
}

// NodesAfter lists at most limit nodes with ids after cursor.
func (v *View) NodesAfter(cursor string, limit int) []fleet.Node {
	return after(v, Nodes, cursor, limit, func(n fleet.Node) string { return string(n.ID) }, func(fleet.Node) bool { return true })
}

// Head returns a group's head of one kind.
func (v *View) Head(g fleet.GroupName, k fleet.HeadKind) (fleet.GroupHead, bool) {
	return get[fleet.GroupHead](v, Heads, indexID, string(g), string(k))
}

// Heads lists all heads.
func (v *View) Heads() []fleet.GroupHead { return list[fleet.GroupHead](v, Heads, indexID) }

// Challenges lists the pending challenges.
func (v *View) Challenges() []fleet.Challenge { return list[fleet.Challenge](v, Challenges, indexID) }

// Order returns an order.
func (v *View) Order(id fleet.OrderID) (fleet.OrderRecord, bool) {
	return get[fleet.OrderRecord](v, Orders, indexID, string(id))
}

// Orders lists all orders.
func (v *View) Orders() []fleet.OrderRecord { return list[fleet.OrderRecord](v, Orders, indexID) }

// OrdersOf lists a host's orders.
func (v *View) OrdersOf(h fleet.HostName) []fleet.OrderRecord {
	return list[fleet.OrderRecord](v, Orders, indexHost, string(h))
}

// Certificate returns a host's certificate.
func (v *View) Certificate(h fleet.HostName) (fleet.CertificateRecord, bool) {
	return get[fleet.CertificateRecord](v, Certificates, indexID, string(h))
}

// Certificates lists all certificates.
func (v *View) Certificates() []fleet.CertificateRecord {
	return list[fleet.CertificateRecord](v, Certificates, indexID)
}

// Entry returns a key-value entry.
func (v *View) Entry(key string) (fleet.Entry, bool) {
	return get[fleet.Entry](v, Entries, indexID, key)
}

// EntriesBelow lists the entries whose keys start with prefix.
func (v *View) EntriesBelow(prefix string) []fleet.Entry {
	return list[fleet.Entry](v, Entries, indexID+"_prefix", prefix)
}
