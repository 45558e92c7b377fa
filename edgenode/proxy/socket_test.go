package proxy_test

import (
	"bufio"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
)

// socketServer is an origin that accepts a WebSocket and hands the raw connection to serve.
func socketServer(t *testing.T, serve func(c net.Conn, rw *bufio.ReadWriter)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" {
			http.Error(w, "not a WebSocket", http.StatusBadRequest)
			return
		}
		sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
		_ = rw.Flush()
		serve(c, rw)
	}
}

// echoFrames sends back what it gets, byte by byte.
func echoFrames(c net.Conn, rw *bufio.ReadWriter) { _, _ = io.Copy(c, rw) }

// openSocket makes the handshake by hand and returns the connection behind it, and the answer's status and headers.
func openSocket(t *testing.T, e *edge, target string) (io.Writer, *bufio.Reader, int, http.Header) {
	t.Helper()
	conn := e.dial()
	_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", target, hostName)
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return conn, r, res.StatusCode, res.Header
}

// frame is an unmasked frame.
func frame(opcode byte, payload []byte) []byte {
	b := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

func TestWebSocketsPass(t *testing.T) {
	lower := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Upgrade", strings.ToLower(r.Header.Get("Upgrade")))
			h(w, r)
		}
	}
	for name, origin := range map[string]fleet.Endpoint{
		"to a plain origin": originServer(t, lower(socketServer(t, echoFrames))),
		// The origin also speaks HTTP/2, which has no such upgrade.
		"to an HTTPS origin": tlsOrigin(t, lower(socketServer(t, echoFrames)), hostName),
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, nil, origin)
			w, r, status, header := openSocket(t, e, "/chat")
			if status != 101 || header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || !requestID.MatchString(header.Get("X-Request-Id")) {
				t.Fatalf("%d %v", status, header)
			}
			for _, size := range []int{0, 5, 200, 70_000} {
				want := frame(2, make([]byte, size))
				if _, err := w.Write(want); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(want))
				if _, err := io.ReadFull(r, got); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("a frame of %d bytes changed on its way", size)
				}
			}
			if got := e.scrape(); !strings.Contains(got, "edgefleet_proxy_active_requests 1") {
				t.Error("an open WebSocket is not counted")
			}
		})
	}
}

func TestWebSocketsAreJudgedByTheirHandshake(t *testing.T) {
	e := newEdge(t, func(o *proxy.Options, h *config.Host) {
		h.Mode = fleet.ModeMonitoring
		o.Judge = judgeFunc(func(in waf.Input) waf.Decision {
			return waf.Decision{Malicious: true, Block: strings.Contains(in.Request.Input().URI, "block"), Events: []fleet.Event{{Type: "sqli"}}}
		})
	}, originServer(t, func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Upgrade", "websocket")
		socketServer(t, echoFrames)(w, r)
	}))
	if _, _, status, _ := openSocket(t, e, "/?block"); status != 403 {
		t.Errorf("status %d, want 403", status)
	}
	if _, _, status, _ := openSocket(t, e, "/"); status != 101 {
		t.Errorf("status %d, want 101", status)
	}
	got := e.events.list()
	if len(got) != 2 || got[0].ResponseStatus != 403 || got[1].ResponseStatus != 101 {
		t.Errorf("events %+v", got)
	}
}

func TestAnOriginThatDeclinesAWebSocket(t *testing.T) {
	e := newEdge(t, nil, originServer(t, hello))
	if _, _, status, _ := openSocket(t, e, "/"); status != 200 {
		t.Errorf("status %d, want the origin's 200", status)
	}
}

func TestAnOriginThatSwitchesUnaskedIsAnError(t *testing.T) {
	e := newEdge(t, nil, originServer(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	}))
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		if a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 502 {
			t.Errorf("status %d, want 502", a.StatusCode)
		}
	})
}

func TestDrainingClosesWebSocketsWith1001(t *testing.T) {
	for name, tc := range map[string]struct {
		sent []byte
		want []byte
	}{
		"between frames":            {frame(1, []byte("hi")), append(frame(1, []byte("hi")), 0x88, 0x02, 0x03, 0xe9)},
		"silently within a frame":   {frame(1, make([]byte, 300))[:200], frame(1, make([]byte, 300))[:200]},
		"silently within a header":  {frame(1, make([]byte, 300))[:3], frame(1, make([]byte, 300))[:3]},
		"silently after a close":    {frame(8, []byte{3, 232}), frame(8, []byte{3, 232})},
		"before any frame was sent": {nil, []byte{0x88, 0x02, 0x03, 0xe9}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, func(o *proxy.Options, _ *config.Host) { o.Limits.Drain = 100 * time.Millisecond },
				originServer(t, func(w http.ResponseWriter, r *http.Request) {
					r.Header.Set("Upgrade", "websocket")
					socketServer(t, func(c net.Conn, _ *bufio.ReadWriter) {
						_, _ = c.Write(tc.sent)
						_, _ = io.Copy(io.Discard, c)
					})(w, r)
				}))
			_, r, status, _ := openSocket(t, e, "/")
			if status != 101 {
				t.Fatalf("status %d", status)
			}
			got := make([]byte, len(tc.sent))
			if _, err := io.ReadFull(r, got); err != nil {
				t.Fatal(err)
			}
			e.stop()
			rest, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, append(got, rest...)); diff != "" {
				t.Errorf("what the client got (-want +got):\n%s", diff)
			}
			e.wait()
		})
	}
}

// FuzzFrames holds the follower of frames against a plain reader of them.
func FuzzFrames(f *testing.F) {
	f.Add(frame(1, []byte("hi")), 1)
	f.Add(append(frame(2, make([]byte, 130)), frame(9, nil)...), 7)
	f.Add([]byte{0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5}, 3)
	f.Add(frame(8, []byte{3, 232}), 2)
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		var got proxy.Frames
		piece = max(1, piece%64)
		for rest := b; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
			got.Advance(rest[:min(piece, len(rest))])
		}
		if want := wholeFrames(b); got.Between() != want {
			t.Errorf("%x in pieces of %d: between frames %v, want %v", b, piece, got.Between(), want)
		}
	})
}

// wholeFrames reports whether b is a sequence of whole frames without a close frame.
func wholeFrames(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 2 || b[0]&0x0f == 8 {
			return false
		}
		header, size := 2, uint64(b[1]&0x7f)
		switch size {
		case 126:
			header = 4
		case 127:
			header = 10
		}
		if b[1]&0x80 != 0 {
			header += 4
		}
		if len(b) < header {
			return false
		}
		switch size {
		case 126:
			size = uint64(binary.BigEndian.Uint16(b[2:]))
		case 127:
			size = binary.BigEndian.Uint64(b[2:])
		}
		if uint64(len(b)-header) < size {
			return false
		}
		b = b[header+int(size):]
	}
	return true
}
