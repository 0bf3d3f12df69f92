package stopwatch

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NewSleep returns a function that sleeps like time.Sleep, for a third of the
// processor time when it is called again and again: it is woken by a timer of the
// kernel, through the runtime's poller, which wakes one thread. A timer of the runtime
// wakes two, and so does a sleep in a system call, from which the runtime's monitor
// wants the processor back.
//
// One goroutine may use it at a time. Inside of a testing/synctest bubble it sleeps in
// real time.
func NewSleep() func(time.Duration) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil { // no descriptors left, or a seccomp profile
		return time.Sleep
	}
	s := &sleeper{file: os.NewFile(uintptr(fd), "timerfd")} // closed when it is collected
	raw, err := s.file.SyscallConn()
	if err != nil {
		return time.Sleep
	}
	over := s.over // bound once: a method value is an allocation
	return func(d time.Duration) {
		s.left = max(d, 1)
		if raw.Read(over) != nil {
			time.Sleep(d)
		}
	}
}

type sleeper struct {
	file *os.File
	left time.Duration // to be set; 0 once it is
	spec unix.ItimerSpec
}

// over sets the timer when it is called first; when next, it has expired, for nothing
// else wakes who waits for it. That it has is never read: to set it anew takes that back.
// The call is raw because it does not block: to be told of it costs the runtime more
// than the call.
func (s *sleeper) over(fd uintptr) bool {
	if s.left > 0 {
		s.spec.Value = unix.NsecToTimespec(int64(s.left))
		s.left = 0
		_, _, errno := unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&s.spec)), 0, 0, 0)
		return errno != 0
	}
	return true
}
