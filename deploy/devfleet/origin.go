package devfleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/websocket"
)

// Receipt is what the demo origin answers to an upload.
type Receipt struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// echoLimit bounds the body that /echo holds in memory.
const echoLimit = 1 << 20

// OriginHandler is the demo origin: a customer's server behind the edge.
//
//	GET  /…       host and path, as text
//	POST /echo    the body
//	POST /upload  how many bytes arrived and their SHA-256 (PUT too)
//	GET  /headers the headers as they arrived, JSON
//	GET  /ws      WebSocket echo
func OriginHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = fmt.Fprintf(w, "origin of %s saw %s %s\n", r.Host, r.Method, r.URL.Path)
	})
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.Copy(w, http.MaxBytesReader(w, r.Body, echoLimit))
	})
	mux.HandleFunc("POST /upload", upload)
	mux.HandleFunc("PUT /upload", upload)
	mux.HandleFunc("GET /headers", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, r.Header)
	})
	// websocket.Server, unlike websocket.Handler, does not insist on an Origin header.
	mux.Handle("GET /ws", websocket.Server{Handler: func(c *websocket.Conn) {
		c.MaxPayloadBytes = echoLimit
		for {
			var msg string
			if websocket.Message.Receive(c, &msg) != nil || websocket.Message.Send(c, msg) != nil {
				return
			}
		}
	}})
	return mux
}

func upload(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		http.Error(w, "the body ended early", http.StatusBadRequest)
		return
	}
	writeJSON(w, http.StatusOK, Receipt{n, hex.EncodeToString(sum.Sum(nil))})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone
}

// RunOrigin serves OriginHandler on addr until ctx ends.
func RunOrigin(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	return serveHTTP(ctx, l, OriginHandler())
}

// serveHTTP serves until ctx ends, and gives open requests a moment to finish.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			stopped <- srv.Close()
			return
		}
		stopped <- nil
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return <-stopped
}
