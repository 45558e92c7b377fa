package devfleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/edgefleet/edgefleet/fleet"
)

// Files and directories inside a fleet's directory.
const (
	markerFile = "devfleet.id"
	lockFile   = "devfleet.lock"
	socketFile = "control.sock"
	logDir     = "logs"
	configDir  = "config"
	dataDir    = "data"
	caDir      = "pebble"
)

// workdir is a fleet's directory, locked for as long as the fleet runs. Its marker holds a random id, which every
// process of the fleet carries in its environment.
type workdir struct {
	path string
	id   string
	lock *os.File
}

// openWorkdir takes the directory: it creates it, or wipes what a killed fleet left. It refuses a directory in
// which a fleet runs and one that is not a fleet's.
func openWorkdir(ctx context.Context, path string, out io.Writer) (*workdir, error) {
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read fleet directory: %w", err)
	}
	old, markerErr := os.ReadFile(filepath.Join(path, markerFile))
	if len(entries) > 0 && markerErr != nil {
		return nil, fleet.NewError(fleet.ErrConflict, "dir", "%s is not empty and was not made by devfleet: give another --dir, or empty it yourself", path)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make fleet directory: %w", err)
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	w := &workdir{path: path, id: rand.Text(), lock: lock}
	if len(entries) > 0 {
		_, _ = fmt.Fprintf(out, "wiping %s, which an earlier fleet left\n", path)
		if err := killMarked(ctx, strings.TrimSpace(string(old))); err != nil {
			return nil, errors.Join(err, w.Close())
		}
		if err := w.wipe(); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	if err := w.populate(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func takeLock(path string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(lock, 16)) // without the pid the message still says what to do
		return nil, errors.Join(fleet.NewError(fleet.ErrConflict, "dir", "a devfleet (pid %s) already runs in %s: stop it with Ctrl-C or 'kill %s', or give another --dir and --address-block",
			strings.TrimSpace(string(pid)), path, strings.TrimSpace(string(pid))), lock.Close())
	}
	if err := lock.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock: %w", err), lock.Close())
	}
	if _, err := fmt.Fprintf(lock, "%d\n", os.Getpid()); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock: %w", err), lock.Close())
	}
	return lock, nil
}

func (w *workdir) populate() error {
	if err := os.WriteFile(w.join(markerFile), []byte(w.id+"\n"), 0o600); err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	for _, d := range []string{logDir, configDir, dataDir, caDir} {
		if err := os.Mkdir(w.join(d), 0o700); err != nil {
			return fmt.Errorf("make fleet directory: %w", err)
		}
	}
	return nil
}

// wipe removes everything but the lock. The marker goes last, so that a wipe that was cut short is tried again.
func (w *workdir) wipe() error {
	entries, err := os.ReadDir(w.path)
	if err != nil {
		return fmt.Errorf("wipe fleet directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() == lockFile || e.Name() == markerFile {
			continue
		}
		if err := os.RemoveAll(w.join(e.Name())); err != nil {
			return fmt.Errorf("wipe fleet directory: %w", err)
		}
	}
	if err := os.Remove(w.join(markerFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("wipe fleet directory: %w", err)
	}
	return nil
}

// remove deletes the directory; the lock is held until the end.
func (w *workdir) remove() error {
	if err := w.wipe(); err != nil {
		return err
	}
	if err := os.RemoveAll(w.path); err != nil {
		return fmt.Errorf("remove fleet directory: %w", err)
	}
	return nil
}

// Close gives up the lock.
func (w *workdir) Close() error { return w.lock.Close() }

func (w *workdir) join(elem ...string) string {
	return filepath.Join(append([]string{w.path}, elem...)...)
}

// data is the data directory of one process.
func (w *workdir) data(name string) string   { return w.join(dataDir, name) }
func (w *workdir) log(name string) string    { return w.join(logDir, name+".log") }
func (w *workdir) config(name string) string { return w.join(configDir, name) }
