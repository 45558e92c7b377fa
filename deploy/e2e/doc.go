// Package e2e holds tests of the programs from outside: what a person who makes a mistake sees, and that nothing is lost
// or half done by it.
//
// It starts the real programs, built once by TestMain, on loopback addresses, and looks at exit codes, messages and the
// public API. It owns no code that ships. Tests that need what the machine lacks (mounting a file system, port 53) say so
// and are skipped.
package e2e
