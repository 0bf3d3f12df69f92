package proc

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Raise sends a signal to the calling thread (raise(3)). One that stops the process
// stops it before Raise returns; one that the kernel ignores does nothing: a stop by
// job control where nobody could continue us, in an orphaned process group.
func Raise(sig unix.Signal) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), sig); err != nil {
		return fmt.Errorf("cannot raise %s: %w", name(sig), err)
	}
	return nil
}
