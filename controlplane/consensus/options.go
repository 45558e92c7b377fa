package consensus

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// Defaults for members of one region.
const (
	DefaultElectionTimeout   = 250 * time.Millisecond
	DefaultHeartbeatTimeout  = 250 * time.Millisecond
	DefaultSnapshotThreshold = 8192
	DefaultSnapshotInterval  = time.Minute
	DefaultTrailingLogs      = 10240
	DefaultSnapshotBytes     = 64 << 20
)

// MaxCommandBytes is the largest command that Apply takes: an entry is held in memory, sent whole and written with
// one fsync by every member, so content belongs in blobs and the log holds its digest.
const MaxCommandBytes = 4 << 20

const (
	// commitTimeout is how soon followers learn that an entry is committed when no further entry tells them.
	commitTimeout = 25 * time.Millisecond
	// ioTimeout bounds one request between members; sending a snapshot gets more, by its size.
	ioTimeout = 3 * time.Second
	// maxPool is how many idle connections to one member are kept.
	maxPool = 3
	// retainSnapshots is how many snapshots are kept on disk.
	retainSnapshots = 2
	// segmentBytes is the size at which a segment of the write-ahead log is sealed; it is allocated ahead.
	segmentBytes = 16 << 20
	// entryCache is how many recent entries are kept in memory for followers that are a little behind.
	entryCache = 512
)

// Options say where a member keeps its log and how it reaches the others. Dir, Member, Bind, both TLS configurations,
// FSM and Telemetry are needed; the rest has defaults.
type Options struct {
	// Dir is <data dir>/raft. It is created with mode 0700 when it does not exist.
	Dir string
	// Member is this member's id; it never changes for a given Dir.
	Member fleet.MemberID
	// Bind is the host:port to listen on; Advertise is how the other members reach it, Bind's address by default.
	Bind, Advertise string
	// ServerTLS must demand and verify a member's client certificate; ClientTLS must verify that the other end is a
	// member. Neither is checked here beyond being present and asking for certificates.
	ServerTLS, ClientTLS *tls.Config
	// FSM is the state machine; it may be a raft.BatchingFSM. (raft.ConfigurationStore is not used.)
	FSM raft.FSM
	// Telemetry takes logs, metrics and the health of the log ("raft_log").
	Telemetry *observability.Telemetry
	// ElectionTimeout and HeartbeatTimeout are Raft's timers. A follower that hears nothing for HeartbeatTimeout
	// stands for election, and a leader that reaches no quorum for as long steps down.
	ElectionTimeout, HeartbeatTimeout time.Duration
	// SnapshotThreshold is how many new entries are worth a snapshot, SnapshotInterval how often that is looked at,
	// TrailingLogs how many entries are kept behind a snapshot for followers that are behind.
	SnapshotThreshold uint64
	SnapshotInterval  time.Duration
	TrailingLogs      uint64
	// SnapshotBytes is by how much the log may grow before a snapshot is taken at once, whatever the number of entries.
	SnapshotBytes int64
	// VerifyEvery is how many entries of the log are summed up together, to be compared between the members and their disks.
	VerifyEvery uint64

	// wrapLog lets tests inject faults between Raft and the write-ahead log.
	wrapLog func(raft.LogStore) raft.LogStore
	// segmentBytes lets tests seal segments early.
	segmentBytes int
}

// withDefaults fills in what was left zero.
func (o Options) withDefaults() Options {
	setDefault(&o.ElectionTimeout, DefaultElectionTimeout)
	setDefault(&o.HeartbeatTimeout, DefaultHeartbeatTimeout)
	setDefault(&o.SnapshotThreshold, DefaultSnapshotThreshold)
	setDefault(&o.SnapshotInterval, DefaultSnapshotInterval)
	setDefault(&o.TrailingLogs, DefaultTrailingLogs)
	setDefault(&o.SnapshotBytes, DefaultSnapshotBytes)
	setDefault(&o.VerifyEvery, DefaultVerifyEvery)
	setDefault(&o.segmentBytes, segmentBytes)
	return o
}

func setDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// validate checks what every member needs; validateDisk what one on disk and network needs.
func (o Options) validate() error {
	if err := fleet.ValidateID("member", o.Member); err != nil {
		return err
	}
	switch {
	case o.FSM == nil:
		return fleet.Invalid("fsm", "a state machine is needed")
	case o.Telemetry == nil:
		return fleet.Invalid("telemetry", "telemetry is needed")
	case o.SnapshotBytes < 0:
		return fleet.Invalid("snapshot_bytes", "%d is not a number of bytes", o.SnapshotBytes)
	case o.ElectionTimeout < o.HeartbeatTimeout:
		return fleet.Invalid("election_timeout", "election timeout %v is shorter than heartbeat timeout %v: raise it", o.ElectionTimeout, o.HeartbeatTimeout)
	}
	return nil
}

func (o Options) validateDisk() error {
	if o.Dir == "" {
		return fleet.Invalid("dir", "a directory for the log is needed")
	}
	if o.ServerTLS == nil || o.ServerTLS.ClientAuth < tls.RequireAnyClientCert {
		return fleet.Invalid("server_tls", "members must be asked for their certificate")
	}
	if o.ClientTLS == nil {
		return fleet.Invalid("client_tls", "a TLS configuration for reaching other members is needed")
	}
	if _, _, err := net.SplitHostPort(o.Bind); err != nil {
		return fleet.Invalid("bind", "%q is not a host:port to listen on: %v", o.Bind, err)
	}
	if o.Advertise != "" {
		if host, port, err := net.SplitHostPort(o.Advertise); err != nil || host == "" || port == "" || port == "0" {
			return fleet.Invalid("advertise", "%q is not a host:port that other members can reach", o.Advertise)
		}
	}
	return nil
}

// config is hashicorp/raft's view of the options.
func (o Options) config(notify chan<- bool) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(o.Member)
	c.ElectionTimeout = o.ElectionTimeout
	c.HeartbeatTimeout = o.HeartbeatTimeout
	c.LeaderLeaseTimeout = o.HeartbeatTimeout
	c.CommitTimeout = commitTimeout
	c.SnapshotThreshold = o.SnapshotThreshold
	c.SnapshotInterval = o.SnapshotInterval
	c.TrailingLogs = o.TrailingLogs
	c.NotifyCh = notify
	c.NoSnapshotRestoreOnStart = true // trackedFSM.resume has done it
	c.NoLegacyTelemetry = true
	// A leader that is removed stays a follower without a vote until its process is stopped: it must not look crashed.
	c.ShutdownOnRemove = false
	c.Logger = newLogger(o.Telemetry.Logger)
	return c
}
