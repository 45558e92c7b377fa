package observability

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/trace"

	"github.com/edgefleet/edgefleet/fleet"
)

func newHandler(o Options) (slog.Handler, error) {
	var level slog.Level
	if o.LogLevel != "" {
		if err := level.UnmarshalText([]byte(o.LogLevel)); err != nil {
			return nil, fleet.Invalid("log_level", "%q is not a log level: use debug, info, warn or error", o.LogLevel)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	var h slog.Handler
	switch o.LogFormat {
	case "", "text":
		h = slog.NewTextHandler(o.Output, options)
	case "json":
		h = slog.NewJSONHandler(o.Output, options)
	default:
		return nil, fleet.Invalid("log_format", "%q is not a log format: use text or json", o.LogFormat)
	}
	attrs := []slog.Attr{slog.String("service", o.Service)}
	if o.Instance != "" {
		attrs = append(attrs, slog.String("instance", o.Instance))
	}
	return traced{h.WithAttrs(attrs)}, nil
}

// traced adds the ids of the context's span to each record, so that logs and traces find each other.
type traced struct{ slog.Handler }

// Handle implements slog.Handler.
func (h traced) Handle(ctx context.Context, r slog.Record) error {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h traced) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traced{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h traced) WithGroup(name string) slog.Handler {
	return traced{h.Handler.WithGroup(name)}
}
