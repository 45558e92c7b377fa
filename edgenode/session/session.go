// Package session is a node's conversation with the control plane: it receives heads, fetches what they name, reports,
// and hands events over.
//
// NATS is the first way and HTTPS to any member the second, for heads and blobs alike; events wait for NATS. It decides
// nothing about what is served (package config does) and keeps no events (package spool does). Nothing here affects
// serving: with every member away it tries again for ever, and the node goes on with what it has.
package session

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// Store is the part of config.Store that a session needs.
type Store interface {
	// Apply moves to the heads of set and answers each; heads left out of the answer are to be offered again.
	Apply(ctx context.Context, set fleet.HeadSet, fetch config.Fetch) []fleet.HeadReport
	// Reports are the ACKs and NACKs for the heartbeat.
	Reports() []fleet.HeadReport
}

// Options configure a Session. All fields are required but those that say otherwise.
type Options struct {
	Node    fleet.NodeID
	Group   fleet.GroupName
	Cluster fleet.ClusterID
	// Boot names this life of the worker, Instance that of its supervisor; the latter is optional.
	Boot, Instance string
	// Dir keeps the members' addresses as last learned.
	Dir string
	// Members are the addresses known from enrolment, ControlPlane further API addresses; both may be empty.
	Members      []fleet.Endpoints
	ControlPlane []string
	// Source is the node's identity; MemberRoots verify NATS servers, APIRoots API servers.
	Source                *mtls.Source
	MemberRoots, APIRoots *x509.CertPool
	Store                 Store
	// Counters and Serving are read for each report; optional.
	Counters func() []fleet.TenantCounters
	Serving  func() bool
	// Uncertified takes the hosts that clients came for and that have no certificate, for each report; optional.
	Uncertified func() []fleet.HostName
	// OriginsOut are the origins that are out, for each report; optional.
	OriginsOut func() []fleet.OriginOut
	// OnAck receives acknowledgements of events; optional.
	OnAck func(fleet.EventAck)
	// PollInterval is the mean time between polls, 30 s if 0; HeartbeatInterval between reports, 5 s if 0.
	PollInterval, HeartbeatInterval time.Duration
	Telemetry                       *observability.Telemetry
	// Bus replaces NATS; for tests that run without a network.
	Bus Bus
}

func (o Options) withDefaults() Options {
	if o.PollInterval == 0 {
		o.PollInterval = 30 * time.Second
	}
	if o.HeartbeatInterval == 0 {
		o.HeartbeatInterval = 5 * time.Second
	}
	if o.Counters == nil {
		o.Counters = func() []fleet.TenantCounters { return nil }
	}
	if o.Serving == nil {
		o.Serving = func() bool { return true }
	}
	if o.OriginsOut == nil {
		o.OriginsOut = func() []fleet.OriginOut { return nil }
	}
	if o.Uncertified == nil {
		o.Uncertified = func() []fleet.HostName { return nil }
	}
	if o.OnAck == nil {
		o.OnAck = func(fleet.EventAck) {}
	}
	return o
}

func (o Options) validate() error {
	switch {
	case o.Store == nil || o.Telemetry == nil:
		return fleet.Invalid("options", "the session needs a store and telemetry")
	case o.Bus == nil && (o.Source == nil || o.MemberRoots == nil || o.APIRoots == nil):
		return fleet.Invalid("options", "the session needs the node's identity and the roots of members and API")
	case o.Dir == "" || o.Boot == "":
		return fleet.Invalid("options", "the session needs a directory and the boot's name")
	case o.PollInterval < 0 || o.HeartbeatInterval < 0:
		return fleet.Invalid("interval", "intervals are positive")
	}
	return errors.Join(fleet.ValidateID("node", o.Node), fleet.ValidateID("group", o.Group), fleet.ValidateID("cluster", o.Cluster))
}

// Session talks to the control plane. Publish may be called while Run runs.
type Session struct {
	options Options
	bus     Bus
	https   *httpsClient
	members *members

	// mail has the heads that members sent unasked; pollNow and beatNow ask for a poll or report at once.
	mail             *mailbox
	pollNow, beatNow chan struct{}
	connected        atomic.Bool
	// answered says that the last poll was.
	answered atomic.Bool
	// counterOffset is where the next report's counters begin when there are too many for one; the heartbeat and the poll share it.
	counterOffset atomic.Int64

	polls, blobs metric.Int64Counter
}

// New prepares a session; Run starts it.
func New(o Options) (*Session, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &Session{
		options: o, bus: o.Bus,
		mail:    newMailbox(),
		pollNow: make(chan struct{}, 1), beatNow: make(chan struct{}, 1),
		polls: o.Telemetry.Counter("edgefleet_node_polls_total"), blobs: o.Telemetry.Counter("edgefleet_node_blobs_total"),
	}
	s.members = openMembers(o)
	s.https = newHTTPSClient(o)
	if s.bus == nil {
		s.bus = newNATSBus(o)
	}
	s.bus.SetServers(s.members.nats())
	o.Telemetry.Gauge("edgefleet_node_session_connected", func() []observability.Sample {
		if s.connected.Load() {
			return []observability.Sample{{Value: 1}}
		}
		return []observability.Sample{{Value: 0}}
	})
	return s, nil
}

// Run talks until ctx ends. It returns an error only for what no retry mends.
func (s *Session) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.bus.Run(ctx, s.handlers(ctx)) })
	g.Go(func() error { s.follow(ctx); return nil })
	g.Go(func() error { s.beat(ctx); return nil })
	err := g.Wait()
	s.https.close()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Publish hands one event to the control plane; nil means that JetStream acknowledged it.
func (s *Session) Publish(ctx context.Context, id fleet.EventID, payload []byte) error {
	if err := s.bus.PublishEvent(ctx, s.options.Node.EventSubject(), string(id), payload); err != nil {
		return fmt.Errorf("publish event: %w", err)
	}
	return nil
}

// Beat reports at once, for example because serving has begun.
func (s *Session) Beat() { nudge(s.beatNow) }

func (s *Session) handlers(ctx context.Context) Handlers {
	return Handlers{
		Subjects: []string{s.options.Node.HeadSubject(), s.options.Group.HeadSubject(), s.options.Node.AckSubject()},
		Message:  func(subject string, body []byte) { s.receive(ctx, subject, body) },
		Connected: func(up bool) {
			s.connected.Store(up)
			if up {
				nudge(s.pollNow)
				nudge(s.beatNow)
			}
		},
	}
}

// receive takes a message of the bus; it must not block.
func (s *Session) receive(ctx context.Context, subject string, body []byte) {
	log := s.options.Telemetry.Logger
	if subject == s.options.Node.AckSubject() {
		var ack fleet.EventAck
		if err := json.Unmarshal(body, &ack); err != nil {
			log.WarnContext(ctx, "acknowledgement is malformed", "err", err)
			return
		}
		s.options.OnAck(ack)
		return
	}
	var set fleet.HeadSet
	if err := json.Unmarshal(body, &set); err != nil {
		log.WarnContext(ctx, "head message is malformed", "subject", subject, "err", err)
		return
	}
	s.mail.put(subject, set)
}

func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// count adds one to a counter by transport and result.
func count(ctx context.Context, c metric.Int64Counter, transport string, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	c.Add(ctx, 1, metric.WithAttributes(attribute.String("transport", transport), attribute.String("result", result)))
}
