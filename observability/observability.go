// Package observability sets up logs, traces and metrics for every program: one slog logger, one OpenTelemetry tracer
// and meter, the admin handler with /metrics, /healthz and /readyz, and the registry of all metrics.
//
// It owns no business of its own: areas declare a metric as a row of the table in metrics.go and get the instrument
// from Telemetry. Metrics are always there to be scraped; they and traces are also pushed by OTLP if an endpoint is
// configured. A collector that is away costs log lines and dropped spans, never a wait on a caller's path.
package observability

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/edgefleet/edgefleet/fleet"
)

// Version is the version of the program, set by the linker.
var Version = "dev"

// scope names our instruments and spans among those of libraries.
const scope = "github.com/edgefleet/edgefleet"

// Options say who emits, and where to.
type Options struct {
	// Service is the program, for example edgenode; required.
	Service string
	// Instance is the node or member; empty if the program has none.
	Instance string
	// OTLPEndpoint is the base URL of an OpenTelemetry collector (OTLP over HTTP), for example
	// http://127.0.0.1:4318; empty pushes nothing.
	OTLPEndpoint string
	// LogLevel is debug, info (default), warn or error.
	LogLevel string
	// LogFormat is text (default) or json.
	LogFormat string
	// Output receives the log, standard error by default.
	Output io.Writer
}

// Telemetry is what the parts of one process emit through.
type Telemetry struct {
	// Logger adds service and instance, and the trace of the context.
	Logger *slog.Logger
	Tracer trace.Tracer
	// Health feeds /readyz.
	Health *Health

	instruments *instruments
	registry    *prometheus.Registry
	meters      *sdkmetric.MeterProvider
	traces      *sdktrace.TracerProvider
}

// Setup starts the telemetry of a process; Shutdown ends it. It connects to nothing: a collector that cannot be reached
// shows in the log when the first batch is due.
func Setup(ctx context.Context, o Options) (*Telemetry, error) {
	if o.Service == "" {
		return nil, fleet.Invalid("service", "telemetry needs the name of the service")
	}
	if o.Output == nil {
		o.Output = os.Stderr
	}
	handler, err := newHandler(o)
	if err != nil {
		return nil, err
	}
	e, err := newExporters(ctx, o.OTLPEndpoint)
	if err != nil {
		return nil, err
	}
	log := slog.New(handler)
	if o.OTLPEndpoint != "" {
		// OpenTelemetry reports failed exports to one process-wide handler, by default to the standard logger.
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
			log.WarnContext(context.WithoutCancel(ctx), "telemetry export", "err", err)
		}))
	}
	return build(log, o, e)
}

// Discard emits nowhere; all instruments work and can be scraped from Handler. It is for tests.
func Discard() *Telemetry {
	t, err := build(slog.New(slog.DiscardHandler), Options{Service: "test"}, exporters{})
	if err != nil {
		panic(err) // no input can cause it
	}
	return t
}

// exporters push to a collector; both are nil without one.
type exporters struct {
	traces  sdktrace.SpanExporter
	metrics sdkmetric.Exporter
}

func newExporters(ctx context.Context, endpoint string) (exporters, error) {
	if endpoint == "" {
		return exporters{}, nil
	}
	u, err := url.Parse(endpoint)
	if err == nil && u.User != nil {
		return exporters{}, fleet.Invalid("otlp_endpoint", "the collector's URL holds credentials: give them in the environment variable OTEL_EXPORTER_OTLP_HEADERS")
	}
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" {
		return exporters{}, fleet.Invalid("otlp_endpoint", "%q is not the base URL of a collector: give one such as http://127.0.0.1:4318", endpoint)
	}
	traces, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.JoinPath("v1/traces").String()))
	if err != nil {
		return exporters{}, fmt.Errorf("set up trace export: %w", err)
	}
	metrics, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(u.JoinPath("v1/metrics").String()))
	if err != nil {
		return exporters{}, fmt.Errorf("set up metric export: %w", errors.Join(err, traces.Shutdown(ctx)))
	}
	return exporters{traces: traces, metrics: metrics}, nil
}

func build(log *slog.Logger, o Options, e exporters) (*Telemetry, error) {
	res, err := resource.Merge(resource.Default(), resource.NewSchemaless(
		attribute.String("service.name", o.Service),
		attribute.String("service.instance.id", o.Instance),
		attribute.String("service.version", Version),
	))
	if err != nil {
		return nil, fmt.Errorf("describe process: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := otelprometheus.New(
		otelprometheus.WithRegisterer(registry),
		otelprometheus.WithoutScopeInfo(),
		// The registry's names are the final ones: no suffix is added.
		otelprometheus.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithoutSuffixes),
	)
	if err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	meterOptions := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(reader)}
	if e.metrics != nil {
		meterOptions = append(meterOptions, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(e.metrics)))
	}
	traceOptions := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	if e.traces != nil {
		traceOptions = append(traceOptions, sdktrace.WithBatcher(e.traces))
	}
	meters, traces := sdkmetric.NewMeterProvider(meterOptions...), sdktrace.NewTracerProvider(traceOptions...)
	t := &Telemetry{
		Logger: log, Tracer: traces.Tracer(scope), Health: &Health{},
		instruments: newInstruments(meters.Meter(scope)), registry: registry, meters: meters, traces: traces,
	}
	t.Gauge("edgefleet_build_info", func() []Sample {
		return []Sample{{Value: 1, Attrs: []attribute.KeyValue{attribute.String("version", Version)}}}
	})
	return t, nil
}

// Shutdown pushes what is left and stops, at the latest when ctx ends.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	if err := errors.Join(t.traces.Shutdown(ctx), t.meters.Shutdown(ctx)); err != nil {
		return fmt.Errorf("shut down telemetry: %w", err)
	}
	return nil
}
