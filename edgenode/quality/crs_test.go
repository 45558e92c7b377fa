package quality_test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
)

// suiteSetup is what the suite expects of a rule set beside its defaults: limits.
const suiteSetup = `
SecAction "id:900005,phase:1,pass,t:none,nolog,setvar:tx.crs_validate_utf8_encoding=1,setvar:tx.arg_name_length=100,setvar:tx.arg_length=400,setvar:tx.total_arg_length=64000,setvar:tx.max_num_args=255,setvar:tx.max_file_size=64100,setvar:tx.combined_file_sizes=65535"
`

// verdict of a test.
type verdict string

const (
	passes verdict = "passes"
	// refused: the edge answered with an error before any rule was asked, and nothing reached the origin.
	refused verdict = "refused"
	fails   verdict = "fails"
)

// listFile names every test that does not pass.
const listFile = "testdata/crs.txt"

// listed is a test that is known not to pass.
type listed struct {
	verdict verdict
	reason  string
}

// TestTheRegressionSuiteOfTheCoreRuleSet sends every test of the suite through an edge with paranoia level 4. What matched
// is read from the events that the edge emits; the threshold is one, so that every match that counts is in an event.
func TestTheRegressionSuiteOfTheCoreRuleSet(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of requests")
	}
	suite := readSuite(t)
	if raceEnabled {
		suite = sample(suite, 40)
	}
	e := newEdge(t, waf.Options{ParanoiaLevel: 4, AnomalyThreshold: 1, Profile: waf.ProfileStock, Setup: suiteSetup}, fleet.ModeMonitoring, suiteHosts(suite)...)
	verdicts, why := make([]verdict, len(suite)), make([]string, len(suite))
	each(len(suite), func(i int) { verdicts[i], why[i] = e.play(t.Context(), suite[i]) })

	known := readList(t)
	count := map[verdict]int{}
	for i, test := range suite {
		count[verdicts[i]]++
		want, found := known[test.id]
		switch {
		case !found && verdicts[i] != passes:
			t.Errorf("%s %s: %s. Mend it, or list it in %s with the reason", test.id, verdicts[i], why[i], listFile)
		case found && verdicts[i] != want.verdict:
			t.Errorf("%s is listed in %s as one that %s, and %s now: take it out (%s)", test.id, listFile, want.verdict, verdicts[i], why[i])
		}
		delete(known, test.id)
	}
	if !raceEnabled {
		for _, id := range slices.Sorted(maps.Keys(known)) {
			t.Errorf("%s is listed in %s, and the suite has no such test: take it out", id, listFile)
		}
	}
	t.Logf("edge: of %d tests %d pass, %d are refused before the rules, %d fail", len(suite), count[passes], count[refused], count[fails])
}

// sample takes every n-th test.
func sample(suite []suiteTest, n int) []suiteTest {
	var some []suiteTest
	for i := 0; i < len(suite); i += n {
		some = append(some, suite[i])
	}
	return some
}

// suiteHosts are the names that tests ask for, as far as an edge can serve them.
func suiteHosts(suite []suiteTest) []string {
	names := map[string]bool{}
	for _, test := range suite {
		for _, s := range test.stages {
			for _, h := range s.Input.Headers {
				name, _, _ := strings.Cut(fmt.Sprint(h.Value), ":")
				if _, err := fleet.ParseHostName(name); err == nil && strings.EqualFold(fmt.Sprint(h.Key), "Host") {
					names[name] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// play runs the stages of a test; why says what was not as expected.
func (e *edge) play(ctx context.Context, test suiteTest) (_ verdict, why string) {
	for i, s := range test.stages {
		raw, err := s.Input.raw(hostName)
		if err != nil {
			return fails, err.Error()
		}
		o, err := e.send(ctx, raw)
		if err != nil {
			return fails, err.Error()
		}
		seen := matched{status: o.status, ids: map[int]bool{}, log: o.log()}
		for _, ev := range o.events {
			for _, r := range ev.Rules {
				if id, err := strconv.Atoi(r.ID); err == nil {
					seen.ids[id] = true
				}
			}
			seen.score = max(seen.score, ev.Score)
		}
		seen.evaluate()
		if problem := s.Output.check(seen); problem != "" {
			problem = fmt.Sprintf("stage %d: %s (status %d, rules %v)", i+1, problem, o.status, slices.Sorted(maps.Keys(seen.ids)))
			if o.status >= 400 && len(o.events) == 0 {
				return refused, problem
			}
			return fails, problem
		}
	}
	return passes, ""
}

// Rules that evaluate the score are not in the edge's engine, which does it itself: the score of the events shows the same.
const (
	ruleBlocks  = 949110
	ruleReports = 980170
)

// suiteThreshold is the score from which the suite expects that a request is blocked.
const suiteThreshold = 5

// matched is what one request made the rules do.
type matched struct {
	status, score int
	ids           map[int]bool
	log           string
}

func (m *matched) evaluate() {
	if m.score >= suiteThreshold {
		m.ids[ruleBlocks] = true
		m.log += fmt.Sprintf("Inbound Anomaly Score Exceeded (Total Score: %d)\n", m.score)
	}
	if m.score > 0 {
		m.ids[ruleReports] = true
	}
}

// log writes the events in the way that the suite's patterns expect.
func (o outcome) log() string {
	var b strings.Builder
	for _, ev := range o.events {
		where := "ARGS:" + ev.Parameter
		if strings.HasPrefix(ev.Point, "header.") {
			where = "REQUEST_HEADERS:" + http.CanonicalHeaderKey(ev.Parameter)
		}
		for _, r := range ev.Rules {
			for _, p := range append(ev.Payloads, "") {
				p = strings.Trim(strconv.Quote(p), `"`)
				fmt.Fprintf(&b, "Matched Data: %s found within %s: %s [id %q] [msg %q]\n", p, where, p, r.ID, r.Message)
			}
		}
	}
	return b.String()
}

// check returns what of seen is not as the test expects; empty if all is.
func (o output) check(seen matched) string {
	if o.ExpectError && seen.status != 0 {
		return "the connection was expected to end without an answer"
	}
	if o.Status != 0 && o.Status != seen.status {
		return fmt.Sprintf("expected status %d", o.Status)
	}
	for _, id := range o.Log.ExpectIDs {
		if !seen.ids[id] {
			return fmt.Sprintf("expected rule %d", id)
		}
	}
	for _, id := range o.Log.NoExpectIDs {
		if seen.ids[id] {
			return fmt.Sprintf("did not expect rule %d", id)
		}
	}
	if p := o.Log.MatchRegex; p != "" && !regexp.MustCompile(p).MatchString(seen.log) {
		return "expected a match of " + p
	}
	if p := o.Log.NoMatchRegex; p != "" && regexp.MustCompile(p).MatchString(seen.log) {
		return "did not expect a match of " + p
	}
	return ""
}

// readList reads lines of test, verdict and reason.
func readList(t testing.TB) map[string]listed {
	t.Helper()
	f, err := os.Open(listFile)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	all := map[string]listed{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, " ", 3)
		if len(fields) != 3 || strings.TrimSpace(fields[2]) == "" || fields[1] != string(refused) && fields[1] != string(fails) {
			t.Fatalf("%s: %q: write the test, refused or fails, and the reason", listFile, line)
		}
		if _, twice := all[fields[0]]; twice {
			t.Fatalf("%s: %s is there twice", listFile, fields[0])
		}
		all[fields[0]] = listed{verdict(fields[1]), fields[2]}
	}
	return all
}
