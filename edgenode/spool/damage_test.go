package spool_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/edgenode/spool"
	"github.com/edgefleet/edgefleet/fleet"
)

// crashed leaves a spool of n events under boot b1 and returns its one segment's path and bytes.
func crashed(t *testing.T, dir string, n int) (string, []byte) {
	t.Helper()
	s := open(t, dir, "b1")
	stop := run(t, s, &bus{down: true})
	for range n {
		s.Append(event("acme"))
	}
	eventually(t, "all are spooled", func() bool { return account(t, s, "acme").Spooled == uint64(n) })
	stop()
	s.Crash()
	path := filepath.Join(dir, "b1", fmt.Sprintf("%020d.seg", 1))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, b
}

// offsets returns where each record of b starts.
func offsets(b []byte) (at []int) {
	spool.Scan(b, func(o int, _ uint64, _ []byte) { at = append(at, o) })
	return at
}

func TestDamageOnDiskCostsOnlyTheDamagedRecords(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(b []byte, at []int) []byte
		want    []uint64
		damaged uint64
	}{
		"torn tail":                  {func(b []byte, at []int) []byte { return b[:at[4]+30] }, []uint64{1, 2, 3, 4}, 0},
		"torn header":                {func(b []byte, at []int) []byte { return b[:at[4]+10] }, []uint64{1, 2, 3, 4}, 0},
		"zeroes at the tail":         {func(b []byte, _ []int) []byte { return append(b, make([]byte, 4096)...) }, []uint64{1, 2, 3, 4, 5}, 0},
		"flip in a payload":          {func(b []byte, at []int) []byte { b[at[2]+60] ^= 4; return b }, []uint64{1, 2, 4, 5}, 1},
		"flip in a length":           {func(b []byte, at []int) []byte { b[at[2]+5] ^= 0x40; return b }, []uint64{1, 2, 4, 5}, 1},
		"flip in a sequence number":  {func(b []byte, at []int) []byte { b[at[2]+12] ^= 0x80; return b }, []uint64{1, 2, 4, 5}, 1},
		"flip in a magic":            {func(b []byte, at []int) []byte { b[at[2]] ^= 1; return b }, []uint64{1, 2, 4, 5}, 1},
		"flip in the first":          {func(b []byte, at []int) []byte { b[at[0]+60] ^= 4; return b }, []uint64{2, 3, 4, 5}, 1},
		"flip in the last":           {func(b []byte, at []int) []byte { b[at[4]+60] ^= 4; return b }, []uint64{1, 2, 3, 4}, 1},
		"two lost in a row":          {func(b []byte, at []int) []byte { clear(b[at[1]:at[3]]); return b }, []uint64{1, 4, 5}, 2},
		"everything":                 {func(b []byte, _ []int) []byte { clear(b); return b }, nil, 0},
		"an empty file":              {func([]byte, []int) []byte { return nil }, nil, 0},
		"a record twice":             {func(b []byte, at []int) []byte { return append(b, b[at[4]:]...) }, []uint64{1, 2, 3, 4, 5}, 0},
		"a record far ahead":         {func(b []byte, _ []int) []byte { return spool.AppendRecord(b, 1<<60, []byte(`{}`)) }, []uint64{1, 2, 3, 4, 5}, 0},
		"a whole record of no event": {func(b []byte, _ []int) []byte { return spool.AppendRecord(b, 6, []byte(`{}`)) }, []uint64{1, 2, 3, 4, 5}, 1},
		"a whole record of a stranger": {func(b []byte, at []int) []byte {
			_, payload, _ := spool.DecodeRecord(b[at[4]:])
			return spool.AppendRecord(b, 6, bytes.Replace(payload, []byte(`"node_id":"n1"`), []byte(`"node_id":"n2"`), 1))
		}, []uint64{1, 2, 3, 4, 5}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, b := crashed(t, dir, 5)
			if err := os.WriteFile(path, tc.change(b, offsets(b)), 0o600); err != nil {
				t.Fatal(err)
			}
			s := open(t, dir, "b2")
			if got := account(t, s, ""); got.Dropped[spool.DropDamaged] != tc.damaged {
				t.Errorf("%d counted as damaged, want %d", got.Dropped[spool.DropDamaged], tc.damaged)
			}
			var want []fleet.EventID
			for _, seq := range tc.want {
				want = append(want, fleet.NewEventID("n1", "b1", seq))
			}
			if got := account(t, s, "acme"); got.Spooled != uint64(len(want)) {
				t.Fatalf("%+v, want %d spooled", got, len(want))
			}
			p := &bus{}
			run(t, s, p)
			eventually(t, "all that is whole is sent", func() bool { return len(p.ids()) == len(want) })
			if diff := cmp.Diff(want, p.ids()); diff != "" {
				t.Error(diff)
			}
			ack(s, "m1", 1, "b1", 5)
			eventually(t, "the directory is drained", func() bool {
				_, err := os.Stat(filepath.Dir(path))
				return os.IsNotExist(err)
			})
			account(t, s, "acme")
		})
	}
}

