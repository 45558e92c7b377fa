package proxy

import (
	"context"
	"log/slog"
	"strings"
)

// serverLog is where net/http writes its own messages. They hold clients' addresses, so they are counted and dropped.
type serverLog struct{ metrics *metrics }

// Enabled implements slog.Handler.
func (serverLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h serverLog) Handle(ctx context.Context, r slog.Record) error {
	if text, ok := strings.CutPrefix(r.Message, "http: TLS handshake error from "); ok {
		if reason := handshakeReason(text); reason != "" {
			h.metrics.handshakeFailed(ctx, reason)
		}
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h serverLog) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup implements slog.Handler.
func (h serverLog) WithGroup(string) slog.Handler { return h }

// handshakeReasons are looked for in the text of an error, in this order: crypto/tls has no types for most of them.
var handshakeReasons = []struct{ part, reason string }{
	{"no certificates configured", ""}, // counted by Proxy.certificate, which knows the name
	{"unsupported versions", "version"},
	{"no cipher suite", "no_common_cipher"},
	{"no mutually supported", "no_common_cipher"},
	{"unsupported application protocols", "no_common_protocol"},
	{"first record does not look like", "not_tls"},
	{"HTTP request to an HTTPS server", "not_tls"},
	{"i/o timeout", "timeout"},
	{"deadline exceeded", "timeout"},
	{"EOF", "client_gone"},
	{"reset by peer", "client_gone"},
	{"broken pipe", "client_gone"},
	{"use of closed", "client_gone"},
	{"remote error", "client_alert"},
}

// handshakeReason is the label of a failed handshake; empty if it is counted elsewhere.
func handshakeReason(text string) string {
	for _, r := range handshakeReasons {
		if strings.Contains(text, r.part) {
			return r.reason
		}
	}
	return "other"
}
