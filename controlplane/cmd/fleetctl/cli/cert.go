package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) certCommand() *cobra.Command {
	return group("cert", "Certificates of hosts", "", a.certList(), a.certShow(), a.certRenew(), a.certUpload(), a.certRemove(), a.certRevoke(), a.certBudget())
}

func (a *app) certList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List certificates, those that end first before the others", Args: exact(),
		Long: "List certificates, those that end first before the others: the tenant's, or without a tenant, for operators, those of all.\n" +
			"SERVED is how many of the edges that are up have acknowledged it.",
		Example: "  fleetctl cert list\n  fleetctl cert list --expiring 14d\n  fleetctl cert list --expiring 48h -o json",
	}
	expiring := cmd.Flags().String("expiring", "", "only those that end within this time, such as 14d or 48h")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q := url.Values{}
		if *expiring != "" {
			d, err := parseDays(*expiring)
			if err != nil {
				return usagef(cmd, "--expiring %s: give a time such as 14d or 48h", *expiring)
			}
			q.Set("expiring", d.String())
		}
		vendor, err := a.operatorWithoutTenant(cmd)
		if err != nil {
			return err
		}
		s, err := a.session()
		if !vendor {
			s, err = a.tenantSession(cmd)
		}
		if err != nil {
			return err
		}
		if !vendor {
			q.Set("tenant", string(s.tenant))
		}
		l := listing{path: "/v1/certs", query: q, cursor: "cursor"}
		header := []string{"HOST", "ENDS", "SOURCE", "KEY", "GENERATION", "SERVED", "RENEWAL", "BLOCKED"}
		return show(cmd.Context(), a, s, l, header, func(c client.CertificateView) []any {
			reason, _, _ := strings.Cut(c.Blocked, ":")
			return []any{c.Host, a.age(c.NotAfter), c.Source, c.KeyType, c.Generation, served(c), a.age(c.RenewAt), reason}
		})
	}
	return cmd
}

func served(c client.CertificateView) string { return fmt.Sprintf("%d/%d", c.Served, c.Edges) }

// parseDays reads a time, of days too.
func parseDays(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 12)
		return time.Duration(n) * 24 * time.Hour, err //nolint:gosec // of 12 bits
	}
	d, err := time.ParseDuration(s)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%s is not positive", s)
	}
	return d, err
}

func (a *app) certShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show HOST", Short: "Show a host's certificate, when it is renewed, and what is in the way", Args: exact("HOST"),
		Example:           "  fleetctl cert show shop.example.com\n  fleetctl cert show shop.example.com --watch",
		ValidArgsFunction: first(a.completeHosts),
	}
	watch := watchFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, path, err := a.certPath(cmd, args[0])
		if err != nil {
			return err
		}
		if *watch {
			return watchObject(cmd.Context(), a, s, path, a.showCert)
		}
		return get(cmd.Context(), a, s, path, a.showCert)
	}
	return cmd
}

// certPath is the path of a host's certificate.
func (a *app) certPath(cmd *cobra.Command, typed string, rest ...string) (*session, string, error) {
	s, err := a.tenantSession(cmd)
	if err != nil {
		return nil, "", err
	}
	path, _, err := s.hostPath(typed, append([]string{"certificate"}, rest...)...)
	return s, path, err
}

func (a *app) showCert(c client.CertificateView) error {
	t := newTable(a.Out)
	t.row("host", c.Host)
	t.row("tenant", c.Tenant)
	t.row("source", c.Source)
	t.row("names", list(c.Names))
	t.row("issuer", c.Issuer)
	t.row("serial", c.Serial)
	t.row("key", c.KeyType)
	t.row("public key (sha-256)", c.SPKI)
	t.row("generation", c.Generation)
	t.row("begins", c.NotBefore.UTC().Format(time.RFC3339))
	t.row("ends", c.NotAfter.UTC().Format(time.RFC3339)+" ("+a.age(c.NotAfter)+")")
	verified := "not verified by a handshake"
	if c.Verified {
		verified = "verified by a handshake"
	}
	t.row("served by", served(c)+" edges, "+verified)
	t.row("renewal", a.renewalText(c))
	if o := c.Order; o != nil {
		t.row("order", fmt.Sprintf("generation %d by %s, %d attempts failed, next %s", o.Generation, o.Challenge, o.Attempts, a.age(o.NextAttempt)))
	}
	if c.Blocked != "" {
		t.row("in the way", c.Blocked)
	}
	if c.Revoke != "" {
		t.row("revocation", string(c.Revoke)+", when its successor is served")
	}
	for _, r := range c.Revocations {
		t.row("revocation", a.revocationText(r))
	}
	return t.flush()
}

