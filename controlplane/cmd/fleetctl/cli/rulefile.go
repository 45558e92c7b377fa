package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

// rulesFile is a tenant's rules as 'rule export' writes them and 'rule import' reads them.
type rulesFile struct {
	Rules []client.RuleEntry `yaml:"rules"`
}

func (f rulesFile) validate() error {
	seen := map[fleet.RuleID]bool{}
	for i, r := range f.Rules {
		if err := rules.Validate(r.RuleSpec); err != nil {
			e := fleet.AsError(err)
			return fleet.NewError(fleet.ErrInvalid, fmt.Sprintf("rules[%d].%s", i, e.Field), "%s", e.Message)
		}
		if r.ID != "" && seen[r.ID] {
			return fleet.Invalid(fmt.Sprintf("rules[%d].id", i), "rule %s is there twice", r.ID)
		}
		seen[r.ID] = true
	}
	return nil
}

func (a *app) ruleUpdate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "update RULE", Short: "Replace what a rule says", Args: exact("RULE"), ValidArgsFunction: first(a.completeRules),
		Long:    "Replace what a rule says by a file or by flags, as 'fleetctl rule add' takes them. What is not given is not kept.",
		Example: "  fleetctl rule update rule-0123456789abcdef -f rule.yaml",
	}
	r := newRuleFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		spec, err := r.spec(a, cmd)
		if err != nil {
			return err
		}
		if spec == nil {
			return usagef(cmd, "what should the rule say? give a file with -f, or flags as for 'fleetctl rule add'")
		}
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		path := s.path("rules", args[0])
		var before []byte
		var read client.RuleView
		if err := s.read(cmd.Context(), path, nil, &before, &read); err != nil {
			return err
		}
		raw, err := s.Raw(cmd.Context(), http.MethodPut, path, nil, client.RuleUpdate{Spec: *spec}, client.IfMatch(read))
		if err != nil {
			return s.explain(cmd.Context(), path, before, err)
		}
		return answer(a, raw, func(r fleet.Rule) error {
			if err := a.say("rule %s is changed; see it reach the nodes with 'fleetctl ruleset status --wait'", r.ID); err != nil {
				return err
			}
			return a.showImpact(cmd.Context(), s, *spec)
		})
	}
	return cmd
}

func (a *app) ruleExport() *cobra.Command {
	return &cobra.Command{
		Use: "export", Short: "Print the tenant's rules as YAML", Args: exact(), Example: "  fleetctl rule export > rules.yaml",
		Long: "Print the tenant's rules as YAML that 'fleetctl rule import' reads; with -o json, as the API has them.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.tenantSession(cmd)
			if err != nil {
				return err
			}
			file := rulesFile{Rules: []client.RuleEntry{}}
			var items [][]byte
			err = listing{path: s.path("rules"), cursor: "cursor"}.each(cmd.Context(), s, func(page []json.RawMessage) error {
				for _, item := range page {
					var r fleet.Rule
					if err := json.Unmarshal(item, &r); err != nil {
						return fleet.NewError(fleet.ErrCorrupt, "", "the API's answer cannot be read (%v): is this fleetctl as new as the members?", err)
					}
					file.Rules = append(file.Rules, client.RuleEntry{ID: r.ID, RuleSpec: r.Spec})
					items = append(items, item)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if a.json() {
				return a.printJSON(jsonList(items))
			}
			b, err := yaml.Marshal(file)
			if err != nil {
				return fmt.Errorf("write rules as YAML: %w", err)
			}
			_, err = a.Out.Write(b)
			return err
		},
	}
}

func jsonList(items [][]byte) []byte {
	parts := make([]string, len(items))
	for i, item := range items {
		parts[i] = string(item)
	}
	return []byte("[" + strings.Join(parts, ",") + "]")
}

func (a *app) ruleImport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "import -f FILE", Short: "Write many rules, all or none", Args: exact(),
		Long: `Write the rules of a file as 'fleetctl rule export' prints it, all of them or none. Rules with an id that is there are
changed, others are added; rules without an id get one. --prune deletes the tenant's rules that are not in the file.`,
		Example: "  fleetctl rule import -f rules.yaml --dry-run\n  fleetctl rule import -f rules.yaml --prune --yes --reason 'ticket 7'",
	}
	file := cmd.Flags().StringP("file", "f", "", "file of rules, YAML or JSON; - for the standard input")
	dry := cmd.Flags().Bool("dry-run", false, "say what would change, and change nothing")
	prune := cmd.Flags().Bool("prune", false, "delete the tenant's rules that are not in the file")
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *file == "" {
			return usagef(cmd, "which rules? give a file with -f")
		}
		b, err := a.readFile("file", *file)
		if err != nil {
			return err
		}
		var f rulesFile
		if err := decodeYAML(*file, b, &f, func() error { return f.validate() }); err != nil {
			return err
		}
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		if *prune && !*dry {
			if err := a.confirm(cmd, *yes, "deleting all rules that are not in the file, of tenant", string(s.tenant)); err != nil {
				return err
			}
		}
		in := client.RuleImport{Rules: f.Rules, Prune: *prune, DryRun: *dry}
		return call(cmd.Context(), a, s, http.MethodPost, s.path("rules", "import"), in, a.showImported)
	}
	return cmd
}

