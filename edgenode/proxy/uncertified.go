package proxy

import (
	"slices"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// tellAgain is after how long a host without a certificate is told of anew, while clients come for it.
	tellAgain = time.Minute
	// tellPause is the least time between two calls of Options.OnUncertified.
	tellPause = 5 * time.Second
	// maxToldOf bounds the hosts that are remembered.
	maxToldOf = 4096
)

// uncertified are the hosts that clients came for with TLS although they have no certificate. Only hosts of the
// configuration get here, so that names which clients make up cost nothing.
type uncertified struct {
	mu sync.Mutex
	// told is when a host was last put into waiting.
	told    map[fleet.HostName]time.Time
	waiting []fleet.HostName
	called  time.Time
}

// saw records a host, and reports whether it is time to tell somebody.
func (u *uncertified) saw(h fleet.HostName, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if last, ok := u.told[h]; ok && now.Sub(last) < tellAgain || len(u.waiting) >= fleet.MaxUncertified {
		return false
	}
	if len(u.told) >= maxToldOf && !u.forget(now) {
		return false
	}
	if u.told == nil {
		u.told = map[fleet.HostName]time.Time{}
	}
	u.told[h] = now
	u.waiting = append(u.waiting, h)
	if now.Sub(u.called) < tellPause {
		return false
	}
	u.called = now
	return true
}

// forget makes room, and reports whether there is some.
func (u *uncertified) forget(now time.Time) bool {
	for h, last := range u.told {
		if now.Sub(last) >= tellAgain {
			delete(u.told, h)
		}
	}
	return len(u.told) < maxToldOf
}

func (u *uncertified) take() []fleet.HostName {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := u.waiting
	u.waiting = nil
	slices.Sort(out)
	return out
}

// Uncertified are the hosts that clients came for since the last call and that have no certificate, at most
// fleet.MaxUncertified.
func (p *Proxy) Uncertified() []fleet.HostName { return p.uncertified.take() }

// missed looks whether a name without a certificate is a host's.
func (p *Proxy) missed(name string) {
	canonical, ok := canonicalHost(name)
	s := p.options.Snapshot()
	if !ok || s == nil {
		return
	}
	h := s.Host(canonical)
	if h != nil && p.uncertified.saw(h.Name, time.Now()) && p.options.OnUncertified != nil {
		p.options.OnUncertified()
	}
}
