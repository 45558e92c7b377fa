package faulttest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// Patience is how long a healed cluster may take to be whole again, in fake time.
const Patience = 2 * time.Minute

// Cluster is a control plane in one process, made to be broken. It lives in a bubble of fake time.
type Cluster struct {
	Net    *Network
	Ledger *Ledger

	dir      string
	ids      []fleet.MemberID
	members  map[fleet.MemberID]*member
	kek      *keyring.KEK
	record   fleet.ClusterRecord
	operator string

	mu     sync.Mutex
	certs  map[fleet.MemberID][2]*x509.Certificate
	errs   []error
	begin  time.Time
	stop   chan struct{}
	watch  sync.WaitGroup
	events []string
}

// NewCluster starts a cluster of size members, which is ready when it returns. rng decides what a crash tears; dir takes
// the audit segments, the one thing that is on a real disk.
func NewCluster(size int, dir string, rng *mathrand.Rand) (*Cluster, error) {
	c := &Cluster{
		dir: dir,
		Net: NewNetwork(300 * time.Microsecond), Ledger: NewLedger(), members: map[fleet.MemberID]*member{},
		certs: map[fleet.MemberID][2]*x509.Certificate{}, begin: time.Now(), stop: make(chan struct{}),
	}
	if err := c.makeKeys(); err != nil {
		return nil, err
	}
	var torn sync.Mutex
	for i := range size {
		id := fleet.MemberID(fmt.Sprintf("m%d", i+1))
		c.ids = append(c.ids, id)
		c.members[id] = &member{id: id, cluster: c, life: make(chan struct{}, 1), disk: NewDisk(func(n int) int {
			torn.Lock()
			defer torn.Unlock()
			return rng.IntN(n)
		})}
	}
	for _, id := range c.ids {
		if err := c.members[id].up(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	if err := c.initialize(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.watch.Go(c.watchLeaders)
	return c, nil
}

func (c *Cluster) makeKeys() error {
	var err error
	if c.kek, err = keyring.NewKEK(); err != nil {
		return err
	}
	recovery, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	c.record, err = keys.Generate("c-fault", "edge.example", c.kek, recovery, time.Now())
	return err
}

// initialize does what init and the joins do.
func (c *Cluster) initialize() error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	first := c.members[c.ids[0]].running()
	if err := first.node.Bootstrap(); err != nil {
		return err
	}
	if err := c.await(ctx, "the first member leads", first.node.IsLeader); err != nil {
		return err
	}
	propose := func(b command.Body) error {
		_, err := first.raft.Propose(ctx, command.Header{Time: time.Now().UTC(), Actor: fleet.Actor{Name: "init", Party: fleet.Vendor}}, b)
		return err
	}
	rec, text := api.NewToken(fleet.Token{Role: fleet.RoleOperator})
	c.operator = text
	if err := propose(command.ClusterInit{Cluster: c.record, Member: memberRecord(c.ids[0]), Token: rec}); err != nil {
		return err
	}
	for _, id := range c.ids[1:] {
		if err := propose(command.MemberPut{Member: memberRecord(id)}); err != nil {
			return err
		}
		if err := first.node.AddVoter(ctx, id, string(id)); err != nil {
			return err
		}
	}
	return c.await(ctx, "every member serves", func() bool {
		return !slices.ContainsFunc(c.ids, func(id fleet.MemberID) bool { return c.members[id].running().api.Load() == nil })
	})
}

// memberRecord is a member whose addresses are its id: that is how the network knows it.
func memberRecord(id fleet.MemberID) fleet.Member {
	return fleet.Member{ID: id, Raft: string(id), API: string(id), NATS: string(id), NATSRoute: string(id), DNS: string(id)}
}

func (c *Cluster) await(ctx context.Context, what string, ok func() bool) error {
	for !ok() {
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("%w: waited in vain: %s", fleet.ErrTimeout, what)
		}
	}
	return nil
}

// fail notes what the harness itself could not do.
func (c *Cluster) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// note adds a line to the story that a failed history tells.
func (c *Cluster) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, fmt.Sprintf("%8s  ", time.Since(c.begin).Truncate(time.Millisecond))+fmt.Sprintf(format, args...))
}

// Story is what was done to the cluster, in order.
func (c *Cluster) Story() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events)
}

