// Package log is a member of a bare replicated log: package consensus with a state machine that keeps nothing, in a
// process of its own, told what to do by its standard input.
//
// It exists to measure the log without the control plane on top. It ends with its input.
package log

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/observability"
)

// Op is what a member is asked to do.
type Op string

// The operations.
const (
	// OpBootstrap makes the member a cluster of one and waits until it leads.
	OpBootstrap Op = "bootstrap"
	// OpAdd adds a voter and waits until it has caught up.
	OpAdd Op = "add"
	// OpLoad proposes entries and counts.
	OpLoad Op = "load"
)

// Request is one line of the input.
type Request struct {
	Op      Op            `json:"op"`
	Member  string        `json:"member,omitempty"`
	Address string        `json:"address,omitempty"`
	Workers int           `json:"workers,omitempty"`
	Bytes   int           `json:"bytes,omitempty"`
	Warm    time.Duration `json:"warm,omitempty"`
	For     time.Duration `json:"for,omitempty"`
}

// Answer is one line of the output.
type Answer struct {
	Count   int           `json:"count"`
	Errors  int           `json:"errors"`
	Seconds float64       `json:"seconds"`
	P50     time.Duration `json:"p50"`
	P99     time.Duration `json:"p99"`
	Max     time.Duration `json:"max"`
	Error   string        `json:"error,omitempty"`
}

// Options configure a member; all are needed.
type Options struct {
	Dir, Member, Bind string
	CA, Cert, Key     string
}

// opLimit bounds a request but for the time of a load.
const opLimit = 20 * time.Second

// Run runs a member until in ends or ctx does.
func Run(ctx context.Context, o Options, in io.Reader, out io.Writer) error {
	server, client, err := o.tls()
	if err != nil {
		return err
	}
	n, err := consensus.Open(consensus.Options{ //nolint:contextcheck // a member lives longer than its start
		Dir: o.Dir, Member: fleet.MemberID(o.Member), Bind: o.Bind, ServerTLS: server, ClientTLS: client, FSM: nothing{}, Telemetry: observability.Discard(),
	})
	if err != nil {
		return err
	}
	end := context.AfterFunc(ctx, func() {
		if f, ok := in.(*os.File); ok {
			_ = f.Close() // ends the loop below
		}
	})
	defer end()
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var q Request
		if err = dec.Decode(&q); err != nil {
			break
		}
		a, opErr := do(ctx, n, q)
		if opErr != nil {
			a.Error = opErr.Error()
		}
		if err = enc.Encode(a); err != nil {
			break
		}
	}
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		err = nil
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), opLimit)
	defer cancel()
	return errors.Join(err, n.Close(stop))
}

func (o Options) tls() (server, client *tls.Config, err error) {
	ca, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, nil, fmt.Errorf("read authority: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("read certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, nil, fleet.Invalid("ca", "%s holds no certificate", o.CA)
	}
	certs := []tls.Certificate{pair}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: certs, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
		&tls.Config{MinVersion: tls.VersionTLS13, Certificates: certs, RootCAs: pool, ServerName: "localhost"}, nil
}

func do(ctx context.Context, n *consensus.Node, q Request) (Answer, error) {
	limited, cancel := context.WithTimeout(ctx, opLimit+q.Warm+q.For)
	defer cancel()
	switch q.Op {
	case OpBootstrap:
		if err := n.Bootstrap(); err != nil {
			return Answer{}, err
		}
		return Answer{}, harness.Until(limited, opLimit, 10*time.Millisecond, n.Barrier)
	case OpAdd:
		if err := n.AddVoter(limited, fleet.MemberID(q.Member), q.Address); err != nil {
			return Answer{}, err
		}
		return Answer{}, n.Barrier(limited)
	case OpLoad:
		return load(limited, n, q)
	}
	return Answer{}, fleet.Invalid("op", "%q is not an operation", q.Op)
}

func load(ctx context.Context, n *consensus.Node, q Request) (Answer, error) {
	entry := make([]byte, q.Bytes)
	_, _ = rand.Read(entry) // never fails (crypto/rand)
	out, err := harness.Load{Workers: q.Workers, Warm: q.Warm, For: q.For, Do: func(ctx context.Context, _, _ int) error {
		_, _, err := n.Apply(ctx, entry)
		return err
	}}.Run(ctx)
	a := Answer{Count: out.Count, Errors: out.Errors, Seconds: out.Seconds, P50: out.Took.Quantile(0.5), P99: out.Took.Quantile(0.99), Max: out.Took.Max()}
	if err == nil {
		err = out.First
	}
	return a, err
}

// nothing is a state machine that keeps nothing.
type nothing struct{}

// Apply implements raft.FSM.
func (nothing) Apply(*raft.Log) any { return nil }

// Snapshot implements raft.FSM.
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }

// Restore implements raft.FSM.
func (nothing) Restore(r io.ReadCloser) error { return r.Close() }

// Persist implements raft.FSMSnapshot.
func (nothing) Persist(sink raft.SnapshotSink) error { return sink.Close() }

// Release implements raft.FSMSnapshot.
func (nothing) Release() {}
