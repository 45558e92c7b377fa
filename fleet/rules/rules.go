// Package rules compiles the rules of one tenant and evaluates them over a parsed request.
package rules

import (
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// Set is the compiled rules of one tenant. It is immutable and safe for concurrent use; a nil Set matches nothing.
type Set struct{}

// Match is one rule that matched, with the excerpt that it matched. Neither Value nor Payload is masked.
type Match struct {
	Rule         fleet.RuleID
	Type         fleet.AttackType
	Experimental bool
	Point        fleet.Point
	Parameter    string
	// Value is the whole value at Point, Payload the part of it that the pattern matched.
	Value, Payload string
	// Message is the rule's own fixed text: its comment, or "rule <id>".
	Message string
}

// Validate compiles spec as a node does.
func Validate(spec fleet.RuleSpec) error { return nil }

// Compile compiles the rules of a tenant's bundle, all or nothing.
func Compile(rules []fleet.BundleRule) (*Set, error) { return nil, nil }

// Evaluate returns the rules that r matches, in the order of the bundle.
func (s *Set) Evaluate(r *request.Request) []Match { return nil }
