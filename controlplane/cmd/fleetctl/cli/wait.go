package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// pollEvery is the pause between two looks at something that is waited for.
const pollEvery = time.Second

// progress shows a line: on a terminal in place, else when it changes.
type progress struct {
	w     io.Writer
	width int // of the terminal; 0: none
	last  string
}

func (a *app) newProgress() *progress {
	p := &progress{w: a.Err}
	if f, ok := a.Err.(*os.File); ok && isTerminal(f) {
		p.width = 80
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			p.width = w
		}
	}
	return p
}

func (p *progress) show(line, elapsed string) {
	line = clean(line)
	if p.width > 0 {
		runes := []rune(line + " (" + elapsed + ")")
		_, _ = fmt.Fprint(p.w, "\r\x1b[K"+string(runes[:min(len(runes), p.width-1)]))
	} else if line != p.last {
		_, _ = fmt.Fprintln(p.w, line)
	}
	p.last = line
}

// end leaves the live line.
func (p *progress) end() {
	if p.width > 0 && p.last != "" {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// wait calls look until it says done, showing its line. An API that is away meanwhile is waited for too.
func (a *app) wait(ctx context.Context, timeout time.Duration, what string, look func(context.Context) (done bool, line string, err error)) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	p := a.newProgress()
	defer p.end()
	begin, last := a.Now(), "nothing was seen yet"
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		done, line, err := look(limited)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case done && err == nil:
			return nil
		case limited.Err() != nil:
		case err == nil:
			last = line
		case errors.Is(err, fleet.ErrUnavailable), errors.Is(err, fleet.ErrTimeout), errors.Is(err, fleet.ErrRateLimited):
			last = err.Error()
		default:
			return err
		}
		p.show(last, span(a.Now().Sub(begin)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limited.Done():
			return fleet.NewError(fleet.ErrTimeout, "timeout", "%s after %s: %s", what, timeout, last)
		case <-tick.C:
		}
	}
}

func (a *app) hostWait() *cobra.Command {
	cmd := &cobra.Command{
		Use: "wait NAME", Short: "Wait until a host is active", Args: exact("NAME"), ValidArgsFunction: first(a.completeHosts),
		Long:    "Wait until a host is active: HTTPS works through the edge with a valid certificate. What is missing is shown meanwhile; exit 5 when the time is over.",
		Example: "  fleetctl host wait shop.example.com --timeout 10m",
	}
	timeout := cmd.Flags().Duration("timeout", 10*time.Minute, "how long to wait")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		path, name, err := s.hostPath(args[0])
		if err != nil {
			return err
		}
		active := func(h client.HostView) bool { return h.Observed.Status == fleet.StatusActive }
		return a.awaitHost(cmd.Context(), s, path, *timeout, fmt.Sprintf("host %s is not active", name), active, func(h client.HostView) error {
			return a.say("host %s is active", h.Name)
		})
	}
	return cmd
}

// hostLine says in one line how a host stands and what is missing.
func hostLine(o fleet.HostObserved) string {
	line := fmt.Sprintf("%s, %s", o.Status, o.Phase)
	for _, c := range []fleet.Condition{o.Ownership, o.Certificate, o.Routing} {
		if c.State == fleet.ConditionTrue || c.Reason == "" && c.Message == "" {
			continue
		}
		return line + ": " + strings.TrimSpace(c.Reason+" "+conditionText(c))
	}
	return line
}
