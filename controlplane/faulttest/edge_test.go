package faulttest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edgefleet/edgefleet/controlplane/faulttest"
	"github.com/edgefleet/edgefleet/edgenode/spool"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

const (
	// attackEvery is the pause between the attacks on the node's tenant.
	attackEvery = 50 * time.Millisecond
	// delivery is how long the members may take, once whole, to take what is left in the spool.
	delivery = 2 * time.Minute
)

// attacked is a node under attack, with a spool as nodes have it: whatever is done to the members, each event gets to a
// majority of them.
type attacked struct {
	faulttest.EdgeNode
	spool *spool.Spool
	stop  func()
}

type publisher struct {
	js   jetstream.JetStream
	node fleet.NodeID
}

// Publish implements spool.Publisher.
func (p publisher) Publish(ctx context.Context, id fleet.EventID, payload []byte) error {
	_, err := p.js.Publish(ctx, p.node.EventSubject(), payload, jetstream.WithMsgID(string(id)))
	return err
}

// attack enrols a node and attacks it until stop.
func attack(t *testing.T, c *faulttest.Processes) *attacked {
	t.Helper()
	n, err := c.Enrol(t.Context(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	a := &attacked{EdgeNode: n}
	if a.spool, err = spool.Open(spool.Options{Dir: t.TempDir(), Node: n.Node, Boot: "b1", ResendAfter: 500 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	pool, err := mtls.PoolFromPEM([]byte(n.MemberCA))
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("", func(o *nats.Options) error { o.Servers = n.Buses; return nil },
		nats.Secure(mtls.ClientTLS(n.Source, pool, mtls.MemberServerName(n.Cluster), nil)), nats.CustomInboxPrefix(n.Node.InboxPrefix()),
		nats.RetryOnFailedConnect(true), nats.ReconnectWait(100*time.Millisecond), nats.MaxReconnects(-1), nats.IgnoreDiscoveredServers(),
		nats.PingInterval(time.Second), nats.Timeout(3*time.Second),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // members that are killed; publishing says so
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Subscribe(n.Node.AckSubject(), func(m *nats.Msg) {
		var ack fleet.EventAck
		if err := fleet.DecodeStrict(m.Data, &ack); err != nil {
			t.Errorf("an acknowledgement that no node understands: %v", err)
			return
		}
		a.spool.Ack(ack)
	}); err != nil {
		t.Fatal(err)
	}
	a.run(t, publisher{js, n.Node})
	return a
}

func (a *attacked) run(t *testing.T, p publisher) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	attacks, stopAttacks := context.WithCancel(ctx)
	var sending, attacking sync.WaitGroup
	sending.Go(func() {
		if err := a.spool.Run(ctx, p); err != nil {
			t.Error(err)
		}
	})
	attacking.Go(func() {
		tick := time.NewTicker(attackEvery)
		defer tick.Stop()
		for {
			select {
			case <-attacks.Done():
				return
			case at := <-tick.C:
				a.spool.Append(fleet.Event{Time: at.UTC(), Tenant: a.Tenant, Host: "api.example.com", Type: fleet.AttackSQLi, Status: fleet.Blocked}) //nolint:contextcheck // it never blocks
			}
		}
	})
	a.stop = func() { stopAttacks(); attacking.Wait() }
	t.Cleanup(func() {
		cancel()
		sending.Wait()
		attacking.Wait()
		if err := a.spool.Close(); err != nil {
			t.Error(err)
		}
	})
}

// settled ends the attacks: a majority of the members takes all of them, and no member has one twice.
func (a *attacked) settled(t *testing.T, c *faulttest.Processes) {
	t.Helper()
	a.stop()
	began, before := time.Now(), a.ledger()
	var all spool.Ledger
	err := harness.Until(t.Context(), delivery, 50*time.Millisecond, func(context.Context) error {
		all = a.ledger()
		if all.Stored != all.Detected {
			return fleet.NewError(fleet.ErrUnavailable, "spool", "of %d events, %d are stored by a majority, and %d are in the spool", all.Detected, all.Stored, all.Spooled)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
		return
	}
	held, err := c.Events(t.Context(), a.Tenant)
	if err != nil {
		t.Error(err)
		return
	}
	distinct := map[fleet.EventID]bool{}
	for member, events := range held {
		for id, n := range events {
			if distinct[id] = true; n != 1 {
				t.Errorf("member %s has event %s %d times", member, id, n)
			}
		}
	}
	if uint64(len(distinct)) != all.Detected {
		t.Errorf("the members have %d of %d events that a majority took", len(distinct), all.Detected)
	}
	t.Logf("%d events of a node arrived, the last %d of them within %s", all.Detected, all.Detected-before.Stored, time.Since(began).Round(time.Millisecond))
}

// ledger is the account of the tenant.
func (a *attacked) ledger() spool.Ledger {
	for _, l := range a.spool.Ledger() {
		if l.Tenant == a.Tenant {
			return l
		}
	}
	return spool.Ledger{Tenant: a.Tenant}
}
