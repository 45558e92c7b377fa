package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
	"github.com/edgefleet/edgefleet/observability"
)

// LoopOptions configure a Loop. All fields are required.
type LoopOptions struct {
	Target Target
	// To names the target for people.
	To      string
	Cluster fleet.ClusterID
	Member  fleet.MemberID
	// Every is the time between backups, Keep how many are kept.
	Every time.Duration
	Keep  int
	// Take writes a snapshot, gently.
	Take func(ctx context.Context, w io.Writer) (snapshot.Envelope, error)
	// Scratch is a directory for a backup on its way.
	Scratch   string
	Telemetry *observability.Telemetry
	Now       func() time.Time
}

const (
	// retry is the longest pause after an attempt that failed.
	retry = time.Minute
	// patience bounds one attempt: a service that takes the bytes and never answers must not end the schedule.
	patience = 30 * time.Minute
	// glance bounds a listing.
	glance = 2 * time.Minute
)

// Loop makes backups at intervals, on the leader. When the last one was made is read from the names at the target, so
// that a new leader goes on where the one before stopped. A backup counts once it was read back: until then it replaces
// none that is older.
type Loop struct {
	o     LoopOptions
	taken metric.Int64Counter

	mu     sync.Mutex
	active bool
	kept   []fleet.Backup
	last   *fleet.Backup
	err    error

	// verified names the backup that Run read back last.
	verified string
}

// NewLoop makes the loop; one a telemetry.
func NewLoop(o LoopOptions) *Loop {
	l := &Loop{o: o, taken: o.Telemetry.Counter("edgefleet_backups_total")}
	l.count(context.Background(), "ok", 0) // so that the first failure is an increase
	l.count(context.Background(), "failed", 0)
	o.Telemetry.Gauge("edgefleet_backup_age_seconds", func() []observability.Sample {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.active || l.last == nil {
			return nil
		}
		return []observability.Sample{{Value: l.o.Now().Sub(l.last.Time).Seconds()}}
	})
	return l
}

// Run makes backups until ctx ends.
func (l *Loop) Run(ctx context.Context) error {
	l.begin(true)
	defer l.begin(false)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		wait, err := l.step(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if l.result(ctx, err); err != nil {
			wait = min(l.o.Every, retry)
		}
		timer.Reset(wait)
	}
}

// begin starts or ends what this member knows as the one that makes backups.
func (l *Loop) begin(active bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active, l.kept, l.last, l.err = active, nil, nil, nil
	l.o.Telemetry.Health.Degrade("backup", nil)
}

func (l *Loop) result(ctx context.Context, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	l.o.Telemetry.Health.Degrade("backup", err)
	if err != nil {
		l.count(ctx, "failed", 1)
		l.o.Telemetry.Logger.ErrorContext(ctx, "scheduled backup failed, it is tried again", "err", err)
	}
}

func (l *Loop) count(ctx context.Context, result string, n int64) {
	l.taken.Add(ctx, n, metric.WithAttributes(attribute.String("result", result)))
}

func (l *Loop) know(kept []fleet.Backup, last *fleet.Backup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept, l.last = slices.Clone(kept), last
}

// step makes a backup if one is due, drops those that are too many, and says when the next is due.
func (l *Loop) step(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	kept, err := l.Kept(ctx)
	if err != nil {
		return 0, err
	}
	now := l.o.Now()
	last, doubt := l.trusted(ctx, newest(kept, now))
	l.know(kept, last)
	if last != nil {
		if wait := last.Time.Add(l.o.Every).Sub(now); doubt != nil && wait > 0 {
			return 0, doubt
		} else if wait > 0 {
			return min(wait, l.o.Every), l.prune(ctx, kept, last)
		}
	}
	b, err := l.take(ctx)
	if err != nil {
		return 0, err
	}
	kept = append(kept, b)
	l.know(kept, &b)
	l.count(ctx, "ok", 1)
	l.o.Telemetry.Logger.InfoContext(ctx, "backup made", "backup", b.Name, "index", b.Index)
	return l.o.Every, l.prune(ctx, kept, &b)
}

// trusted is last, or nil if it is damaged: another one is made then. One that cannot be read now is in doubt.
func (l *Loop) trusted(ctx context.Context, last *fleet.Backup) (*fleet.Backup, error) {
	if last == nil || last.Name == l.verified {
		return last, nil
	}
	switch _, err := l.verify(ctx, last.Name); {
	case errors.Is(err, fleet.ErrCorrupt):
		l.o.Telemetry.Logger.ErrorContext(ctx, "the newest backup is damaged, another one is made", "backup", last.Name, "err", err)
		return nil, nil
	case err != nil:
		return last, err
	}
	l.verified = last.Name
	return last, nil
}

// verify reads a backup back to its end.
func (l *Loop) verify(ctx context.Context, name string) (snapshot.Envelope, error) {
	r, err := l.o.Target.Get(ctx, name)
	if err != nil {
		return snapshot.Envelope{}, err
	}
	e, err := snapshot.Verify(&gentleReader{gentle{ctx: ctx}, r})
	if err = errors.Join(err, r.Close()); err != nil {
		return e, fmt.Errorf("read backup %s back: %w", name, err)
	}
	return e, nil
}

