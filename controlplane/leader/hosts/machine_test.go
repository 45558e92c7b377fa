package hosts_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// machine is the real state machine without a log: a cluster of one that never elects.
type machine struct {
	state *state.Store
	keys  *keys.Keys
	kek   *keyring.KEK

	mu    sync.Mutex
	fsm   *fsm.FSM
	index uint64
	// down makes every proposal fail as without a quorum.
	down bool
	// loop has what a loop over the machine ended with.
	loop chan error
}

// of is one authority with an issuer.
func of(i hosts.Issuer) []hosts.Authority {
	return []hosts.Authority{{Directory: "https://ca.example/dir", Issuer: i}}
}

const zone = fleet.HostName("edge.example")

func newMachine(t testing.TB, nodes ...fleet.Node) *machine {
	t.Helper()
	kek, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	s := state.New()
	m := &machine{state: s, fsm: fsm.New(s), kek: kek, loop: make(chan error, 1)}
	cluster, err := keys.Generate("test", zone, kek, make([]byte, 32), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	token := fleet.TokenRecord{Token: fleet.Token{ID: "root", Role: fleet.RoleOperator}, Hash: make([]byte, fleet.HashBytes)}
	m.must(t, command.ClusterInit{Cluster: cluster, Member: fleet.Member{ID: "m1"}, Token: token})
	c, _ := s.Read().Cluster()
	if m.keys, err = keys.Open(c, kek); err != nil {
		t.Fatal(err)
	}
	tx := s.Write()
	for _, n := range nodes {
		tx.PutNode(n)
	}
	tx.Commit()
	return m
}

// Propose applies b.
func (m *machine) Propose(ctx context.Context, h command.Header, b command.Body) (any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if m.down {
		return nil, fleet.NewError(fleet.ErrUnavailable, "", "no quorum")
	}
	data, err := command.Encode(h, b)
	if err != nil {
		return nil, err
	}
	m.index++
	res, _ := m.fsm.Apply(&raft.Log{Index: m.index, Data: data}).(fsm.Result)
	if res.Err != nil {
		return nil, res.Err
	}
	return res.Object, nil
}

func (m *machine) must(t testing.TB, b command.Body) {
	t.Helper()
	if _, err := m.Propose(t.Context(), command.Header{Time: time.Now().UTC(), Actor: fleet.Actor{Name: "test", Party: fleet.Vendor}}, b); err != nil {
		t.Fatalf("%s: %v", b.Type(), err)
	}
}

func (m *machine) tenant(t testing.TB, id fleet.TenantID) {
	t.Helper()
	m.must(t, command.TenantPut{Put: command.Put{Create: true}, ID: id, Spec: fleet.TenantSpec{Name: string(id), Form: fleet.SecurityEdge, Group: fleet.DefaultGroup}})
}

func (m *machine) host(t *testing.T, tenant fleet.TenantID, name fleet.HostName, label string) fleet.Host {
	t.Helper()
	m.must(t, command.HostPut{Put: command.Put{Create: true}, Name: name, Tenant: tenant, Label: label, Exclusive: true, Spec: fleet.HostSpec{
		Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.10"}},
	}})
	h, _ := m.state.Read().Host(name)
	return h
}

// wait blocks until ok holds of the state, or fails the test with what the host is like then.
func (m *machine) wait(t *testing.T, name fleet.HostName, what string, ok func(*state.View, fleet.Host) bool) fleet.Host {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		ws := m.state.Watch(state.Hosts, state.Orders, state.Certificates, state.Challenges)
		v := m.state.Read()
		h, _ := v.Host(name)
		if ok(v, h) {
			return h
		}
		if ws.WatchCtx(ctx) != nil {
			t.Fatalf("%s does not get to %s: %+v, orders %+v", name, what, h.Observed, v.OrdersOf(name))
		}
	}
}
