package waf_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

// encoder is a way to write a text; a random one may put something around it.
type encoder func(random *rand.Rand, s string) string

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b[1 : len(b)-1])
}

func compressed(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.String()
}

func padding(random *rand.Rand) string { return "wxyz"[:random.IntN(5)] }

func escapeAll(format string, s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, format, c)
	}
	return b.String()
}

var encoders = map[string]encoder{
	"query":    func(_ *rand.Rand, s string) string { return url.QueryEscape(s) },
	"path":     func(_ *rand.Rand, s string) string { return url.PathEscape(s) },
	"percent":  func(_ *rand.Rand, s string) string { return escapeAll("%%%02x", s) },
	"iis":      func(_ *rand.Rand, s string) string { return escapeAll("%%u%04x", s) },
	"json":     func(_ *rand.Rand, s string) string { return quoted(s) },
	"unicode":  func(_ *rand.Rand, s string) string { return escapeAll(`\u%04x`, s) },
	"hex":      func(_ *rand.Rand, s string) string { return escapeAll(`\x%02x`, s) },
	"html":     func(_ *rand.Rand, s string) string { return html.EscapeString(s) },
	"entities": func(_ *rand.Rand, s string) string { return escapeAll("&#x%x;", s) },
	"decimal":  func(_ *rand.Rand, s string) string { return escapeAll("&#%d;", s) },
	"base64": func(r *rand.Rand, s string) string {
		return base64.StdEncoding.EncodeToString([]byte(padding(r) + s + padding(r)))
	},
	"base64url": func(r *rand.Rand, s string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(padding(r) + s + padding(r)))
	},
	"glued": func(r *rand.Rand, s string) string {
		return padding(r) + base64.RawStdEncoding.EncodeToString([]byte(s))
	},
	"gzip": func(_ *rand.Rand, s string) string {
		return base64.StdEncoding.EncodeToString([]byte(compressed("see " + s + " there")))
	},
	"token": func(_ *rand.Rand, s string) string {
		return "eyJhbGciOiJIUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"x","n":"`+quoted(s)+`"}`)) + ".c2lnbmF0dXJl"
	},
	"multipart": func(_ *rand.Rand, s string) string {
		return base64.StdEncoding.EncodeToString([]byte("--b\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n" + s + "\r\n--b--\r\n"))
	},
}

// chain writes s by one or two random encoders.
func chain(random *rand.Rand, names []string, s string) (text string, how string) {
	for range 1 + random.IntN(2) {
		name := names[random.IntN(len(names))]
		s, how = encoders[name](random, s), how+" "+name
	}
	return s, how
}

// reveals undoes encodings, one character at a time and in any order, to find secret in out. It is made apart from the
// code that hides secrets.
func reveals(out, secret string, depth int) bool {
	if strings.Contains(strings.ToLower(out), strings.ToLower(secret)) {
		return true
	}
	if depth == 0 {
		return false
	}
	undone := map[string]bool{out: true}
	for _, text := range []string{html.UnescapeString(out), strings.ReplaceAll(out, "+", " "), unpercent(out), unbackslash(out)} {
		if !undone[text] {
			undone[text] = true
			if reveals(text, secret, depth-1) {
				return true
			}
		}
	}
	for _, run := range strings.FieldsFunc(out, func(r rune) bool {
		return r > 'z' || !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_", r)
	}) {
		run = strings.NewReplacer("-", "+", "_", "/").Replace(run)
		for offset := range min(4, len(run)) {
			depth := depth
			rest := run[offset:]
			if len(rest)%4 == 1 {
				rest = rest[:len(rest)-1]
			}
			plain, err := base64.RawStdEncoding.DecodeString(rest)
			if err != nil || len(plain) < len(secret) {
				continue
			}
			if z, err := gzip.NewReader(bytes.NewReader(plain[max(0, bytes.Index(plain, []byte("\x1f\x8b\x08"))):])); err == nil {
				var b bytes.Buffer
				_, _ = b.ReadFrom(z)
				plain = b.Bytes()
			}
			if !utf8.Valid(plain) {
				depth = min(depth, 3) // it is no text as a whole
			}
			if reveals(string(plain), secret, depth-1) {
				return true
			}
		}
	}
	return false
}

