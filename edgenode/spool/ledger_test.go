package spool_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/spool"
	"github.com/edgefleet/edgefleet/fleet"
)

// The ledger balances at every moment of a random life with crashes, failing disks, a full spool and odd
// acknowledgements; in the end every event was stored, or dropped for a counted reason.
func TestTheLedgerBalancesThroughAnyLife(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { life(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func life(t *testing.T, rnd *rand.Rand) {
	dir, d, p := t.TempDir(), &spool.Disk{}, &bus{}
	tenants := []fleet.TenantID{"acme", "globex", "initech"}
	boot := 0
	var s *spool.Spool
	var stop func()
	next := func() {
		boot++
		s = openOn(t, dir, fmt.Sprintf("b%d", boot), d, func(o *spool.Options) { o.MaxBytes = 1 << 20 })
		stop = run(t, s, p)
	}
	next()
	appended := 0
	for range 60 {
		switch rnd.IntN(8) {
		case 0, 1, 2:
			for range rnd.IntN(300) {
				s.Append(event(tenants[rnd.IntN(len(tenants))]))
				appended++
			}
		case 3:
			d.FailWrite.Store(rnd.IntN(2) == 0)
		case 4:
			p.set(rnd.IntN(2) == 0)
		case 5:
			for b := range boot {
				ack(s, fleet.MemberID(fmt.Sprintf("m%d", rnd.IntN(4))), 1+rnd.IntN(4), fmt.Sprintf("b%d", b+1), rnd.Uint64N(2000))
			}
		case 6:
			time.Sleep(time.Duration(rnd.IntN(20)) * time.Second)
		case 7:
			if rnd.IntN(3) == 0 {
				synctest.Wait()
				stop()
				if rnd.IntN(2) == 0 {
					s.Crash()
				} else if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				next()
			}
		}
		account(t, s, "")
	}
	d.FailWrite.Store(false)
	p.set(false)
	synctest.Wait()
	for b := range boot {
		ack(s, "m1", 1, fmt.Sprintf("b%d", b+1), 1<<40)
		ack(s, "m2", 1, fmt.Sprintf("b%d", b+1), 1<<40)
		ack(s, "m3", 1, fmt.Sprintf("b%d", b+1), 1<<40)
		ack(s, "m0", 1, fmt.Sprintf("b%d", b+1), 1<<40)
	}
	for _, l := range s.Ledger() {
		if account(t, s, l.Tenant).Spooled != 0 {
			t.Errorf("left in the spool: %+v", l)
		}
	}
	if appended == 0 {
		t.Error("nothing happened")
	}
	stop()
}

func BenchmarkAppendDurably(b *testing.B) {
	s, err := spool.Open(spool.Options{Dir: b.TempDir(), Node: "n1", Boot: "b1", MaxBytes: 64 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	ctx := b.Context()
	done := make(chan error, 1)
	p := &bus{down: true}
	go func() { done <- s.Run(ctx, p) }()
	ev := event("acme")
	spooled := func() (n uint64) {
		for _, l := range s.Ledger() {
			n += l.Spooled
		}
		return n
	}
	var sent uint64
	for b.Loop() {
		s.Append(ev)
		if sent++; sent%2048 == 0 {
			for spooled()+2048 < sent { // stay within the queue
				runtime.Gosched()
			}
		}
	}
	for spooled() < sent {
		runtime.Gosched()
	}
	b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "events/s")
}
