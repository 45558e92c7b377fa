package events

import (
	"strconv"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Position is a place in the order of events, by time and then by id: the same on every member.
type Position struct {
	Time time.Time
	ID   fleet.EventID
}

// PositionOf is the place of an event.
func PositionOf(e fleet.Event) Position { return Position{e.Time, e.ID} }

// Start is a place before every event that is stored from now on, unless it comes late or of a node whose clock is behind:
// where a stream begins that has brought no event yet.
func (s *Store) Start() Position {
	at := s.o.Now().Add(-fleet.MaxClockSkew).UTC()
	if kept := s.Kept(); kept.After(at) {
		at = kept
	}
	return Position{at, fleet.NewEventID("start", "start", 0)}
}

// String is <nanoseconds since 1970>-<event id>.
func (p Position) String() string {
	return strconv.FormatInt(p.Time.UnixNano(), 10) + "-" + string(p.ID)
}

// ParsePosition reads what String wrote.
func ParsePosition(s string) (Position, error) {
	nanos, id, _ := strings.Cut(s, "-")
	n, err := strconv.ParseInt(nanos, 10, 64)
	_, _, _, bad := fleet.ParseEventID(fleet.EventID(id))
	if err != nil || n < 0 || bad != nil {
		return Position{}, fleet.Invalid("Last-Event-ID", "%.200q is not an id of this stream, such as 1760000000000000000-node:boot:17", s)
	}
	return Position{time.Unix(0, n).UTC(), fleet.EventID(id)}, nil
}

// Cursor continues a query in ascending order after p.
func (p Position) Cursor() (string, error) {
	return encodeCursor(cursor{p.Time.UnixNano(), p.ID, true})
}

// Kept is the time from which on this member holds events: those before are past retention, or came before it began to
// keep any.
func (s *Store) Kept() time.Time {
	kept := s.o.Now().Add(-s.o.Retention).UTC().Truncate(24 * time.Hour)
	if born := s.marks.madeAt(); born.After(kept) {
		return born
	}
	return kept
}
