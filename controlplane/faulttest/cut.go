package faulttest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// Faults that kill a process in the middle of something.
const (
	// CutRenewal kills the victim while it renews its certificates, which are past half of their life.
	CutRenewal Fault = "kill while certificates are renewed"
	// CutSnapshot kills the victim while it writes a snapshot of Raft, which restores that are refused make it do.
	CutSnapshot Fault = "kill while a snapshot is written"
)

// cutPoints are the files of a member's identity, at the change of one of which its renewal is cut, in the order in which
// they change.
var cutPoints = []Failpoint{"member.crt.new", "member.key.new", "member.key", "member.crt", "api.crt.new", "api.key", "api.crt"}

const (
	// cutLimit is how long the victim has to do what it is killed in.
	cutLimit = 20 * time.Second
	// cutPause is how often it is looked at.
	cutPause = 50 * time.Microsecond
	// aged is how long ago certificates of a year were made that are to be renewed.
	aged = 200 * 24 * time.Hour
)

// killWhen kills the member once now says so, and reports whether it did within limit.
func (p *Processes) killWhen(ctx context.Context, m *realMember, now func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, cutLimit)
	defer cancel()
	for !now() {
		if sleep(ctx, cutPause) != nil {
			return false
		}
	}
	p.down(m)
	return true
}

// cutRenewal carries out CutRenewal: after it the member has to start, and to renew what is left.
func (p *Processes) cutRenewal(ctx context.Context, s Step, m *realMember) error {
	whatever := context.WithoutCancel(ctx)
	p.down(m)
	if err := p.age(m); err != nil {
		return fmt.Errorf("give %s old certificates: %w", m.id, err)
	}
	// A file that is only there for a moment may not be seen: then it is in its place already.
	at := filepath.Join(m.identity(), string(s.At))
	written, placed := replaced(at), replaced(strings.TrimSuffix(at, ".new"))
	if err := p.up(whatever, m); err != nil {
		return err
	}
	cut := p.killWhen(whatever, m, func() bool { return written() || placed() })
	left := m.old(time.Now())
	p.note("%s: killed at %s: %v; %d of 2 certificates were not renewed", m.id, s.At, cut, len(left))
	if cut {
		p.did(CutRenewal)
	}
	if err := p.up(whatever, m); err != nil {
		return err
	}
	return p.await(whatever, "the certificates of "+string(m.id)+" are renewed", func(context.Context) error {
		if left := m.old(time.Now()); len(left) > 0 {
			return fmt.Errorf("%w: still old: %v", fleet.ErrUnavailable, left)
		}
		return nil
	})
}

// replaced reports whether another file has come to where one was, or none.
func replaced(file string) func() bool {
	before, _ := os.Stat(file) // nil if it is not there
	return func() bool {
		now, _ := os.Stat(file)
		return now != nil && (before == nil || !os.SameFile(before, now))
	}
}

func (m *realMember) identity() string { return filepath.Join(m.data, "identity") }

// old names the certificates of the member that cannot be used, or are past half of their life.
func (m *realMember) old(now time.Time) (out []string) {
	for _, name := range []string{"member", "api"} {
		src, err := mtls.OpenSource(filepath.Join(m.identity(), name+".crt"), filepath.Join(m.identity(), name+".key"))
		if err != nil {
			out = append(out, fmt.Sprintf("%s: %v", name, err))
		} else if made := src.Certificate().Leaf.NotBefore; now.Sub(made) > aged/2 {
			out = append(out, fmt.Sprintf("%s: made at %s", name, made))
		}
	}
	return out
}

// age gives a member that is down certificates as it had them, had it joined long ago.
func (p *Processes) age(m *realMember) error {
	kek, err := keyring.LoadKEK(filepath.Join(p.env.Dir, "kek"))
	if err != nil {
		return err
	}
	k, err := keys.Open(p.cluster, kek)
	if err != nil {
		return err
	}
	file := func(name string) string { return filepath.Join(m.identity(), name) }
	src, err := mtls.OpenSource(file("member.crt"), file("member.key"))
	if err != nil {
		return err
	}
	join, made := fleet.TokenID(src.Certificate().Leaf.Subject.SerialNumber), time.Now().Add(-aged)
	key, err := mtls.NewKey()
	if err != nil {
		return err
	}
	encoded, err := mtls.EncodeKey(key)
	if err != nil {
		return err
	}
	cert, err := k.MemberCA.SignJoined(p.cluster.ID, m.id, join, key.Public(), made)
	if err != nil {
		return err
	}
	if err := mtls.WriteIdentity(file("member.crt"), file("member.key"), cert, encoded); err != nil {
		return err
	}
	if cert, err = k.APICA.SignServer([]string{m.host, "localhost"}, key.Public(), made); err != nil {
		return err
	}
	return mtls.WriteIdentity(file("api.crt"), file("api.key"), mtls.ServerChain(cert, k.APICA.CertPEM()), encoded)
}

// cutSnapshot carries out CutSnapshot.
func (p *Processes) cutSnapshot(ctx context.Context, m *realMember) error {
	whatever := context.WithoutCancel(ctx)
	feed, enough := context.WithCancel(whatever)
	var feeding sync.WaitGroup
	var failed error
	feeding.Go(func() {
		for feed.Err() == nil && failed == nil {
			failed = p.restoreInVain(feed)
		}
	})
	pattern := filepath.Join(m.data, "raft", "snapshots", "*.tmp")
	cut := p.killWhen(whatever, m, func() bool {
		being, _ := filepath.Glob(pattern) // the pattern is well-formed
		return len(being) > 0
	})
	enough()
	feeding.Wait()
	p.note("%s: killed while it wrote a snapshot: %v", m.id, cut)
	if cut {
		p.did(CutSnapshot)
	}
	if failed != nil {
		return failed
	}
	return p.up(whatever, m)
}
