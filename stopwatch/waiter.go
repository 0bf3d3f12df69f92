package stopwatch

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"github.com/podnotify/podnotify/internal/proc"
	"golang.org/x/sys/unix"
)

// Waiter waits for all children of this process: those it started and, if it is
// process 1 or a subreaper (PR_SET_CHILD_SUBREAPER; the caller's business), the
// orphans it adopted. It reaps them all, so nobody else in this process may wait
// for any: no [os/exec.Cmd.Wait].
type Waiter struct {
	fs     proc.FS
	report func(Transition)
	living map[int]proc.ID // children that are known: their numbers are theirs until we reap them
}

// NewWaiter returns a waiter that hands what it is told to report, one call at a
// time, on the goroutine of Run, in the order of the kernel. An end is reported
// before the child is reaped. From now on this process gets no SIGCHLD for children that
// stop or go on, only for those that end.
func NewWaiter(fs proc.FS, report func(Transition)) *Waiter {
	unsignalled()
	return &Waiter{fs: fs, report: report, living: map[int]proc.ID{}}
}

// Knows spares the Waiter to ask who a child is, which has not been reaped yet, when it
// stops. It is to be called before Run.
func (w *Waiter) Knows(child proc.ID) { w.living[child.PID] = child }

// Run waits until there are no children left, and returns nil. It blocks a thread
// in waitid(2) and cannot be called off. Once there are children again it may be
// called again; only one Run may be under way.
func (w *Waiter) Run() error {
	deepen()
	const all = unix.WEXITED | unix.WSTOPPED | unix.WCONTINUED
	for {
		// A thread in waitid keeps its processor until the runtime's monitor takes it
		// away, which may be 10 ms later. What the last report has set going goes first.
		runtime.Gosched()
		// Look first, take afterwards: as long as a zombie is not reaped its
		// number and its start time are its own.
		seen, err := waitid(unix.P_ALL, 0, all|unix.WNOWAIT)
		if errors.Is(err, unix.ECHILD) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot wait for children: %w", err)
		}
		who, ok := w.living[int(seen.pid)]
		if !ok {
			who.PID = int(seen.pid)
			if s, err := w.fs.Stat(who.PID); err == nil {
				who = s.ID()
				w.living[who.PID] = who
			}
		}
		if seen.kind() == Ended {
			// Told while it is a zombie: what it left behind is our child by now, and
			// nothing of it has been given away.
			w.report(seen.transition(who, time.Now()))
			if _, err := waitid(unix.P_PID, who.PID, unix.WEXITED); err != nil && !errors.Is(err, unix.ECHILD) {
				return fmt.Errorf("cannot reap process %v: %w", who, err)
			}
			delete(w.living, who.PID)
			continue
		}
		taken, err := waitid(unix.P_PID, who.PID, all|unix.WNOHANG)
		if err != nil && !errors.Is(err, unix.ECHILD) {
			return fmt.Errorf("cannot wait for process %v: %w", who, err)
		}
		now := time.Now()
		// Somebody may have continued or killed it in between. Then its stop can
		// be taken no more, but it was seen.
		if seen.kind() == Stopped && taken.kind() != Stopped {
			w.report(seen.transition(who, now))
		}
		if taken.kind() != 0 {
			w.report(taken.transition(who, now))
		}
	}
}

// sigaction is the kernel's struct sigaction, the same on all 64-bit machines that have
// SA_RESTORER or room for it.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// unsignalled spares this process the SIGCHLD for each stop and continuation of a child
// (SA_NOCLDSTOP), of which waitid tells. Some thread of ours would be woken for it and run
// the runtime's handler, before or instead of the one in waitid, and the child that goes on
// sends another before it does. What the runtime does about the signal stays as it is.
func unsignalled() {
	var a sigaction
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), 0, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a.mask), 0, 0); errno == 0 {
		a.flags |= 1 // SA_NOCLDSTOP
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&a)), 0, unsafe.Sizeof(a.mask), 0, 0)
	}
}

// deepen has the stack of this goroutine grow now to what a report needs: to copy it takes
// as long as all else between a stop and the answer. It stays so, because the runtime leaves
// the stack of who is in a system call alone.
func deepen() {
	var room [6 << 10]byte
	touch(room[:])
}

//go:noinline
func touch(b []byte) { b[0] = 1 }

// siginfo is the part of siginfo_t that waitid(2) fills in, as laid out on 64-bit
// machines.
type siginfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
	_                     [unsafe.Sizeof(unix.Siginfo{}) - 28]byte
}

func waitid(kind, id, options int) (siginfo, error) {
	for {
		var si siginfo
		err := unix.Waitid(kind, id, (*unix.Siginfo)(unsafe.Pointer(&si)), options, nil)
		if err != unix.EINTR {
			return si, err
		}
	}
}

// The values of si_code for SIGCHLD, from the kernel's asm-generic/siginfo.h.
const (
	cldExited    = 1
	cldKilled    = 2
	cldDumped    = 3
	cldStopped   = 5
	cldContinued = 6
)

// kind returns what happened, 0 for nothing (WNOHANG).
func (si *siginfo) kind() Kind {
	switch si.code {
	case cldExited, cldKilled, cldDumped:
		return Ended
	case cldStopped:
		return Stopped
	case cldContinued:
		return Continued
	}
	return 0
}

func (si *siginfo) transition(who proc.ID, at time.Time) Transition {
	t := Transition{Who: who, Kind: si.kind(), At: at, Seen: Waited}
	switch si.code {
	case cldExited:
		t.Exit = &proc.Exit{Code: int(si.status)}
	case cldKilled, cldDumped:
		t.Exit = &proc.Exit{Signal: unix.Signal(si.status)}
	case cldStopped:
		t.Signal = unix.Signal(si.status)
	}
	return t
}
