// Package pacing slows down work that nobody waits for, so that what somebody waits for has processor and disk: snapshots
// of a member's own, and backups. It owns how long the rests are, and neither the work nor when it may go at full speed.
// It depends on nothing that could be away.
package pacing

import "time"

const (
	// share of the time is rest.
	share = 0.75
	// longest bounds one rest: after work that something else held up there is nothing to make up for.
	longest = 100 * time.Millisecond
)

// Pace rests between the parts of one piece of work. The zero value is ready; it is used by one goroutine.
type Pace struct {
	// since is when the last rest ended.
	since time.Time
}

// Rest is called between two parts of the work: it rests for what the last part took, three times over, or until stop is
// closed. The first call only begins.
func (p *Pace) Rest(stop <-chan struct{}) {
	if !p.since.IsZero() {
		work := time.Since(p.since)
		pause := time.NewTimer(min(time.Duration(float64(work)*share/(1-share)), longest))
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-stop:
		}
	}
	p.since = time.Now()
}

// Skip is Rest without one, for work that has no time for it.
func (p *Pace) Skip() { p.since = time.Now() }
