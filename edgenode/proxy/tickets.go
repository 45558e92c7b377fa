package proxy

import (
	"crypto/tls"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/sni"
)

// tickets seals and opens the sessions that clients resume. Each tenant has keys of its own, derived from the group key
// and the time: every node of the group has the same, so that a session resumes on any of them, and they rotate with the
// control plane away. What one tenant's key sealed opens under no other's.
type tickets struct {
	snapshot     func() *config.Snapshot
	certificates *sni.Table
	now          func() time.Time
	// own has keys of this process, which crypto/tls rotates, for a node that has no group key yet and for names whose
	// tenant is not known yet. Its sessions resume here only.
	own *tls.Config
	// keys are those of the current group key and period.
	keys atomic.Pointer[ticketKeys]
}

// ticketKeys are the keys of one group key and period; tenants has a *tls.Config for each tenant that was asked for.
type ticketKeys struct {
	group   keyring.GroupKey
	period  int64
	tenants sync.Map
}

func newTickets(o Options) *tickets {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	return &tickets{snapshot: o.Snapshot, certificates: o.Certificates, now: now, own: &tls.Config{}} //nolint:gosec // it handles no connection
}

// wrap is for tls.Config.WrapSession. The session is bound to its name: see unwrap.
func (t *tickets) wrap(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
	s.Extra = append(s.Extra, sessionName(cs.ServerName))
	return t.sealer(cs.ServerName).EncryptTicket(cs, s)
}

// unwrap is for tls.Config.UnwrapSession. A session resumes only under the name that it was made for, so never across
// tenants, even those that share a certificate, and only while that name is served: no certificate is looked up when a
// session is resumed. What does not open, because its key is gone, another tenant's or forged, is a full handshake.
func (t *tickets) unwrap(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	s, err := t.sealer(cs.ServerName).DecryptTicket(ticket, cs)
	if err != nil || s == nil {
		return nil, err
	}
	if _, served := t.certificates.Lookup(cs.ServerName); !served || !hasName(s, cs.ServerName) {
		return nil, nil
	}
	return s, nil
}

// sealer has the ticket keys for a name. They belong to it and not to the configuration that serves: net/http clones that.
func (t *tickets) sealer(name string) *tls.Config {
	snap := t.snapshot()
	h, ok := canonicalHost(name)
	if snap == nil || !ok || snap.GroupKey.Epoch == 0 {
		return t.own
	}
	host := snap.Host(h)
	if host == nil {
		return t.own
	}
	keys := t.current(snap.GroupKey)
	if c, ok := keys.tenants.Load(host.Tenant); ok {
		return c.(*tls.Config) //nolint:forcetypeassert // nothing else is stored
	}
	c, err := keys.of(host.Tenant)
	if err != nil {
		return t.own
	}
	kept, _ := keys.tenants.LoadOrStore(host.Tenant, c)
	return kept.(*tls.Config) //nolint:forcetypeassert // as above
}

// current returns the keys of this moment; those before are forgotten.
func (t *tickets) current(g keyring.GroupKey) *ticketKeys {
	period := keyring.TicketPeriodOf(t.now())
	if k := t.keys.Load(); k != nil && k.group == g && k.period == period {
		return k
	}
	k := &ticketKeys{group: g, period: period}
	t.keys.Store(k)
	return k
}

// of derives a tenant's keys: this period's seals; the one before opens what was sealed until a moment ago; and the next
// opens what a node sealed whose clock is ahead.
func (k *ticketKeys) of(tenant fleet.TenantID) (*tls.Config, error) {
	var list [][32]byte
	for _, period := range []int64{k.period, k.period - 1, k.period + 1} {
		key, err := k.group.TicketKey(tenant, period)
		if err != nil {
			return nil, err
		}
		list = append(list, key)
	}
	c := &tls.Config{} //nolint:gosec // it handles no connection
	c.SetSessionTicketKeys(list)
	return c, nil
}

// sessionName is the entry of tls.SessionState.Extra that binds a session to a name.
func sessionName(name string) []byte { return []byte("edgefleet-name:" + name) }

func hasName(s *tls.SessionState, name string) bool {
	return slices.ContainsFunc(s.Extra, func(e []byte) bool { return string(e) == string(sessionName(name)) })
}