// A member's watermark stops below a lost record; the node's own must step over it, and tell the members.
func TestTheWatermarkPassesALostRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path, b := crashed(t, dir, 5)
		b[offsets(b)[2]+60] ^= 4
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, "b2")
		// The member sees 1, 2, 4, 5 and acknowledges 2 until a message tells it that 3 is settled.
		p := &bus{onMessage: func(m fleet.EventMessage) {
			if m.Released >= 3 {
				ack(s, "m1", 1, "b1", m.Event.Seq)
			} else {
				ack(s, "m1", 1, "b1", min(m.Event.Seq, 2))
			}
		}}
		stop := run(t, s, p)
		defer stop()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := account(t, s, "acme"); got.Stored != 4 || got.Spooled != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestDamageWhileRunningIsFoundBeforeSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir, "b1")
		p := &bus{down: true}
		stop := run(t, s, p)
		defer stop()
		for range 3 {
			s.Append(event("acme"))
		}
		synctest.Wait()
		path := filepath.Join(dir, "b1", fmt.Sprintf("%020d.seg", 1))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[offsets(b)[1]+60] ^= 4
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		p.set(false)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]fleet.EventID{"n1:b1:1", "n1:b1:3"}, p.ids()); diff != "" {
			t.Error(diff)
		}
		ack(s, "m1", 1, "b1", 3)
		if got := account(t, s, "acme"); got.Stored != 2 || got.Dropped[spool.DropDamaged] != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func TestAnyCutOfASegmentKeepsAllWholeRecordsBefore(t *testing.T) {
	dir := t.TempDir()
	path, b := crashed(t, dir, 8)
	at := offsets(b)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		cut := rnd.IntN(len(b) + 1)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		whole := uint64(0)
		for i := range at {
			if end := append(at, len(b))[i+1]; end <= cut {
				whole++
			}
		}
		s, err := spool.Open(spool.Options{Dir: dir, Node: "n1", Boot: "b2"})
		if err != nil {
			t.Fatal(err)
		}
		if got := account(t, s, "acme"); got.Spooled != whole {
			t.Fatalf("cut at %d: %d events, want %d", cut, got.Spooled, whole)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFailingDiskDropsAndRecoversByItself(t *testing.T) {
	for name, set := range map[string]func(*spool.Disk, bool){
		"no room for a file":  func(d *spool.Disk, on bool) { d.FailCreate.Store(on); d.FailWrite.Store(on) },
		"a write that is cut": func(d *spool.Disk, on bool) { d.FailWrite.Store(on) },
		"a sync that is lost": func(d *spool.Disk, on bool) { d.FailSync.Store(on) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, d := t.TempDir(), &spool.Disk{}
				s := openOn(t, dir, "b1", d)
				stop := run(t, s, &bus{down: true})
				for round := range 6 {
					set(d, round%2 == 0)
					for range 10 {
						s.Append(event("acme"))
					}
					synctest.Wait()
				}
				got := account(t, s, "acme")
				if got.Dropped[spool.DropDisk] != 30 || got.Spooled != 30 {
					t.Fatalf("%+v", got)
				}
				stop()
				s.Crash()
				// What is on disk is numbered without a gap, whatever the failures left in the files.
				next := open(t, dir, "b2")
				p := &bus{}
				stop = run(t, next, p)
				defer stop()
				synctest.Wait()
				if n := len(p.ids()); n != 30 {
					t.Errorf("%d events after the restart", n)
				}
				for seq := range uint64(30) {
					if p.received[fleet.NewEventID("n1", "b1", seq+1)] == 0 {
						t.Errorf("event %d is missing", seq+1)
					}
				}
				if lost := account(t, next, ""); lost.Detected != 0 {
					t.Errorf("%+v", lost)
				}
			})
		})
	}
}

func FuzzRecords(f *testing.F) {
	whole := spool.AppendRecord(spool.AppendRecord(nil, 1, []byte("a")), 2, []byte("efe1"))
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append([]byte("efe1efe1"), whole...))
	f.Fuzz(func(t *testing.T, b []byte) {
		end := 0
		spool.Scan(b, func(at int, seq uint64, payload []byte) {
			if at < end {
				t.Fatalf("record at %d overlaps the one before, which ends at %d", at, end)
			}
			again := spool.AppendRecord(nil, seq, payload)
			if !bytes.HasPrefix(b[at:], again) {
				t.Fatalf("record %d does not encode to the bytes it was read from", seq)
			}
			end = at + len(again)
		})
	})
}
