// Package state holds the replicated state in memory: go-memdb tables of the domain's objects, immutable read views,
// watch channels, and the snapshot format.
//
// It owns storage and nothing of the meaning: which change is allowed is decided by package fsm, the only writer.
// It has no clock and does no I/O but for the reader and writer of a snapshot that it is given.
package state

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	"github.com/edgefleet/edgefleet/fleet"
)

// Store is the state of one member.
type Store struct {
	now       atomic.Pointer[generation]
	followers followers
}

// generation is the state between two restores.
type generation struct {
	db *memdb.MemDB
	// replaced is closed when a snapshot has taken its place: everything may be different.
	replaced chan struct{}
	// telling is held while a change becomes visible and until every watch channel of it is closed: memdb shows a commit
	// first and closes the channels then, one by one.
	telling sync.RWMutex
	changes *changes
}

// applied is the row that says up to which log index the state is.
type applied struct {
	ID    string `json:"id"`
	Index uint64 `json:"index"`
}

// AuditHead is the end of the audit chain.
type AuditHead struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// New makes an empty state.
func New() *Store {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		panic(fmt.Sprintf("state: schema: %v", err)) // the schema is a constant of this package
	}
	s := &Store{}
	s.now.Store(&generation{db: db, replaced: make(chan struct{}), changes: newChanges()})
	return s
}

// Read returns an immutable view of the state as it is now.
func (s *Store) Read() *View { return s.now.Load().view(false) }

// Write starts the only write transaction; the caller ends it with Commit or Abort.
func (s *Store) Write() *Tx { return &Tx{View: *s.now.Load().view(true), followers: &s.followers} }

func (g *generation) view(write bool) *View { return &View{txn: g.db.Txn(write), of: g} }

// Watch returns a channel that is closed when one of the tables changes.
func (s *Store) Watch(tables ...Table) memdb.WatchSet {
	g := s.now.Load()
	txn := g.db.Txn(false)
	defer txn.Abort()
	ws := memdb.NewWatchSet()
	ws.Add(g.replaced)
	for _, t := range tables {
		it, err := txn.Get(string(t), indexID)
		if err != nil {
			panic(fmt.Sprintf("state: watch %s: %v", t, err))
		}
		ws.Add(it.WatchCh())
	}
	return ws
}

// Table names a table.
type Table string

// The tables.
const (
	Applied      Table = "applied"
	Clusters     Table = "cluster"
	Members      Table = "members"
	Groups       Table = "groups"
	Tenants      Table = "tenants"
	Tokens       Table = "tokens"
	Hosts        Table = "hosts"
	Labels       Table = "labels"
	Rules        Table = "rules"
	JoinTokens   Table = "join_tokens"
	Nodes        Table = "nodes"
	Heads        Table = "heads"
	Challenges   Table = "challenges"
	Orders       Table = "orders"
	Certificates Table = "certificates"
	Entries      Table = "entries"
	Users        Table = "users"
	Roles        Table = "roles"
	Access       Table = "access"
	Approvals    Table = "approvals"
	Audit        Table = "audit"
	Keys         Table = "keys"
	Origins      Table = "origins"
	// AuditSegments are the rows of sealed segments, AuditCheckpoints what was signed since the last of them.
	AuditSegments    Table = "audit_segments"
	AuditCheckpoints Table = "audit_checkpoints"
	Incarnations     Table = "incarnations"
	Staged           Table = "staged"
	Drills           Table = "drills"
	Regions          Table = "regions"
	DNSSets          Table = "dns_sets"
)

const (
	indexID     = "id"
	indexTenant = "tenant"
	indexHost   = "host"
)

func table(t Table, id memdb.Indexer, more ...*memdb.IndexSchema) *memdb.TableSchema {
	s := &memdb.TableSchema{Name: string(t), Indexes: map[string]*memdb.IndexSchema{
		indexID: {Name: indexID, Unique: true, Indexer: id},
	}}
	for _, m := range more {
		s.Indexes[m.Name] = m
	}
	return s
}

