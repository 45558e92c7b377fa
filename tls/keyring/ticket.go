package keyring

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// TicketPeriod is how long one session-ticket key is used to issue tickets.
const TicketPeriod = 8 * time.Hour

// TicketPeriodOf numbers the period that at lies in: every node of a group counts alike, whatever it can reach.
func TicketPeriodOf(at time.Time) int64 { return at.Unix() / int64(TicketPeriod/time.Second) }

// TicketKey derives the session-ticket key of one tenant in one period from the group key, so that all nodes of a group
// have the same, nodes of another group and other tenants' sessions another, and no member is needed to rotate it. It ends
// with the group key's epoch too.
func (g GroupKey) TicketKey(tenant fleet.TenantID, period int64) (key [32]byte, err error) {
	b, err := g.derive("edgefleet session ticket key", []byte(tenant), number(uint64(period))) //nolint:gosec // a number of either sign has its own bytes
	copy(key[:], b)
	return key, err
}
