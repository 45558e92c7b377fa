package api

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// headerTrace is the trace of a request and of its answer (W3C Trace Context).
const headerTrace = "Traceparent"

// trace starts the span of a request, as part of the caller's trace if it named one, and puts the trace's id into c.
func (a *API) trace(r *http.Request, c *caller) (context.Context, trace.Span) {
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := a.o.Telemetry.Tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
	if id := span.SpanContext().TraceID(); id.IsValid() {
		c.traceID = id.String()
	}
	return ctx, span
}

// traceparent is the header that names the span of ctx.
func traceparent(ctx context.Context) string {
	h := http.Header{}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
	return h.Get(headerTrace)
}
