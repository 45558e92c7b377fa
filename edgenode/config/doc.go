// Package config holds what a node serves: it verifies signed heads, reads their bundle trees, and publishes the result
// as one immutable snapshot.
//
// It owns the node's last-known-good state on disk (the signed heads it accepted, the sealed key envelope, the blobs they
// name) and the decision to accept or refuse a head. It does not talk to the network: callers pass the heads and a
// function that fetches a blob. With the control plane away it serves what it loaded last, for ever; with its disk
// corrupt it falls back to the previous heads, then to the tenants that are whole, and starts anyway.
package config
