package request

import "github.com/edgefleet/edgefleet/fleet"

// Parse parses in within lim. It never fails: see Problems.
func Parse(in Input, lim Limits) *Request { return &Request{in: in} }

// At returns the values at p.
func (r *Request) At(p fleet.Point) []Value { return nil }

// Attribute returns what a rule's condition compares.
func (r *Request) Attribute(point string) (value string, present bool, err error) { return "", false, nil }

// ParsePoint reads a point in its JSON form.
func ParsePoint(s string) (fleet.Point, error) { return nil, nil }

// ValidatePoint checks p.
func ValidatePoint(p fleet.Point) error { return nil }

// PointString is the short form of p, such as get.q.
func PointString(p fleet.Point) string { return "" }
