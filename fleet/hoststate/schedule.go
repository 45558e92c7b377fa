package hoststate

import "time"

// Schedule has every wait of the state machine, times Scale.
type Schedule struct{ Scale float64 }

func (s Schedule) times(d time.Duration) time.Duration { return time.Duration(float64(d) * s.Scale) }

// polls is how often DNS is asked, by how long a record has been wrong: people change DNS in the first minutes.
var polls = []struct{ until, every time.Duration }{
	{30 * time.Second, time.Second},
	{2 * time.Minute, 5 * time.Second},
	{10 * time.Minute, 15 * time.Second},
	{time.Hour, time.Minute},
	{24 * time.Hour, 5 * time.Minute},
	{patience, time.Hour},
}

const (
	// patience is how long a host may wait for its DNS before it counts as failed, or, once it served, before it is
	// detached; it is still looked at, daily.
	patience = 7 * 24 * time.Hour
	// recheck is how often records that are right are looked at.
	recheck = time.Hour
	// redeploy is the pause between handshakes that fail.
	redeploy = 5 * time.Second
	// Fresh is how long a wrong record may be wrong and still be looked at before those that have been wrong for longer.
	Fresh = time.Hour
)

// DNS is the pause before the next look at records that have been wrong for that long.
func (s Schedule) DNS(wrong time.Duration) time.Duration {
	for _, p := range polls {
		if wrong < s.times(p.until) {
			return s.times(p.every)
		}
	}
	return s.times(24 * time.Hour)
}

// Preflight is the pause before the CA's preconditions are looked at again, for an order that has waited for that long:
// as for DNS, but never in a hurry, for it is many questions.
func (s Schedule) Preflight(waited time.Duration) time.Duration {
	return max(s.DNS(waited), s.times(5*time.Second))
}