// renewalText says when a certificate is renewed, and why then.
func (a *app) renewalText(c client.CertificateView) string {
	if c.RenewAt.IsZero() {
		return "none: it is not ordered by the edge; upload its successor with 'fleetctl cert upload'"
	}
	text := a.age(c.RenewAt)
	switch r := c.Renewal; {
	case !c.RemovedAt.IsZero():
		text += ", for it was removed"
	case r.Source == fleet.RenewalCA:
		text += ", in the authority's window from " + r.Start.UTC().Format(time.RFC3339) + " to " + r.End.UTC().Format(time.RFC3339)
	case r.Source == fleet.RenewalRequested:
		text += ", as somebody asked for"
	default:
		text += ", at a third of its life left"
	}
	return text
}

func (a *app) revocationText(r fleet.Revocation) string {
	text := fmt.Sprintf("generation %d, serial %s, %s: ", r.Generation, r.Serial, r.Reason)
	switch {
	case r.State == fleet.RevocationDone:
		return text + "revoked " + a.age(r.RevokedAt)
	case r.Problem != "":
		return text + fmt.Sprintf("%d attempts failed, next %s: %s", r.Attempts, a.age(r.NextAttempt), r.Problem)
	case r.Now:
		return text + "under way"
	}
	return text + "waits until its successor is served"
}

// onCert sends a request about a host's certificate.
func (a *app) onCert(cmd *cobra.Command, typed string, in any, show func(client.CertificateView) error, rest ...string) error {
	s, path, err := a.certPath(cmd, typed, rest...)
	if err != nil {
		return err
	}
	return call(cmd.Context(), a, s, http.MethodPost, path, in, show)
}

func (a *app) certRenew() *cobra.Command {
	return &cobra.Command{
		Use: "renew HOST", Short: "Renew a host's certificate now, with a new private key", Args: exact("HOST"), ValidArgsFunction: first(a.completeHosts),
		Long:    "Renew a host's certificate now, with a new private key, within the certificate authority's limits. The old one serves until\nthe new one does.",
		Example: "  fleetctl cert renew shop.example.com --reason 'wrong chain'",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onCert(cmd, args[0], nil, func(c client.CertificateView) error {
				return a.say("the certificate of %s (generation %d) is being renewed; see it with 'fleetctl cert show %[1]s --watch'", c.Host, c.Generation)
			}, "renew")
		},
	}
}

