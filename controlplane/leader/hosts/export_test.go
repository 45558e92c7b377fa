package hosts

import (
	"context"
	"time"
)

// Steps returns what the loop does between two sleeps, for measuring it.
func Steps(l *Loop) func(context.Context) (time.Time, error) { return newRun(l).step }
