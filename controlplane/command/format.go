package command

import (
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// formatOnce is the first format with idempotency keys in headers, formatIntroduced that with TokenIssue.IntroducedBy,
// formatHostTLS that with TLS and forwarding in the spec of a host, formatExclusive that with HostPut.Exclusive,
// formatChallengeOut that with challenges that take edges out of DNS, and with TLS-ALPN-01, formatRuleKinds that with rules
// other than detectors.
const (
	formatOnce         = 2
	formatIntroduced   = 2
	formatHostTLS      = 2
	formatExclusive    = 2
	formatChallengeOut = 2
	formatRuleKinds    = 2
)

// since says from which format of the log on a command is understood; those that are not here, from the first. A new
// command gets a line, with the format after the last released one: until every member understands it, it is not
// proposed.
var since = map[Type]int{
	TypeHostPutConsul: 2, TypeOriginsResolve: 2,
	TypeKeysExpire: formatOnce,
	TypeNodeRotate: 2, TypeNodeLock: 2, TypeNodeUnlock: 2,
	TypeKEKRotate: 2, TypeSecretsReseal: 2,
	TypeGroupRekey:    2,
	TypeOrderProgress: 2, TypeRenewalPlan: 2,
	TypeLockTake: 2, TypeLockRelease: 2,
	TypeRegionPut: 2, TypeDNSSetsPut: 2,
	TypeAuthorityObserve: 2,
	TypeHostRetire:       2,
	TypeOriginCertPut:    2, TypeOriginCertDelete: 2,
	TypeCertificateUpload: 2, TypeCertificateRemove: 2, TypeCertificateRenew: 2, TypeCertificateRevoke: 2, TypeRevocationPut: 2,
	TypeRulesImport: 2,
}

// Since is the first format of the log that has the command.
func (t Type) Since() int { return max(1, since[t]) }

// Common is the format that all members understand, and who understands no newer one: nobody, if it is this build's.
// Members that do not run count with what they said last.
func Common(members []fleet.Member) (format int, older []fleet.MemberID) {
	format = Format
	for _, m := range members {
		format = min(format, max(1, m.Format))
	}
	if format == Format {
		return format, nil
	}
	for _, m := range members {
		if max(1, m.Format) == format {
			older = append(older, m.ID)
		}
	}
	return format, older
}

// Hold fits a command to what all members understand: the header loses its idempotency key, and a command that one of
// them does not know is fleet.ErrConflict. An entry that a member cannot decode would halt it.
func Hold(h Header, b Body, members func() []fleet.Member) (Header, error) {
	need := b.Type().Since()
	if t, ok := b.(TokenIssue); ok && t.IntroducedBy != "" {
		need = formatIntroduced
	}
	if p, ok := b.(HostPut); ok && (p.Spec.Extended() || wildcard(p.Name)) {
		need = formatHostTLS
	}
	if p, ok := b.(HostPut); ok && p.Exclusive {
		need = max(need, formatExclusive)
	}
	if c, ok := b.(ChallengePut); ok && (c.Challenge.Out != nil || c.Challenge.Type == fleet.ChallengeTLSALPN01) {
		need = formatChallengeOut
	}
	if p, ok := b.(RulePut); ok && p.Spec.Extended() {
		need = formatRuleKinds
	}
	if need == 1 && h.Once == nil {
		return h, nil
	}
	format, older := Common(members())
	if need > format {
		names := make([]string, len(older))
		for i, id := range older {
			names[i] = string(id)
		}
		slices.Sort(names)
		return h, fleet.NewError(fleet.ErrConflict, "", "%s needs log format %d, and the members %s understand %d: upgrade them, or remove those that are gone for good, and try again (see 'fleetctl cluster status')",
			b.Type(), need, strings.Join(names, ", "), format)
	}
	if format < formatOnce {
		h.Once = nil
	}
	return h, nil
}

// checkFormat refuses what only a newer build could have written.
func checkFormat(t Type, h Header) error {
	switch {
	case t.Since() > Format:
		return unknown(uint64(t))
	case h.Once != nil && Format < formatOnce: //nolint:gocritic // the format depends on the build
		return fleet.NewError(fleet.ErrCorrupt, "command", "log entry of %s has an idempotency key; this member is older than the cluster: upgrade it", t)
	}
	return nil
}

func unknown(n uint64) error {
	return fleet.NewError(fleet.ErrCorrupt, "command", "log entry has the unknown command %d; this member is older than the cluster: upgrade it", n)
}

// wildcard names are refused by members of the first format.
func wildcard(n fleet.HostName) bool {
	_, ok := n.Wildcard()
	return ok
}
