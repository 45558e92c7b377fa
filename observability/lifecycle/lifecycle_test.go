package lifecycle_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/observability/lifecycle"
)

// blocks is a part that runs until it is stopped.
func blocks(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func logger(b *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func TestPartsStopInReverseOrderOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g, ctx := lifecycle.New(t.Context(), logger(&log))
		var order []string
		part := func(name string) {
			g.Start(ctx, name, func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second) // takes its time: the one before must not stop meanwhile
				order = append(order, name)
				return nil
			})
		}
		part("first")
		g.OnStop("hook", func(context.Context) error { order = append(order, "hook"); return nil })
		part("second")
		part("third")
		g.Stop(t.Context())
		if diff := cmp.Diff([]string{"third", "second", "hook", "first"}, order); diff != "" {
			t.Error(diff)
		}
		if log.Len() > 0 {
			t.Error(log.String())
		}
		if ctx.Err() == nil {
			t.Error("the context outlives the group")
		}
	})
}

func TestThePartThatFailsFirstIsTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g, ctx := lifecycle.New(t.Context(), logger(&log))
		disk := errors.New("disk is full")
		g.Start(ctx, "store", func(context.Context) error { time.Sleep(time.Second); return disk })
		g.Start(ctx, "late", func(context.Context) error { time.Sleep(time.Minute); return errors.New("too late") })
		g.Start(ctx, "fine", func(context.Context) error { return nil })
		<-ctx.Done()
		if cause := context.Cause(ctx); !errors.Is(cause, disk) || cause.Error() != "store: disk is full" {
			t.Errorf("the cause is %v", cause)
		}
		time.Sleep(time.Hour)
		g.Stop(t.Context())
		if cause := context.Cause(ctx); !errors.Is(cause, disk) {
			t.Errorf("the cause became %v", cause)
		}
		if !strings.Contains(log.String(), "part=store") || !strings.Contains(log.String(), "disk is full") {
			t.Error(log.String())
		}
	})
}

func TestThePartsOutliveTheContextTheyWereStartedWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "kept"))
		var log bytes.Buffer
		g, ctx := lifecycle.New(parent, logger(&log))
		stopped, value := false, ""
		g.Start(ctx, "server", func(ctx context.Context) error {
			value, _ = ctx.Value(key{}).(string)
			<-ctx.Done()
			stopped = true
			return nil
		})
		cancel()
		synctest.Wait()
		if ctx.Err() == nil || stopped {
			t.Errorf("group context %v, part stopped %v: it stops when its turn comes", ctx.Err(), stopped)
		}
		g.Stop(t.Context())
		if !stopped || value != "kept" {
			t.Error(stopped, value)
		}
	})
}

type key struct{}

func TestAPartThatHangsDoesNotKeepTheOthersFromStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g, ctx := lifecycle.New(t.Context(), logger(&log))
		release := make(chan struct{})
		stopped := false
		g.OnStop("earlier", func(context.Context) error { stopped = true; return nil })
		g.Start(ctx, "stuck", func(context.Context) error { <-release; return nil })
		began := time.Now()
		deadline, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		g.Stop(deadline)
		if d := time.Since(began); d != 5*time.Second || !stopped {
			t.Errorf("stopped after %v, the part before it: %v", d, stopped)
		}
		if !strings.Contains(log.String(), "part=stuck") || !strings.Contains(log.String(), "did not stop in time") {
			t.Error(log.String())
		}
		close(release)
	})
}

func TestStoppingTwiceStopsOnce(t *testing.T) {
	var log bytes.Buffer
	g, ctx := lifecycle.New(t.Context(), logger(&log))
	n := 0
	g.OnStop("hook", func(context.Context) error { n++; return nil })
	g.Start(ctx, "part", blocks)
	g.Stop(t.Context())
	g.Stop(t.Context())
	if n != 1 {
		t.Errorf("the hook ran %d times", n)
	}
}
