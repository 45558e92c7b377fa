package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edgefleet/edgefleet/controlplane/bus"
	"github.com/edgefleet/edgefleet/fleet"
)

// form makes members of a cluster out of members that were alone, all at once as after a change of the state.
func form(t *testing.T, bs []*bus.Bus, os []bus.Options) {
	t.Helper()
	var wg sync.WaitGroup
	for i, b := range bs {
		var routes []string
		for j, o := range os {
			if i != j {
				routes = append(routes, o.RouteListen)
			}
		}
		wg.Go(func() {
			if err := b.SetRoutes(routes); err != nil {
				t.Errorf("member %d: %v", i+1, err)
			}
		})
	}
	wg.Wait()
}

func TestThreeMembersThatWereAloneBecomeACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("three JetStream servers elect leaders in real time")
	}
	w := newWorld(t)
	var bs []*bus.Bus
	var os []bus.Options
	for i := range 3 {
		b, o := w.open(fleet.MemberID(fmt.Sprint("m", i+1)))
		bs, os = append(bs, b), append(os, o)
	}
	// What was there before goes on after: a member's subscription, a node's session.
	own := subscribe(t, bs[0].Conn(), "own")
	n := w.connect(bs[0], "n1")
	head := subscribe(t, n.Conn, "hd.node.n1")
	form(t, bs, os)

	for i, b := range bs {
		eventually(t, fmt.Sprintf("member %d is connected again", i+1), func() error { return b.Connected(t.Context()) })
	}
	eventually(t, "a message from one member to another's subscription", func() error {
		if err := bs[2].Publish("own", []byte("hello")); err != nil {
			return err
		}
		_, err := own.NextMsg(200 * time.Millisecond)
		return err
	})
	eventually(t, "a head through another member to the node", func() error {
		if err := bs[1].Publish("hd.node.n1", []byte("head")); err != nil {
			return err
		}
		_, err := head.NextMsg(200 * time.Millisecond)
		return err
	})

	var s jetstream.Stream
	eventually(t, "a stream on three members", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var err error
		s, err = bs[1].JetStream().CreateStream(ctx, jetstream.StreamConfig{Name: "EVENTS", Subjects: []string{"ev.*"}, Replicas: 3})
		return err
	})
	js, err := jetstream.New(n.Conn)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "an event of the node", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := js.Publish(ctx, "ev.n1", []byte("x"), jetstream.WithMsgID("n1:b:1"))
		return err
	})
	info, err := s.Info(t.Context())
	if err != nil || info.State.Msgs != 1 || len(info.Cluster.Replicas) != 2 {
		t.Errorf("%+v %v", info, err)
	}

	// Losing one member keeps the stream and the others' sessions.
	bs[2].Close()
	eventually(t, "an event with one member gone", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := js.Publish(ctx, "ev.n1", []byte("y"), jetstream.WithMsgID("n1:b:2"))
		return err
	})
}

func TestTheSameRoutesInAnotherOrderRestartNothing(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	routes := []string{freeAddr(t), freeAddr(t)}
	if err := b.SetRoutes(nil); err != nil || b.Connected(t.Context()) != nil {
		t.Fatal("alone and alone again:", err)
	}
	if err := b.SetRoutes(routes); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected", func() error { return b.Connected(t.Context()) })
	reconnects := b.Conn().Stats().Reconnects
	slices.Reverse(routes)
	if err := b.SetRoutes(routes); err != nil || b.Conn().Stats().Reconnects != reconnects {
		t.Error("restarted", err)
	}
	if err := b.SetRoutes(nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "alone again", func() error { return b.Connected(t.Context()) })
}

func TestAStrangersRouteIsRefused(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	b, o := w.open("m1")
	stranger, so := other.open("m2") // says it is of the same cluster, by its own authority
	form(t, []*bus.Bus{b, stranger}, []bus.Options{o, so})
	eventually(t, "both run", func() error { return errors.Join(b.Connected(t.Context()), stranger.Connected(t.Context())) })
	heard := subscribe(t, b.Conn(), "secret")
	friend, fo := w.open("m3")
	form(t, []*bus.Bus{friend, b}, []bus.Options{fo, o})
	eventually(t, "a member's message", func() error {
		if err := errors.Join(stranger.Publish("secret", []byte("stranger")), friend.Publish("secret", []byte("friend"))); err != nil {
			return err
		}
		m, err := heard.NextMsg(200 * time.Millisecond)
		if err == nil && string(m.Data) != "friend" {
			t.Errorf("heard %s", m.Data)
		}
		return err
	})
}
