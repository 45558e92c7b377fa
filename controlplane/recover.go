package controlplane

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
	"github.com/edgefleet/edgefleet/observability"
)

// Rebirth says how a new incarnation begins that no running cluster agrees on: after a lost quorum, or from a snapshot.
type Rebirth struct {
	// RecoveryKey is the recovery key, PEM. Without it nodes do not follow until an incarnation is started with it.
	RecoveryKey []byte
	// Incarnation is the number of the new incarnation; 0 takes one that is higher than any that nodes can have seen.
	Incarnation uint64
	Now         time.Time
	// Confirm is asked before anything is written.
	Confirm func(Plan) error
}

// Plan is what a rebirth is about to do.
type Plan struct {
	Cluster     fleet.ClusterID
	Member      fleet.MemberID
	Incarnation uint64
	// Index and Term are where the state stands; Beyond counts entries of the log that this member did not know to be
	// committed, and that count as committed from now on.
	Index, Term, Beyond uint64
	// Lost are the members that are left out, and must never start again with what they have.
	Lost []fleet.MemberID
	// Signed says that nodes will follow.
	Signed bool
}

// number is the incarnation to begin: later than known. What incarnations a lost majority began nobody knows here, so the
// number is the time in seconds, which is higher than any count of restores, and higher each time.
func (b Rebirth) number(known uint64) (uint64, error) {
	if b.Incarnation == 0 {
		return max(known+1, uint64(max(b.Now.Unix(), 0))), nil //nolint:gosec // not negative
	}
	if b.Incarnation <= known {
		return 0, fleet.Invalid("incarnation", "incarnation %d is not later than %d, which the state is in: give a higher number, or none", b.Incarnation, known)
	}
	return b.Incarnation, nil
}

// command makes the entry that begins the incarnation.
func (b Rebirth) command(s *state.Store, cmd command.IncarnationStart, plan Plan) ([]byte, error) {
	c, _ := s.Read().Cluster()
	var err error
	if cmd.Number, err = b.number(c.Incarnation); err != nil {
		return nil, err
	}
	if len(b.RecoveryKey) > 0 {
		key, err := head.ParseRecoveryKey(b.RecoveryKey, c.RecoveryKey)
		if err != nil {
			return nil, err
		}
		if cmd.Statement, err = head.SignIncarnation(head.Incarnation{Cluster: c.ID, Number: cmd.Number, HeadKeys: c.HeadKeys, Time: b.Now.UTC()}, key); err != nil {
			return nil, err
		}
	}
	plan.Cluster, plan.Incarnation, plan.Signed = c.ID, cmd.Number, len(b.RecoveryKey) > 0
	if b.Confirm != nil {
		if err := b.Confirm(plan); err != nil {
			return nil, err
		}
	}
	return command.Encode(leader.Header(string(cmd.Cause), b.Now.UTC()), cmd)
}

// accepted looks at the answer of the state machine.
func accepted(answer any) error {
	r, ok := answer.(fsm.Result)
	if !ok {
		return fmt.Errorf("begin incarnation: unexpected answer %T", answer)
	}
	if r.Err != nil {
		return r.Err
	}
	return nil
}

// ParsePeers reads "id=host:port,…".
func ParsePeers(text string) ([]consensus.Server, error) {
	var out []consensus.Server
	for part := range strings.SplitSeq(text, ",") {
		id, addr, _ := strings.Cut(strings.TrimSpace(part), "=")
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host == "" || port == "" || port == "0" || fleet.ValidateID("peer", id) != nil {
			return nil, fleet.Invalid("peers", "%q is not member=host:port of its Raft port, such as m1=203.0.113.1:8441", part)
		}
		if slices.ContainsFunc(out, func(s consensus.Server) bool { return string(s.ID) == id || s.Address == addr }) {
			return nil, fleet.Invalid("peers", "%q is given twice", part)
		}
		out = append(out, consensus.Server{ID: fleet.MemberID(id), Address: addr, Suffrage: consensus.Voter})
	}
	return out, nil
}

// Recover lets the stopped member of c go on without the majority that it lost: peers is the whole new configuration.
// It begins a new incarnation. It is run on one member, the one with the most of the log; every other peer must begin
// with an empty Raft directory, and the members left out must never start again.
func Recover(c Config, peers []consensus.Server, b Rebirth) (Plan, error) {
	var plan Plan
	if err := c.checkOwner(); err != nil {
		return plan, err
	}
	m, err := c.membership()
	if err != nil {
		return plan, err
	}
	own := consensus.Server{ID: c.Member, Address: c.advertised("").Raft, Suffrage: consensus.Voter}
	if !slices.Contains(peers, own) {
		return plan, fleet.Invalid("peers", "this member is not among them: give %s=%s, and the others, if any", own.ID, own.Address)
	}
	store := state.New()
	_, err = consensus.Recover(consensus.Options{Dir: c.path("raft"), Member: c.Member, FSM: fsm.New(store), Telemetry: observability.Discard()}, consensus.Recovery{
		Servers: peers, Accept: accepted,
		Entry: func(r consensus.Recovered) ([]byte, error) {
			v := store.Read()
			if cluster, ok := v.Cluster(); !ok || cluster.ID != m.Cluster {
				return nil, fleet.NewError(fleet.ErrConflict, "data_dir", "the log in %s is of cluster %q, the identity of cluster %s: the directories of two clusters were mixed", c.DataDir, cluster.ID, m.Cluster)
			}
			cmd := command.IncarnationStart{Cause: fleet.CauseRecover}
			plan = Plan{Member: c.Member, Index: r.Index, Term: r.Term, Beyond: r.Beyond}
			for _, known := range v.Members() {
				i := slices.IndexFunc(peers, func(p consensus.Server) bool { return p.ID == known.ID })
				if i < 0 {
					plan.Lost = append(plan.Lost, known.ID)
					continue
				}
				known.Raft = peers[i].Address
				cmd.Members = append(cmd.Members, known)
			}
			if len(cmd.Members) != len(peers) {
				return nil, fleet.Invalid("peers", "only %d of the %d peers are members of cluster %s as this member knows it: others join later, with 'controlplane join'", len(cmd.Members), len(peers), m.Cluster)
			}
			ask := b.Confirm
			return Rebirth{b.RecoveryKey, b.Incarnation, b.Now, func(p Plan) error {
				plan = p
				if ask == nil {
					return nil
				}
				return ask(p)
			}}.command(store, cmd, plan)
		},
	})
	return plan, err
}

