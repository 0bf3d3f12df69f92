package notify

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Yield lets others go first: goroutines that wait for a connection or another socket, and
// whoever else wants this processor. Who drains a socket that never gets empty calls it
// between two batches, because the runtime asks its poller by itself only when a processor
// has nothing else to do, or 10 ms have passed.
func Yield() {
	_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	if y := yielding(); y != nil {
		y.turn.Lock()
		defer y.turn.Unlock()
		_ = y.conn.Read(y.pass) // it is never closed, and nothing can fail
		return
	}
	runtime.Gosched()
}

// yielder parks a goroutine on an event that has happened already: so it goes to the end
// of the queue of all whom the poller knows to be ready.
type yielder struct {
	file *os.File
	conn syscall.RawConn
	pass func(fd uintptr) bool // yielder.poke, bound once
	over bool                  // of who has the turn
	turn sync.Mutex            // hands itself on; that of RawConn.Read goes to who comes first, which is who had it
}

// yielding is nil where there was no descriptor left for it.
var yielding = sync.OnceValue(func() *yielder {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil
	}
	y := &yielder{file: os.NewFile(uintptr(fd), "yield")}
	if y.conn, err = y.file.SyscallConn(); err != nil {
		y.file.Close()
		return nil
	}
	y.pass = y.poke
	return y
})

var one uint64 = 1

// poke makes the event. Every write is one, also if nobody reads: the poller is
// edge-triggered. The count would overflow after 2^64 of them.
func (y *yielder) poke(fd uintptr) bool {
	if y.over {
		y.over = false
		return true
	}
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
	y.over = errno == 0
	return !y.over
}
