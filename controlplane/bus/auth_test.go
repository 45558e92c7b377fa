package bus_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edgefleet/edgefleet/controlplane/bus"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

func TestANodeUsesItsOwnSubjects(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	n := w.connect(b, "n1")
	for _, subject := range []string{"st.n1", "poll.n1", "ev.n1", "blob.00"} {
		heard := subscribe(t, b.Conn(), subject)
		if err := n.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
		next(t, heard)
	}
	for _, subject := range []string{"hd.node.n1", "hd.group.default", "ack.n1", "_INBOX_n1.abc"} {
		heard := subscribe(t, n.Conn, subject)
		if err := b.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
		next(t, heard)
	}
	n.wantAllowed()
}

func TestANodeUsesNoOtherSubjects(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	all := subscribe(t, b.Conn(), ">")
	n := w.connect(b, "n1")
	for _, subject := range []string{
		"st.n2", "poll.n2", "ev.n2", "hd.node.n1", "hd.node.n2", "hd.group.default", "ack.n1", "ack.n2", "_INBOX_n1.abc", "_INBOX_n2.abc", "_INBOX.abc", "blob", "blob.a.b", "st", "anything",
		"$JS.API.INFO", "$JS.API.STREAM.INFO.EVENTS", "$JS.API.STREAM.DELETE.EVENTS", "$JS.API.CONSUMER.CREATE.EVENTS", "$JS.ACK.x", "$JS.FC.x", "$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "$KV.x.y",
	} {
		if err := n.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
		n.wantRefused("publish", subject)
	}
	silent(t, b.Conn(), all)
	for _, subject := range []string{
		">", "*", "*.*", "hd.>", "hd.node.*", "hd.node.n2", "hd.group.second", "hd.group.*", "ack.*", "ack.n2", "st.n1", "st.*", "poll.*", "poll.n1", "ev.n1", "ev.>", "blob.*", "blob.00",
		"_INBOX.>", "_INBOX_n2.>", "_INBOX_n1", "$JS.>", "$SYS.>",
	} {
		if _, err := n.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		n.wantRefused("subscription", subject)
	}
	if _, err := n.QueueSubscribeSync("poll.n2", "members"); err != nil { // would answer for the members
		t.Fatal(err)
	}
	n.wantRefused("subscription", "poll.n2")
}

func TestANodePublishesEventsIntoJetStreamAndHasNoAPI(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	s, err := b.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS", Subjects: []string{"ev.*"}})
	if err != nil {
		t.Fatal(err)
	}
	n := w.connect(b, "n1")
	js, err := jetstream.New(n.Conn)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second is recognised by its id
		if _, err := js.Publish(t.Context(), "ev.n1", []byte("x"), jetstream.WithMsgID("n1:b:1")); err != nil {
			t.Fatal(err)
		}
	}
	info, err := s.Info(t.Context())
	if err != nil || info.State.Msgs != 1 {
		t.Errorf("%+v %v", info.State, err)
	}
	if err := n.PublishRequest("$JS.API.STREAM.DELETE.EVENTS", "_INBOX_n1.x", nil); err != nil {
		t.Fatal(err)
	}
	n.wantRefused("publish", "$JS.API.STREAM.DELETE.EVENTS")
	if _, err := b.JetStream().Stream(t.Context(), "EVENTS"); err != nil {
		t.Error(err)
	}
}

func TestWhoMayNotConnect(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	stranger := ca(t, "node CA")
	w.revoke("n2")
	for name, src := range map[string]*mtls.Source{
		"no certificate":                       nil,
		"a certificate of another authority":   w.source(stranger, cluster, "", "n1"),
		"a node of another cluster":            w.source(w.node, "c2", "", "n1"),
		"a node that was never enrolled":       w.source(w.node, cluster, "", "n9"),
		"a node that was revoked":              w.source(w.node, cluster, "", "n2"),
		"a member, whose way are the routes":   w.source(w.member, cluster, "m2", ""),
		"a member of another cluster":          w.source(w.member, "c2", "m2", ""),
		"a member by a stranger's authority":   w.source(stranger, cluster, "m2", ""),
		"a node that claims a member's rights": w.source(w.node, cluster, "m2", ""),
	} {
		nc, err := w.dial(b, src, nats.UserInfo("member", "guess"))
		if err == nil {
			nc.Close()
			t.Errorf("%s: connected", name)
		}
	}
	nc, err := w.dial(b, w.source(w.node, cluster, "", "n1"))
	if err != nil {
		t.Fatal("a node of the fleet:", err)
	}
	nc.Close()
}

