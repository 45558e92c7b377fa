package events

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edgefleet/edgefleet/fleet"
)

// Stream is the name of the JetStream stream of events.
const Stream = "EVENTS"

// maxReplicas bounds the copies of the stream: it is only a buffer.
const maxReplicas = 3

// duplicateWindow is shorter than the time after which a node sends again: a resend must reach the members, because it is
// how an acknowledgement that was lost comes again. The store recognises duplicates at any distance.
const duplicateWindow = 2 * time.Second

func streamConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        Stream,
		Description: "Attack events on their way from nodes to members; nodes send again what is lost here.",
		Subjects:    []string{fleet.NodeID("*").EventSubject()},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		MaxAge:      time.Hour,
		MaxBytes:    1 << 30,
		MaxMsgSize:  fleet.MaxEventBytes + 1<<10, // headers count
		Storage:     jetstream.FileStorage,
		Duplicates:  duplicateWindow,
		Replicas:    max(1, min(replicas, maxReplicas)),
	}
}

// EnsureStream creates the stream of events with that many replicas (3 at most), or brings it to this configuration.
func EnsureStream(ctx context.Context, js jetstream.JetStream, replicas int) error {
	if _, err := js.CreateOrUpdateStream(ctx, streamConfig(replicas)); err != nil {
		return fmt.Errorf("ensure stream of events: %w", err)
	}
	return nil
}

// ensureStream leaves an existing stream alone, except that it adds replicas when there are members for them. A stream
// that is missing is made with fewer replicas rather than not at all: a copy is worth less than events that flow.
func ensureStream(ctx context.Context, js jetstream.JetStream, replicas int) error {
	want := streamConfig(replicas).Replicas
	st, err := js.Stream(ctx, Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if err = EnsureStream(ctx, js, want); err != nil && want > 1 {
			err = EnsureStream(ctx, js, 1)
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("look for stream of events: %w", err)
	}
	if st.CachedInfo().Config.Replicas < want {
		// It works with fewer; the next look tries again.
		_ = EnsureStream(ctx, js, want)
	}
	return nil
}
