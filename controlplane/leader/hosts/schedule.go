package hosts

import (
	"math/rand/v2"
	"time"
)

// schedule has every wait of the loop, times scale.
type schedule struct{ scale float64 }

func (s schedule) times(d time.Duration) time.Duration { return time.Duration(float64(d) * s.scale) }

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
	// patience is how long a host may wait for its DNS before it counts as failed; it is still looked at, daily.
	patience = 7 * 24 * time.Hour
	// recheck is how often records that are right are looked at.
	recheck = time.Hour
	// redeploy is the pause between handshakes that fail.
	redeploy = 5 * time.Second
)

// dns is the pause before the next look at records that have been wrong for that long.
func (s schedule) dns(wrong time.Duration) time.Duration {
	for _, p := range polls {
		if wrong < s.times(p.until) {
			return s.times(p.every)
		}
	}
	return s.times(24 * time.Hour)
}

// attempts are the pauses after failed validations: certificate authorities count failures per name.
var attempts = []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour}

// retry is the pause after the n-th failed attempt, from 1.
func (s schedule) retry(n int) time.Duration {
	return s.times(attempts[min(max(n, 1), len(attempts))-1])
}

// outage is the pause after the n-th attempt that failed because the CA or the edges were away: never long, and
// spread, because all hosts meet it at once.
func (s schedule) outage(n int) time.Duration {
	d := s.times(attempts[min(max(n, 1), 2)-1])
	return d/2 + time.Duration(rand.Int64N(int64(d)+1))
}
