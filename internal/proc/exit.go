package proc

import (
	"context"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Exit tells how a process ended.
type Exit struct {
	Code   int         // what it gave to exit(3); 0 if Signal is set
	Signal unix.Signal // the signal that killed it; 0 if it exited
}

// ExitOf reads a wait status as of wait(2).
func ExitOf(status unix.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Signal: status.Signal()}
	}
	return Exit{Code: status.ExitStatus()}
}

// String returns "exited 3" or "killed by SIGKILL".
func (e Exit) String() string {
	if e.Signal != 0 {
		return "killed by " + name(e.Signal)
	}
	return "exited " + strconv.Itoa(e.Code)
}

// Status returns what a shell shows: the code, or 128 and the signal's number.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

// Exit waits until the process has been reaped by its parent, and tells how it
// ended, whosever child it was. The kernel tells since Linux 6.15
// (PIDFD_INFO_EXIT), to those who opened the pidfd before; otherwise, and for
// processes that are not visible from here, the error is ErrUnknown. A parent
// that does not reap keeps it waiting: bound it by the context.
func (h *Handle) Exit(ctx context.Context) (Exit, error) {
	if err := h.await(ctx, h.ended); err != nil {
		return Exit{}, err
	}
	// Do not wait for a reaper where the kernel would not tell us anyway, or
	// (before Linux 6.9) not even that it came.
	info, err := h.info(unix.PIDFD_INFO_EXIT)
	if h.ino == 0 || err == unix.ENOTTY || err == unix.EINVAL || err == unix.EREMOTE {
		return Exit{}, fmt.Errorf("cannot tell how process %v ended: %w", h.id, ErrUnknown)
	}
	if err := h.await(ctx, h.reaped); err != nil {
		return Exit{}, err
	}
	if info, err = h.info(unix.PIDFD_INFO_EXIT); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return Exit{}, fmt.Errorf("cannot tell how process %v ended: %w", h.id, ErrUnknown)
	}
	return ExitOf(unix.WaitStatus(info.Exit_code)), nil
}

// CgroupID returns the number of the process's cgroup in the unified hierarchy:
// the inode number of its directory. The kernel tells since Linux 6.13, and for
// dead processes since 6.15; any user may ask. It is false where it does not tell.
func (h *Handle) CgroupID() (uint64, bool) {
	// Of a dead process it tells together with the exit only.
	info, err := h.info(unix.PIDFD_INFO_CGROUPID | unix.PIDFD_INFO_EXIT)
	if err != nil || info.Mask&unix.PIDFD_INFO_CGROUPID == 0 {
		return 0, false
	}
	return info.Cgroupid, true
}

// CgroupOf is [Handle.CgroupID] for a pidfd.
func CgroupOf(pidfd int) (uint64, bool) {
	info, err := infoOf(pidfd, unix.PIDFD_INFO_CGROUPID|unix.PIDFD_INFO_EXIT)
	if err != nil || info.Mask&unix.PIDFD_INFO_CGROUPID == 0 {
		return 0, false
	}
	return info.Cgroupid, true
}

// Names reports whether the process of a pidfd still has its number: see [Handle.Holds].
func Names(pidfd int) bool { return !reaped(pidfd) }
