package proxy

import (
	"bufio"
	"net"
	"net/http"
	"time"
)

// recorder is a ResponseWriter that notes the status and bounds each write to the client in time.
type recorder struct {
	http.ResponseWriter
	control  *http.ResponseController
	progress time.Duration
	sockets  *sockets
	// begin is called once, right before the final status is sent.
	begin func(status int)
	// status is that final status, 0 before.
	status int
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	// Informational answers come before the final one; 101 is final.
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.started(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(b []byte) (int, error) {
	w.started(http.StatusOK)
	w.limit()
	return w.ResponseWriter.Write(b)
}

// FlushError is for http.ResponseController. Between flushes there is no deadline: a stream may be silent.
func (w *recorder) FlushError() error {
	w.started(http.StatusOK)
	w.limit()
	defer w.unlimit()
	return w.control.Flush()
}

// Hijack is for http.ResponseController; httputil.ReverseProxy calls it when an origin has accepted a WebSocket.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := w.control.Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.started(http.StatusSwitchingProtocols)
	return w.sockets.add(conn, w.progress), rw, nil
}

func (w *recorder) started(status int) {
	if w.status == 0 {
		w.status = status
		w.begin(status)
	}
}

// limit and unlimit fail only on a connection that is gone, as the write will.
func (w *recorder) limit()   { _ = w.control.SetWriteDeadline(time.Now().Add(w.progress)) }
func (w *recorder) unlimit() { _ = w.control.SetWriteDeadline(time.Time{}) }
