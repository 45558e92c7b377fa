package faulttest

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// Solo is a member alone on a real disk, of which everything it acknowledged is in its ledger.
type Solo struct {
	Ledger *Ledger
	id     fleet.MemberID
	store  *state.Store
	node   *consensus.Node
	raft   api.Consensus
}

// OpenSolo opens the member whose log is in dir, cut off from all others, and tells the ledger of each entry that it
// applies.
func OpenSolo(id fleet.MemberID, dir string, l *Ledger) (*Solo, error) {
	s := &Solo{Ledger: l, id: id, store: state.New()}
	l.Restarted(id)
	node, err := consensus.OpenOn(consensus.Options{
		Dir: dir, Member: id, FSM: soloMachine{fsm.New(s.store), s}, Telemetry: observability.Discard(), TrailingLogs: 12,
	}, consensus.Seams{Stream: NewNetwork(0).Join(id)})
	if err != nil {
		return nil, err
	}
	s.node, s.raft = node, controlplane.Consensus(node, id, nil)
	return s, nil
}

type soloMachine struct {
	raft.FSM
	solo *Solo
}

// Apply implements raft.FSM.
func (m soloMachine) Apply(l *raft.Log) any {
	out := m.FSM.Apply(l)
	m.solo.Ledger.Applied(m.solo.id, m.solo.store.Read(), false)
	return out
}

// Restore implements raft.FSM.
func (m soloMachine) Restore(rc io.ReadCloser) error {
	if err := m.FSM.Restore(rc); err != nil {
		return err
	}
	m.solo.Ledger.Applied(m.solo.id, m.solo.store.Read(), true)
	return nil
}

// Lead waits until the member leads and has applied everything. One that does neither that nor refuse to open is broken.
func (s *Solo) Lead(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	for !s.node.IsLeader() {
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("the member opened its directory but does not lead; it is %+v: %w", s.node.Stats(), err)
		}
	}
	return s.node.Barrier(ctx)
}

// Fill begins a cluster, and writes with a snapshot in the middle.
func (s *Solo) Fill(ctx context.Context, record fleet.ClusterRecord, token fleet.TokenRecord) error {
	if err := s.node.Bootstrap(); err != nil {
		return err
	}
	if err := s.Lead(ctx); err != nil {
		return err
	}
	if err := s.put(ctx, command.ClusterInit{Cluster: record, Member: memberRecord(s.id), Token: token}, "init"); err != nil {
		return err
	}
	for i := range 60 {
		id := fleet.TenantID(fmt.Sprintf("t%d", i))
		body := command.TenantPut{Put: command.Put{Create: true}, ID: id, Spec: fleet.TenantSpec{Name: string(id), Form: fleet.SecurityEdge, Group: fleet.DefaultGroup}}
		if err := s.put(ctx, body, string(id)); err != nil {
			return err
		}
		if i == 20 || i == 40 {
			if err := s.node.Snapshot(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Solo) put(ctx context.Context, b command.Body, request string) error {
	_, err := s.raft.Propose(ctx, command.Header{Time: time.Now().UTC(), RequestID: request, Actor: fleet.Actor{Name: "test", Party: fleet.Vendor}}, b)
	if t, ok := b.(command.TenantPut); ok && err == nil {
		s.Ledger.Acknowledged(Mutation{RequestID: request, Object: "tenant/" + string(t.ID), Mark: string(t.ID)})
	}
	return err
}

// Standing is how the member stands.
func (s *Solo) Standing() Standing { return Standing{Member: s.id, View: s.store.Read()} }

// Close stops the member.
func (s *Solo) Close(ctx context.Context) error { return s.node.Crash(ctx) }

// Damaged copies the directory of a stopped member with one file damaged, and says how: a bit is flipped, or the file
// ends early. Only what was written is damaged; logs are allocated ahead.
func Damaged(from, to string, rng *rand.Rand) (how string, err error) {
	var files []string
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		b, size, err := written(path)
		if err != nil {
			return err
		}
		if len(b) > 0 {
			files = append(files, rel)
		}
		return writeSparse(filepath.Join(to, rel), b, size)
	})
	if err != nil {
		return "", err
	}
	file := files[rng.IntN(len(files))]
	path := filepath.Join(to, file)
	b, size, err := written(path)
	if err != nil {
		return "", err
	}
	at := rng.IntN(len(b))
	if rng.IntN(4) == 0 {
		return fmt.Sprintf("%s ends at byte %d of %d", file, at, size), os.Truncate(path, int64(at))
	}
	bit := rng.IntN(8)
	b[at] ^= 1 << bit
	return fmt.Sprintf("bit %d of byte %d of %s is flipped", bit, at, file), writeSparse(path, b, size)
}

// written is a file up to its last byte that is not zero, and its size.
func written(path string) (b []byte, size int64, err error) {
	if b, err = os.ReadFile(path); err != nil {
		return nil, 0, err
	}
	size = int64(len(b))
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b, size, nil
}

func writeSparse(path string, b []byte, size int64) error {
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, size)
}
