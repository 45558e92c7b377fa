package cli

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

const originHealthLong = `Show how a host's origins are, and the certificates that nodes show to them with when they expire.

Health is what the nodes reported in the last seconds: an origin is out at a node that cannot reach it, or whose health
checks it fails ('fleetctl host set --health-path'), until it answers there again. One that no node has tried is up.`

func (a *app) originHealth() *cobra.Command {
	return &cobra.Command{
		Use: "health HOST", Aliases: []string{"check"}, Short: "Show how a host's origins are", Args: exact("HOST"), ValidArgsFunction: first(a.completeHosts),
		Long:    originHealthLong,
		Example: "  fleetctl origin health shop.example.com",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.tenantSession(cmd)
			if err != nil {
				return err
			}
			path, _, err := s.hostPath(args[0], "origins")
			if err != nil {
				return err
			}
			return call(cmd.Context(), a, s, http.MethodGet, path, nil, a.showOriginHealth)
		},
	}
}

func (a *app) showOriginHealth(v client.OriginViews) error {
	t := newTable(a.Out, "ORIGIN", "HEALTH", "WHY", "CLIENT CERT", "EXPIRES")
	for _, o := range v.Origins {
		subject, expires := "", ""
		if c := o.Certificate; c != nil {
			subject, expires = c.Subject, a.expiry(c.NotAfter)
		}
		health, why := a.outText(v, o)
		t.row(o.URL, health, why, subject, expires)
	}
	return t.flush()
}

// outText says where an origin is out, and why at each node.
func (a *app) outText(v client.OriginViews, o client.OriginView) (health, why string) {
	if len(v.Nodes) == 0 {
		return "unknown", "no node was heard of"
	}
	at := map[string]bool{}
	var reasons []string
	for _, out := range o.Out {
		at[string(out.Node)] = true
		reasons = append(reasons, fmt.Sprintf("%s: %s, %s", out.Node, out.Reason, a.age(out.Since)))
	}
	if len(at) == 0 {
		return "up", ""
	}
	return fmt.Sprintf("out at %d of %d", len(at), len(v.Nodes)), strings.Join(reasons, "; ")
}
