package rules

import (
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// Source is the IP list that the client's address is on.
type Source string

// The lists.
const (
	SourceNone  Source = ""
	SourceAllow Source = "allow"
	SourceDeny  Source = "deny"
	SourceGray  Source = "gray"
)

// Sources lists the sources.
var Sources = []Source{SourceNone, SourceAllow, SourceDeny, SourceGray}

// behaviour is one column of the table of modes.
type behaviour struct {
	analyses, reports bool
	// blocks says whose malicious requests are blocked.
	blocks      []Source
	blocksDeny  bool
	allowPasses bool
}

// table says what an edge does in each mode; a virtual patch blocks wherever there is analysis.
var table = map[fleet.Mode]behaviour{
	fleet.ModeOff:          {},
	fleet.ModeMonitoring:   {analyses: true, reports: true, blocksDeny: true, allowPasses: true},
	fleet.ModeSafeBlocking: {analyses: true, reports: true, blocks: []Source{SourceGray}, blocksDeny: true, allowPasses: true},
	fleet.ModeBlock:        {analyses: true, reports: true, blocks: []Source{SourceNone, SourceGray}, blocksDeny: true, allowPasses: true},
}

// Analyses says whether requests from source are analysed in mode: not those that are blocked or let pass by a list.
func Analyses(mode fleet.Mode, source Source) bool {
	b := table[mode]
	return b.analyses && (source != SourceDeny || !b.blocksDeny) && (source != SourceAllow || !b.allowPasses)
}

// Facts are what a decision is made of.
type Facts struct {
	Mode   fleet.Mode
	Source Source
	// Malicious: something was found that counts, which experimental detectors do not. Patched: a virtual patch stops it.
	Malicious, Patched bool
	// Failed are the causes for which the request was not, or not wholly, judged; Policy is the host's for them.
	Failed []fleet.FailCause
	Policy fleet.FailPolicy
}

// Reason is why a request was blocked.
type Reason string

// The reasons.
const (
	// BlockedSource: the address is denylisted.
	BlockedSource Reason = "denylisted"
	// BlockedPatch: a virtual patch.
	BlockedPatch Reason = "virtual_patch"
	// BlockedAttack: the request is malicious.
	BlockedAttack Reason = "malicious"
	// BlockedFailure: it could not be judged, and the fail policy of the host is to close.
	BlockedFailure Reason = "fail_policy"
)

// Verdict is what an edge does with a request.
type Verdict struct {
	// Report says that what was found is reported.
	Report bool
	Block  bool
	// Reason is why it is blocked, Cause that of the fail policy.
	Reason Reason
	Cause  fleet.FailCause
}

// Decide applies the table of modes. It is the one place where that is decided, for nodes and for who explains them.
func Decide(f Facts) Verdict {
	b := table[f.Mode]
	if b.blocksDeny && f.Source == SourceDeny {
		return Verdict{Report: b.reports, Block: true, Reason: BlockedSource}
	}
	if !Analyses(f.Mode, f.Source) {
		return Verdict{}
	}
	v := Verdict{Report: b.reports}
	blocks := slices.Contains(b.blocks, f.Source)
	switch {
	case f.Patched:
		v.Block, v.Reason = true, BlockedPatch
	case f.Malicious && blocks:
		v.Block, v.Reason = true, BlockedAttack
	case blocks:
		for _, cause := range fleet.FailCauses {
			if slices.Contains(f.Failed, cause) && f.Policy.On(cause) == fleet.FailClose {
				return Verdict{Report: b.reports, Block: true, Reason: BlockedFailure, Cause: cause}
			}
		}
	}
	return v
}

// Layer is where a mode was set.
type Layer string

// The layers, each of which goes over those before it; a kill switch only ever to a milder mode.
const (
	// LayerDefault: nobody set a mode.
	LayerDefault    Layer = "default"
	LayerTenant     Layer = "tenant"
	LayerHost       Layer = "host"
	LayerLocation   Layer = "location"
	LayerKillSwitch Layer = "kill_switch"
)

// Setting is a mode and who set it.
type Setting struct {
	Mode  fleet.Mode `json:"mode"`
	Layer Layer      `json:"layer"`
	// Rule is the rule of kind mode that did, of the layers tenant and location.
	Rule fleet.RuleID `json:"rule,omitempty"`
}

// Layers are the modes that are set for a request; empty ones are not.
type Layers struct {
	Tenant, Host, Location fleet.Mode
	TenantRule             fleet.RuleID
	LocationRule           fleet.RuleID
	// Kill is the strictest mode that a kill switch leaves.
	Kill fleet.Mode
}

// Resolve goes through the layers.
func Resolve(l Layers) Setting {
	s := Setting{Mode: fleet.ModeMonitoring, Layer: LayerDefault}
	if l.Tenant != "" {
		s = Setting{l.Tenant, LayerTenant, l.TenantRule}
	}
	if l.Host != "" && l.Host != fleet.ModeInherit {
		s = Setting{l.Host, LayerHost, ""}
	}
	if l.Location != "" {
		s = Setting{l.Location, LayerLocation, l.LocationRule}
	}
	if l.Kill != "" && slices.Index(fleet.Modes, l.Kill) < slices.Index(fleet.Modes, s.Mode) {
		s = Setting{l.Kill, LayerKillSwitch, ""}
	}
	return s
}

// Mode resolves the mode of a request to a host of which host is set; kill is that of a kill switch, or empty.
func (s *Set) Mode(host, kill fleet.Mode, req *request.Request, now time.Time) Setting {
	l := Layers{Host: host, Kill: kill}
	if s != nil {
		for _, r := range s.modes {
			located := len(r.conditions) > 0
			if r.expired(now) || located && l.Location != "" || !located && l.Tenant != "" || !r.applies(req) {
				continue
			}
			if located {
				l.Location, l.LocationRule = r.spec.Mode, r.id
			} else {
				l.Tenant, l.TenantRule = r.spec.Mode, r.id
			}
		}
	}
	return Resolve(l)
}

// SetsModes says that a mode depends on more than the host: on rules of kind mode.
func (s *Set) SetsModes() bool { return s != nil && len(s.modes) > 0 }

// Failed are the causes for which a request is not wholly judged, by how it was parsed.
func Failed(r *request.Request) []fleet.FailCause {
	for _, p := range r.Problems() {
		switch p.Reason {
		case request.ReasonTruncated, request.ReasonTooManyValues, request.ReasonTooDeep, request.ReasonTooLong, request.ReasonInflated:
			return []fleet.FailCause{fleet.FailOverLimit}
		case request.ReasonUnparsable, request.ReasonNoParser, request.ReasonEntities: // the engine says what it makes of it
		case request.ReasonAmbiguousPath: // the proxy refuses it
		}
	}
	return nil
}
