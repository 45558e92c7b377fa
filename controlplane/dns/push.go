package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

// PushSource is a Source that also knows which labels were ever issued, also those that are gone.
type PushSource interface {
	Source
	Issued(label string) bool
}

// Push keeps our records in the zone of an outside primary (RFC 2136): at first, after an error and every so often it
// transfers the zone and repairs what is not as it should be; in between it sends what has changed. Records of its own are
// the addresses and CAA of labels that were issued here and their DCV names' TXT; it touches nothing else, neither SOA and
// NS nor names that others have put there.
type Push struct {
	Source PushSource
	// Server is the outside primary, which must allow transfers and updates with Key.
	Server netip.AddrPort
	Key    Key
	// TTL is that of hosts' addresses; Every is the time between two repairs.
	TTL, Every time.Duration
	Logger     *slog.Logger

	mu     sync.Mutex
	status PeerStatus
}

const (
	// pushPause is the least time between two updates, pushRetry the first pause after an error, which doubles up to
	// pushRetryMax.
	pushPause    = 250 * time.Millisecond
	pushRetry    = time.Second
	pushRetryMax = time.Minute
	// pushTimeout bounds one exchange; pushBatch the bytes of one update.
	pushTimeout = 5 * time.Second
	pushBatch   = 16 << 10
	// maxPushed bounds the records that are taken of the outside zone.
	maxPushed = 2_000_000
)

// rrset names the records of one name and type.
type rrset struct {
	name string
	typ  uint16
}

// Run pushes until ctx ends.
func (p *Push) Run(ctx context.Context) error {
	var have map[rrset][]dns.RR
	var full time.Time
	var serial uint32
	pause := pushPause
	for {
		apex := p.Source.Apex()
		var err error
		switch now := time.Now(); {
		case apex.Zone == "":
		case have == nil || now.Sub(full) >= p.Every:
			if have, err = p.fetch(ctx, apex); err == nil {
				full = now
				serial = apex.Serial
				have, err = p.bring(ctx, apex, have)
			}
		case apex.Serial != serial:
			serial = apex.Serial
			have, err = p.bring(ctx, apex, have)
		}
		if pause = p.note(ctx, apex.Serial, pause, err); err != nil {
			have = nil // what is there is not known
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// Status says how it stands with the outside primary.
func (p *Push) Status() PeerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Addr = p.Server.String()
	return p.status
}

// note keeps the status, and returns how long to wait.
func (p *Push) note(ctx context.Context, serial uint32, pause time.Duration, err error) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.Err = err; err == nil {
		p.status.Serial, p.status.At = serial, time.Now()
		return pushPause
	}
	if ctx.Err() == nil {
		p.Logger.WarnContext(ctx, "zone not pushed, trying again", "primary", p.Server, "err", err)
	}
	return min(max(2*pause, pushRetry), pushRetryMax)
}

// desired are our records as they should be.
func (p *Push) desired(apex Apex) map[rrset][]dns.RR {
	out := map[rrset][]dns.RR{}
	for rr := range Records(p.Source, apex, p.TTL) {
		if p.own(rr, apex) {
			k := rrset{strings.ToLower(rr.Header().Name), rr.Header().Rrtype}
			out[k] = append(out[k], rr)
		}
	}
	return out
}

// own reports whether a record of the zone is one of ours.
func (p *Push) own(rr dns.RR, apex Apex) bool {
	labels, below := relative(rr.Header().Name, string(apex.Zone))
	switch typ := rr.Header().Rrtype; {
	case !below:
		return false
	case len(labels) == 1:
		return (typ == dns.TypeA || typ == dns.TypeAAAA || typ == dns.TypeCAA) && p.Source.Issued(labels[0])
	case len(labels) == 2 && labels[1] == dcvLabel:
		return typ == dns.TypeTXT && p.Source.Issued(labels[0])
	}
	return false
}

// fetch transfers the outside zone and returns those of its records that are ours.
func (p *Push) fetch(ctx context.Context, apex Apex) (map[rrset][]dns.RR, error) {
	m := new(dns.Msg).SetAxfr(dns.Fqdn(string(apex.Zone)))
	m.SetTsig(p.Key.Name, p.Key.Algorithm, fudge, time.Now().Unix())
	t := &dns.Transfer{TsigSecret: p.Key.secrets(), DialTimeout: pushTimeout, ReadTimeout: pushTimeout, WriteTimeout: pushTimeout}
	envelopes, err := t.In(m, p.Server.String())
	if err != nil {
		return nil, fmt.Errorf("transfer %s from %s: %w", apex.Zone, p.Server, err)
	}
	out := map[rrset][]dns.RR{}
	n := 0
	for e := range envelopes {
		if e.Error != nil {
			err = errors.Join(err, e.Error)
		}
		if n += len(e.RR); n > maxPushed || ctx.Err() != nil {
			err = errors.Join(err, ctx.Err(), fleet.NewError(fleet.ErrTooLarge, "", "more than %d records, or interrupted", maxPushed))
			_ = t.Close() // the transfer is given up
			break
		}
		for _, rr := range e.RR {
			if p.own(rr, apex) {
				k := rrset{strings.ToLower(rr.Header().Name), rr.Header().Rrtype}
				out[k] = append(out[k], rr)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("transfer %s from %s: %w; does it allow transfers with the key %s?", apex.Zone, p.Server, err, p.Key.Name)
	}
	return out, nil
}

// bring makes the outside zone have what it should, given what it has, and returns what it has then.
func (p *Push) bring(ctx context.Context, apex Apex, have map[rrset][]dns.RR) (map[rrset][]dns.RR, error) {
	want := p.desired(apex)
	names := map[rrset]bool{}
	for k := range have {
		names[k] = true
	}
	for k := range want {
		names[k] = true
	}
	keys := slices.SortedFunc(maps.Keys(names), func(a, b rrset) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return int(a.typ) - int(b.typ)
	})
	m, size := p.update(apex), 0
	for _, k := range keys {
		if same(have[k], want[k]) {
			continue
		}
		if len(have[k]) > 0 {
			m.RemoveRRset([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: k.name, Rrtype: k.typ, Class: dns.ClassINET}}})
		}
		m.Insert(want[k])
		size += len(k.name) + 16
		for _, rr := range want[k] {
			size += dns.Len(rr)
		}
		if size >= pushBatch {
			if err := p.send(ctx, m); err != nil {
				return nil, err
			}
			m, size = p.update(apex), 0
		}
	}
	if size == 0 {
		return want, nil
	}
	return want, p.send(ctx, m)
}

