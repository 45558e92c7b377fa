package hosts

import (
	"math/rand/v2"
	"time"

	"github.com/edgefleet/edgefleet/fleet/hoststate"
)

// schedule has every wait of the loop, times scale: those of the state machine, and those after failures at the CA.
type schedule struct{ hoststate.Schedule }

func newSchedule(scale float64) schedule { return schedule{hoststate.Schedule{Scale: scale}} }

func (s schedule) times(d time.Duration) time.Duration { return time.Duration(float64(d) * s.Scale) }

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

// elsewhere is the pause before an order goes to another authority: spread, and shorter than the first one's shortest rest.
func (s schedule) elsewhere() time.Duration {
	return time.Duration(rand.Int64N(int64(s.times(restLeast/4)) + 1))
}
