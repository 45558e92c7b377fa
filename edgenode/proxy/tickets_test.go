package proxy_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

func groupKey(t *testing.T, group fleet.GroupName, epoch uint64) keyring.GroupKey {
	t.Helper()
	k, err := keyring.DeriveGroupKey(bytes.Repeat([]byte{7}, 32), group, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// clock is a clock that a test moves.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// nodeOf is an edge with a group key and a clock.
func nodeOf(t *testing.T, key keyring.GroupKey, c *clock) *edge {
	t.Helper()
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) { o.Now = c.now }, originServer(t, hello))
	e.change(func(s *config.Snapshot) { s.GroupKey = key })
	return e
}

// change replaces the snapshot by a changed copy.
func (e *edge) change(f func(*config.Snapshot)) {
	next := *e.snapshot.Load()
	hosts := map[fleet.HostName]*config.Host{}
	for name, h := range next.Hosts {
		served := *h
		hosts[name] = &served
	}
	next.Hosts = hosts
	f(&next)
	e.snapshot.Store(&next)
}

// visitor is a client that tries to resume its last session wherever it goes.
type visitor struct {
	t       *testing.T
	cache   tls.ClientSessionCache
	version uint16
}

func newVisitor(t *testing.T, version uint16) *visitor {
	return &visitor{t, oneSession{tls.NewLRUClientSessionCache(1)}, version}
}

// resumes visits a name on a node and reports whether the session of the last visit was resumed.
func (v *visitor) resumes(e *edge, serverName string) bool {
	v.t.Helper()
	conn, err := tls.Dial("tcp", e.https.Addr().String(), &tls.Config{ //nolint:noctx // loopback
		ServerName: serverName, RootCAs: testAuthority().pool(), ClientSessionCache: v.cache, MaxVersion: v.version, NextProtos: []string{"http/1.1"},
	})
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// TLS 1.3 tickets come after the handshake: an answer has passed them.
	_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", serverName)
	if b, err := io.ReadAll(conn); err != nil || !strings.Contains(string(b), "hello") {
		v.t.Fatalf("%q, %v", b, err)
	}
	return conn.ConnectionState().DidResume
}

// bothVersions runs f with a new visitor of each version of TLS.
func bothVersions(t *testing.T, f func(t *testing.T, v *visitor)) {
	t.Helper()
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) { f(t, newVisitor(t, version)) })
	}
}

func TestASessionResumesOnEveryNodeOfItsGroup(t *testing.T) {
	c := &clock{}
	a, b := nodeOf(t, groupKey(t, "default", 3), c), nodeOf(t, groupKey(t, "default", 3), c)
	elsewhere := nodeOf(t, groupKey(t, "second", 3), c)
	bothVersions(t, func(t *testing.T, v *visitor) {
		if v.resumes(a, hostName) {
			t.Fatal("the first visit resumed")
		}
		if !v.resumes(b, hostName) {
			t.Error("a session of node A did not resume on node B")
		}
		if !v.resumes(a, hostName) {
			t.Error("a session of node B did not resume on node A")
		}
		if v.resumes(elsewhere, hostName) {
			t.Error("a session resumed in another group")
		}
	})
}

// Nothing but the clock changes here: no snapshot, no new group key, as when the control plane is away for days.
func TestTicketKeysRotateWithoutTheControlPlane(t *testing.T) {
	c := &clock{}
	// To the middle of a period, so that nothing rotates by itself meanwhile.
	c.advance(keyring.TicketPeriod*3/2 - time.Duration(time.Now().Unix()%int64(keyring.TicketPeriod/time.Second))*time.Second)
	a, b := nodeOf(t, groupKey(t, "default", 3), c), nodeOf(t, groupKey(t, "default", 3), c)
	bothVersions(t, func(t *testing.T, v *visitor) {
		v.resumes(a, hostName)
		for range 4 { // longer than a group key's epoch
			c.advance(keyring.TicketPeriod)
			if !v.resumes(b, hostName) {
				t.Error("a session of the period before did not resume")
			}
		}
		c.advance(2 * keyring.TicketPeriod)
		if v.resumes(b, hostName) {
			t.Error("a session resumed whose key is gone")
		}
		if !v.resumes(a, hostName) {
			t.Error("after the rotation, a session of node B did not resume on node A")
		}
	})
}

func TestANodeWhoseClockIsAheadIssuesTicketsThatOthersTake(t *testing.T) {
	ahead, behind := &clock{}, &clock{}
	ahead.advance(keyring.TicketPeriod)
	a, b := nodeOf(t, groupKey(t, "default", 3), ahead), nodeOf(t, groupKey(t, "default", 3), behind)
	bothVersions(t, func(t *testing.T, v *visitor) {
		v.resumes(a, hostName)
		if !v.resumes(b, hostName) {
			t.Error("did not resume")
		}
	})
}

func TestASessionOfOneTenantNeverResumesForAnother(t *testing.T) {
	c := &clock{}
	a, b := nodeOf(t, groupKey(t, "default", 3), c), nodeOf(t, groupKey(t, "default", 3), c)
	bothVersions(t, func(t *testing.T, v *visitor) {
		for _, e := range []*edge{a, b} {
			v.resumes(a, hostName)
			// The certificate of hostName is good for otherName too, so that the client is willing.
			if v.resumes(e, otherName) {
				t.Error("a session of one tenant's host resumed at another's")
			}
		}
		// The name alone does not make it: the same name of another tenant has other keys.
		v.resumes(a, hostName)
		moved := nodeOf(t, groupKey(t, "default", 3), c)
		moved.change(func(s *config.Snapshot) { s.Hosts[hostName].Tenant = "tenant-c" })
		if v.resumes(moved, hostName) {
			t.Error("a session resumed after its name went to another tenant")
		}
	})
}

func TestANewEpochEndsTheSessionsOfTheOneBefore(t *testing.T) {
	c := &clock{}
	a := nodeOf(t, groupKey(t, "default", 3), c)
	bothVersions(t, func(t *testing.T, v *visitor) {
		a.change(func(s *config.Snapshot) { s.GroupKey = groupKey(t, "default", 3) })
		v.resumes(a, hostName)
		if !v.resumes(a, hostName) {
			t.Fatal("the second visit did not resume")
		}
		a.change(func(s *config.Snapshot) { s.GroupKey = groupKey(t, "default", 4) })
		if v.resumes(a, hostName) {
			t.Error("resumed with a key that an evicted node knows")
		}
		if !v.resumes(a, hostName) {
			t.Error("did not resume with the new key")
		}
	})
}

func TestANodeWithoutAGroupKeyResumesItsOwnSessions(t *testing.T) {
	c := &clock{}
	a, b := nodeOf(t, keyring.GroupKey{}, c), nodeOf(t, keyring.GroupKey{}, c)
	bothVersions(t, func(t *testing.T, v *visitor) {
		v.resumes(a, hostName)
		if !v.resumes(a, hostName) {
			t.Error("did not resume where it was made")
		}
		if v.resumes(b, hostName) {
			t.Error("resumed on a node that cannot have the key")
		}
	})
}
