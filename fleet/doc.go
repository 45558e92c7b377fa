// Package fleet is the domain of Edgefleet: the nouns (tenants, hosts, nodes, rules, events, heads),
// their invariants, and the messages that the control plane and the edge exchange.
//
// It owns no I/O, no clock and no randomness: times, ids and random bytes are arguments. It imports the
// standard library only, because everything else imports it, the replicated state machine included.
//
// Every stored object has up to three parts with one writer each: Spec is written by people, Desired by the
// leader of the control plane, Observed from what nodes, DNS and certificate authorities report.
package fleet
