// Package e2e holds tests of the programs from outside: what a person who makes a mistake sees, and that nothing is lost
// or half done by it.
//
// With a whole fleet, by devfleet, it also holds what no package can alone: certificates by HTTP-01, convergence with one
// transport or both blocked, and that what runs emits the metrics of the registry and no others.
//
// It starts the real programs, built once by TestMain, on loopback addresses, and looks at exit codes, messages and the
// public API. It owns no code that ships. Tests that need what the machine lacks (mounting a file system, port 53) say so
// and are skipped.
package e2e
