//nolint:forbidigo // the randomness here is the input of a test, from a seed that it names
package rules_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"regexp/syntax"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

func TestNeedlesAreWhatEveryMatchHas(t *testing.T) {
	for pattern, want := range map[string][]string{
		`(?i)union\s+select`: {"union"}, `union\s+select`: {"select"}, `(?:alpha|beta)+x`: {"alpha", "beta"}, `a?b*`: nil, `\d+`: nil,
		`^/Admin/`: {"/admin/"}, `(foo){0,3}`: nil, `(foo){2,3}`: {"foo"}, `(?i)kiss`: {"i"}, `(?i)s`: nil, `x|`: nil, `[0-9]x|yy`: {"x", "yy"},
	} {
		got, err := rules.Needles(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", pattern, diff)
		}
	}
}

// What an expression matches has one of its needles: otherwise an attack would pass because it was never looked for.
func TestNoMatchIsWithoutANeedle(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"a", "K", "ſ", "union", "(?i)s", "é", "\\s", "[a-c]", ".", "x{2}", "\xff"}
	operators := []string{"", "", "", "*", "+", "?", "{1,2}", "|"}
	texts := []string{"", "a", "A", "K", "K", "ſ", "s", "UNION", "union", "É", "xx", " ", "b", "\xff", "\uFFFD"}
	pick := func(list []string) string { return list[random.IntN(len(list))] }
	tried, matched := 0, 0
	for range 30_000 {
		var b strings.Builder
		if random.IntN(2) == 0 {
			b.WriteString("(?i)")
		}
		for range 1 + random.IntN(4) {
			b.WriteString("(?:" + pick(pieces) + ")" + pick(operators))
		}
		re, err := regexp.Compile(b.String())
		if err != nil {
			continue
		}
		tried++
		needles, err := rules.Needles(b.String())
		if err != nil {
			t.Fatal(err)
		}
		var written strings.Builder
		for range random.IntN(6) {
			written.WriteString(pick(texts))
		}
		text := written.String()
		at := re.FindStringIndex(text)
		if at == nil {
			continue
		}
		if n, err := rules.Least(b.String()); err != nil || at[1]-at[0] < n {
			t.Fatalf("%q matches %q in %q, which has less than %d bytes", b.String(), text[at[0]:at[1]], text, n)
		}
		if len(needles) == 0 {
			continue
		}
		matched++
		found := false
		for _, n := range needles {
			found = found || strings.Contains(rules.Lower(text), n)
		}
		if !found {
			t.Fatalf("%q matches %q, which has none of %q", b.String(), text, needles)
		}
	}
	if tried < 10_000 || matched < 500 {
		t.Errorf("%d expressions, %d matches with needles: the test says too little", tried, matched)
	}
}

// The bound is about the program's real size, and not far below it.
func TestTheCostOfAnExpressionIsABoundOfItsProgram(t *testing.T) {
	for _, pattern := range []string{
		`a`, `(?i)union\s+select`, `[a-z]{900}`, `(a|bb|ccc){1,50}d?`, `((a{1,9}b){1,9}c){1,9}`, `(?:\w+\.)*\w+@[^\s]{2,}`, `^(/[^/]*)*$`, `x{0,30}y{3,}`,
	} {
		re, err := syntax.Parse(pattern, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		prog, err := syntax.Compile(re.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := rules.Program(pattern); err != nil || got+2 < len(prog.Inst) || got > 3*len(prog.Inst) {
			t.Errorf("%s: %d, and the program has %d instructions", pattern, got, len(prog.Inst))
		}
	}
}

func TestARuleThatPanicsCostsItselfAlone(t *testing.T) {
	s := compile(t, fleet.BundleRule{ID: "bad", Spec: spec("x1", nil)}, fleet.BundleRule{ID: "good", Spec: spec("x1", nil)})
	s.Break("bad", "secret of the request")
	f := s.Evaluate(parse("/?q=x1", ""), noon)
	if len(f.Matches) != 1 || f.Matches[0].Rule != "good" {
		t.Errorf("matches %v", f.Matches)
	}
	if len(f.Failures) != 1 || f.Failures[0].Rule != "bad" || strings.Contains(f.Failures[0].Err.Error(), "secret") || len(f.Failures[0].Stack) == 0 {
		t.Errorf("failures %v", f.Failures)
	}
}

// twenty are rules as customers write them: most for every request, some for a host, a location or a parameter.
func twenty() []fleet.BundleRule {
	patterns := []string{
		`(?i)union\s+select`, `(?i)<script[^>]*>`, `\$\{jndi:`, `(?i)/etc/(?:passwd|shadow)`, `(?i)(?:sleep|benchmark)\s*\(`,
		`\.\./\.\./`, `(?i)xp_cmdshell`, `(?i)onerror\s*=`, `(?i)\bor\b\s+\d+=\d+`, `(?i)base64_decode\(`, `(?i)wp-login\.php`,
		`(?i)eval\s*\(`, `\{\{.*\}\}`, `(?i)load_file\(`, `(?i)javascript:`, `(?i)select\s.+\sfrom\s`, `^[^@]+@evil\.example$`, `[^\w-]{40,}`, `(?i)acunetix|sqlmap|nikto`, `%00`,
	}
	var bundle []fleet.BundleRule
	for i, p := range patterns {
		s := spec(p, nil)
		switch i % 4 {
		case 1:
			s.Conditions = []fleet.RuleCondition{is("host", "shop.example.com")}
		case 2:
			s.Conditions = []fleet.RuleCondition{is("uri", "/api/**")}
		case 3:
			s.Point = fleet.Point{{"get", "q"}}
		}
		bundle = append(bundle, fleet.BundleRule{ID: fleet.RuleID(fmt.Sprintf("r%d", i)), Spec: s})
	}
	return bundle
}

// BenchmarkTwentyRules is what a tenant's own rules add to a GET as browsers send it.
func BenchmarkTwentyRules(b *testing.B) {
	s := compile(b, twenty()...)
	h := http.Header{
		"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"},
		"Accept":     {"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"}, "Accept-Language": {"en-GB,en;q=0.7"},
		"Accept-Encoding": {"gzip, deflate, br, zstd"}, "Referer": {"https://shop.example.com/products?page=2&sort=price"},
		"Cookie": {"session=0123456789abcdef0123456789abcdef; theme=dark; consent=all"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Site": {"same-origin"},
	}
	r := request.Parse(request.Input{Method: "GET", Scheme: "https", Proto: "HTTP/2.0", Host: "shop.example.com", URI: "/api/products/list?q=kettle&page=3&sort=price", Header: h}, request.Limits{})
	b.ReportAllocs()
	for b.Loop() {
		if f := s.Evaluate(r, noon); len(f.Matches) > 0 {
			b.Fatal(f.Matches)
		}
		s.Mode(fleet.ModeBlock, "", r, noon)
		s.Headers(r, noon)
	}
}