// newest is the last backup that was made before now: one that a clock which was wrong dated into the future must not
// keep others from being made.
func newest(kept []fleet.Backup, now time.Time) *fleet.Backup {
	for _, b := range slices.Backward(kept) {
		if !future(b, now) {
			return &b
		}
	}
	return nil
}

func future(b fleet.Backup, now time.Time) bool { return !b.Time.Before(now.Add(fleet.MaxClockSkew)) }

// prune deletes what is more than Keep: first what is dated into the future, which would never be the oldest, then the
// oldest.
func (l *Loop) prune(ctx context.Context, kept []fleet.Backup, last *fleet.Backup) error {
	for len(kept) > l.o.Keep {
		i := max(0, slices.IndexFunc(kept, func(b fleet.Backup) bool { return future(b, l.o.Now()) }))
		if err := l.o.Target.Delete(ctx, kept[i].Name); err != nil {
			return err
		}
		kept = slices.Delete(kept, i, i+1)
		l.know(kept, last)
	}
	return nil
}

// Kept lists the backups of this cluster at the target, the oldest first.
func (l *Loop) Kept(ctx context.Context) ([]fleet.Backup, error) {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	names, err := l.o.Target.List(ctx)
	if err != nil {
		return nil, err
	}
	var kept []fleet.Backup
	for _, name := range names {
		if b, ok := parseName(l.o.Cluster, name); ok {
			kept = append(kept, b)
		}
	}
	slices.SortFunc(kept, older)
	return kept, nil
}

// Newest opens the newest backup; fleet.ErrNotFound when there is none.
func (l *Loop) Newest(ctx context.Context) (fleet.Backup, io.ReadCloser, error) {
	kept, err := l.Kept(ctx)
	if err != nil {
		return fleet.Backup{}, nil, err
	}
	b := newest(kept, l.o.Now())
	if b == nil {
		return fleet.Backup{}, nil, fleet.NewError(fleet.ErrNotFound, "backup", "there is no backup of cluster %s at %s yet: see 'fleetctl cluster backups'", l.o.Cluster, l.o.To)
	}
	r, err := l.o.Target.Get(ctx, b.Name)
	return *b, r, err
}

// Status is how backups stand, as far as this member knows: the one that leads knows all of it.
func (l *Loop) Status() fleet.BackupStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := fleet.BackupStatus{
		Member: l.o.Member, To: l.o.To, EverySeconds: int64(l.o.Every.Seconds()), Keep: l.o.Keep, Last: l.last, Kept: append([]fleet.Backup{}, l.kept...),
	}
	if l.last != nil {
		s.AgeSeconds = max(0, int64(l.o.Now().Sub(l.last.Time).Seconds()))
	}
	if l.err != nil {
		s.Error = l.err.Error()
	}
	return s
}

// Check is how backups stand, for the readiness checks.
func (l *Loop) Check() fleet.Check {
	s := l.Status()
	c := fleet.Check{Name: "backups", State: fleet.CheckOK, Detail: "made by the leader: see 'fleetctl cluster backups'"}
	l.mu.Lock()
	active := l.active
	l.mu.Unlock()
	switch why := s.Stale(); {
	case !active:
	case why != "":
		c.State, c.Detail = fleet.CheckFail, why
	case s.Error != "":
		c.State, c.Detail = fleet.CheckWarn, fmt.Sprintf("the last one is %s old; the latest attempt failed: %s", time.Duration(s.AgeSeconds)*time.Second, s.Error)
	case s.Last == nil:
		c.Detail = "the first one is being made"
	default:
		c.Detail = fmt.Sprintf("the last one is %s old", time.Duration(s.AgeSeconds)*time.Second)
	}
	return c
}

// take makes one backup: into a file first, because the target wants to know how long it is.
func (l *Loop) take(ctx context.Context) (b fleet.Backup, err error) {
	f, err := os.CreateTemp(l.o.Scratch, "backup-*")
	if err != nil {
		return b, fmt.Errorf("make backup: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := os.Remove(f.Name()); err != nil { // it goes with the file's last user, however that ends
		return b, fmt.Errorf("make backup: %w", err)
	}
	e, err := l.o.Take(ctx, f)
	if err != nil {
		return b, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return b, fmt.Errorf("make backup: %w", err)
	}
	b = fleet.Backup{Time: e.Time.UTC().Truncate(time.Second), Index: e.Index}
	b.Name = nameOf(l.o.Cluster, b)
	if err := l.o.Target.Put(ctx, b.Name, f, size); err != nil {
		return b, err
	}
	got, err := l.verify(ctx, b.Name)
	if err == nil && (got.StateHash != e.StateHash || got.Index != e.Index) { // the same of two leaders is as good
		err = fleet.NewError(fleet.ErrCorrupt, "backup", "%s at %s is not what was written there", b.Name, l.o.To)
	}
	if errors.Is(err, fleet.ErrCorrupt) {
		return b, errors.Join(err, l.o.Target.Delete(ctx, b.Name))
	}
	l.verified = b.Name
	return b, err
}
