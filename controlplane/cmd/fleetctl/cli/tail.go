package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) eventTail() *cobra.Command {
	return &cobra.Command{
		Use: "tail", Short: "Show attack events as they arrive", Args: exact(),
		Long:    "Show attack events as they arrive, until Ctrl-C. With -o json one event a line, as the API sent it. A member that goes away is replaced by the next, which goes on where the first left off.",
		Example: "  fleetctl event tail\n  fleetctl event tail -o json | jq .path",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.tenantSession(cmd)
			if err != nil {
				return err
			}
			// What is wrong from the start (address, token, tenant) ends here; what breaks later is waited for.
			if _, err := s.Raw(cmd.Context(), http.MethodGet, s.path("events"), url.Values{"limit": {"1"}}, nil); err != nil {
				return err
			}
			if !a.json() {
				if err := a.tailLine("TIME", "STATUS", "TYPE", "HOST", "CLIENT", "REQUEST"); err != nil {
					return err
				}
			}
			return a.follow(cmd, s)
		},
	}
}

// follow streams until ctx ends, over as many connections and members as it takes.
func (a *app) follow(cmd *cobra.Command, s *session) error {
	broken := func(err error) { a.note("fleetctl: %v; connecting again, no event is shown twice", err) }
	return s.Follow(cmd.Context(), s.path("events:tail"), nil, broken, a.tailEvent)
}

func (a *app) tailEvent(data []byte) error {
	if a.json() {
		return write(a.Out, append(data[:len(data):len(data)], '\n'))
	}
	var e fleet.Event
	if err := json.Unmarshal(data, &e); err != nil {
		return fleet.NewError(fleet.ErrCorrupt, "", "the API's event cannot be read (%v): is this fleetctl as new as the members?", err)
	}
	return a.tailLine(e.Time.UTC().Format(time.TimeOnly), string(e.Status), string(e.Type), string(e.Host), e.ClientIP, e.Method+" "+e.Path)
}

// tailLine keeps columns without knowing what comes: wide enough for most.
func (a *app) tailLine(at, status, attack, host, client, request string) error {
	return write(a.Out, fmt.Appendf(nil, "%-8s  %-9s  %-8s  %-24s  %-15s  %s\n", clean(at), clean(status), clean(attack), clean(host), clean(client), clean(request)))
}
