package backup_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/backup"
)

func TestAScheduledBackupWorksAQuarterOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		const calls, work = 20, 2 * time.Millisecond
		r, w := backup.Gentle(ctx, bytes.NewReader(make([]byte, 2*calls)), io.Discard)
		for name, call := range map[string]func() error{
			"writing": func() error { _, err := w.Write([]byte{1}); return err },
			"reading": func() error { _, err := r.Read(make([]byte, 1)); return err },
		} {
			start := time.Now()
			for range calls {
				if err := call(); err != nil {
					t.Fatal(name, err)
				}
				time.Sleep(work)
			}
			if took, want := time.Since(start), work+(calls-1)*4*work; took != want {
				t.Errorf("%s: %s of work took %s, want %s", name, calls*work, took, want)
			}
			time.Sleep(time.Minute) // the place of the backups held it up
			start = time.Now()
			if err := call(); err != nil || time.Since(start) > 100*time.Millisecond {
				t.Errorf("%s after a long wait: rested %s, %v", name, time.Since(start), err)
			}
		}
		end()
		if n, err := w.Write([]byte{1}); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("written after the end: %d, %v", n, err)
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("read after the end: %d, %v", n, err)
		}
	})
}

func TestAGentleBackupIsLoadedLikeAnother(t *testing.T) {
	s, kek := source(t)
	var file bytes.Buffer
	if _, err := backup.WriteGently(t.Context(), &file, s); err != nil {
		t.Fatal(err)
	}
	l, err := backup.Load(&file, kek)
	if err != nil || l.Envelope.Index != 77 {
		t.Errorf("%+v %v", l.Envelope, err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := backup.WriteGently(ended, io.Discard, s); !errors.Is(err, context.Canceled) {
		t.Errorf("a backup after the end: %v", err)
	}
}
