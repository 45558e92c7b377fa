package cli_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

// goodToken is the one that the fake API knows.
const goodToken = "eft1.tok-1.good"

// exchange is one request that the fake API expects, and its answer.
type exchange struct {
	request string // method and URI
	body    string // expected JSON; empty: not looked at
	header  string // expected "Name: value"; empty: not looked at
	status  int
	answer  string
	headers []string // of the answer: "Name: value"
	stream  bool     // the answer is sent as server-sent events, one a line, and the stream stays open
}

// fakeAPI answers canned answers to exactly the expected requests, over TLS. The same request again gets the answer
// that follows, the last for ever.
type fakeAPI struct {
	*httptest.Server
	logf func(format string, args ...any)
	done chan struct{}
	// files are answers that are no text, by what stands for them.
	files map[string]string
	// onRequest, if set, is called when an answer was written.
	onRequest func()

	mu        sync.Mutex
	exchanges map[string][]exchange
	log       []string
}

func newFakeAPI(logf func(string, ...any), routes string) (*fakeAPI, error) {
	f := &fakeAPI{logf: logf, exchanges: map[string][]exchange{}, done: make(chan struct{}), files: map[string]string{}}
	if err := f.parse(routes); err != nil {
		return nil, err
	}
	f.Server = httptest.NewUnstartedServer(f)
	f.EnableHTTP2 = true
	f.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	f.StartTLS()
	return f, nil
}

// parse reads exchanges: "> METHOD URI", optionally "+ Name: value" for a header and "= JSON" for the body, "< STATUS [stream]", optionally "^ Name: value" for headers, then the answer.
func (f *fakeAPI) parse(routes string) error {
	for block := range strings.SplitSeq("\n"+routes, "\n> ") {
		if strings.TrimSpace(block) == "" {
			continue
		}
		head, answer, ok := strings.Cut(block, "\n< ")
		if !ok {
			return fmt.Errorf("no answer in %q", block)
		}
		var e exchange
		e.request, e.body, _ = strings.Cut(head, "\n= ")
		e.request, e.header, _ = strings.Cut(e.request, "\n+ ")
		e.request = strings.TrimSpace(e.request)
		status, rest, _ := strings.Cut(answer, "\n")
		status, e.stream = strings.CutSuffix(status, " stream")
		var err error
		if e.status, err = strconv.Atoi(strings.TrimSpace(status)); err != nil {
			return err
		}
		for strings.HasPrefix(rest, "^ ") {
			line, after, _ := strings.Cut(rest, "\n")
			e.headers, rest = append(e.headers, line[2:]), after
		}
		e.answer = strings.TrimSuffix(rest, "\n") + "\n"
		f.exchanges[e.request] = append(f.exchanges[e.request], e)
	}
	return nil
}

func (f *fakeAPI) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})
}

func (f *fakeAPI) stop() {
	close(f.done)
	f.CloseClientConnections()
	f.Close()
}

func (f *fakeAPI) next(request string) (exchange, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, request)
	es := f.exchanges[request]
	if len(es) == 0 {
		return exchange{}, false
	}
	if len(es) > 1 {
		f.exchanges[request] = es[1:]
	}
	return es[0], true
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+goodToken {
		problem(w, client.Problem{Status: 401, Title: "Unauthorized", Kind: "unauthenticated", Field: "token", Detail: "the API token is not known: check FLEETCTL_TOKEN, or ask for a new token"})
		return
	}
	request := r.Method + " " + r.URL.RequestURI()
	e, ok := f.next(request)
	if !ok {
		f.logf("the fake API expected no %s", request)
		http.Error(w, "unexpected request", http.StatusTeapot)
		return
	}
	if name, value, _ := strings.Cut(e.header, ": "); r.Header.Get(name) != value {
		f.logf("the fake API expected the header %s, got %q", e.header, r.Header.Get(name))
		http.Error(w, "unexpected header", http.StatusTeapot)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || e.body != "" && !sameJSON(body, []byte(e.body)) {
		f.logf("the fake API expected the body %s, got %s (%v)", e.body, body, err)
		http.Error(w, "unexpected body", http.StatusTeapot)
		return
	}
	if e.stream {
		f.stream(w, r, e)
		return
	}
	kind := "application/json"
	if e.status >= 300 {
		kind = "application/problem+json"
	}
	w.Header().Set("Content-Type", kind)
	for _, h := range e.headers {
		name, value, _ := strings.Cut(h, ": ")
		w.Header().Set(name, value)
	}
	w.WriteHeader(e.status)
	if content, ok := f.files[e.answer]; ok {
		e.answer = content
	}
	_, _ = io.WriteString(w, e.answer)
	if f.onRequest != nil {
		f.onRequest()
	}
}

// stream sends like huma does: the header goes out with the first event.
func (f *fakeAPI) stream(w http.ResponseWriter, r *http.Request, e exchange) {
	w.Header().Set("Content-Type", "text/event-stream")
	for line := range strings.SplitSeq(strings.TrimSpace(e.answer), "\n") {
		_, _ = fmt.Fprintf(w, "event: event\ndata: %s\n\n", line)
		w.(http.Flusher).Flush()
	}
	if e.status != http.StatusOK {
		return // the member goes away
	}
	select {
	case <-r.Context().Done():
	case <-f.done:
	}
}

func problem(w http.ResponseWriter, p client.Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// startAPI starts a fake API for a Go test.
func startAPI(t *testing.T, routes string) *fakeAPI {
	t.Helper()
	f, err := newFakeAPI(t.Logf, string(bytes.TrimSpace([]byte(routes))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.stop)
	return f
}
