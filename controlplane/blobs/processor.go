package blobs

import (
	"runtime"
	"syscall"
	"time"
)

// processorTime begins to count the processor time of the calling goroutine, which keeps its thread until it calls the
// function that is returned; that is to be called once, and says how much it was.
func processorTime() func() time.Duration {
	runtime.LockOSThread()
	before := threadTime()
	return func() time.Duration {
		defer runtime.UnlockOSThread()
		return threadTime() - before
	}
}

// threadTime is the processor time of the calling thread.
func threadTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &r); err != nil {
		return 0 // it fails for wrong arguments only
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
