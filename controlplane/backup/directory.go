package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// maxHanging is how many calls of a file system that does not answer are waited for at one time.
const maxHanging = 8

// directory keeps backups in a directory of the leader's host; a mount that all members share makes them one place. A
// mount whose server is gone hangs, and nothing ends such a call: it is left behind when its context ends, so that the
// leader is not held up.
type directory struct {
	path string
	// calls has room for those that may hang.
	calls chan struct{}
}

// Directory is a target in the file system. It is made when the first backup is.
func Directory(path string) Target { return directory{path, make(chan struct{}, maxHanging)} }

// within returns what call returns, or an error when ctx ends before.
func (d directory) within(ctx context.Context, call func() error) error {
	select {
	case d.calls <- struct{}{}:
	case <-ctx.Done():
		return d.hangs(ctx)
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-d.calls }()
		done <- call()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return d.hangs(ctx)
	}
}

func (d directory) hangs(ctx context.Context) error {
	return fleet.NewError(fleet.ErrTimeout, "backup.to", "the directory of the backups, %s, did not answer in time (%v): is its mount there?", d.path, ctx.Err())
}

// Put implements Target.
func (d directory) Put(ctx context.Context, name string, r io.Reader, _ int64) error {
	return d.within(ctx, func() error { return d.put(name, r) })
}

func (d directory) put(name string, r io.Reader) error {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fmt.Errorf("make backup directory: %w", err)
	}
	d.sweep()
	f, err := os.CreateTemp(d.path, unfinished+"*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(d.path, name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write backup %s: %w", name, err), os.Remove(f.Name()))
	}
	dir, err := os.Open(d.path)
	if err != nil {
		return fmt.Errorf("sync backup directory: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

const (
	// unfinished begins the name of a file that is being written, abandoned is when nobody does any more.
	unfinished = ".tmp-"
	abandoned  = 24 * time.Hour
)

// sweep removes what a member that was killed left behind; it is tried again each time.
func (d directory) sweep() {
	left, _ := filepath.Glob(filepath.Join(d.path, unfinished+"*")) // the only error is a bad pattern
	for _, path := range left {
		if i, err := os.Stat(path); err == nil && time.Since(i.ModTime()) > abandoned {
			_ = os.Remove(path)
		}
	}
}

// List implements Target.
func (d directory) List(ctx context.Context) ([]string, error) {
	found := make(chan []string, 1)
	err := d.within(ctx, func() error {
		names, err := d.list()
		found <- names
		return err
	})
	if err != nil {
		return nil, err
	}
	return <-found, nil
}

func (d directory) list() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), unfinished) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Get implements Target.
func (d directory) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() {
		_ = w.CloseWithError(d.within(ctx, func() error { return d.copy(w, name) })) // it always returns nil
	}()
	return r, nil
}

// copy ends when the reader of w is closed.
func (d directory) copy(w io.Writer, name string) error {
	f, err := os.Open(filepath.Join(d.path, filepath.Base(name)))
	if err != nil {
		return fmt.Errorf("open backup: %w", err)
	}
	_, err = io.Copy(w, f)
	return errors.Join(err, f.Close())
}

// Delete implements Target.
func (d directory) Delete(ctx context.Context, name string) error {
	return d.within(ctx, func() error {
		if err := os.Remove(filepath.Join(d.path, filepath.Base(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete backup: %w", err)
		}
		return nil
	})
}
