package dns

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// notifyPause is the least time between two looks at the zone; looks at a large zone take at most a twentieth of the time.
	notifyPause = time.Second
	notifyShare = 20
	// notifyRetry is the first pause after a NOTIFY that was not answered; it doubles up to notifyRetryMax.
	notifyRetry    = time.Second
	notifyRetryMax = time.Minute
)

// PeerStatus is how this server stands with another one.
type PeerStatus struct {
	Addr string
	// Serial is what it was told or given last, at At.
	Serial uint32
	At     time.Time
	// Err is why the last attempt did not succeed.
	Err error
}

// notifier tells the secondaries (RFC 1996) when the content of the zone has changed, which it looks for itself: serials
// also grow without.
type notifier struct {
	s *Server

	mu    sync.Mutex
	peers []PeerStatus
}

// due is what is to be told to one secondary.
type due struct {
	pending bool
	at      time.Time
	pause   time.Duration
}

func newNotifier(s *Server) *notifier {
	n := &notifier{s: s}
	for _, sec := range s.o.Secondaries {
		n.peers = append(n.peers, PeerStatus{Addr: sec.Addr.String()})
	}
	return n
}

func (n *notifier) run(ctx context.Context) error {
	var told uint64
	var serial uint32
	known := false
	todo := make([]due, len(n.peers))
	pause := notifyPause
	for {
		if apex := n.s.o.Source.Apex(); apex.Zone != "" && (!known || apex.Serial != serial) {
			began := time.Now()
			content := digest(n.s.o.Source, apex, n.s.o.TTL)
			pause = max(notifyPause, notifyShare*time.Since(began))
			if serial = apex.Serial; !known || content != told {
				known, told = true, content
				for i := range todo {
					todo[i] = due{pending: true}
				}
			}
		}
		n.tell(ctx, todo)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// tell notifies the secondaries that are due, side by side.
func (n *notifier) tell(ctx context.Context, todo []due) {
	var asked sync.WaitGroup
	for i := range todo {
		if !todo[i].pending || time.Now().Before(todo[i].at) {
			continue
		}
		asked.Go(func() {
			serial, err := n.notify(ctx, n.s.o.Secondaries[i])
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.peers[i].Err = err; err == nil {
				n.peers[i].Serial, n.peers[i].At = serial, time.Now()
				todo[i] = due{}
				return
			}
			todo[i].pause = min(max(notifyRetry, 2*todo[i].pause), notifyRetryMax)
			todo[i].at = time.Now().Add(todo[i].pause)
			if ctx.Err() == nil {
				n.s.o.Telemetry.Logger.WarnContext(ctx, "secondary not notified, trying again", "secondary", n.peers[i].Addr, "err", err)
			}
		})
	}
	asked.Wait()
}

func (n *notifier) notify(ctx context.Context, sec Secondary) (uint32, error) {
	apex := n.s.o.Source.Apex()
	m := new(dns.Msg).SetNotify(dns.Fqdn(string(apex.Zone)))
	m.Authoritative = true
	m.Answer = []dns.RR{soa(apex, infrastructureTTL)}
	m.SetTsig(sec.Key.Name, sec.Key.Algorithm, fudge, time.Now().Unix())
	c := dns.Client{Timeout: askTimeout, TsigSecret: sec.Key.secrets()}
	r, _, err := c.ExchangeContext(ctx, m, sec.Addr.String())
	switch {
	case err != nil:
		return 0, fmt.Errorf("notify %s: %w", sec.Addr, err)
	case r.Rcode != dns.RcodeSuccess:
		return 0, fleet.NewError(fleet.ErrUnavailable, "", "%s answers NOTIFY with %s: is this member among its primaries, and the key %s the same?", sec.Addr, dns.RcodeToString[r.Rcode], sec.Key.Name)
	}
	return apex.Serial, nil
}

func (n *notifier) status() []PeerStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]PeerStatus(nil), n.peers...)
}

// digest is the same for the same records.
func digest(src Source, apex Apex, ttl time.Duration) uint64 {
	sum := fnv.New64a()
	for rr := range Records(src, apex, ttl) {
		_, _ = sum.Write([]byte(rr.String())) // it never fails
	}
	return sum.Sum64()
}
