package cli

import (
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) ruleCommand() *cobra.Command {
	return group("rule", "Rules of a tenant", "", a.ruleAdd(), a.ruleList(), a.ruleShow(), a.ruleUpdate(), a.ruleTest(), a.ruleExplain(), a.ruleImport(), a.ruleExport(), a.ruleDelete())
}

const ruleAddLong = `Add a rule. Its kind says what it does:

  regex                looks for a pattern (RE2 regular expression); experimental ones report and never block
  vpatch               blocks attack types, or any request that matches, in monitoring and safe_blocking too
  disable_attack_type  a false-positive fix: attack types that do not count here
  disable_rule         the same for managed rules or detectors, by their ids
  mode                 the mode of the tenant (without conditions), or of a location (with conditions)
  sensitive_data       masks what is at a point, or matches a pattern
  set_response_header  sets a header of the answers
  block_page           what a blocked client sees: HTML or JSON with {{request_id}}, {{host}}, {{client_address}}

It is written as flags, or as a file of YAML or JSON (response headers and pages only so):

  kind: regex
  attack_type: sqli
  pattern: (?i)union\s+select
  conditions:
    - {type: equal, point: host, value: shop.example.com}
  point: [[post], [json_doc], [hash, query]]
  comment: union select in the search

Without a point the path, every argument and every header value are looked at. Without conditions the rule is for
every request to the tenant's hosts. A branch with more conditions inherits; of rules that say one thing, the most distinct
decides. With expires_at (--expires) a rule ends by itself. Of a false-positive fix it is said which share of the last
week's events it would have taken out.`

func (a *app) ruleAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add", Short: "Add a rule", Long: ruleAddLong, Args: exact(),
		Example: "  fleetctl rule add -f rule.yaml\n  fleetctl rule add --pattern '(?i)union\\s+select' --type sqli --condition equal:host=shop.example.com\n  fleetctl rule add --kind disable_attack_type --attack-types xss --point '[[\"post\"]]' --condition equal:uri=/blog/edit --expires 30d",
	}
	r := newRuleFlags(cmd)
	id := cmd.Flags().String("id", "", "id of the rule (default made by the control plane)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		spec, err := r.spec(a, cmd)
		if err != nil {
			return err
		}
		if spec == nil {
			return usagef(cmd, "what should the rule look for? give --pattern, or a file with -f")
		}
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, s.path("rules"), client.RuleCreate{ID: fleet.RuleID(*id), Spec: *spec}, func(r fleet.Rule) error {
			if err := a.say("rule %s is added; see it reach the nodes with 'fleetctl ruleset status --wait'", r.ID); err != nil {
				return err
			}
			return a.showImpact(cmd.Context(), s, *spec)
		})
	}
	return cmd
}

func (a *app) ruleList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the tenant's rules", Example: "  fleetctl rule list", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.tenantSession(cmd)
			if err != nil {
				return err
			}
			header := []string{"RULE", "KIND", "WHAT", "POINT", "CONDITIONS", "ENDS", "COMMENT", "AGE"}
			return show(cmd.Context(), a, s, listing{path: s.path("rules"), cursor: "cursor"}, header, func(r client.RuleView) []any {
				return []any{r.ID, r.Spec.Kind, ruleText(r.Spec), pointText(r.Spec.Point), conditionsText(r.Spec.Conditions), endText(r), r.Spec.Comment, a.age(r.CreatedAt)}
			})
		},
	}
}

// pointText writes a point as post.json_doc.hash:name.
func pointText(p fleet.Point) string {
	parts := make([]string, len(p))
	for i, step := range p {
		parts[i] = strings.Join(step, ":")
	}
	return strings.Join(parts, ".")
}

// conditionsText writes conditions as --condition takes them.
func conditionsText(cs []fleet.RuleCondition) string {
	parts := make([]string, len(cs))
	for i, c := range cs {
		parts[i] = string(c.Type) + ":" + c.Point
		if c.Type != fleet.MatchAbsent {
			parts[i] += "=" + c.Value
		}
	}
	return strings.Join(parts, " ")
}

