package proxy_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/edgefleet/edgefleet/edgenode/proxy"
)

// attacker speaks HTTP/2 frame by frame.
type attacker struct {
	t      *testing.T
	conn   *tls.Conn
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
}

func attack(t *testing.T, e *edge) *attacker {
	t.Helper()
	conn, err := tls.Dial("tcp", e.https.Addr().String(), &tls.Config{ServerName: hostName, RootCAs: testAuthority().pool(), NextProtos: []string{"h2"}}) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	a := &attacker{t: t, conn: conn, framer: http2.NewFramer(conn, conn)}
	a.hpack = hpack.NewEncoder(&a.block)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := a.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return a
}

// request is the header block of a request, with more fields.
func (a *attacker) request(fields ...hpack.HeaderField) []byte {
	a.t.Helper()
	a.block.Reset()
	for _, f := range append([]hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: hostName}, {Name: ":path", Value: "/"}}, fields...) {
		if err := a.hpack.WriteField(f); err != nil {
			a.t.Fatal(err)
		}
	}
	return bytes.Clone(a.block.Bytes())
}

// answers reads frames until the connection ends, and sends what the server said of its end, or of a stream's.
func (a *attacker) answers() <-chan http2.ErrCode {
	end := make(chan http2.ErrCode, 1)
	go func() {
		code := http2.ErrCodeNo
		for {
			f, err := a.framer.ReadFrame()
			if err != nil {
				end <- code
				return
			}
			if away, ok := f.(*http2.GoAwayFrame); ok {
				code = away.ErrCode
			}
		}
	}()
	return end
}

func TestRapidResetDoesNotReachTheOriginInNumbers(t *testing.T) {
	var now, most atomic.Int64
	release := make(chan struct{})
	e := limited(t, proxy.Limits{}, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/other" {
			return
		}
		n := now.Add(1)
		defer now.Add(-1)
		for {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	defer close(release)
	a := attack(t, e)
	end := a.answers()
	const streams = 20_000
	sent := 0
	for ; sent < streams; sent++ {
		id := uint32(2*sent + 1)
		if a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.request(), EndHeaders: true, EndStream: true}) != nil ||
			a.framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break // the server has enough
		}
	}
	if got := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/other", nil); got.StatusCode != 200 {
		t.Errorf("somebody else is answered with %d", got.StatusCode)
	}
	_ = a.conn.CloseWrite()
	select {
	case code := <-end:
		t.Logf("%d streams, ended with %s", sent, code)
	case <-time.After(60 * time.Second):
		t.Error("the connection has not ended")
	}
	if n := most.Load(); n > 128 {
		t.Errorf("%d requests of one connection were at the origin at once; a connection may have 128", n)
	}
	eventually(t, "nothing is left of them", func() bool { return now.Load() == 0 })
}

func TestAFloodOfContinuationsEndsTheConnection(t *testing.T) {
	e := limited(t, proxy.Limits{}, hello)
	a := attack(t, e)
	end := a.answers()
	if err := a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: a.request()}); err != nil {
		t.Fatal(err)
	}
	// Fields that are not kept in the table, and never an end of them.
	a.block.Reset()
	for a.block.Len() < 15<<10 {
		if err := a.hpack.WriteField(hpack.HeaderField{Name: "x-flood", Value: "0123456789abcdef0123456789abcdef", Sensitive: true}); err != nil {
			t.Fatal(err)
		}
	}
	const most = 64 << 20
	sent := 0
	for sent < most && a.framer.WriteContinuation(1, false, a.block.Bytes()) == nil {
		sent += a.block.Len()
	}
	if sent >= most {
		t.Errorf("%d bytes of headers were taken", sent)
	}
	select {
	case <-end:
	case <-time.After(60 * time.Second):
		t.Error("the connection has not ended")
	}
	if got := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil); got.StatusCode != 200 {
		t.Errorf("somebody else is answered with %d", got.StatusCode)
	}
}

func TestAnHPACKBombIsNotUnpacked(t *testing.T) {
	e := limited(t, proxy.Limits{}, hello)
	a := attack(t, e)
	end := a.answers()
	// One field of nearly the whole table, named again and again: a byte stands for 4,000.
	value := string(bytes.Repeat([]byte("b"), 4000))
	first := a.request(hpack.HeaderField{Name: "x-bomb", Value: value})
	a.block.Reset()
	if err := a.hpack.WriteField(hpack.HeaderField{Name: "x-bomb", Value: value}); err != nil {
		t.Fatal(err)
	}
	if a.block.Len() != 1 {
		t.Fatalf("the field takes %d bytes the second time", a.block.Len())
	}
	bomb := bytes.Repeat(a.block.Bytes(), 15<<10)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	const frames = 16 // of 60 MB each, unpacked
	for i := range frames {
		if a.framer.WriteContinuation(1, i == frames-1, bomb) != nil {
			break
		}
	}
	if got := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil); got.StatusCode != 200 {
		t.Errorf("somebody else is answered with %d", got.StatusCode)
	}
	_ = a.conn.CloseWrite()
	select {
	case <-end:
	case <-time.After(60 * time.Second):
		t.Error("the connection has not ended")
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 100<<20 {
		t.Errorf("%d MB were allocated for 240 KB", got>>20)
	}
}
