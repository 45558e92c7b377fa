package issuance

import (
	"context"
	"log/slog"
	"net/http"

	"go.uber.org/zap/zapcore"
)

// tap is the logger of one order's ACME client. The client does not return the CA's Retry-After, but it logs every
// exchange with its headers; tap takes it from there (a test holds that). What the client has to say otherwise is passed
// on without its fields, some of which quote requests; exchanges themselves are not.
type tap struct {
	flow *flow
	log  *slog.Logger
}

// exchange is the message with which the ACME client logs an HTTP exchange.
const exchange = "http request"

// Enabled is always true: exchanges are logged at debug level.
func (tap) Enabled(zapcore.Level) bool { return true }

// With drops fields: none are needed.
func (t tap) With([]zapcore.Field) zapcore.Core { return t }

// Check takes every entry.
func (t tap) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return ce.AddCore(e, t)
}

// Write looks at one entry.
func (t tap) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if e.Message != exchange {
		level := slog.LevelDebug
		if e.Level >= zapcore.WarnLevel {
			level = slog.LevelWarn
		}
		t.log.Log(context.Background(), level, "acme client", "host", string(t.flow.host), "event", e.Message)
		return nil
	}
	var status int
	var headers http.Header
	for _, f := range fields {
		switch f.Key {
		case "status_code":
			status = int(f.Integer)
		case "response_headers":
			headers, _ = f.Interface.(http.Header)
		}
	}
	t.flow.heard(status, headers)
	return nil
}

// Sync has nothing to flush.
func (tap) Sync() error { return nil }