func unpercent(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var n, width int
		if s[i] != '%' {
			width = 0 // Sscanf would skip spaces
		} else if _, err := fmt.Sscanf(s[i:min(len(s), i+6)], "%%u%4x", &n); err == nil {
			width = 6
		} else if _, err := fmt.Sscanf(s[i:min(len(s), i+3)], "%%%2x", &n); err == nil {
			width = 3
		}
		if width == 0 || i+width > len(s) {
			b.WriteByte(s[i])
			continue
		}
		b.WriteByte(byte(n))
		i += width - 1
	}
	return b.String()
}

func unbackslash(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var n, width int
		if s[i] == '\\' && i+1 < len(s) {
			switch c := s[i+1]; {
			case c == 'u':
				if _, err := fmt.Sscanf(s[i:min(len(s), i+6)], `\u%4x`, &n); err == nil {
					width = 6
				}
			case c == 'x':
				if _, err := fmt.Sscanf(s[i:min(len(s), i+4)], `\x%2x`, &n); err == nil {
					width = 4
				}
			case strings.IndexByte(`"\/`, c) >= 0:
				n, width = int(c), 2
			}
		}
		if width == 0 || i+width > len(s) {
			b.WriteByte(s[i])
			continue
		}
		b.WriteByte(byte(n))
		i += width - 1
	}
	return b.String()
}

// masked are ways to send a secret s: by a name of the default pack, or where a customer's rule is.
var masked = map[string]func(in *request.Input, s string){
	"argument": func(in *request.Input, s string) { in.URI += "&password=" + url.QueryEscape(s) },
	"twice":    func(in *request.Input, s string) { in.URI += "&token=x&token=" + url.QueryEscape(s) },
	"cookie":   func(in *request.Input, s string) { in.Header.Add("Cookie", "SID="+url.QueryEscape(s)) },
	"header":   func(in *request.Input, s string) { in.Header["x-API-key"] = []string{s} },
	"basic": func(in *request.Input, s string) {
		in.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("u:"+s)))
	},
	"form": func(in *request.Input, s string) { post(in, form, "a=b&api_key="+url.QueryEscape(s)) },
	"json": func(in *request.Input, s string) { post(in, "application/json", `{"a":[{"secret":"`+quoted(s)+`"}]}`) },
	"text": func(in *request.Input, s string) { post(in, "text/plain", `{"a":[{"secret":"`+quoted(s)+`"}]}`) },
	"broken": func(in *request.Input, s string) {
		post(in, "application/json", `{"secret":"`+quoted(s)+`"}`)
		in.Header.Set("X-Api-Key", s)
	},
	"xml": func(in *request.Input, s string) {
		post(in, "text/xml", `<a><password>`+html.EscapeString(s)+`</password></a>`)
	},
	"graphql": func(in *request.Input, s string) {
		post(in, "application/graphql", `mutation{login(password:"`+quoted(s)+`"){id}}`)
	},
	"multipart": func(in *request.Input, s string) {
		post(in, "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"pwd\"\r\n\r\n"+s+"\r\n--b--\r\n")
	},
	"gzip": func(in *request.Input, s string) {
		post(in, "application/json", compressed(`{"secret":"`+quoted(s)+`"}`))
		in.Header.Set("Content-Encoding", "gzip")
	},
	"nested": func(in *request.Input, s string) {
		in.URI += "&n=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(`{"password":"`+quoted(s)+`"}`)))
	},
	"point":    func(in *request.Input, s string) { in.URI += "&kunde=" + url.QueryEscape(s) },
	"anywhere": func(in *request.Input, s string) { post(in, "application/json", `{"kNr":"`+quoted(s)+`"}`) },
	"pattern":  func(in *request.Input, s string) { in.URI += "&p=" + url.QueryEscape("see "+s+" there") },
}

func post(in *request.Input, contentType, body string) {
	in.Header.Set("Content-Type", contentType)
	in.Method, in.Body = "POST", []byte(body)
}

// printed spells 4 to 20 characters, none of them a space at an end.
func printed(random *rand.Rand) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&'()*+,-./:;<=>?@[]^_{|}~ \"%\\"
	for {
		var b strings.Builder
		for range 4 + random.IntN(17) {
			b.WriteByte(alphabet[random.IntN(len(alphabet))])
		}
		if s := b.String(); strings.TrimSpace(s) == s && strings.Trim(s, `"`) == s {
			return s
		}
	}
}

