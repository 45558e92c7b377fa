package cli

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet/rules"
	"github.com/edgefleet/edgefleet/fleet/sample"
)

const ruleExplainLong = `Explain how a request to one of the tenant's hosts is judged: which mode holds and who set it, which conditions hold, what
the request is read into, which rules fire where, what is masked, and what becomes of it. It is sent nowhere.

The request is a file as it goes over the wire (a line such as 'GET /?q=x HTTP/1.1', headers, an empty line, the body), or a
command line of curl, as browsers copy it. The tenant's own rules are judged by the code that nodes run; managed rules are
judged on nodes only.`

func (a *app) ruleExplain() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain", Short: "Explain how a request is judged", Long: ruleExplainLong, Args: exact(),
		Example: "  fleetctl rule explain --request request.txt\n  fleetctl rule explain --curl \"curl 'https://shop.example.com/?id=1' -H 'X-Debug: 1'\"",
	}
	f := cmd.Flags()
	file := f.String("request", "", "file with the request as it goes over the wire; - for the standard input")
	line := f.String("curl", "", "command line of curl")
	host := f.String("host", "", "host that the request is for (default that of the request)")
	source := f.String("source", "", "IP list that the client would be on: allow, deny or gray (default none)")
	all := f.Bool("all", false, "show all points and all rules, also those that do not apply")
	completeFlag(cmd, "host", a.completeHosts)
	completeFlag(cmd, "source", words("allow", "deny", "gray"))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if (*file == "") == (*line == "") {
			return usagef(cmd, "which request? give --request FILE or --curl 'curl …'")
		}
		in := client.RuleExplain{Source: rules.Source(*source)}
		var err error
		if *line != "" {
			in.Request, err = sample.Curl(*line)
		} else {
			var b []byte
			if b, err = a.readFile("request", *file); err == nil {
				in.Request, err = sample.Raw(b)
			}
		}
		if err != nil {
			return err
		}
		if *host != "" {
			in.Request.Host = *host
		}
		if err := in.Request.Validate(); err != nil {
			return err
		}
		s, err := a.tenantSession(cmd)
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, s.path("rules", "explain"), in, func(e client.RuleExplanation) error { return a.showExplanation(e, *all) })
	}
	return cmd
}

func (a *app) showExplanation(e client.RuleExplanation, all bool) error {
	t := newTable(a.Out)
	outcome := string(e.Outcome)
	switch {
	case e.Outcome == rules.OutcomeBlocked:
		outcome += ": " + string(e.Reason)
		if e.Cause != "" {
			outcome += " (" + string(e.Cause) + ")"
		}
	case e.Outcome == rules.OutcomeReported && len(e.Matches) == 0:
		outcome = "passed: nothing was found"
	}
	t.row("host", e.Host)
	t.row("outcome", outcome)
	set := string(e.Mode.Layer)
	if e.Mode.Rule != "" {
		set += ", rule " + string(e.Mode.Rule)
	}
	t.row("mode", fmt.Sprintf("%s (set by: %s)", e.Mode.Mode, set))
	t.row("client's list", e.Source)
	t.row("fail closed", failText(e.Policy))
	for _, c := range e.Failed {
		t.row("not wholly judged", c)
	}
	t.row("masked", strings.Join(e.Masks, ", "))
	for _, h := range e.Headers {
		t.row("sets header", h.Name+": "+h.Value)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if err := a.showFired(e.Matches); err != nil {
		return err
	}
	if err := a.showRules(e.Rules, all); err != nil {
		return err
	}
	if err := a.showPoints(e, all); err != nil {
		return err
	}
	return a.say("\n%s", e.Note)
}

func (a *app) showFired(matches []rules.ExplainedMatch) error {
	if len(matches) == 0 {
		return a.say("\nno own rule fires")
	}
	if err := a.say("\nRules that fire:"); err != nil {
		return err
	}
	t := newTable(a.Out, "RULE", "TYPE", "POINT", "WHAT IT MATCHED", "REMARK")
	for _, m := range matches {
		remark := m.Error
		switch {
		case m.DisabledBy != "":
			remark = "disabled by " + string(m.DisabledBy)
		case m.Experimental:
			remark = "experimental: never blocks"
		case m.Patch:
			remark = "virtual patch"
		}
		t.row(m.Rule, m.Type, m.Point, m.Payload, remark)
	}
	return t.flush()
}

func (a *app) showRules(list []rules.ExplainedRule, all bool) error {
	t := newTable(a.Out, "RULE", "KIND", "APPLIES", "CONDITIONS")
	shown := 0
	for _, r := range list {
		if !r.Applies && !all {
			continue
		}
		applies := yesNo(r.Applies)
		if r.Expired {
			applies = "ended"
		}
		var conditions []string
		for _, c := range r.Conditions {
			mark := "holds"
			if !c.Holds {
				mark = "does not hold"
			}
			conditions = append(conditions, fmt.Sprintf("%s:%s=%s (%s)", c.Type, c.Point, c.Value, mark))
		}
		shown++
		t.row(r.Rule, r.Kind, applies, strings.Join(conditions, " "))
	}
	if shown == 0 {
		return nil
	}
	if err := a.say("\nRules:"); err != nil {
		return err
	}
	return t.flush()
}

// fewPoints are shown without --all.
const fewPoints = 40

func (a *app) showPoints(e client.RuleExplanation, all bool) error {
	if err := a.say("\nPoints:"); err != nil {
		return err
	}
	t := newTable(a.Out, "POINT", "VALUE", "MASKED")
	for i, p := range e.Points {
		if i == fewPoints && !all {
			t.row(fmt.Sprintf("and %d more, with --all", len(e.Points)-i), "", "")
			break
		}
		t.row(p.Point, p.Value, yesNo(p.Masked))
	}
	for _, p := range e.Problems {
		t.row(p.Point, "not read: "+p.Reason, "yes")
	}
	return t.flush()
}
