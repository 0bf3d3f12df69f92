package proc

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reflex continues a child of ours that stops itself by SIGSTOP in the moment in which
// waitid(2) tells of it: on the thread that is woken, before the Go runtime has that
// thread back. The runtime first looks for a processor and wakes its monitor, another
// thread, which takes several times as long as waitid, poll and the signal together.
//
// Whether a stop is answered is for others to say, in time: see Arm.
type Reflex struct {
	pid int32 // who is answered; 0: nobody. Atomic.

	// Of the goroutine in Wait. It is on the heap, which does not move, because the
	// kernel is given bare addresses.
	info  [128]byte // siginfo_t
	pidfd int
	poll  unix.PollFd
	now   unix.Timespec // zero
}

// Arm has the next stop of a child answered, until Disarm, unless something is queued on
// the socket ear, which it may have said before.
func (r *Reflex) Arm(pid int) { atomic.StoreInt32(&r.pid, int32(pid)) }

// Disarm has no stop answered from now on. Whoever takes something from the socket calls
// it before: what is queued there nowhere else keeps a stop from being answered.
func (r *Reflex) Disarm() { atomic.StoreInt32(&r.pid, 0) }

// Armed returns whose stop is answered now, 0 for nobody's.
func (r *Reflex) Armed() int { return int(atomic.LoadInt32(&r.pid)) }

// Waitid is waitid(2) for any child, with WNOWAIT: a child that has ended keeps its
// number. The stop of a child that Arm has named is answered by pidfd, which is that
// child's and stays open meanwhile. One goroutine may use it at a time.
func (r *Reflex) Waitid(info *unix.Siginfo, options, pidfd, ear int) (answered bool, err error) {
	for {
		clear(r.info[:])
		r.pidfd, r.poll = pidfd, unix.PollFd{Fd: int32(ear), Events: unix.POLLIN}
		answered, errno := r.wait(uintptr(options | unix.WNOWAIT))
		if errno == unix.EINTR {
			continue
		}
		*info = *(*unix.Siginfo)(unsafe.Pointer(&r.info))
		if errno != 0 {
			return false, errno
		}
		return answered, nil
	}
}

// What the runtime does around a system call that may block. That they can be had is
// promised: see the comment at entersyscall in its proc.go. In between nothing may grow
// the stack or allocate, and the runtime goes on as if this were one system call.
//
//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// cldStopped is CLD_STOPPED of the kernel's asm-generic/siginfo.h.
const cldStopped = 5

//go:nosplit
//go:norace
//go:nocheckptr
func (r *Reflex) wait(options uintptr) (answered bool, errno unix.Errno) {
	entersyscall()
	_, _, errno = unix.RawSyscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&r.info)), options, 0, 0)
	// siginfo_t of waitid, on 64-bit machines: signo, errno, code, padding, pid, uid, status.
	info := (*[7]int32)(unsafe.Pointer(&r.info))
	if errno == 0 && info[2] == cldStopped && info[6] == int32(unix.SIGSTOP) && load(&r.pid) == info[4] {
		n, _, e := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&r.poll)), 1, uintptr(unsafe.Pointer(&r.now)), 0, 0, 0)
		// Armed still: nobody has taken anything from the socket before it was looked at.
		if n == 0 && e == 0 && load(&r.pid) == info[4] {
			_, _, e = unix.RawSyscall6(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(r.pidfd), uintptr(unix.SIGCONT), 0, 0, 0, 0)
			answered = e == 0
			// Waking us, it has left us its processor, where it goes on once we leave that.
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
	}
	exitsyscall()
	return answered, errno
}