func (p *Push) update(apex Apex) *dns.Msg {
	return new(dns.Msg).SetUpdate(dns.Fqdn(string(apex.Zone)))
}

func (p *Push) send(ctx context.Context, m *dns.Msg) error {
	m.SetTsig(p.Key.Name, p.Key.Algorithm, fudge, time.Now().Unix())
	c := dns.Client{Net: "tcp", Timeout: pushTimeout, TsigSecret: p.Key.secrets()}
	r, _, err := c.ExchangeContext(ctx, m, p.Server.String())
	switch {
	case err != nil:
		return fmt.Errorf("update %s: %w", p.Server, err)
	case r.Rcode != dns.RcodeSuccess:
		return fleet.NewError(fleet.ErrDenied, "", "%s answers an update with %s: does it serve the zone as primary, and allow updates with the key %s?", p.Server, dns.RcodeToString[r.Rcode], p.Key.Name)
	case r.IsTsig() == nil:
		return fleet.NewError(fleet.ErrDenied, "", "%s did not sign its answer to an update: something between answers for it", p.Server)
	}
	return nil
}

// same reports whether two lists have the same records, in whatever order.
func same(a, b []dns.RR) bool {
	if len(a) != len(b) {
		return false
	}
	return slices.Equal(texts(a), texts(b))
}

func texts(rrs []dns.RR) []string {
	out := make([]string, len(rrs))
	for i, rr := range rrs {
		h := rr.Header()
		out[i] = fmt.Sprint(h.Ttl, strings.TrimPrefix(rr.String(), h.String()))
	}
	slices.Sort(out)
	return out
}
