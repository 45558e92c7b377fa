package client

import (
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
	"github.com/edgefleet/edgefleet/fleet/sample"
)

type (
	// RuleView is a rule and how it stands.
	RuleView struct {
		fleet.Rule
		Expired bool `json:"expired,omitempty" doc:"it is not applied any more"`
	}
	// RuleUpdate replaces what a rule says.
	RuleUpdate struct {
		Spec fleet.RuleSpec `json:"spec"`
	}
	// RuleExplain asks how a request is judged.
	RuleExplain struct {
		Request sample.Request `json:"request"`
		Source  rules.Source   `json:"source,omitempty" enum:",allow,deny,gray" doc:"IP list that the client would be on"`
	}
	// RuleExplanation is how a node judges the request where the managed rules find nothing.
	RuleExplanation struct {
		Host fleet.HostName `json:"host"`
		rules.Explanation
		// Masks are the points whose values do not leave the node.
		Masks []string `json:"masks"`
		// Note says what is not looked at here.
		Note string `json:"note"`
	}

	// RuleEntry is one rule of a file.
	RuleEntry struct {
		ID             fleet.RuleID `json:"id" yaml:"id"`
		fleet.RuleSpec `yaml:",inline"`
	}
	// RuleImport writes many rules, all or none.
	RuleImport struct {
		Rules []RuleEntry `json:"rules" maxItems:"2000"`
		// Prune deletes the rules that are not among them.
		Prune  bool `json:"prune,omitempty" doc:"delete the tenant's other rules"`
		DryRun bool `json:"dry_run,omitempty" doc:"say what would change, and change nothing"`
	}
	// RuleImported is what an import changes, or would.
	RuleImported struct {
		DryRun    bool           `json:"dry_run,omitempty"`
		Added     []fleet.RuleID `json:"added"`
		Changed   []fleet.RuleID `json:"changed"`
		Deleted   []fleet.RuleID `json:"deleted"`
		Unchanged int            `json:"unchanged"`
	}

	// RuleImpact asks what a rule would have touched.
	RuleImpact struct {
		Spec fleet.RuleSpec `json:"spec"`
	}
	// RuleTouched is the share of the last week's events that a false-positive fix would have taken out.
	RuleTouched struct {
		Days    int     `json:"days"`
		Events  int     `json:"events" doc:"events that were looked at"`
		Touched int     `json:"touched"`
		Share   float64 `json:"share"`
		// Partial: there are more events; the newest were looked at.
		Partial bool `json:"partial,omitempty"`
		// Examples are some of them.
		Examples []fleet.EventID `json:"examples,omitempty"`
	}
)