func (a *app) ruleShow() *cobra.Command {
	return &cobra.Command{
		Use: "show RULE", Short: "Show a rule", Example: "  fleetctl rule show rule-0123456789abcdef", Args: exact("RULE"), ValidArgsFunction: first(a.completeRules),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.tenantSession(cmd)
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, s.path("rules", args[0]), func(r client.RuleView) error {
				t := newTable(a.Out)
				t.row("rule", r.ID)
				t.row("kind", r.Spec.Kind)
				t.row("what", ruleText(r.Spec))
				t.row("point", pointText(r.Spec.Point))
				t.row("conditions", conditionsText(r.Spec.Conditions))
				t.row("ends", endText(r))
				t.row("comment", r.Spec.Comment)
				t.row("made", a.age(r.CreatedAt))
				return t.flush()
			})
		},
	}
}

func (a *app) ruleDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete RULE", Aliases: []string{"rm"}, Short: "Delete a rule", Example: "  fleetctl rule delete rule-0123456789abcdef", Args: exact("RULE"), ValidArgsFunction: first(a.completeRules),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.tenantSession(cmd)
			if err != nil {
				return err
			}
			path := s.path("rules", args[0])
			before, err := s.Raw(cmd.Context(), http.MethodGet, path, nil, nil)
			if err != nil {
				return err
			}
			return a.removeRead(cmd.Context(), s, path, nil, before, "rule "+args[0]+" is deleted")
		},
	}
}

func (a *app) ruleTest() *cobra.Command {
	cmd := &cobra.Command{
		Use: "test", Short: "Show which rules a request would match", Args: exact(),
		Long:    "Show which rules a request would match: the tenant's stored rules, or the one of a file or of flags. The request is sent nowhere. Of a false-positive fix it says which share of the last week's events it takes out; 'fleetctl rule explain' says all that there is to say of a request.",
		Example: "  fleetctl rule test --url 'https://shop.example.com/?q=1+union+select'\n  fleetctl rule test -f rule.yaml --url https://shop.example.com/ --data @body.json --header 'Content-Type: application/json'",
	}
	r := newRuleFlags(cmd)
	var in client.RuleTest
	cmd.Flags().StringVar(&in.URL, "url", "", "absolute URL of the request")
	cmd.Flags().StringVar(&in.Method, "method", "", "method (default GET, with --data POST)")
	headers := cmd.Flags().StringArray("header", nil, "header as 'Name: value'; repeatable")
	data := cmd.Flags().String("data", "", "body, or @FILE")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if in.URL == "" {
			return usagef(cmd, "--url is missing: an absolute URL such as https://shop.example.com/?q=x")
		}
		var err error
		if in.Spec, err = r.spec(a, cmd); err != nil {
			return err
		}
		if in.Header, err = parseHeaders(cmd, *headers); err != nil {
			return err
		}
		if in.Body = *data; strings.HasPrefix(*data, "@") {
			b, err := a.readFile("data", (*data)[1:])
			if err != nil {
				return err
			}
			in.Body = string(b)
		}
		if in.Method == "" && cmd.Flags().Changed("data") {
			in.Method = http.MethodPost
		}
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		if in.Spec != nil && disables(*in.Spec) {
			return call(cmd.Context(), a, s, http.MethodPost, s.path("rules", "impact"), client.RuleImpact{Spec: *in.Spec}, a.showTouched)
		}
		return call(cmd.Context(), a, s, http.MethodPost, s.path("rules", "test"), in, a.showMatches)
	}
	return cmd
}

func parseHeaders(cmd *cobra.Command, texts []string) (map[string][]string, error) {
	h := http.Header{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, usagef(cmd, "%q is not a header: write --header 'Name: value'", text)
		}
		h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return h, nil
}

func (a *app) showMatches(p client.Page[client.RuleMatch]) error {
	if len(p.Items) == 0 {
		return a.say("no rule matches")
	}
	t := newTable(a.Out, "RULE", "TYPE", "POINT", "PARAMETER")
	for _, m := range p.Items {
		t.row(m.Rule, m.AttackType, pointText(m.Point), m.Parameter)
	}
	return t.flush()
}
