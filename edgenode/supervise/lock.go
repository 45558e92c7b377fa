package supervise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/edgefleet/edgefleet/fleet"
)

const lockFile = "supervisor.lock"

// lockDir takes the data directory for this process; the kernel releases it with the process.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, syscall.EROFS) {
		f, err = os.Open(path) // a disk that went read-only still holds all that serving needs
	}
	if err != nil {
		return nil, fleet.Invalid("data_dir", "cannot lock the data directory: %v", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		record(f)
		return f, nil
	}
	holder, readErr := io.ReadAll(io.LimitReader(f, 32))
	err = errors.Join(err, readErr, f.Close())
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fleet.NewError(fleet.ErrConflict, "data_dir", "another edgesupervisor (process %s) uses %s: stop it, or give this one its own data_dir",
			strings.TrimSpace(string(holder)), dir)
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// record writes our process id into the lock file, for the message above. On a full disk there is none: that is no reason
// not to serve.
func record(f *os.File) {
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
}
