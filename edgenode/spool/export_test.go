package spool

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
)

// Record and Scan open the record format to tests.
var (
	AppendRecord = appendRecord
	DecodeRecord = decodeRecord
	Scan         = scan
)

// OpenOn opens a spool whose segments are on the given disk.
func OpenOn(o Options, d *Disk) (*Spool, error) { return open(o, d) }

// Crash drops every open file, as a killed process does: nothing is flushed or saved.
func (s *Spool) Crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.journals {
		_ = j.close()
	}
	s.journals = nil
}

// Disk fails on demand. A failing write leaves half of its bytes behind, as a full disk does.
type Disk struct {
	FailCreate, FailWrite, FailSync atomic.Bool
	Syncs                           atomic.Int64
}

func (d *Disk) create(path string) (file, error) {
	if d.FailCreate.Load() {
		return nil, syscall.ENOSPC
	}
	f, err := diskFiles{}.create(path)
	if err != nil {
		return nil, err
	}
	return failing{f.(*os.File), d}, nil
}

type failing struct {
	*os.File
	d *Disk
}

func (f failing) WriteAt(b []byte, off int64) (int, error) {
	if f.d.FailWrite.Load() {
		n, err := f.File.WriteAt(b[:len(b)/2], off)
		return n, errors.Join(err, syscall.ENOSPC)
	}
	return f.File.WriteAt(b, off)
}

// Truncate fails with the disk, so that what a failed write left behind stays there.
func (f failing) Truncate(size int64) error {
	if f.d.FailWrite.Load() || f.d.FailSync.Load() {
		return syscall.EIO
	}
	return f.File.Truncate(size)
}

func (f failing) Sync() error {
	f.d.Syncs.Add(1)
	if f.d.FailSync.Load() {
		return syscall.EIO
	}
	return f.File.Sync()
}
