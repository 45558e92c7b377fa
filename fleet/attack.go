package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// AttackGap is the longest time between two hits of one attack.
const AttackGap = time.Hour

// AttackID names an attack: its group, and when its first hit was. It goes on naming an attack that an earlier hit joins
// later, or that grows together with another.
type AttackID string

// Attack is a series of hits of one tenant's host, of one type and on one parameter, none more than AttackGap after the
// one before. Which hits belong together depends on their times alone, not on the order in which they arrive.
type Attack struct {
	ID        AttackID   `json:"attack_id"`
	Tenant    TenantID   `json:"tenant"`
	Host      HostName   `json:"host"`
	Type      AttackType `json:"type"`
	Parameter string     `json:"parameter,omitempty"`
	// First and Last are the times of its first and last hit.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Hits counts the hits, those that nodes only counted included; Blocked those whose requests were blocked.
	Hits    uint64 `json:"hits"`
	Blocked uint64 `json:"blocked"`
}

// AttackGroup names what all hits of an attack have in common.
func (e Event) AttackGroup() string {
	h := sha256.New()
	for _, s := range []string{string(e.Tenant), string(e.Host), string(e.Type), e.Parameter} {
		_, _ = h.Write([]byte(strconv.Itoa(len(s)) + ":" + s)) // a hash never fails
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// NewAttackID names the attack of a group with a hit at that time.
func NewAttackID(group string, at time.Time) AttackID {
	return AttackID(group + "-" + strconv.FormatInt(at.UnixNano(), 36))
}

// ParseAttackID reads the parts of an attack id.
func ParseAttackID(id AttackID) (group string, at time.Time, err error) {
	group, moment, _ := strings.Cut(string(id), "-")
	n, err := strconv.ParseInt(moment, 36, 64)
	if raw, bad := hex.DecodeString(group); err == nil && bad == nil && len(raw) == 12 && n >= 0 && NewAttackID(group, time.Unix(0, n)) == id {
		return group, time.Unix(0, n).UTC(), nil
	}
	return "", time.Time{}, Invalid("attack_id", "%.100q is not an attack id: 'fleetctl attack list' shows them", string(id))
}