func TestARevokedNodeIsCutOffAndDoesNotComeBack(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	revoked, stays, moved := w.connect(b, "n1"), w.connect(b, "n2"), w.connect(b, "n3")
	if err := b.Recheck(); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*edge{revoked, stays, moved} {
		e.wantAllowed()
	}
	w.revoke("n1")
	w.mu.Lock()
	w.nodes["n3"] = "second"
	w.mu.Unlock()
	if err := b.Recheck(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the revoked node is cut off for good", func() error {
		if revoked.IsConnected() || revoked.LastError() == nil {
			return errors.New("still connected")
		}
		return nil
	})
	eventually(t, "the moved node comes back with the subjects of its new group", func() error {
		if moved.Stats().Reconnects == 0 {
			return errors.New("still connected as before")
		}
		return moved.Flush()
	})
	head := subscribe(t, moved.Conn, "hd.group.second")
	if err := b.Publish("hd.group.second", []byte("x")); err != nil {
		t.Fatal(err)
	}
	next(t, head)
	if stays.Stats().Reconnects != 0 || b.Conn().Stats().Reconnects != 0 {
		t.Error("others were cut off too")
	}
	if nc, err := w.dial(b, w.source(w.node, cluster, "", "n1")); err == nil {
		nc.Close()
		t.Error("a revoked node connected")
	}
	b.Close()
	if err := b.Recheck(); err != nil {
		t.Error("a closed bus:", err)
	}
}

func TestAServerThatIsNoMemberIsRefusedByNodes(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	b, _ := other.open("m1")
	if nc, err := w.dial(b, w.source(w.node, cluster, "", "n1")); err == nil {
		nc.Close()
		t.Error("connected to a foreign server")
	}
}

func TestTheMembersOwnConnectionCannotBeGuessed(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	for name, connect := range map[string]string{
		"a wrong password":  `{"user":"member","pass":"guess"}`,
		"an empty password": `{"user":"member","pass":""}`,
		"another user":      `{"user":"admin"}`,
		"a token":           `{"auth_token":"member"}`,
		"nothing":           `{}`,
	} {
		c, err := b.InProcessConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(c)
		if _, err := r.ReadString('\n'); err != nil { // INFO
			t.Fatal(err)
		}
		written := make(chan error, 1)
		go func() { // a pipe has no buffer: the server may answer before it has read everything
			_, err := io.WriteString(c, "CONNECT "+connect+"\r\nPING\r\n")
			written <- err
		}()
		if said, err := r.ReadString('\n'); !strings.HasPrefix(said, "-ERR 'Authorization Violation'") {
			t.Errorf("%s: the server said %q, %v", name, said, err)
		}
		_ = c.Close()
		<-written
	}
}

func TestThePortSpeaksNothingWithoutTLS(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	c, err := net.Dial("tcp", b.ClientAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "CONNECT {\"user\":\"member\",\"pass\":\"x\",\"verbose\":true}\r\nPING\r\n"); err != nil {
		t.Fatal(err)
	}
	said, _ := io.ReadAll(bufio.NewReader(c))
	if strings.Contains(string(said), "PONG") || strings.Contains(string(said), "+OK") {
		t.Errorf("the server said %q", said)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	tc := mtls.ClientTLS(w.source(w.node, cluster, "", "n1"), w.members, mtls.MemberServerName(cluster), nil)
	tc.MinVersion, tc.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if nc, err := nats.Connect("tls://"+b.ClientAddr(), nats.Secure(tc)); err == nil {
		nc.Close()
		t.Error("connected")
	}
}

func TestABusyPortIsOneClearError(t *testing.T) {
	w := newWorld(t)
	_, o := w.open("m1")
	for _, tc := range []struct{ listen, routes string }{{o.Listen, freeAddr(t)}, {freeAddr(t), o.Listen}} {
		other := w.options("m2")
		other.Listen, other.RouteListen = tc.listen, tc.routes
		b, err := bus.Open(other)
		var e *fleet.Error
		if b != nil || !errors.As(err, &e) || !errors.Is(err, fleet.ErrConflict) || e.Field != "nats_listen" || !strings.Contains(e.Message, fmt.Sprintf("address %s is in use", o.Listen)) {
			t.Errorf("got %v", err)
		}
	}
	for _, addr := range []string{"127.0.0.1", "127.0.0.1:http", ""} {
		other := w.options("m2")
		other.Listen = addr
		if b, err := bus.Open(other); err == nil {
			b.Close()
			t.Errorf("listening on %q", addr)
		}
	}
}