func field(name string) memdb.Indexer { return &memdb.StringFieldIndex{Field: name} }

func by(index, name string) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: index, Indexer: field(name), AllowMissing: true}
}

func compound(names ...string) memdb.Indexer {
	c := &memdb.CompoundIndex{}
	for _, n := range names {
		c.Indexes = append(c.Indexes, field(n))
	}
	return c
}

func schema() *memdb.DBSchema {
	s := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, t := range []*memdb.TableSchema{
		table(Applied, field("ID")),
		table(Clusters, field("ID")),
		table(Members, field("ID")),
		table(Groups, field("Name")),
		table(Tenants, field("ID")),
		table(Tokens, field("ID"), by(indexTenant, "Tenant")),
		hostsTable(),
		table(Labels, field("Label")),
		table(Rules, field("ID"), by(indexTenant, "Tenant")),
		table(JoinTokens, field("ID")),
		table(Nodes, field("ID")),
		table(Heads, compound("Group", "Kind")),
		table(Challenges, compound("Host", "Type", "Token")),
		table(Orders, field("ID"), by(indexHost, "Host")),
		certificatesTable(),
		table(Entries, field("Key")),
		table(Users, field("ID"), by(indexTenant, "Tenant")),
		table(Roles, field("Key"), by(indexTenant, "Tenant")),
		table(Access, field("ID")),
		table(Approvals, field("ID")),
		keysTable(),
		table(Origins, field("Host")),
		table(Audit, &memdb.UintFieldIndex{Field: "Seq"}, auditOfTenant),
		table(AuditSegments, &memdb.UintFieldIndex{Field: "From"}),
		table(AuditCheckpoints, &memdb.UintFieldIndex{Field: "Seq"}),
		table(Incarnations, &memdb.UintFieldIndex{Field: "Number"}),
		table(Staged, &memdb.UintFieldIndex{Field: "Seq"}),
		table(Drills, field("ID")),
		table(RemovedMembers, field("Key")),
		table(Epochs, field("Group")),
		table(StorageLocks, field("Name")),
		table(Regions, field("Name")),
		table(DNSSets, field("Key")),
		table(Authorities, field("Directory")),
		originCertsTable(),
		table(Revocations, field("ID"), by(indexHost, "Host")),
	} {
		s.Tables[t.Name] = t
	}
	return s
}

// Tx is a write transaction, of one log entry or several. Everything read through it includes what it wrote.
type Tx struct {
	View
	writes  int
	written map[Table]bool
	// hosts are those that this transaction is about, for followers.
	hosts     map[fleet.HostName]struct{}
	followers *followers
}

// Writes counts what was written or deleted so far.
func (t *Tx) Writes() int { return t.writes }

// Commit makes the writes visible, all at once.
func (t *Tx) Commit() {
	t.of.telling.Lock()
	defer t.of.telling.Unlock()
	t.tell()
	t.txn.Commit()
	if t.followers != nil {
		t.followers.tell(t.hosts, false)
	}
}

// Abort drops the writes.
func (t *Tx) Abort() { t.txn.Abort() }

// SetIndex records the log index that this transaction belongs to.
func (t *Tx) SetIndex(i uint64) { put(t, Applied, applied{ID: "applied", Index: i}) }

func put[T any](t *Tx, table Table, v T) {
	t.wrote(table)
	if err := t.txn.Insert(string(table), &v); err != nil {
		panic(fmt.Sprintf("state: insert into %s: %v", table, err)) // rows are validated before: a programmer's error
	}
}

func del(t *Tx, table Table, index string, args ...any) {
	t.wrote(table)
	if _, err := t.txn.DeleteAll(string(table), index, args...); err != nil {
		panic(fmt.Sprintf("state: delete from %s: %v", table, err))
	}
}

// The writers below insert or replace one object. They check nothing.

// PutCluster stores the cluster.
func (t *Tx) PutCluster(c fleet.ClusterRecord) { put(t, Clusters, c) }

// PutMember stores a member.
func (t *Tx) PutMember(m fleet.Member) { put(t, Members, m) }

