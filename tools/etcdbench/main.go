// Command etcdbench puts a closed loop of clients on an etcd cluster and prints what it measured as JSON. It is a module
// of its own, so that etcd's client and gRPC stay out of the product's. loadtest runs it.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

type options struct {
	endpoints     []string
	ca, cert, key string
	op            string
	clients       int
	keys          int
	bytes         int
	warm, measure time.Duration
}

// outcome is printed; durations are in nanoseconds.
type outcome struct {
	Count   int           `json:"count"`
	Errors  int           `json:"errors"`
	Seconds float64       `json:"seconds"`
	P50     time.Duration `json:"p50"`
	P99     time.Duration `json:"p99"`
	Max     time.Duration `json:"max"`
	First   string        `json:"first_error,omitempty"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "etcdbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var o options
	endpoints := flag.String("endpoints", "", "comma-separated https URLs; the clients are spread over them")
	flag.StringVar(&o.ca, "ca", "", "certificate authority")
	flag.StringVar(&o.cert, "cert", "", "client certificate")
	flag.StringVar(&o.key, "key", "", "its key")
	flag.StringVar(&o.op, "op", "put", "put, or get for linearizable reads")
	flag.IntVar(&o.clients, "clients", 64, "clients, each with a connection and one request under way")
	flag.IntVar(&o.keys, "keys", 1024, "keys that are written and read")
	flag.IntVar(&o.bytes, "bytes", 512, "size of a value")
	flag.DurationVar(&o.warm, "warm", time.Second, "time before requests count")
	flag.DurationVar(&o.measure, "for", 5*time.Second, "time that they count")
	flag.Parse()
	o.endpoints = strings.Split(*endpoints, ",")
	clients, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range clients {
			_ = c.Close() // the process ends
		}
	}()
	return json.NewEncoder(os.Stdout).Encode(load(ctx, o, clients))
}

func connect(ctx context.Context, o options) ([]*clientv3.Client, error) {
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	var out []*clientv3.Client
	for i := range o.clients {
		c, err := clientv3.New(clientv3.Config{
			Context: ctx, Endpoints: []string{o.endpoints[i%len(o.endpoints)]}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
			TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		})
		if err != nil {
			return nil, err
		}
		// The first request connects: it is not to be measured.
		if _, err := c.Put(ctx, key(i%o.keys), strings.Repeat("x", o.bytes)); err != nil {
			return nil, fmt.Errorf("first write: %w", err)
		}
		out = append(out, c)
	}
	for i := range o.keys {
		if _, err := out[0].Put(ctx, key(i), strings.Repeat("x", o.bytes)); err != nil {
			return nil, fmt.Errorf("prepare keys: %w", err)
		}
	}
	return out, nil
}

func key(i int) string { return fmt.Sprintf("/edgefleet/tenants/load-%06d", i) }

func load(ctx context.Context, o options, clients []*clientv3.Client) outcome {
	run, stop := context.WithCancel(ctx)
	var (
		wg       sync.WaitGroup
		counting atomic.Bool
		took     = make([][]time.Duration, len(clients))
		errs     atomic.Int64
		first    atomic.Pointer[string]
		value    = strings.Repeat("y", o.bytes)
	)
	for w, c := range clients {
		wg.Go(func() {
			for i := w; run.Err() == nil; i += len(clients) {
				counts, start := counting.Load(), time.Now()
				var err error
				if o.op == "get" {
					_, err = c.Get(ctx, key(i%o.keys))
				} else {
					_, err = c.Put(ctx, key(i%o.keys), value)
				}
				switch {
				case !counts || !counting.Load():
				case err != nil:
					errs.Add(1)
					text := err.Error()
					first.CompareAndSwap(nil, &text)
				default:
					took[w] = append(took[w], time.Since(start))
				}
			}
		})
	}
	sleep(ctx, o.warm)
	start := time.Now()
	counting.Store(true)
	sleep(ctx, o.measure)
	counting.Store(false)
	out := outcome{Seconds: time.Since(start).Seconds()}
	stop()
	wg.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	out.Count, out.Errors = len(all), int(errs.Load())
	if len(all) > 0 {
		out.P50, out.P99, out.Max = all[len(all)/2], all[len(all)*99/100], all[len(all)-1]
	}
	if f := first.Load(); f != nil {
		out.First = *f
	}
	return out
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