// everywhere are rules that make evidence of all of a request.
func everywhere(t *testing.T, secret string) *rules.Set {
	t.Helper()
	specs := []fleet.RuleSpec{
		{Kind: fleet.RuleRegex, Pattern: `(?s).+`, AttackType: fleet.AttackSQLi},
		{Kind: fleet.RuleRegex, Pattern: `(?s).{3}`, Point: fleet.Point{{"get_all"}}, AttackType: fleet.AttackXSS},
		{Kind: fleet.RuleSensitiveData, Point: fleet.Point{{"get", "kunde"}}},
		{Kind: fleet.RuleSensitiveData, Point: fleet.Point{{"any", "knr"}}},
		{Kind: fleet.RuleSensitiveData, Pattern: regexp.QuoteMeta(secret)},
	}
	for i, p := range []fleet.Point{
		{{"uri"}},
		{{"path"}},
		{{"post"}},
		{{"header", "X-NOTE"}},
		{{"header", "USER-AGENT"}},
		{{"header", "REFERER"}},
		{{"get", "c"}},
		{{"path", "1"}},
		{{"post"}, {"json_doc"}, {"hash_all"}},
		{{"post"}, {"gzip"}},
		{{"get", "n"}, {"base64"}},
		{{"get", "p"}},
		{{"header_all"}},
	} {
		specs = append(specs, fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: `(?s).+`, Point: p, AttackType: fleet.AttackTypes[2+i]})
	}
	var bundle []fleet.BundleRule
	for i, spec := range specs {
		bundle = append(bundle, fleet.BundleRule{ID: fleet.RuleID(fmt.Sprintf("r%d", i)), Spec: spec})
	}
	set, err := rules.Compile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestNoMaskedValueLeaves sends random secrets at random masked places, and again elsewhere in random encodings of
// encodings, with rules that make evidence of everything.
func TestNoMaskedValueLeaves(t *testing.T) {
	rounds := uint64(150)
	if testing.Short() {
		rounds = 30
	}
	e := newEngine(t)
	places, names := slices.Sorted(maps.Keys(masked)), slices.Sorted(maps.Keys(encoders))
	for seed := range rounds {
		random := rand.New(rand.NewPCG(seed, 30)) //nolint:gosec // repeatable
		secret, where := printed(random), places[int(seed)%len(places)]
		text, how := chain(random, names, secret)
		again, howAgain := chain(random, names, secret)
		in := request.Input{
			Method: "GET", Scheme: "https", Proto: "HTTP/1.1", Host: "shop.example.com",
			URI:    "/x/" + url.PathEscape(text) + "/y?q=" + url.QueryEscape("' OR 1=1--") + "&c=" + url.QueryEscape("seen "+again),
			Header: http.Header{"X-Note": {"note: " + text}, "User-Agent": {"sqlmap " + again}, "Referer": {"https://x/?r=" + url.QueryEscape(text) + "&s=" + again}},
		}
		masked[where](&in, secret)
		for _, sent := range []string{text, again, in.URI} {
			if !reveals(sent, secret, 4) {
				t.Fatalf("seed %d:%s,%s: this test does not see %q in %q", seed, how, howAgain, secret, sent)
			}
		}
		judged := sent{}.input(fleet.ModeBlock)
		judged.Request, judged.Rules = request.Parse(in, request.Limits{}), everywhere(t, secret)
		d := e.Judge(t.Context(), judged)
		if len(d.Events) == 0 || d.EngineError != nil {
			t.Fatalf("seed %d: %+v", seed, d)
		}
		for _, out := range leaving(t, d) {
			if reveals(out, secret, 4) {
				t.Fatalf("seed %d: %q, sent as %s, then%s and%s, leaves in\n%s", seed, secret, where, how, howAgain, out)
			}
		}
	}
}

// leaving is what leaves: events as they are encoded and logged, and each text in them.
func leaving(t *testing.T, d waf.Decision) []string {
	t.Helper()
	var out []string
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	for _, ev := range d.Events {
		b, err := json.Marshal(ev.Clip())
		if err != nil {
			t.Fatal(err)
		}
		logger.Info("event", "event", ev)
		out = append(out, ev.Point, ev.Parameter, ev.Path, ev.Method, ev.Protocol)
		out = append(out, ev.Payloads...)
		out = append(out, ev.MaskedPoints...)
		if strings.Contains(string(b), "\\ufffd") {
			t.Errorf("an event has invalid text: %s", b)
		}
	}
	slices.Sort(out)
	return append(slices.Compact(out), log.String())
}
