package cli

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hostname"
)

func (a *app) hostCommand() *cobra.Command {
	return group("host", "Protected host names", "", a.hostAdd(), a.hostList(), a.hostShow(), a.hostSet(), a.hostCheck(), a.hostWait(), a.hostDelete())
}

// hostPath is the path of a host, by what a person typed.
func (s *session) hostPath(typed string, rest ...string) (path string, name fleet.HostName, err error) {
	name, err = hostname.Canonical(typed)
	return s.path(append([]string{"hosts", string(name)}, rest...)...), name, err
}

// originFlags are the flags of what a host's owner decides.
type originFlags struct{ origins, regions []string }

func (o *originFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&o.origins, "origin", nil, "server behind the host, such as https://203.0.113.10, or consul://SERVICE; repeatable")
	cmd.Flags().StringSliceVar(&o.regions, "region", nil, "region whose nodes serve the host; repeatable (default all)")
}

func (o *originFlags) parse() (origins []fleet.Origin, regions []fleet.RegionName, err error) {
	for _, text := range o.origins {
		origin := fleet.Origin{URL: text}
		if err := origin.Validate(); err != nil {
			return nil, nil, err
		}
		origins = append(origins, origin)
	}
	for _, r := range o.regions {
		if err := fleet.ValidateID("region", r); err != nil {
			return nil, nil, err
		}
		regions = append(regions, fleet.RegionName(r))
	}
	return origins, regions, nil
}

func (a *app) hostAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Protect a host", Args: exact("NAME"),
		Long:    "Protect a host. The answer has the two DNS records to set; visitors notice nothing until the second is set.",
		Example: "  fleetctl host add shop.example.com --origin https://203.0.113.10\n  fleetctl host add shop.example.com --origin https://203.0.113.10 --mode block --region eu\n  fleetctl host add shop.example.com --origin 'consul://web?tag=blue&scheme=https'",
	}
	var o originFlags
	o.register(cmd)
	mode, certificate := modeFlag(cmd), certificateFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name, err := hostname.Canonical(args[0])
		if err != nil {
			return err
		}
		if len(o.origins) == 0 {
			return usagef(cmd, "--origin is missing: where should requests for %s go? For example --origin https://203.0.113.10", name)
		}
		in := client.HostCreate{Name: string(name), Mode: fleet.Mode(*mode), Certificate: *certificate}
		if _, err := fleet.ParseCertificatePolicy(in.Certificate); err != nil {
			return err
		}
		if in.Origins, in.Regions, err = o.parse(); err != nil {
			return err
		}
		if err := checkMode(in.Mode); err != nil {
			return err
		}
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, s.path("hosts"), in, a.showAdded)
	}
	return cmd
}

// certificateFlag adds --certificate.
func certificateFlag(cmd *cobra.Command) *string {
	f := cmd.Flags().String("certificate", "", "where the certificate comes from: acme (ordered and renewed by the edge; the default), own (uploaded), or none (another CDN in front has the visitors' TLS, and comes over plain HTTP)")
	completeFlag(cmd, "certificate", words("acme", "own", "none"))
	return f
}

func (a *app) showAdded(h client.HostView) error {
	if err := a.say("host %s is added in mode %s. Set these DNS records:\n", h.Name, h.Spec.Mode); err != nil {
		return err
	}
	if err := a.showRecords(h.Records); err != nil {
		return err
	}
	return a.say(`
What happens next:
  1. Set the certificate record. The edge gets a certificate within a minute of seeing it; leave it for renewals.
  2. Wait until the certificate is there:  fleetctl host show %[1]s
  3. Set the traffic record: visitors come to the edge from then on. At the top of a zone, where a CNAME is not
     allowed, use your DNS provider's ALIAS, ANAME or CNAME flattening.
  4. See it become active:  fleetctl host wait %[1]s`, h.Name)
}

// showRecords prints records as lines of a zone file.
func (a *app) showRecords(records []fleet.Record) error {
	t := newTable(a.Out)
	for _, r := range records {
		t.row(r.Name+".", "300", "IN", r.Type, r.Value+".", "; "+r.Purpose)
	}
	return t.flush()
}

