package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

// ruleFlags describe a rule: a file, or one flag for each field.
type ruleFlags struct {
	file, pattern, attackType, point, comment string
	kind, mode, expires                       string
	conditions, attackTypes, ruleIDs          []string
	experimental                              bool
}

func newRuleFlags(cmd *cobra.Command) *ruleFlags {
	r := &ruleFlags{}
	f := cmd.Flags()
	f.StringVarP(&r.file, "file", "f", "", "file with the rule, YAML or JSON; - for the standard input")
	f.StringVar(&r.kind, "kind", string(fleet.RuleRegex), "kind of rule")
	f.StringSliceVar(&r.attackTypes, "attack-types", nil, "attack types that a virtual patch stops, or that are disabled; several by commas")
	f.StringSliceVar(&r.ruleIDs, "rules", nil, "ids of the managed rules or detectors that are disabled; several by commas")
	f.StringVar(&r.mode, "mode", "", "mode that a rule of kind mode sets")
	f.StringVar(&r.expires, "expires", "", "when the rule ends: in a time such as 12h or 30d, or at a time such as 2026-12-24T00:00:00Z")
	f.StringVar(&r.pattern, "pattern", "", "RE2 regular expression to look for")
	f.StringVar(&r.attackType, "type", string(fleet.AttackCustom), "attack type of what matches")
	f.StringArrayVar(&r.conditions, "condition", nil, "condition as type:point=value, such as equal:host=shop.example.com or absent:query[x]; repeatable")
	f.StringVar(&r.point, "point", "", `where to look, JSON such as [["post"],["json_doc"],["hash","user"]]`)
	f.BoolVar(&r.experimental, "experimental", false, "report, never block")
	f.StringVar(&r.comment, "comment", "", "what the rule is for; it is shown with its events")
	completeFlag(cmd, "type", words(fleet.AttackTypes...))
	completeFlag(cmd, "kind", words(fleet.RuleKinds...))
	completeFlag(cmd, "attack-types", words(fleet.AttackTypes...))
	completeFlag(cmd, "mode", words(fleet.Modes...))
	return r
}

// spec is the rule that the flags describe, validated as the nodes will load it; nil if they describe none.
func (r *ruleFlags) spec(a *app, cmd *cobra.Command) (*fleet.RuleSpec, error) {
	used := ""
	for _, name := range []string{"pattern", "type", "condition", "point", "experimental", "comment", "kind", "attack-types", "rules", "mode", "expires"} {
		if cmd.Flags().Changed(name) {
			used = name
		}
	}
	if r.file != "" {
		if used != "" {
			return nil, usagef(cmd, "give the rule as a file or as flags, not -f and --%s", used)
		}
		return r.fromFile(a)
	}
	if r.pattern == "" && !cmd.Flags().Changed("kind") {
		if used != "" {
			return nil, usagef(cmd, "--pattern is missing: what should the rule look for?")
		}
		return nil, nil
	}
	spec, err := r.fromFlags(a, cmd)
	if err != nil {
		return nil, err
	}
	return spec, rules.Validate(*spec)
}

func (r *ruleFlags) fromFile(a *app) (*fleet.RuleSpec, error) {
	b, err := a.readFile("file", r.file)
	if err != nil {
		return nil, err
	}
	spec := &fleet.RuleSpec{}
	return spec, decodeYAML(r.file, b, spec, func() error { return rules.Validate(*spec) })
}

func (r *ruleFlags) fromFlags(a *app, cmd *cobra.Command) (*fleet.RuleSpec, error) {
	spec := &fleet.RuleSpec{
		Kind: fleet.RuleKind(r.kind), Pattern: r.pattern, Experimental: r.experimental, Comment: r.comment, Rules: r.ruleIDs, Mode: fleet.Mode(r.mode),
	}
	if spec.Kind == fleet.RuleRegex || cmd.Flags().Changed("type") {
		spec.AttackType = fleet.AttackType(r.attackType)
	}
	for _, t := range r.attackTypes {
		spec.AttackTypes = append(spec.AttackTypes, fleet.AttackType(t))
	}
	if r.expires != "" {
		var err error
		if spec.ExpiresAt, err = a.parseEnd(cmd, r.expires); err != nil {
			return nil, err
		}
	}
	for _, text := range r.conditions {
		kind, rest, ok := strings.Cut(text, ":")
		if !ok {
			return nil, usagef(cmd, "%q is not a condition: write --condition type:point=value, such as equal:host=shop.example.com", text)
		}
		c := fleet.RuleCondition{Type: fleet.ConditionType(kind)}
		c.Point, c.Value = cutPoint(rest)
		spec.Conditions = append(spec.Conditions, c)
	}
	if r.point != "" {
		if err := fleet.DecodeStrict([]byte(r.point), &spec.Point); err != nil {
			return nil, usagef(cmd, `--point %q is not a JSON list of lists such as [["post"],["json_doc"],["hash","user"]]: %v`, r.point, err)
		}
	}
	return spec, nil
}

// cutPoint cuts point=value; the name in query[name] may have a = itself.
func cutPoint(text string) (point, value string) {
	point, value, _ = strings.Cut(text, "=")
	if name, rest, ok := strings.Cut(text, "]"); ok && strings.Contains(point, "[") {
		return name + "]", strings.TrimPrefix(rest, "=")
	}
	return point, value
}
