package bus

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
	"math"
	"strings"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// memberUser is the user name of a member's in-process connection; its password is random for each run.
const memberUser = "member"

// authenticator maps a connection to an account and subjects: the member's own by a secret that never leaves the
// process, members and nodes of the network by their certificates.
type authenticator struct {
	bus *Bus
	srv *server.Server
}

// Check implements server.Authentication.
func (a *authenticator) Check(c server.ClientAuthentication) bool {
	acc, err := a.srv.LookupAccount(accountName)
	if err != nil {
		return false
	}
	state := c.GetTLSConnectionState()
	if state == nil {
		opts := c.GetOpts()
		ok := opts.Username == memberUser && subtle.ConstantTimeCompare([]byte(opts.Password), []byte(a.bus.secret)) == 1
		if ok {
			c.RegisterUser(&server.User{Username: memberUser, Account: acc})
		}
		return ok
	}
	id, err := mtls.PeerIdentity(*state)
	if err != nil || id.Cluster != a.bus.o.Cluster || id.Node == "" {
		return false // members use routes or the in-process connection
	}
	group, err := a.bus.o.Admit(id.Node)
	if err != nil {
		a.bus.log.Warn("node refused by the bus", "node", id.Node, "err", err)
		return false
	}
	c.RegisterUser(&server.User{Username: nodeUser(id.Node, group), Account: acc, Permissions: nodePermissions(id.Node, group)})
	return true
}

// nodeUser is the user name of a node's connection: whom it was admitted as.
func nodeUser(n fleet.NodeID, g fleet.GroupName) string { return "node/" + string(n) + "/" + string(g) }

// Recheck ends the connections of nodes that would not be admitted now, or of which the group changed: what a
// connection may do is decided when it is made. A node that is still welcome connects again by itself.
func (b *Bus) Recheck() error {
	b.mu.Lock()
	srv := b.srv
	b.mu.Unlock()
	if srv == nil {
		return nil
	}
	open, err := srv.Connz(&server.ConnzOptions{Username: true, State: server.ConnOpen, Limit: math.MaxInt32})
	if err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
	for _, c := range open.Conns {
		parts := strings.Split(c.AuthorizedUser, "/")
		if len(parts) != 3 {
			continue // the member's own
		}
		group, err := b.o.Admit(fleet.NodeID(parts[1]))
		if err == nil && string(group) == parts[2] {
			continue
		}
		b.log.Info("node connection ended", "node", parts[1], "err", err)
		_ = srv.DisconnectClientByID(c.Cid) // it fails only for a connection that is gone
	}
	return nil
}

// nodePermissions are the subjects of one node: its own session and the shared heads of its group.
func nodePermissions(n fleet.NodeID, g fleet.GroupName) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{n.ReportSubject(), n.PollSubject(), n.EventSubject(), "blob.*"}},
		Subscribe: &server.SubjectPermission{Allow: []string{n.HeadSubject(), g.HeadSubject(), n.AckSubject(), n.InboxPrefix() + ".>"}},
	}
}

// logger passes the server's log on: only what needs attention.
type logger struct{ log *slog.Logger }

func (l *logger) Noticef(string, ...any) {}
func (l *logger) Debugf(string, ...any)  {}
func (l *logger) Tracef(string, ...any)  {}
func (l *logger) Warnf(f string, a ...any) {
	l.log.Debug("nats server", "detail", fmt.Sprintf(f, a...))
}

func (l *logger) Errorf(f string, a ...any) {
	l.log.Warn("nats server", "detail", fmt.Sprintf(f, a...))
}

func (l *logger) Fatalf(f string, a ...any) {
	l.log.Error("nats server", "detail", fmt.Sprintf(f, a...))
}