// PutGroup stores a node group.
func (t *Tx) PutGroup(g fleet.Group) { put(t, Groups, g) }

// PutTenant stores a tenant.
func (t *Tx) PutTenant(v fleet.Tenant) { put(t, Tenants, v) }

// PutToken stores an API token.
func (t *Tx) PutToken(v fleet.TokenRecord) { put(t, Tokens, v) }

// PutHost stores a host.
func (t *Tx) PutHost(h fleet.Host) {
	t.touch(h.Name)
	put(t, Hosts, h)
}

// PutLabel stores an issued label.
func (t *Tx) PutLabel(l fleet.Label) { put(t, Labels, l) }

// PutRule stores a rule.
func (t *Tx) PutRule(r fleet.Rule) { put(t, Rules, r) }

// PutJoinToken stores a join token.
func (t *Tx) PutJoinToken(j fleet.JoinTokenRecord) { put(t, JoinTokens, j) }

// PutNode stores a node.
func (t *Tx) PutNode(n fleet.Node) { put(t, Nodes, n) }

// PutHead stores a group's head.
func (t *Tx) PutHead(h fleet.GroupHead) { put(t, Heads, h) }

// PutChallenge stores a pending challenge.
func (t *Tx) PutChallenge(c fleet.Challenge) {
	t.touch(c.Host)
	put(t, Challenges, c)
}

// PutOrder stores an order.
func (t *Tx) PutOrder(o fleet.OrderRecord) {
	t.touch(o.Host)
	put(t, Orders, o)
}

// PutCertificate stores a host's certificate.
func (t *Tx) PutCertificate(c fleet.CertificateRecord) {
	t.touch(c.Host)
	put(t, Certificates, c)
}

// PutEntry stores a key-value entry.
func (t *Tx) PutEntry(e fleet.Entry) { put(t, Entries, e) }

// DeleteMember removes a member.
func (t *Tx) DeleteMember(id fleet.MemberID) { del(t, Members, indexID, string(id)) }

// DeleteTenant removes a tenant with its tokens, rules, users and roles.
func (t *Tx) DeleteTenant(id fleet.TenantID) {
	del(t, Tenants, indexID, string(id))
	del(t, Tokens, indexTenant, string(id))
	del(t, Rules, indexTenant, string(id))
	del(t, Users, indexTenant, string(id))
	del(t, Roles, indexTenant, string(id))
}

// DeleteToken removes an API token.
func (t *Tx) DeleteToken(id fleet.TokenID) { del(t, Tokens, indexID, string(id)) }

// DeleteHost removes a host with its certificate, orders and challenges.
func (t *Tx) DeleteHost(name fleet.HostName) {
	t.touch(name)
	del(t, Hosts, indexID, string(name))
	del(t, Certificates, indexID, string(name))
	del(t, Orders, indexHost, string(name))
	t.DeleteOrigins(name)
	for _, c := range t.OriginCertsOf(name) {
		t.DeleteOriginCert(name, c.Origin)
	}
	for _, c := range t.Challenges() {
		if c.Host == name {
			t.DeleteChallenge(c.Host, c.Type, c.Token)
		}
	}
}

// DeleteRule removes a rule.
func (t *Tx) DeleteRule(id fleet.RuleID) { del(t, Rules, indexID, string(id)) }

// DeleteChallenge removes a pending challenge.
func (t *Tx) DeleteChallenge(h fleet.HostName, ty fleet.ChallengeType, token string) {
	t.touch(h)
	del(t, Challenges, indexID, string(h), string(ty), token)
}

// DeleteOrder removes an order.
func (t *Tx) DeleteOrder(id fleet.OrderID) {
	if o, ok := t.Order(id); ok {
		t.touch(o.Host)
	}
	del(t, Orders, indexID, string(id))
}

// DeleteEntry removes the entry with that key and all whose keys start with key and a slash.
func (t *Tx) DeleteEntry(key string) {
	del(t, Entries, indexID, key)
	del(t, Entries, indexID+"_prefix", key+"/")
}
