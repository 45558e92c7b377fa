package hoststate

import (
	"slices"

	"github.com/edgefleet/edgefleet/fleet"
)

// Edge is a step that a host may take.
type Edge struct {
	From, To fleet.HostPhase
	// When says what happened.
	When string
}

// Edges are all steps that a host may take. Whatever the facts say, a host goes along them, one at a time.
var Edges = []Edge{
	{fleet.PhaseClaimed, fleet.PhasePendingDNS, "DNS was looked at and is not right"},
	{fleet.PhaseClaimed, fleet.PhasePreflight, "DNS was right at the first look"},
	{fleet.PhasePendingDNS, fleet.PhasePreflight, "DNS allows a challenge"},

	{fleet.PhasePreflight, fleet.PhasePendingDNS, "the records went away"},
	{fleet.PhasePreflight, fleet.PhaseOrdering, "the order is in the state, and nothing is in its way"},
	{fleet.PhaseOrdering, fleet.PhasePendingDNS, "the records went away"},
	{fleet.PhaseOrdering, fleet.PhasePreflight, "the CA would refuse, or refused because of CAA"},
	{fleet.PhaseOrdering, fleet.PhaseValidating, "the answer to the CA's challenge is published"},
	{fleet.PhaseOrdering, fleet.PhaseDeploying, "the certificate came while nobody looked"},
	{fleet.PhaseValidating, fleet.PhasePendingDNS, "the records went away"},
	{fleet.PhaseValidating, fleet.PhasePreflight, "the CA refused because of CAA"},
	{fleet.PhaseValidating, fleet.PhaseOrdering, "the validation failed, or its leader did"},
	{fleet.PhaseValidating, fleet.PhaseIssuing, "the CA is content"},
	{fleet.PhaseValidating, fleet.PhaseDeploying, "the certificate came while nobody looked"},
	{fleet.PhaseIssuing, fleet.PhasePendingDNS, "the records went away"},
	{fleet.PhaseIssuing, fleet.PhasePreflight, "the CA refused because of CAA"},
	{fleet.PhaseIssuing, fleet.PhaseOrdering, "the CA issued nothing, or the leader ended"},
	{fleet.PhaseIssuing, fleet.PhaseValidating, "the CA has another challenge"},
	{fleet.PhaseIssuing, fleet.PhaseDeploying, "the certificate is in the state"},

	{fleet.PhaseDeploying, fleet.PhaseActive, "a handshake through the edges showed the certificate"},
	{fleet.PhaseActive, fleet.PhaseRenewing, "an order for the successor began"},
	{fleet.PhaseRenewing, fleet.PhaseActive, "a handshake showed the successor, or the order was given up"},
	{fleet.PhaseActive, fleet.PhaseMoved, "DNS leads elsewhere"},
	{fleet.PhaseRenewing, fleet.PhaseMoved, "DNS leads elsewhere"},
	{fleet.PhaseMoved, fleet.PhaseActive, "DNS leads here again"},
	{fleet.PhaseMoved, fleet.PhaseRenewing, "DNS leads here again while the successor is on its way"},
	{fleet.PhaseMoved, fleet.PhaseDetached, "DNS has led elsewhere for a week"},
	{fleet.PhaseDetached, fleet.PhaseActive, "DNS leads here again"},
	{fleet.PhaseDetached, fleet.PhaseRenewing, "DNS leads here again while the successor is on its way"},

	// A certificate that is withdrawn takes the host back to where certificates come from.
	{fleet.PhaseDeploying, fleet.PhasePreflight, "the certificate was withdrawn"},
	{fleet.PhaseActive, fleet.PhasePreflight, "the certificate was withdrawn"},
	{fleet.PhaseRenewing, fleet.PhasePreflight, "the certificate was withdrawn"},
	{fleet.PhaseMoved, fleet.PhasePreflight, "the certificate was withdrawn"},
	{fleet.PhaseDetached, fleet.PhasePreflight, "the certificate was withdrawn"},

	// From every phase; the label's row in the state is the tombstone.
	{"", fleet.PhaseDeleting, "a person deleted the host"},
	{fleet.PhaseDeleting, fleet.PhaseTombstone, "no edge has the host any more; its label is never issued again"},
}

// OwnEdges are the steps, beside Edges, of a host for which no certificate is ordered.
var OwnEdges = []Edge{
	{fleet.PhaseClaimed, fleet.PhaseDeploying, "a certificate was uploaded, or none is wanted"},
	{fleet.PhasePendingDNS, fleet.PhaseDeploying, "a certificate was uploaded, or none is wanted"},
	{fleet.PhasePreflight, fleet.PhaseDeploying, "a certificate was uploaded, or none is wanted"},
	{fleet.PhaseOrdering, fleet.PhaseDeploying, "a certificate was uploaded, or none is wanted"},
}

// shortcut reports whether a step is one of OwnEdges.
func shortcut(from, to fleet.HostPhase) bool {
	return slices.ContainsFunc(OwnEdges, func(e Edge) bool { return e.From == from && e.To == to })
}

// Legal reports whether a host may step from one phase to another.
func Legal(from, to fleet.HostPhase) bool {
	return shortcut(from, to) || usual(from, to)
}

func usual(from, to fleet.HostPhase) bool {
	return slices.ContainsFunc(Edges, func(e Edge) bool {
		every := e.From == "" && from != fleet.PhaseDeleting && from != fleet.PhaseTombstone
		return e.To == to && (e.From == from || every)
	})
}

// step is the next phase on the shortest way between two; from itself when no way leads there.
func step(from, to fleet.HostPhase) fleet.HostPhase {
	if from == to || usual(from, to) {
		return to
	}
	before := map[fleet.HostPhase]fleet.HostPhase{from: from}
	for queue := []fleet.HostPhase{from}; len(queue) > 0; queue = queue[1:] {
		for _, e := range Edges {
			if _, seen := before[e.To]; e.From != queue[0] || seen {
				continue
			}
			before[e.To] = e.From
			queue = append(queue, e.To)
		}
	}
	if _, reached := before[to]; !reached {
		return from
	}
	for before[to] != from {
		to = before[to]
	}
	return to
}
