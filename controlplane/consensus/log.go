package consensus

import (
	"context"
	"fmt"
	"io"
	"log" //nolint:depguard // hclog.Logger's interface returns one
	"log/slog"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// logger lets hashicorp's libraries write to slog: fields stay fields, keys become snake_case. Their info level tells
// the story of every election and connection, which is debug to us; what matters to people the Node logs itself.
type logger struct {
	slog    *slog.Logger
	name    string
	implied []any
}

func newLogger(l *slog.Logger) hclog.Logger {
	return &logger{slog: l.With("component", "raft")}
}

func slogLevel(level hclog.Level) slog.Level {
	switch level {
	case hclog.Trace, hclog.Off:
		return slog.LevelDebug - 4
	case hclog.Debug, hclog.Info, hclog.NoLevel:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	}
	return slog.LevelDebug
}

// Log writes one record. It goes to the handler directly because the message is the library's.
func (l *logger) Log(level hclog.Level, msg string, args ...any) {
	ctx := context.Background()
	h := l.slog.Handler()
	if !h.Enabled(ctx, slogLevel(level)) {
		return
	}
	r := slog.NewRecord(time.Now(), slogLevel(level), msg, 0)
	if l.name != "" {
		r.AddAttrs(slog.String("part", l.name))
	}
	r.AddAttrs(attrs(l.implied)...)
	r.AddAttrs(attrs(args)...)
	// A handler that cannot write has nowhere to say so.
	_ = h.Handle(ctx, r)
}

func attrs(args []any) []slog.Attr {
	out := make([]slog.Attr, 0, (len(args)+1)/2)
	for i := 0; i < len(args); i += 2 {
		if i+1 == len(args) {
			out = append(out, slog.Any("extra", args[i]))
			break
		}
		key := strings.ReplaceAll(strings.ToLower(fmt.Sprint(args[i])), "-", "_")
		if key == "error" {
			key = "err"
		}
		out = append(out, slog.Any(key, value(args[i+1])))
	}
	return out
}

// value renders hclog's deferred formats, and everything that is not plain, as text.
func value(v any) any {
	switch v := v.(type) {
	case hclog.Format:
		if len(v) == 0 {
			return ""
		}
		return fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...)
	case fmt.Stringer:
		return v.String()
	}
	return v
}

// Trace, Debug, Info, Warn and Error implement hclog.Logger.
func (l *logger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }

// Debug implements hclog.Logger.
func (l *logger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }

// Info implements hclog.Logger.
func (l *logger) Info(msg string, args ...any) { l.Log(hclog.Info, msg, args...) }

// Warn implements hclog.Logger.
func (l *logger) Warn(msg string, args ...any) { l.Log(hclog.Warn, msg, args...) }

// Error implements hclog.Logger.
func (l *logger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *logger) enabled(level hclog.Level) bool {
	return l.slog.Enabled(context.Background(), slogLevel(level))
}

// IsTrace implements hclog.Logger.
func (l *logger) IsTrace() bool { return l.enabled(hclog.Trace) }

// IsDebug implements hclog.Logger.
func (l *logger) IsDebug() bool { return l.enabled(hclog.Debug) }

// IsInfo implements hclog.Logger.
func (l *logger) IsInfo() bool { return l.enabled(hclog.Info) }

// IsWarn implements hclog.Logger.
func (l *logger) IsWarn() bool { return l.enabled(hclog.Warn) }

// IsError implements hclog.Logger.
func (l *logger) IsError() bool { return l.enabled(hclog.Error) }

// ImpliedArgs implements hclog.Logger.
func (l *logger) ImpliedArgs() []any { return l.implied }

// With implements hclog.Logger.
func (l *logger) With(args ...any) hclog.Logger {
	return &logger{slog: l.slog, name: l.name, implied: append(append([]any{}, l.implied...), args...)}
}

// Name implements hclog.Logger.
func (l *logger) Name() string { return l.name }

// Named implements hclog.Logger.
func (l *logger) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

// ResetNamed implements hclog.Logger.
func (l *logger) ResetNamed(name string) hclog.Logger {
	return &logger{slog: l.slog, name: name, implied: l.implied}
}

// SetLevel does nothing: the level is slog's.
func (*logger) SetLevel(hclog.Level) {}

// GetLevel implements hclog.Logger.
func (l *logger) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Warn} {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Error
}

// StandardLogger implements hclog.Logger.
func (l *logger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.slog.Handler(), slog.LevelWarn)
}

// StandardWriter implements hclog.Logger.
func (l *logger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(o).Writer()
}