// FromSnapshot is what InitFromSnapshot made.
type FromSnapshot struct {
	Initialized
	Plan
	Envelope snapshot.Envelope
}

// InitFromSnapshot brings a cluster back in the empty data directory of c: its certificate authorities, keys and state
// are those of the snapshot, which only its key-encryption key opens. Nodes find the control plane that they trust, in a
// new incarnation. It leaves nothing behind when it fails.
func InitFromSnapshot(c Config, file io.Reader, b Rebirth) (out FromSnapshot, err error) {
	if c.KEKFile == "" {
		return out, fleet.Invalid("kek_file", "kek_file is not set: a snapshot is useless without the key-encryption key of its cluster")
	}
	kek, err := c.kek()
	if err != nil {
		return out, err
	}
	if kek == nil {
		return out, fleet.NewError(fleet.ErrNotFound, "kek_file", "%s does not exist: put the key-encryption key of the snapshot's cluster there, from another member or from escrow; a new one opens nothing", c.KEKFile)
	}
	loaded, err := backup.Load(file, kek)
	if err != nil {
		return out, err
	}
	rec, _ := loaded.State.Read().Cluster()
	if c.ClusterZone != "" && c.ClusterZone != rec.Zone {
		return out, fleet.NewError(fleet.ErrConflict, "cluster_zone", "the snapshot is of a cluster with the zone %s, but the configuration says %s: correct cluster_zone", rec.Zone, c.ClusterZone)
	}
	existed, err := c.requireEmpty("init")
	if err != nil {
		return out, err
	}
	err = c.rebuild(&out, loaded, b)
	if err != nil {
		if undo := c.discard(existed); undo != nil {
			err = fmt.Errorf("%w (and %s is not empty again: %w)", err, c.DataDir, undo)
		}
	}
	return out, err
}

func (c Config) rebuild(out *FromSnapshot, loaded backup.Loaded, b Rebirth) error {
	rec, _ := loaded.State.Read().Cluster()
	// A life of its own, as by a join token: the snapshot may know a member of this id that was removed.
	join := fleet.TokenID("rebuilt-" + strings.ToLower(rand.Text()))
	if err := c.issueMember(rec.ID, join, loaded.Keys, b.Now); err != nil {
		return err
	}
	if err := c.issueAPI(loaded.Keys, b.Now); err != nil {
		return err
	}
	tok, text := api.NewToken(fleet.Token{Role: fleet.RoleOperator, Comment: "made by init from a snapshot"})
	self := c.advertised(observability.Version)
	self.Join = join
	cmd := command.IncarnationStart{
		Cause: fleet.CauseRestore, Snapshot: backup.Origin(loaded.Envelope), Members: []fleet.Member{self}, Token: tok,
	}
	_, err := consensus.Recover(consensus.Options{Dir: c.path("raft"), Member: c.Member, FSM: fsm.New(loaded.State), Telemetry: observability.Discard()}, consensus.Recovery{
		Servers: []consensus.Server{{ID: c.Member, Address: self.Raft, Suffrage: consensus.Voter}},
		Loaded:  true, Index: loaded.Envelope.Index, Term: loaded.Envelope.Term, Accept: accepted,
		Entry: func(r consensus.Recovered) ([]byte, error) {
			ask := b.Confirm
			return Rebirth{b.RecoveryKey, b.Incarnation, b.Now, func(p Plan) error {
				out.Plan = p
				if ask == nil {
					return nil
				}
				return ask(p)
			}}.command(loaded.State, cmd, Plan{Member: c.Member, Index: r.Index, Term: r.Term})
		},
	})
	if err != nil {
		return err
	}
	if err := writeFile(c.path(fileOperator), []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	out.Envelope = loaded.Envelope
	out.Initialized = Initialized{Cluster: rec.ID, Token: text, TokenFile: c.path(fileOperator), KEKFile: c.KEKFile, CACert: c.path("api-ca.crt")}
	return c.save(membership{Cluster: rec.ID, Member: c.Member, Zone: rec.Zone, MemberCA: rec.MemberCA, NodeCA: rec.NodeCA, APICA: rec.APICA})
}
