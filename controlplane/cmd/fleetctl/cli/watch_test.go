package cli_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// nodeTwice is a node that changes, and is gone then; the last answer comes again for ever.
const nodeTwice = `
> GET /v1/nodes/n1?index=0&wait=15s
< 200
^ Edgefleet-Index: 5
^ Edgefleet-Incarnation: 1
{"id":"n1","spec":{"region":"eu"}}
> GET /v1/nodes/n1?index=5&wait=15s
< 200
^ Edgefleet-Index: 7
^ Edgefleet-Incarnation: 1
{"id":"n1","spec":{"region":"us"}}
> GET /v1/nodes/n1?index=7&wait=15s
< 404
{"status":404,"kind":"not_found","detail":"node n1 does not exist"}
`

func TestWhatIsWatchedIsShownAgainWhenItChangesUntilItIsGone(t *testing.T) {
	for name, tt := range map[string]struct{ output, want string }{
		"a table, with a line between": {"table", "---\n"},
		"a line of JSON each":          {"json", `{"id":"n1","spec":{"region":"eu"}}` + "\n" + `{"id":"n1","spec":{"region":"us"}}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			api := startAPI(t, nodeTwice)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var out lines
			code, errs := run(ctx, t, api, &out, "node", "show", "n1", "--watch", "-o", tt.output)
			if code != fleet.ExitNotFound || strings.Count(out.String(), tt.want) != 1 || !strings.Contains(out.String(), "eu") || !strings.Contains(out.String(), "us") {
				t.Errorf("exit %d\n%s%s", code, out.String(), errs)
			}
			if tt.output == "json" && out.String() != tt.want {
				t.Errorf("got %q", out.String())
			}
		})
	}
}
