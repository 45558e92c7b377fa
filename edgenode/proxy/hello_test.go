package proxy_test

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/edgenode/waf"
)

// rewriting is a connection whose first write, the ClientHello, is sent as send does it.
type rewriting struct {
	net.Conn
	send func(c net.Conn, record []byte) error
	sent bool
}

func (r *rewriting) Write(b []byte) (int, error) {
	if r.sent {
		return r.Conn.Write(b)
	}
	r.sent = true
	return len(b), r.send(r.Conn, b)
}

func (e *edge) raw() net.Conn {
	e.t.Helper()
	c, err := net.Dial("tcp", e.https.Addr().String()) //nolint:noctx // loopback
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		e.t.Fatal(err)
	}
	return c
}

// fragments are records of the same content as record, of n bytes each.
func fragments(record []byte, n int) (out []byte) {
	for rest := record[5:]; len(rest) > 0; {
		part := rest[:min(n, len(rest))]
		rest = rest[len(part):]
		out = append(out, record[0], record[1], record[2])
		out = binary.BigEndian.AppendUint16(out, uint16(len(part)))
		out = append(out, part...)
	}
	return out
}

func TestAClientHelloInPieces(t *testing.T) {
	e := newEdge(t, nil, originServer(t, hello))
	for name, send := range map[string]func(c net.Conn, record []byte) error{
		"byte by byte": func(c net.Conn, record []byte) error {
			for i := range record {
				if _, err := c.Write(record[i : i+1]); err != nil {
					return err
				}
			}
			return nil
		},
		"in records that split the name": func(c net.Conn, record []byte) error {
			_, err := c.Write(fragments(record, 40))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := tls.Client(&rewriting{Conn: e.raw(), send: send}, &tls.Config{ServerName: hostName, RootCAs: testAuthority().pool()})
			if err := c.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", hostName)
			if b, err := io.ReadAll(c); err != nil || !strings.Contains(string(b), "200 OK") {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// TestAClientHelloThatDoesNotEnd counts on the edge to end what its client does not: the test's own deadline is far later.
func TestAClientHelloThatDoesNotEnd(t *testing.T) {
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) { o.Limits.HeaderTimeout = 300 * time.Millisecond }, originServer(t, hello))
	huge := []byte{1, 0xff, 0xff, 0xff, 3, 3} // a ClientHello of 16 MB
	for name, tc := range map[string]struct {
		first []byte
		more  []byte // sent again and again until the edge has enough
	}{
		"nothing at all":               {nil, nil},
		"half a record header":         {[]byte{22, 3, 1}, nil},
		"half a record":                {[]byte{22, 3, 1, 1, 0, 1, 0}, nil},
		"one byte, then the next":      {[]byte{22, 3, 1, 0x40, 0}, []byte{1}},
		"records of one byte for ever": {[]byte{22, 3, 1, 0, 4, 1, 0, 0xff, 0xff}, []byte{22, 3, 1, 0, 1, 0}},
		"more than a hello may have":   {append([]byte{22, 3, 1, 0, 6}, huge...), append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 1<<14)...)},
	} {
		t.Run(name, func(t *testing.T) {
			c := e.raw()
			if _, err := c.Write(tc.first); err != nil {
				t.Fatal(err)
			}
			written := make(chan int, 1)
			go func() {
				n := 0
				for tc.more != nil {
					if _, err := c.Write(tc.more); err != nil {
						break
					}
					n += len(tc.more)
				}
				written <- n
			}()
			_, err := io.Copy(io.Discard, c) // an alert may come before the end
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("the edge did not end the connection")
			}
			_ = c.Close()
			if n := <-written; name == "more than a hello may have" && n > 16<<20 {
				t.Errorf("the edge took %d bytes of one hello", n)
			}
		})
	}
	if a := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 200 {
		t.Errorf("after them: %d", a.StatusCode)
	}
}

func TestAFloodOfUnknownNamesLeavesNothing(t *testing.T) {
	var looked atomic.Int64
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Resolver = resolver(t, func(string) []string {
			looked.Add(1)
			return nil
		})
		o.Judge = judgeFunc(func(waf.Input) waf.Decision {
			t.Error("a handshake was judged")
			return waf.Decision{}
		})
	}, originServer(t, hello))
	const n = 300
	before := e.certificates.Len()
	for i := range n {
		if _, err := handshake(e, &tls.Config{ServerName: fmt.Sprintf("flood-%d.example.net", i)}); err == nil {
			t.Fatal("an unknown name was served")
		}
	}
	eventually(t, "they are counted under one label", func() bool {
		return strings.Contains(e.scrape(), fmt.Sprintf(`edgefleet_proxy_tls_handshake_failures_total{reason="unknown_name"} %d`, n))
	})
	if strings.Contains(e.scrape(), "flood-") || strings.Contains(e.logs.String(), "flood-") {
		t.Error("a name of the flood is in a metric or a log line")
	}
	if len(e.events.list()) != 0 || looked.Load() != 0 || e.certificates.Len() != before {
		t.Errorf("%d events, %d lookups, %d certificates", len(e.events.list()), looked.Load(), e.certificates.Len())
	}
}
