package cli

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

func (a *app) originHealth() *cobra.Command {
	return &cobra.Command{
		Use: "health HOST", Short: "Show the certificates that nodes show to a host's origins", Args: exact("HOST"), ValidArgsFunction: first(a.completeHosts),
		Long:    "Show the certificates that nodes show to a host's origins, and when they expire.",
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
	t := newTable(a.Out, "ORIGIN", "CLIENT CERT", "EXPIRES")
	for _, o := range v.Origins {
		subject, expires := "", ""
		if c := o.Certificate; c != nil {
			subject, expires = c.Subject, a.expiry(c.NotAfter)
		}
		t.row(o.URL, subject, expires)
	}
	return t.flush()
}
