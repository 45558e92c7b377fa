package command

import "github.com/edgefleet/edgefleet/fleet"

type (
	// RulesImport writes and deletes rules of one tenant, all or none. Answers RulesImported.
	RulesImport struct {
		Tenant fleet.TenantID `json:"tenant"`
		Put    []RuleEntry    `json:"put,omitempty"`
		Delete []fleet.RuleID `json:"delete,omitempty"`
		// Base are the rules that the change was made from: it is refused if they are others now. Nil is whatever they are.
		Base *RulesBase `json:"base,omitempty"`
	}
	// RulesBase are Count rules, the last of which changed at Revision.
	RulesBase struct {
		Count    int    `json:"count"`
		Revision uint64 `json:"revision"`
	}
	// RuleEntry is one rule that is written.
	RuleEntry struct {
		ID   fleet.RuleID   `json:"id"`
		Spec fleet.RuleSpec `json:"spec"`
	}
	// RulesImported says which rules were written and deleted, and how many of the tenant's are as they were.
	RulesImported struct {
		Added     []fleet.RuleID `json:"added"`
		Changed   []fleet.RuleID `json:"changed"`
		Deleted   []fleet.RuleID `json:"deleted"`
		Unchanged int            `json:"unchanged"`
	}
)

// Type implements Body.
func (RulesImport) Type() Type { return TypeRulesImport }