// watchLeaders tells the ledger who leads in which term.
func (c *Cluster) watchLeaders() {
	for {
		for _, id := range c.ids {
			p := c.members[id].running()
			if p == nil || p.dead.Load() {
				continue
			}
			term := p.node.Stats().Term
			if p.node.IsLeader() && p.node.Stats().Term == term {
				c.Ledger.Leads(id, term)
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-c.stop:
			return
		}
	}
}

// leader is the member that leads, in the latest term if several believe to; the first that runs if none does.
func (c *Cluster) leader() fleet.MemberID {
	var best fleet.MemberID
	var term uint64
	for _, id := range c.ids {
		p := c.members[id].running()
		if p == nil || p.dead.Load() {
			continue
		}
		if s := p.node.Stats(); s.State == "leader" && s.Term > term {
			best, term = id, s.Term
		}
	}
	if best != "" {
		return best
	}
	for _, id := range c.ids {
		if p := c.members[id].running(); p != nil && !p.dead.Load() {
			return id
		}
	}
	return c.ids[0]
}

// certificate is a member's identity with its authority.
func (c *Cluster) certificate(id fleet.MemberID) (leaf, ca *x509.Certificate, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if both, ok := c.certs[id]; ok {
		return both[0], both[1], nil
	}
	k, err := keys.Open(c.record, c.kek)
	if err != nil {
		return nil, nil, err
	}
	key, err := mtls.NewKey()
	if err != nil {
		return nil, nil, err
	}
	signed, err := k.MemberCA.SignMember(c.record.ID, id, key.Public(), time.Now())
	if err != nil {
		return nil, nil, err
	}
	if leaf, err = parse(signed); err != nil {
		return nil, nil, err
	}
	if ca, err = parse([]byte(c.record.MemberCA)); err != nil {
		return nil, nil, err
	}
	c.certs[id] = [2]*x509.Certificate{leaf, ca}
	return leaf, ca, nil
}

func parse(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fleet.Invalid("certificate", "not PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// heard takes a head that a member sent to nodes.
func (c *Cluster) heard(from fleet.MemberID, signed fleet.SignedHead) {
	var known []ed25519.PublicKey
	for _, k := range c.record.HeadKeys {
		known = append(known, k)
	}
	h, err := head.Verify(signed, known)
	if err != nil {
		c.fail("%s published a head that does not verify: %w", from, err)
		return
	}
	c.Ledger.Published(from, fleet.GroupHead{Group: h.Group, Kind: h.Kind, Version: h.Version, Root: h.Root})
}

// heal ends every fault and starts whoever is down, or has a disk that failed.
func (c *Cluster) heal() error {
	c.Net.Heal()
	for _, id := range c.ids {
		m := c.members[id]
		m.disk.Fail(Healthy)
		m.disk.Slow(0)
		if err := m.up(); err != nil {
			return err
		}
	}
	return nil
}

// Rest heals the cluster and waits until every member serves and has applied everything; then it returns how each stands.
func (c *Cluster) Rest() ([]Standing, error) {
	if err := c.heal(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := c.await(ctx, "every member has a vote", func() bool { return c.everyoneVotes(ctx) }); err != nil {
		c.describe()
		return nil, err
	}
	rng := mathrand.New(mathrand.NewPCG(1, 1)) //nolint:gosec // a delay
	for _, id := range c.ids {
		err := c.await(ctx, string(id)+" answers a linearizable read", func() bool {
			a, err := c.call(ctx, rng, id, c.operator, request{method: http.MethodGet, path: "/v1/tenants"}, nil)
			return err == nil && a.status == http.StatusOK
		})
		if err == nil {
			err = c.await(ctx, string(id)+" lists the audit log", func() bool {
				a, err := c.call(ctx, rng, id, c.operator, request{method: http.MethodGet, path: "/v1/audit?limit=10"}, nil)
				return err == nil && a.status == http.StatusOK
			})
		}
		if err != nil {
			return nil, err
		}
	}
	// The loops of the leader may still commit; the cluster rests when nothing moved for a while.
	var last uint64
	quiet := 0
	err := c.await(ctx, "all members are at one index", func() bool {
		at := c.members[c.ids[0]].running().store.Read().Index()
		for _, id := range c.ids[1:] {
			if c.members[id].running().store.Read().Index() != at {
				quiet = 0
				return false
			}
		}
		if at != last {
			last, quiet = at, 0
			return false
		}
		quiet++
		return quiet > 100
	})
	var out []Standing
	for _, id := range c.ids {
		p := c.members[id].running()
		s := Standing{Member: id, View: p.store.Read()}
		if failing := p.tel.Health.Ready(); len(failing) > 0 {
			b, _ := json.Marshal(failing) // a map of strings
			s.Ready = fleet.NewError(fleet.ErrUnavailable, "health", "%s", b)
		}
		out = append(out, s)
	}
	return out, err
}

// everyoneVotes adds members that have no vote, as far as the leader knows, and reports whether there was none.
func (c *Cluster) everyoneVotes(ctx context.Context) bool {
	leader := c.members[c.leader()].running()
	if leader == nil || !leader.node.IsLeader() {
		return false
	}
	servers, err := leader.node.Servers()
	if err != nil {
		return false
	}
	all := true
	for _, id := range c.ids {
		if !slices.Contains(servers, consensus.Server{ID: id, Address: string(id), Suffrage: consensus.Voter}) {
			all = false
			c.readmit(ctx, id)
		}
	}
	return all
}

// describe adds to the story how each member sees the cluster.
func (c *Cluster) describe() {
	for _, id := range c.ids {
		p := c.members[id].running()
		if p == nil {
			c.note("%s: down", id)
			continue
		}
		servers, err := p.node.Servers()
		c.note("%s: %+v, servers %v, %v", id, p.node.Stats(), servers, err)
	}
}

// Close stops everything and returns what the harness could not do.
func (c *Cluster) Close() error {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.Net.Heal()
	for _, id := range c.ids {
		c.members[id].down((*process).stop)
	}
	c.watch.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.errs...)
}
