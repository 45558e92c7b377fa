package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// ruleText says in short what a rule does.
func ruleText(s fleet.RuleSpec) string {
	types := make([]string, len(s.AttackTypes))
	for i, t := range s.AttackTypes {
		types[i] = string(t)
	}
	switch s.Kind {
	case fleet.RuleRegex:
		text := string(s.AttackType) + " " + s.Pattern
		if s.Experimental {
			text = "experimental " + text
		}
		return text
	case fleet.RuleVPatch:
		if len(types) > 0 {
			return "blocks " + list(types)
		}
		return strings.TrimSpace("blocks all " + s.Pattern)
	case fleet.RuleDisableAttackType:
		return list(types)
	case fleet.RuleDisableRule:
		return list(s.Rules)
	case fleet.RuleMode:
		return string(s.Mode)
	case fleet.RuleResponseHeader:
		return s.Header + ": " + s.Value
	case fleet.RuleBlockPage:
		if s.Page != nil {
			return fmt.Sprintf("%s of %d bytes", s.Page.ContentType, len(s.Page.Body))
		}
	case fleet.RuleSensitiveData:
	}
	return s.Pattern
}

// endText says when a rule ends, if it does.
func endText(r client.RuleView) string {
	switch {
	case r.Expired:
		return "ended " + r.Spec.ExpiresAt.UTC().Format(time.RFC3339)
	case r.Spec.ExpiresAt.IsZero():
		return ""
	}
	return r.Spec.ExpiresAt.UTC().Format(time.RFC3339)
}

// parseEnd reads when something ends.
func (a *app) parseEnd(cmd *cobra.Command, text string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UTC(), nil
	}
	ago, err := a.parseTime(cmd, text)
	now := a.Now()
	if err != nil || !ago.Before(now) {
		return time.Time{}, usagef(cmd, "--expires %q is neither a time such as 12h or 30d nor a time such as 2026-12-24T00:00:00Z", text)
	}
	return now.Add(now.Sub(ago)).UTC().Truncate(time.Second), nil
}

func disables(s fleet.RuleSpec) bool {
	return s.Kind == fleet.RuleDisableAttackType || s.Kind == fleet.RuleDisableRule
}

// showImpact says what a false-positive fix would have taken out; other rules take nothing out.
func (a *app) showImpact(ctx context.Context, s *session, spec fleet.RuleSpec) error {
	if !disables(spec) || a.json() {
		return nil
	}
	return call(ctx, a, s, http.MethodPost, s.path("rules", "impact"), client.RuleImpact{Spec: spec}, a.showTouched)
}

func (a *app) showTouched(t client.RuleTouched) error {
	of := fmt.Sprintf("%d of %d", t.Touched, t.Events)
	if t.Partial {
		of += " (the newest)"
	}
	if err := a.say("it takes out findings of %s events of the last %d days: %.1f %%", of, t.Days, 100*t.Share); err != nil {
		return err
	}
	for _, id := range t.Examples {
		if err := a.say("  %s", id); err != nil {
			return err
		}
	}
	return nil
}

// failFlag adds --fail. What it returns reads the flag: nil if it was not given, else how a policy is changed.
func failFlag(cmd *cobra.Command) func(*cobra.Command) (func(fleet.FailPolicy) (fleet.FailPolicy, error), error) {
	given := cmd.Flags().StringToString("fail", nil, "what becomes of requests that cannot be judged, by cause: engine_error, over_limit, timeout or config_not_loaded, =open or =close; several by commas")
	return func(cmd *cobra.Command) (func(fleet.FailPolicy) (fleet.FailPolicy, error), error) {
		change := func(p fleet.FailPolicy) (fleet.FailPolicy, error) {
			for _, cause := range fleet.FailCauses {
				a, ok := (*given)[string(cause)]
				if !ok {
					continue
				}
				var err error
				if p, err = p.With(cause, fleet.FailAction(a)); err != nil {
					return p, err
				}
			}
			return p, nil
		}
		for cause, action := range *given {
			if _, err := (fleet.FailPolicy{}).With(fleet.FailCause(cause), fleet.FailAction(action)); err != nil || action == "" {
				return nil, usagef(cmd, "--fail %s=%s: give engine_error, over_limit, timeout or config_not_loaded, =open or =close", cause, action)
			}
		}
		if len(*given) == 0 {
			return nil, nil
		}
		return change, nil
	}
}

// failText names the causes for which requests are refused.
func failText(p fleet.FailPolicy) string {
	var closed []string
	for _, cause := range fleet.FailCauses {
		if p.On(cause) == fleet.FailClose {
			closed = append(closed, string(cause))
		}
	}
	return strings.Join(closed, ", ")
}