func (a *app) hostList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the tenant's hosts", Example: "  fleetctl host list", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.tenantSession(cmd)
			if err != nil {
				return err
			}
			l := listing{path: s.path("hosts"), cursor: "cursor"}
			return show(cmd.Context(), a, s, l, []string{"HOST", "STATUS", "PHASE", "MODE", "ORIGINS", "AGE"}, func(h fleet.Host) []any {
				return []any{h.Name, h.Observed.Status, h.Observed.Phase, h.Spec.Mode, originURLs(h), a.age(h.CreatedAt)}
			})
		},
	}
}

func originURLs(h fleet.Host) string {
	urls := make([]string, len(h.Spec.Origins))
	for i, o := range h.Spec.Origins {
		urls[i] = o.URL
	}
	return list(urls)
}

func (a *app) hostShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show a host, how it stands, and its DNS records", Args: exact("NAME"),
		Example:           "  fleetctl host show shop.example.com\n  fleetctl host show shop.example.com --watch",
		ValidArgsFunction: first(a.completeHosts),
	}
	watch := watchFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !*watch {
			return a.onHost(cmd, http.MethodGet, args[0], a.showHost)
		}
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		path, _, err := s.hostPath(args[0])
		if err != nil {
			return err
		}
		return watchObject(cmd.Context(), a, s, path, a.showHost)
	}
	return cmd
}

// onHost sends a request about a host.
func (a *app) onHost(cmd *cobra.Command, method, typed string, show func(client.HostView) error, rest ...string) error {
	s, err := a.tenantSession(cmd)
	if err != nil {
		return err
	}
	path, _, err := s.hostPath(typed, rest...)
	if err != nil {
		return err
	}
	return call(cmd.Context(), a, s, method, path, nil, show)
}

// changeHost changes a host that is still as it is read.
func (a *app) changeHost(cmd *cobra.Command, typed string, in client.HostUpdate, show func(client.HostView) error) error {
	s, err := a.tenantSession(cmd)
	if err != nil {
		return err
	}
	path, _, err := s.hostPath(typed)
	if err != nil {
		return err
	}
	return change(cmd.Context(), a, s, path, func(client.HostView) any { return in }, show)
}

func (a *app) showHost(h client.HostView) error {
	t := newTable(a.Out)
	t.row("host", h.Name)
	t.row("status", h.Observed.Status)
	t.row("phase", h.Observed.Phase)
	t.row("mode", h.Spec.Mode)
	t.row("origins", originURLs(h.Host))
	t.row("regions", regionNames(h.Spec.Regions))
	if p := h.Spec.Certificate; p != fleet.CertificateACME {
		t.row("certificate", p)
	}
	if text := tlsText(h.Spec.TLS); text != "" {
		t.row("tls", text)
	}
	if text := forwardingText(h.Spec.Forwarding); text != "" {
		t.row("forwarding", text)
	}
	if text := failText(h.Spec.FailPolicy); text != "" {
		t.row("fail closed", text)
	}
	t.row("added", a.age(h.CreatedAt))
	if err := t.flush(); err != nil {
		return err
	}
	if err := a.say(""); err != nil {
		return err
	}
	if err := a.showConditions(h); err != nil {
		return err
	}
	if err := a.showServices(h.Services); err != nil {
		return err
	}
	if err := a.say("\nDNS records:"); err != nil {
		return err
	}
	return a.showRecords(h.Records)
}

// showConditions prints a table, and below it what is said about each condition, which is too long for a column.
func (a *app) showConditions(h client.HostView) error {
	o, advised := h.Observed, map[string]bool{}
	t := newTable(a.Out, "CONDITION", "STATE", "REASON", "SINCE", "NEXT CHECK")
	var said []string
	for _, ad := range h.Advice {
		advised[ad.Condition] = true
		said = append(said, ad.Condition+": "+clean(a.adviceText(ad)))
	}
	for _, c := range []struct {
		name string
		fleet.Condition
	}{{"ownership", o.Ownership}, {"certificate", o.Certificate}, {"routing", o.Routing}} {
		t.row(c.name, c.State, c.Reason, a.age(c.Since), a.age(c.NextCheck))
		if text := conditionText(c.Condition); text != "" && !advised[c.name] {
			said = append(said, c.name+": "+clean(text))
		}
	}
	if err := t.flush(); err != nil || len(said) == 0 {
		return err
	}
	return a.say("\n%s", strings.Join(said, "\n"))
}

