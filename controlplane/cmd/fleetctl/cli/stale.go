package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

// staleReads are the commands that only read the state, so that any member may answer. What changes something reads
// what it changes from the leader, and what asks about one member is of that member anyway.
var staleReads = []string{
	"access show", "approval list", "approval show", "audit list", "cluster incarnation list", "drill list", "group list", "group show",
	"host list", "host show", "mode get", "node list", "node show", "role list", "role show", "rule list", "rule show",
	"tenant list", "tenant show", "token list", "user list", "user show", "whoami",
}

// checkStale refuses --stale and --max-age where they mean nothing.
func (a *app) checkStale(cmd *cobra.Command) error {
	given := cmd.Flags().Changed("max-age")
	if given && (a.flags.maxAge <= 0 || a.flags.maxAge > maxMaxAge) {
		return usagef(cmd, "--max-age %s: give a duration above 0 such as 10s, at most %s", a.flags.maxAge, maxMaxAge)
	}
	if a.flags.stale = a.flags.stale || given; !a.flags.stale {
		return nil
	}
	_, name, _ := strings.Cut(cmd.CommandPath(), " ")
	if !slices.Contains(staleReads, name) {
		return usagef(cmd, "'%s' takes neither --stale nor --max-age: they are for what lists or shows the state", cmd.CommandPath())
	}
	return nil
}

// maxMaxAge is the most that the API takes.
const maxMaxAge = 365 * 24 * time.Hour

// reads is how fresh answers must be. What several include is what all of them do, and as old as the oldest.
func (a *app) reads() client.Reads {
	if !a.flags.stale {
		return client.Reads{}
	}
	return client.Reads{Stale: true, MaxAge: a.flags.maxAge, Seen: func(f client.Freshness) {
		if a.seen == nil {
			a.seen = &f
			return
		}
		a.seen.Index = min(a.seen.Index, f.Index)
		a.seen.Age, a.seen.Aged = max(a.seen.Age, f.Age), a.seen.Aged && f.Aged
	}}
}

// sayFreshness says, below a table, what it includes.
func (a *app) sayFreshness() {
	switch {
	case a.seen == nil || a.json():
	case a.seen.Aged:
		a.note("stale: up to log index %d, of a member that heard from the leader %s ago", a.seen.Index, a.seen.Age)
	default:
		a.note("stale: up to log index %d, of a member that has not heard from a leader since it started", a.seen.Index)
	}
}
