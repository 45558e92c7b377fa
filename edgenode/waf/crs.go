package waf

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"
	"github.com/corazawaf/coraza/v3/types"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/fleet/request"
)

// Rules of our own in the engine: what Coraza itself could not parse.
const (
	ruleBodyError      = 200002
	ruleMultipartError = 200003
	ruleArgumentLimit  = 200004
	ruleArgumentLimit2 = 200005
)

// directives configure Coraza and the core rule set.
const directives = `
SecRuleEngine DetectionOnly
SecAuditEngine Off
SecRequestBodyAccess On
SecRequestBodyLimit %[1]d
SecRequestBodyInMemoryLimit %[1]d
SecRequestBodyLimitAction ProcessPartial
SecRequestBodyJsonDepthLimit 64
SecArgumentsLimit 1000
SecResponseBodyAccess Off
SecUploadKeepFiles Off
SecUploadDir %[2]s
SecRule REQUEST_HEADERS:Content-Type "^(?:application(?:/soap\+|/)|text/)xml" "id:200000,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=XML"
SecRule REQUEST_HEADERS:Content-Type "^(?:application|text)/(?:[a-z0-9.-]+[+])?json" "id:200001,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"
SecRule REQBODY_ERROR "!@eq 0" "id:200002,phase:2,t:none,pass,nolog,msg:'Failed to parse request body',severity:2"
SecRule MULTIPART_STRICT_ERROR "!@eq 0" "id:200003,phase:2,t:none,pass,nolog,msg:'Multipart request body failed strict validation',severity:2"
SecRule ARGUMENTS_LIMIT_REACHED "@eq 1" "id:200004,phase:1,t:none,pass,nolog,msg:'Too many arguments in the query',severity:2"
SecRule ARGUMENTS_LIMIT_REACHED "@eq 1" "id:200005,phase:2,t:none,pass,nolog,msg:'Too many arguments in the form',severity:2"
Include @crs-setup.conf.example
SecAction "id:900000,phase:1,pass,t:none,nolog,setvar:tx.blocking_paranoia_level=%[3]d"
SecAction "id:900110,phase:1,pass,t:none,nolog,setvar:tx.inbound_anomaly_score_threshold=%[4]d"
`

// requestRules are those of the core rule set that look at requests.
const requestRules = "\nInclude @owasp_crs/REQUEST-*.conf\n"

func compileCRS(o Options) (coraza.WAF, error) {
	registerRX()
	before, after := o.Profile.seclang()
	text := fmt.Sprintf(directives, o.BodyLimit, uploadDir(), o.ParanoiaLevel, o.AnomalyThreshold)
	return coraza.NewWAF(coraza.NewWAFConfig().WithRootFS(coreruleset.FS).WithDirectives(text + before + o.Setup + requestRules + after))
}

// uploadDir is where Coraza copies uploaded files while it parses them: memory where the system has it, because request
// data must not reach a disk.
func uploadDir() string {
	const memory = "/dev/shm"
	if f, err := os.CreateTemp(memory, "crzmp*"); err == nil {
		_, _ = f.Close(), os.Remove(f.Name())
		return memory
	}
	return os.TempDir()
}

// inspection is what the core rule set found.
type inspection struct {
	score   int
	matches []types.MatchedRule
}

// inspect runs the request phases of the core rule set without some targets.
func (e *Engine) inspect(ctx context.Context, in Input, without []target) (result inspection, err error) {
	tx := e.waf.NewTransaction()
	defer func() {
		if cerr := tx.Close(); cerr != nil && err == nil {
			err = fmt.Errorf("close transaction: %w", cerr)
		}
	}()
	if err := remove(tx, without); err != nil {
		return inspection{}, err
	}
	req := in.Request.Input()
	tx.ProcessConnection(in.ClientAddr.Addr().String(), int(in.ClientAddr.Port()), "", 0)
	tx.ProcessURI(req.URI, req.Method, req.Proto)
	addHeaders(tx, req)
	tx.ProcessRequestHeaders()
	if err := e.addBody(ctx, tx, in.Request); err != nil {
		return inspection{}, err
	}
	if e.options.Profile == ProfileTuned {
		e.addDeep(ctx, tx, in.Request)
	}
	if _, err := tx.ProcessRequestBody(); err != nil {
		return inspection{}, fmt.Errorf("process body: %w", err)
	}
	kind := mediaType(req.Header)
	isForm := kind == "application/x-www-form-urlencoded" || kind == "multipart/form-data"
	return e.conclude(ctx, tx, len(req.Body) > e.options.BodyLimit || req.Truncated, isForm)
}

