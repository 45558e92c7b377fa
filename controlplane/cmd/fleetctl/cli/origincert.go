package cli

import (
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

const originSetLong = `Give the nodes a certificate to show to one of a host's origins, which asks for one (mutual TLS), or take it away.

The private key goes to the control plane, which seals it before it is stored, and never shows it. A certificate that
takes the place of another is shown on new connections at once; those that are open end with their requests, so that no
request is lost while the origin takes both. 'fleetctl origin health' shows when it expires.`

func (a *app) originSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set HOST URL", Short: "Set the certificate that nodes show to an origin", Args: exact("HOST", "URL"), ValidArgsFunction: first(a.completeHosts),
		Long:    originSetLong,
		Example: "  fleetctl origin set shop.example.com https://203.0.113.10 --client-cert edge.pem --client-key edge.key\n  fleetctl origin set shop.example.com https://203.0.113.10 --no-client-cert",
	}
	cert := cmd.Flags().String("client-cert", "", "file with the certificate and those between it and its root (PEM, leaf first)")
	key := cmd.Flags().String("client-key", "", "file with its private key (PEM, not encrypted)")
	none := cmd.Flags().Bool("no-client-cert", false, "show no certificate to the origin")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *none == (*cert != "") || *none == (*key != "") {
			return usagef(cmd, "give --client-cert and --client-key, or --no-client-cert")
		}
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		if *none {
			path, _, err := s.hostPath(args[0], "origins", "certificate", "delete")
			if err != nil {
				return err
			}
			return call(cmd.Context(), a, s, http.MethodPost, path, client.OriginCertDelete{Origin: args[1]}, func(fleet.OriginCert) error {
				return a.say("nodes show no certificate to %s", args[1])
			})
		}
		in := client.OriginCertSet{Origin: args[1]}
		if in.Certificate, err = readPEM(*cert, "certificate", fleet.MaxOriginChainBytes); err != nil {
			return err
		}
		if in.Key, err = readPEM(*key, "key", fleet.MaxOriginKeyBytes); err != nil {
			return err
		}
		path, _, err := s.hostPath(args[0], "origins", "certificate")
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, path, in, func(c fleet.OriginCert) error {
			return a.say("nodes show %s to %s; it expires %s", c.Subject, c.Origin, a.expiry(c.NotAfter))
		})
	}
	return cmd
}

// readPEM reads a file that must be short.
func readPEM(file, field string, limit int) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", fleet.Invalid(field, "%s cannot be read: %v", file, err)
	}
	if info.Size() > int64(limit) || !info.Mode().IsRegular() {
		return "", fleet.NewError(fleet.ErrTooLarge, field, "%s is no file of at most %d bytes: give a PEM file", file, limit)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fleet.Invalid(field, "%s cannot be read: %v", file, err)
	}
	return string(b), nil
}

// expiry says when a certificate ends, so that one that has is not overlooked.
func (a *app) expiry(t time.Time) string {
	if a.Now().After(t) {
		return fmt.Sprintf("EXPIRED %s", a.age(t))
	}
	return a.age(t)
}
