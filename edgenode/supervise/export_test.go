package supervise

import (
	"context"
	"time"
)

// Until waits for a moment of a clock, as renewals do.
func Until(ctx context.Context, now func() time.Time, at time.Time) bool { return until(ctx, now, at) }
