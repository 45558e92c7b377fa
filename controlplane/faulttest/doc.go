// Package faulttest breaks control planes and checks that nothing was lost.
//
// It owns a cluster of members in one process, on fake time (Cluster): real Raft, state machine, API with forwarding,
// keys and head loop, over a network and disks that fail as told; clients that record what they asked and what they
// were told (History); the schedule of faults that a seed stands for (Plan); and CheckFleet, the one function that holds
// a fleet against every invariant, however it was broken. What fake time cannot show, Processes does: three real members,
// killed (while they write or restore a snapshot or renew certificates, too), frozen, parted by proxies in front of their ports,
// removed and taken in again meanwhile, with full disks and lost streams; the same clients ask them, a node under attack
// sends them its events, and CheckFleet reads what their directories hold.
//
// A seed fixes the plan: which faults come, when, for how long and to whom, and what each client asks for in which order.
// It does not fix how the scheduler interleaves goroutines within one instant of fake time, so that two runs of a seed can
// differ in who wins a race. A seed that failed once is run again with -count.
//
// It is linked by tests only.
package faulttest
