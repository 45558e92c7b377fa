package bus

import (
	"crypto/subtle"
	"fmt"
	"log/slog"

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
	c.RegisterUser(&server.User{Username: string(id.Node), Account: acc, Permissions: nodePermissions(id.Node, group)})
	return true
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
