package proxy_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/edgefleet/edgefleet/edgenode/proxy"
)

// pour is an origin whose answer has no end. released counts the requests that were let go.
func pour(released *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 64<<10)
		for {
			if _, err := w.Write(chunk); err != nil {
				released.Add(1)
				return
			}
		}
	}
}

// dripping takes a byte from the network now and then, once it is told to.
type dripping struct {
	net.Conn
	slow atomic.Bool
}

func (d *dripping) Read(p []byte) (int, error) {
	if d.slow.Load() {
		time.Sleep(time.Millisecond) // the attacker's pace; nothing is decided by it
		p = p[:1]
	}
	return d.Conn.Read(p)
}

// drip asks for a page with the smallest receive window that there is, and takes a byte at a time until the edge has enough.
func drip(t *testing.T, e *edge) error {
	small := func(_, _ string, c syscall.RawConn) (err error) {
		control := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1) })
		return errors.Join(control, err)
	}
	tcp, err := (&net.Dialer{Control: small}).DialContext(t.Context(), "tcp", e.https.Addr().String())
	if err != nil {
		return err
	}
	d := &dripping{Conn: tcp}
	conn := tls.Client(d, &tls.Config{ServerName: hostName, RootCAs: testAuthority().pool(), NextProtos: []string{"http/1.1"}})
	defer func() { _ = conn.Close() }()
	if err := errors.Join(conn.SetDeadline(time.Now().Add(time.Minute)), conn.HandshakeContext(t.Context())); err != nil {
		return err
	}
	d.slow.Store(true)
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", hostName); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return fmt.Errorf("the edge went on: %w", err)
	}
	return nil // it was cut, between two records or within one
}

func TestClientsThatReadAByteAtATimeAreCutAndTakeLittleMemory(t *testing.T) {
	const clients, each = 40, 512 << 10
	var released atomic.Int64
	e := limited(t, proxy.Limits{ProgressTimeout: 2 * time.Second}, pour(&released))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	results := make(chan error, clients)
	for range clients {
		go func() { results <- drip(t, e) }()
	}
	for range clients {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "the origin is let go", func() bool { return released.Load() == clients })
	// The heap's system memory never shrinks by itself: its growth bounds the peak, of edge, origin and clients together.
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > clients*each {
		t.Errorf("the heap grew by %d MiB for %d clients", grown>>20, clients)
	}
}

func TestAnHTTP2ClientThatOpensItsWindowByAByteIsCut(t *testing.T) {
	var released atomic.Int64
	e := limited(t, proxy.Limits{ProgressTimeout: 300 * time.Millisecond}, pour(&released))
	a := attack(t, e)
	if err := a.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}); err != nil {
		t.Fatal(err)
	}
	if err := a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: a.request(), EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	for taken := 0; ; {
		f, err := a.framer.ReadFrame()
		if err != nil {
			t.Fatalf("after %d bytes: %v", taken, err)
		}
		if reset, ok := f.(*http2.RSTStreamFrame); ok && reset.StreamID == 1 {
			break
		}
		data, ok := f.(*http2.DataFrame)
		if !ok {
			continue
		}
		if taken += len(data.Data()); taken > 256<<10 {
			t.Fatalf("%d bytes were sent at this pace", taken)
		}
		time.Sleep(time.Millisecond) // as above
		if err := a.framer.WriteWindowUpdate(1, 1); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the origin is let go", func() bool { return released.Load() == 1 })
}
