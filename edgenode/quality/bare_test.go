package quality_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	coraza_http "github.com/corazawaf/coraza/v3/http"
	"github.com/corazawaf/coraza/v3/types"
)

// bare is the rule engine as its makers ship it: in front of net/http, with their configuration, and with all rules,
// also those for answers.
type bare struct {
	server *httptest.Server

	mu  sync.Mutex
	log strings.Builder
}

const bareDirectives = `
Include @coraza.conf-recommended
SecResponseBodyMimeType text/plain
SecAuditEngine Off
SecDefaultAction "phase:3,log,auditlog,pass"
SecDefaultAction "phase:4,log,auditlog,pass"
SecDefaultAction "phase:5,log,auditlog,pass"
SecAction "id:900004,phase:1,pass,t:none,nolog,setvar:tx.blocking_paranoia_level=4"
` + suiteSetup + `
Include @crs-setup.conf.example
Include @owasp_crs/*.conf
`

func newBare(t testing.TB) *bare {
	t.Helper()
	b := &bare{}
	engine, err := coraza.NewWAF(coraza.NewWAFConfig().WithRootFS(coreruleset.FS).WithDirectives(bareDirectives).WithErrorCallback(func(r types.MatchedRule) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.log.WriteString(r.ErrorLog() + "\n")
	}))
	if err != nil {
		t.Fatal(err)
	}
	b.server = httptest.NewUnstartedServer(coraza_http.WrapHandler(engine, http.HandlerFunc(answer)))
	b.server.Config.ErrorLog = quiet
	b.server.Start()
	t.Cleanup(b.server.Close)
	return b
}

var matchedID = regexp.MustCompile(`\[id "(\d+)"\]`)

// play runs the stages of a test. One test runs at one time: the log does not say what request it is about.
func (b *bare) play(test suiteTest) (_ verdict, why string) {
	for i, s := range test.stages {
		raw, err := s.Input.raw("localhost")
		if err != nil {
			return fails, err.Error()
		}
		b.mu.Lock()
		b.log.Reset()
		b.mu.Unlock()
		conn, err := new(net.Dialer).Dial("tcp", b.server.Listener.Addr().String()) //nolint:noctx // on loopback
		if err != nil {
			return fails, err.Error()
		}
		status, _, err := converse(conn, raw)
		if err != nil {
			return fails, err.Error()
		}
		b.mu.Lock()
		seen := matched{status: status, ids: map[int]bool{}, log: b.log.String()}
		b.mu.Unlock()
		for _, m := range matchedID.FindAllStringSubmatch(seen.log, -1) {
			if id, err := strconv.Atoi(m[1]); err == nil {
				seen.ids[id] = true
			}
		}
		if problem := s.Output.check(seen); problem != "" {
			return fails, fmt.Sprintf("stage %d: %s (status %d)", i+1, problem, status)
		}
	}
	return passes, ""
}

// TestTheBareEngineForComparison runs the suite against the rule engine alone. It is what the edge is compared with, so it
// runs where EDGEFLEET_QUALITY is set and the figures are written.
func TestTheBareEngineForComparison(t *testing.T) {
	if os.Getenv("EDGEFLEET_QUALITY") == "" {
		t.Skip("set EDGEFLEET_QUALITY=1 to compare with the bare engine")
	}
	suite := readSuite(t)
	engines := make(chan *bare, workers)
	for range workers {
		engines <- newBare(t)
	}
	verdicts, why := make([]verdict, len(suite)), make([]string, len(suite))
	each(len(suite), func(i int) {
		b := <-engines
		defer func() { engines <- b }()
		verdicts[i], why[i] = b.play(suite[i])
	})
	failed := 0
	for i, test := range suite {
		if verdicts[i] != passes {
			failed++
			t.Logf("%s: %s", test.id, why[i])
		}
	}
	t.Logf("bare engine: of %d tests %d pass, %d fail", len(suite), len(suite)-failed, failed)
}