// adviceText is an advice in sentences: what is seen, what is wanted, who acts, and when it is looked at again.
func (a *app) adviceText(ad fleet.HostAdvice) string {
	text := ad.Reason + ": " + sentence(ad.Seen) + " " + sentence(strings.ToUpper(ad.Wanted[:min(1, len(ad.Wanted))])+ad.Wanted[min(1, len(ad.Wanted)):]) + " Who acts: " + string(ad.Who) + "."
	if !ad.NextCheck.IsZero() {
		text += " Next check " + ad.NextCheck.UTC().Format("15:04:05") + "."
	}
	return text
}

func sentence(s string) string { return strings.TrimSuffix(s, ".") + "." }

// conditionText is what a condition says to people: what is seen, and what to do.
func conditionText(c fleet.Condition) string {
	if c.Message != "" && c.Action != "" {
		return c.Message + "; " + c.Action
	}
	return c.Message + c.Action
}

func regionNames(rs []fleet.RegionName) string {
	if len(rs) == 0 {
		return "all"
	}
	return list(rs)
}

func (a *app) hostSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Change a host's origins, mode, regions, TLS, forwarding, fail policy or certificate", Args: exact("NAME"), ValidArgsFunction: first(a.completeHosts),
		Long:    hostSetLong,
		Example: hostSetExample,
	}
	var o originFlags
	o.register(cmd)
	mode, edge, certificate, fail := modeFlag(cmd), newEdgeFlags(cmd), certificateFlag(cmd), failFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		policy, err := fail(cmd)
		if err != nil {
			return err
		}
		edits, err := edge.edits(cmd)
		if err != nil {
			return err
		}
		origins, regions, err := o.parse()
		if err != nil {
			return err
		}
		var in client.HostUpdate
		if len(origins) > 0 {
			in.Origins = &origins
		}
		if cmd.Flags().Changed("region") {
			all := append([]fleet.RegionName{}, regions...)
			in.Regions = &all
		}
		if m := fleet.Mode(*mode); m != "" {
			in.Mode = &m
			if err := checkMode(m); err != nil {
				return err
			}
		}
		if cmd.Flags().Changed("certificate") {
			if _, err := fleet.ParseCertificatePolicy(*certificate); err != nil {
				return err
			}
			in.Certificate = certificate
		}
		if in == (client.HostUpdate{}) && len(edits) == 0 && policy == nil {
			return usagef(cmd, "nothing to change: give --origin, --mode, --region, or another of its flags")
		}
		return a.editHost(cmd, args[0], func(h client.HostView) (client.HostUpdate, error) {
			in := edits.on(in, h.Spec)
			if policy != nil {
				changed, err := policy(h.Spec.FailPolicy)
				in.FailPolicy = &changed
				return in, err
			}
			return in, nil
		}, func(h client.HostView) error { return a.say("host %s is changed", h.Name) })
	}
	return cmd
}

func (a *app) hostDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Stop protecting a host", Args: exact("NAME"), ValidArgsFunction: first(a.completeHosts),
		Long: `Stop protecting a host. It is refused while the host's DNS leads to the edge; operators can overrule that with --force
and a --reason. The host's certificate and keys are gone at once, and its DNS label is never issued again; its name is free
when every edge has let go of it, until when 'fleetctl host show' has it in the phase deleting.`,
		Example: "  fleetctl host delete shop.example.com --yes\n  fleetctl host delete shop.example.com --force --reason 'the customer left, ticket 7'",
	}
	yes := yesFlag(cmd)
	force := cmd.Flags().Bool("force", false, "delete although DNS still points at the edge: visitors get errors (operators only)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name, err := hostname.Canonical(args[0])
		if err != nil {
			return err
		}
		if *force && a.flags.reason == "" {
			return usagef(cmd, "--force needs a --reason: visitors of %s get errors, and others will ask why", name)
		}
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		path := s.path("hosts", string(name))
		// Read before the question: what is deleted is what was there when it was asked.
		before, err := s.Raw(cmd.Context(), http.MethodGet, path, nil, nil)
		if err != nil {
			return err
		}
		if err := a.confirm(cmd, *yes, "deleting host", string(name)); err != nil {
			return err
		}
		q := url.Values{}
		if *force {
			q.Set("force", "true")
		}
		return a.removeRead(cmd.Context(), s, path, q, before, "host "+string(name)+" is deleted")
	}
	return cmd
}