func (a *app) showImported(r client.RuleImported) error {
	for _, c := range []struct {
		sign string
		ids  []fleet.RuleID
	}{{"+", r.Added}, {"~", r.Changed}, {"-", r.Deleted}} {
		for _, id := range c.ids {
			if err := a.say("%s %s", c.sign, id); err != nil {
				return err
			}
		}
	}
	verb := "were"
	if r.DryRun {
		verb = "would be"
	}
	return a.say("%d rules %s added, %d changed, %d deleted; %d are as they were", len(r.Added), verb, len(r.Changed), len(r.Deleted), r.Unchanged)
}

func (a *app) modeTenant() *cobra.Command {
	return &cobra.Command{
		Use: "tenant off|monitoring|safe_blocking|block", Short: "Set the mode of the tenant's hosts that inherit it", Args: exact("MODE"), ValidArgsFunction: first(words(fleet.Modes...)),
		Long:    "Set the mode of the tenant: that of its hosts in mode inherit, where no rule of kind mode says otherwise. It is a rule of kind mode without conditions.",
		Example: "  fleetctl mode tenant block\n  fleetctl mode set shop.example.com inherit",
		RunE: func(cmd *cobra.Command, args []string) error {
			m := fleet.Mode(args[0])
			if m.Validate() != nil {
				return usagef(cmd, "%q is not a mode: use off, monitoring, safe_blocking or block", args[0])
			}
			s, err := a.tenantSession(cmd)
			if err != nil {
				return err
			}
			entry := client.RuleEntry{RuleSpec: fleet.RuleSpec{Kind: fleet.RuleMode, Mode: m, Comment: "the mode of the tenant"}}
			err = listing{path: s.path("rules"), cursor: "cursor"}.each(cmd.Context(), s, func(page []json.RawMessage) error {
				for _, item := range page {
					var r client.RuleView
					if err := json.Unmarshal(item, &r); err != nil {
						return fleet.NewError(fleet.ErrCorrupt, "", "the API's answer cannot be read (%v): is this fleetctl as new as the members?", err)
					}
					// Of several, the one whose id comes first decides; they are listed by id.
					if r.Spec.Kind == fleet.RuleMode && len(r.Spec.Conditions) == 0 && !r.Expired && entry.ID == "" {
						entry.ID, entry.Comment = r.ID, r.Spec.Comment
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			in := client.RuleImport{Rules: []client.RuleEntry{entry}}
			return call(cmd.Context(), a, s, http.MethodPost, s.path("rules", "import"), in, func(client.RuleImported) error {
				return a.say("the mode of the tenant is %s; it holds for its hosts in mode inherit", m)
			})
		},
	}
}
