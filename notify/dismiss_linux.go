package notify

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// closersMost bounds the goroutines, and with them the threads, that are at work or
// hang in close(2), of the whole process.
const closersMost = 16

// straysMost is how many descriptors may wait to be closed before Listeners take no
// more of them: see ration.
const straysMost = 1024

// strays are descriptors of others that wait to be closed.
var strays struct {
	waiting atomic.Int32 // len(queue), for those who only look

	mu       sync.Mutex
	queue    []int
	closers  int
	refusing []*receiver
}

// Dismiss closes a descriptor that somebody else has sent, and waits for nothing.
//
// A sender chooses what he sends. Closing a socket can take as long as its SO_LINGER
// says, closing a file as long as a file system on the network or in user space likes:
// for ever, if the sender wants it so. A pipe is closed when Dismiss returns, because that
// is what the sender of a barrier waits for. (It takes long only if somebody who writes to
// it hangs in a page fault, on a file system that hangs, too: see docs/threats.md.) All else is
// closed soon, by one of up to 16 goroutines. If all of them hang the rest waits for
// them, which does no harm but take up numbers of open files: a [Listener] takes no
// descriptors while more than 1024 wait, if the kernel has SO_PASSRIGHTS (Linux 6.16).
// On an older one they are bounded by the limit of open files (RLIMIT_NOFILE) alone.
func Dismiss(fd int) {
	if IsPipe(fd) {
		unix.Close(fd)
		return
	}
	strays.mu.Lock()
	defer strays.mu.Unlock()
	strays.queue = append(strays.queue, fd)
	strays.waiting.Store(int32(len(strays.queue)))
	if strays.closers < closersMost {
		strays.closers++
		go closeStrays()
	}
}

// IsPipe reports whether a descriptor is one end of a pipe. It does not wait for a file
// system.
func IsPipe(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0) // fstat would ask the file system
	return err == nil
}

// closeStrays ends when nothing waits.
func closeStrays() {
	for {
		fd, ok := nextStray()
		if !ok {
			return
		}
		unix.Close(fd)
	}
}

func nextStray() (fd int, ok bool) {
	strays.mu.Lock()
	defer strays.mu.Unlock()
	if len(strays.queue) == 0 {
		strays.queue = nil
		strays.closers--
		return -1, false
	}
	fd = strays.queue[0]
	strays.queue = strays.queue[1:]
	strays.waiting.Store(int32(len(strays.queue)))
	if len(strays.queue) == straysMost/2 {
		for _, r := range strays.refusing { // nobody could send what would have them look
			r.refuses.Store(false)
			r.takeRights(1)
		}
		strays.refusing = nil
	}
	return fd, true
}

// ration has the kernel refuse datagrams with descriptors (EPERM for the sender) while
// too many wait to be closed, or one sender could use up the numbers of open files,
// and with them everybody's pidfds. Plain datagrams are heard as ever.
func (r *receiver) ration() {
	if strays.waiting.Load() <= straysMost || r.refuses.Load() {
		return
	}
	strays.mu.Lock()
	defer strays.mu.Unlock()
	if len(strays.queue) <= straysMost {
		return
	}
	r.refuses.Store(true)
	r.takeRights(0)
	strays.refusing = append(strays.refusing, r)
}

// takeRights sets SO_PASSRIGHTS. Linux before 6.16 does not know it.
func (r *receiver) takeRights(yes int) {
	_ = r.conn.Control(func(fd uintptr) { // an error: it is closed
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS, yes)
	})
}