func addHeaders(tx types.Transaction, req request.Input) {
	names := make([]string, 0, len(req.Header))
	for name := range req.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range req.Header[name] {
			tx.AddRequestHeader(name, v)
		}
	}
	if req.Host != "" && len(req.Header["Host"]) == 0 {
		tx.AddRequestHeader("Host", req.Host)
	}
	tx.SetServerName(req.Host)
	// net/http takes this header out; without it a body of unknown length looks like a protocol error.
	if len(req.Body) > 0 && req.Proto == "HTTP/1.1" && req.Header.Get("Content-Length") == "" && req.Header.Get("Transfer-Encoding") == "" {
		tx.AddRequestHeader("Transfer-Encoding", "chunked")
	}
}

// addBody hands over the body, and if Coraza does not parse its type the values that our own parser found in it, so that
// JSON which calls itself text is inspected too. Of a body that nothing parses, the rules look at the bytes: serialized
// objects and class names need no fields.
func (e *Engine) addBody(ctx context.Context, tx types.Transaction, r *request.Request) error {
	req := r.Input()
	body := req.Body
	if len(body) == 0 {
		return nil
	}
	truncated := len(body) > e.options.BodyLimit || req.Truncated
	if truncated {
		e.incomplete(ctx, "body_limit")
		body = body[:min(len(body), e.options.BodyLimit)]
	}
	if _, _, err := tx.WriteRequestBody(body); err != nil {
		return fmt.Errorf("write body: %w", err)
	}
	if kind := mediaType(req.Header); parsedByCoraza(kind) {
		if truncated && strings.HasSuffix(kind, "json") {
			addTorn(tx, r)
		}
		return nil
	}
	found := false
	for _, v := range r.All() {
		if v.Point[0][0] == "post" && len(v.Point) > 1 {
			tx.AddPostRequestArgument(argumentName(v.Point), v.Value)
			found = true
		}
	}
	if !found {
		e.incomplete(ctx, "body_type")
	}
	return nil
}

// addTorn adds the text in which a JSON body was cut off: Coraza leaves it out, and an attack may begin it.
func addTorn(tx types.Transaction, r *request.Request) {
	body := string(r.Input().Body)
	// What it holds in another encoding follows it.
	for _, v := range slices.Backward(r.All()) {
		if v.Point[0][0] == "post" && len(v.Point) > 1 && strings.HasSuffix(body, v.Raw) {
			tx.AddPostRequestArgument(argumentName(v.Point), v.Value)
			return
		}
	}
}

func mediaType(h http.Header) string {
	kind, _, _ := strings.Cut(strings.ToLower(h.Get("Content-Type")), ";")
	return strings.TrimSpace(kind)
}

func parsedByCoraza(kind string) bool {
	switch kind {
	case "application/x-www-form-urlencoded", "multipart/form-data", "text/xml", "application/xml", "application/soap+xml", "application/json", "text/json":
		return true
	}
	return strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")
}

// conclude reads the score and what matched. truncated says that Coraza saw a part of the body only, so that it cannot
// be blamed for its form. isForm says that its arguments are fields, which are never a thousand, unlike the leaves of JSON.
func (e *Engine) conclude(ctx context.Context, tx types.Transaction, truncated, isForm bool) (inspection, error) {
	state, ok := tx.(plugintypes.TransactionState)
	if !ok {
		return inspection{}, fmt.Errorf("the transaction is a %T and has no variables", tx)
	}
	var result inspection
	if score := state.Variables().TX().Get("blocking_inbound_anomaly_score"); len(score) > 0 {
		n, err := strconv.Atoi(score[0])
		if err != nil {
			return inspection{}, fmt.Errorf("read anomaly score: %w", err)
		}
		result.score = n
	}
	limited := false
	for _, m := range tx.MatchedRules() {
		switch id := m.Rule().ID(); {
		case (id == ruleArgumentLimit || id == ruleArgumentLimit2) && !limited:
			limited = true
			e.incomplete(ctx, "arguments")
			if id == ruleArgumentLimit || isForm {
				// The arguments behind the limit are not inspected, so it would be a way around all rules.
				result.score += criticalScore
				result.matches = append(result.matches, m)
			}
		case id == ruleBodyError || id == ruleMultipartError:
			if truncated {
				continue
			}
			// What we cannot parse, the origin may: it weighs as much as one critical match of the core rule set.
			result.score += criticalScore
			result.matches = append(result.matches, m)
		case id >= firstDetection && id < firstEvaluation && staticMessage(m.Rule()) != "":
			excused, of := e.excused(m)
			result.score -= excused * criticalScore
			if excused < of {
				result.matches = append(result.matches, m)
			}
		}
	}
	return result, nil
}

const (
	criticalScore = 5
	// Rules of the core rule set from method enforcement up to, and without, the evaluation of the score detect attacks.
	firstDetection, firstEvaluation = 911_000, 949_000
)

func (e *Engine) incomplete(ctx context.Context, cause string) {
	e.partial.Add(ctx, 1, metric.WithAttributes(attribute.String("cause", cause)))
}
