package cli

import (
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

const originLong = `The servers behind a host. An origin is a URL of scheme, host and port: https and http, or h2c for HTTP/2 without TLS
(gRPC); or a Consul service (consul://SERVICE). How requests are spread over them, and how they are checked, is set with
'fleetctl host set'. The API has the origins in the host's spec: 'origin add' and 'remove' change that.`

func (a *app) originCommand() *cobra.Command {
	return group("origin", "Servers behind a host", originLong, a.originList(), a.originHealth(), a.originAdd(), a.originSet(), a.originRemove())
}

func (a *app) originList() *cobra.Command {
	return &cobra.Command{
		Use: "list HOST", Short: "List a host's origins", Args: exact("HOST"), ValidArgsFunction: first(a.completeHosts),
		Long:    "List a host's origins, and what their certificates are verified by. With -o json it prints the host, whose spec has them.",
		Example: "  fleetctl origin list shop.example.com",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onHost(cmd, http.MethodGet, args[0], a.showOrigins)
		},
	}
}

func (a *app) showOrigins(h client.HostView) error {
	t := newTable(a.Out, "ORIGIN", "TLS NAME", "CA")
	for _, o := range h.Spec.Origins {
		ca := ""
		if o.CA != "" {
			ca = "its own"
		}
		t.row(o.URL, o.ServerName, ca)
	}
	if err := t.flush(); err != nil {
		return err
	}
	return a.showServices(h.Services)
}

func (a *app) originAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add HOST URL", Short: "Add an origin to a host", Args: exact("HOST", "URL"), ValidArgsFunction: first(a.completeHosts),
		Long:    "Add an origin to a host, or change how the certificate of one that it has is verified.",
		Example: "  fleetctl origin add shop.example.com https://203.0.113.11\n  fleetctl origin add shop.example.com https://203.0.113.12:8443 --server-name origin.example.com --ca origin-ca.pem",
	}
	name := cmd.Flags().String("server-name", "", "name that the origin's certificate must have (default: that of URL, or the host's where URL has an address)")
	file := cmd.Flags().String("ca", "", "file with the CA certificates (PEM) that verify it (default: those that the nodes trust)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o := fleet.Origin{URL: args[1], ServerName: *name}
		if err := o.Validate(); err != nil {
			return err
		}
		var err error
		if o.CA, err = readCA(*file, "origin"); err != nil {
			return err
		}
		return a.editHost(cmd, args[0], func(h client.HostView) (client.HostUpdate, error) {
			origins := slices.Clone(h.Spec.Origins)
			if i := slices.IndexFunc(origins, func(b fleet.Origin) bool { return b.URL == o.URL }); i >= 0 {
				origins[i] = o
			} else {
				origins = append(origins, o)
			}
			return client.HostUpdate{Origins: &origins}, nil
		}, func(h client.HostView) error { return a.say("requests for %s go to %s, too", h.Name, o.URL) })
	}
	return cmd
}

func (a *app) originRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove HOST URL", Short: "Remove an origin from a host", Args: exact("HOST", "URL"), ValidArgsFunction: first(a.completeHosts),
		Long:    "Remove an origin from a host. Requests that are under way there end as they would; the last origin cannot be removed.",
		Example: "  fleetctl origin remove shop.example.com https://203.0.113.11",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.editHost(cmd, args[0], func(h client.HostView) (client.HostUpdate, error) {
				origins := slices.DeleteFunc(slices.Clone(h.Spec.Origins), func(o fleet.Origin) bool { return o.URL == args[1] })
				switch {
				case len(origins) == len(h.Spec.Origins):
					return client.HostUpdate{}, fleet.NewError(fleet.ErrNotFound, "origin", "host %s has no origin %s: see 'fleetctl origin list %s'", h.Name, args[1], h.Name)
				case len(origins) == 0:
					return client.HostUpdate{}, fleet.NewError(fleet.ErrConflict, "origin", "%s is the last origin of %s: add another first", args[1], h.Name)
				}
				return client.HostUpdate{Origins: &origins}, nil
			}, func(h client.HostView) error { return a.say("no more requests for %s go to %s", h.Name, args[1]) })
		},
	}
}
