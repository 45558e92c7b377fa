// Package consensus runs one member's share of the replicated log: hashicorp/raft over a checked write-ahead log and
// a mutually authenticated transport.
//
// It owns <data dir>/raft (the lock, the write-ahead log, the snapshots) and the Raft port. It does not own the state
// machine: it is given one, and knows nothing of what commands mean. It keeps no deadline or progress of its own: a
// successor finds everything in the log.
//
// What others send is put right before Raft sees it, where Raft departs from its paper (type incoming).
//
// When something is away:
//
//   - Without a quorum, Apply, Barrier and ReadIndex return fleet.ErrUnavailable; nothing is retried here, because only
//     the caller knows whether a command may be repeated. Reads of the local state machine go on, stale, also after a
//     restart: Open gives the state machine what it had.
//   - A disk that refuses an append makes a leader step down (the others elect a new one), makes a follower refuse
//     entries, and makes the member report itself unhealthy as "raft_log". The write-ahead log refuses every further
//     append until it is opened again: free the disk and restart the member.
//   - A corrupt write-ahead log or snapshot is refused by Open, with what to do; a member never serves from a log it
//     cannot read whole.
//   - A committed entry that the state machine cannot decode must make raft.FSM.Apply panic. Raft applies entries on a
//     goroutine of its own, so the panic ends the process: that is intended. The member halts loudly, with the index
//     and term in its last log line, rather than skip an entry that the others applied. A snapshot that raft.FSM.Restore
//     refuses is an error of Open.
package consensus
