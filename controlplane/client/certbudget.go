package client

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

type (
	// CertBudget is what may still be asked of the certificate authorities, by what was counted in the state.
	CertBudget struct {
		Authorities []AuthorityBudget `json:"authorities"`
		// Waiting counts the orders that wait for a budget or a limit of an authority.
		Waiting int `json:"waiting"`
	}

	// AuthorityBudget is one certificate authority, the one to prefer first.
	AuthorityBudget struct {
		Directory string `json:"directory"`
		// State is ok, limited (it wants to be left alone) or away (it does not answer).
		State string `json:"state" enum:"ok,limited,away"`
		// Since is since when it has not answered, Until when it is asked next, Problem what it said last.
		Since   time.Time `json:"since,omitzero"`
		Until   time.Time `json:"until,omitzero"`
		Problem string    `json:"problem,omitempty"`
		// Orders are those of the account within three hours, of which Reserved are kept for renewals.
		Orders   Budget `json:"orders"`
		Reserved int    `json:"reserved,omitempty"`
		// Domains are the registered domains with the most certificates within a week, Names those with failed validations
		// within an hour.
		Domains []NamedBudget `json:"domains,omitempty"`
		Names   []NamedBudget `json:"names,omitempty"`
	}

	// Budget is how much of a limit is used; a limit of 0 is none.
	Budget struct {
		Used  int `json:"used"`
		Limit int `json:"limit,omitempty"`
		// Free is when it is used less, if it is spent.
		Free time.Time `json:"free,omitzero"`
	}

	// NamedBudget is the budget of one name.
	NamedBudget struct {
		Name fleet.HostName `json:"name"`
		Budget
	}
)