func (a *app) certUpload() *cobra.Command {
	cmd := &cobra.Command{
		Use: "upload HOST", Short: "Upload a host's own certificate, with its chain and private key", Args: exact("HOST"), ValidArgsFunction: first(a.completeHosts),
		Long: "Upload a host's own certificate: PEM, that of the host first, its intermediates behind it (what many authorities call\n" +
			"fullchain), and its private key, not encrypted. It takes the place of what the host has, and the edge orders no other until\n" +
			"'fleetctl cert remove'. The key is sealed before it is stored, and never shown again. The edge cannot renew the certificate:\n" +
			"30, 14 and 7 days before it ends the host asks for attention.\n" +
			"RSA from 2048 bits and ECDSA with P-256 or P-384 are taken, which is what browsers take.",
		Example: "  fleetctl cert upload shop.example.com --cert fullchain.pem --key privkey.pem",
	}
	cert, key := cmd.Flags().String("cert", "", "file with the certificate and its intermediates (PEM)"), cmd.Flags().String("key", "", "file with the private key (PEM)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *cert == "" || *key == "" {
			return usagef(cmd, "--cert and --key are needed: files with the certificate and its chain, and with its private key, in PEM")
		}
		var in client.CertificateUpload
		for _, f := range []struct {
			flag, path string
			to         *string
		}{{"cert", *cert, &in.Certificate}, {"key", *key, &in.Key}} {
			text, err := readPEM(f.path, f.flag, maxPEM)
			if err != nil {
				return err
			}
			*f.to = text
		}
		return a.onCert(cmd, args[0], in, func(c client.CertificateView) error {
			for _, w := range c.Warnings {
				if err := a.say("warning: %s", clean(w)); err != nil {
					return err
				}
			}
			return a.say("the certificate of %s (generation %d, %s, ends %s) is stored and on its way to the edges; see it with 'fleetctl cert show %[1]s'", c.Host, c.Generation, c.KeyType, a.age(c.NotAfter))
		})
	}
	return cmd
}

// maxPEM bounds a file of an upload, in bytes.
const maxPEM = 256 << 10

func (a *app) certRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove HOST", Short: "Take an uploaded certificate back", Args: exact("HOST"), ValidArgsFunction: first(a.completeHosts),
		Long: "Take an uploaded certificate back. The edge orders one again, and the uploaded one serves until that is there. Where nothing\n" +
			"is ordered ('fleetctl host set --certificate own' or 'none'), the host is without a certificate at once.",
		Example: "  fleetctl cert remove shop.example.com --yes",
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.confirm(cmd, *yes, "removing the certificate of", args[0]); err != nil {
			return err
		}
		return a.onCert(cmd, args[0], nil, func(c client.CertificateView) error {
			if c.RemovedAt.IsZero() {
				return a.say("the certificate of %s is removed: the host has none now", c.Host)
			}
			return a.say("the certificate of %s is removed, and serves until the next one is issued; see 'fleetctl cert show %[1]s'", c.Host)
		}, "remove")
	}
	return cmd
}

func (a *app) certRevoke() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke HOST", Short: "Replace a host's certificate, and have its authority revoke the old one", Args: exact("HOST"), ValidArgsFunction: first(a.completeHosts),
		Long: "Have a host's certificate replaced by one with a new private key, and then revoked by the authority that issued it, when the\n" +
			"new one is served by every edge. With --now it is revoked at once: visitors may be refused until the new one is there.\n" +
			"It cannot be taken back. After a node was stolen, 'fleetctl group rekey' does it for all certificates of the group.",
		Example: "  fleetctl cert revoke shop.example.com --reason 'the key was in a public repository'\n  fleetctl cert revoke shop.example.com --cause superseded --reason 'wrong names' --yes",
	}
	yes := yesFlag(cmd)
	cause := cmd.Flags().String("cause", string(fleet.RevokeKeyCompromise), "what the authority publishes: key_compromise, superseded, cessation_of_operation or unspecified")
	now := cmd.Flags().Bool("now", false, "revoke at once, and not when the next one is served")
	completeFlag(cmd, "cause", words(fleet.RevocationReasons...))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in := client.CertificateRevoke{Cause: fleet.RevocationReason(strings.ReplaceAll(*cause, "-", "_")), Now: *now}
		if err := in.Cause.Validate(); err != nil {
			return err
		}
		if a.flags.reason == "" {
			return usagef(cmd, "revoking the certificate of %s needs a --reason: it cannot be taken back, and others will ask why", args[0])
		}
		if err := a.confirm(cmd, *yes, "revoking the certificate of", args[0]); err != nil {
			return err
		}
		return a.onCert(cmd, args[0], in, func(c client.CertificateView) error {
			when := "when its successor is served"
			if in.Now {
				when = "now"
			}
			return a.say("the certificate of %s with serial %s is revoked %s; see it with 'fleetctl cert show %[1]s'", c.Host, c.Serial, when)
		}, "revoke")
	}
	return cmd
}
