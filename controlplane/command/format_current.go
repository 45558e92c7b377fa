//go:build !previous

package command

// Format is the newest format of the log, and of snapshots, that this build understands. It understands all before it.
const Format = 2
