package sidecar

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/notify"
)

// storedName is the name of descriptors that were sent without one.
const storedName = "stored"

// fdStore keeps descriptors of a daemon over its respawns (systemd's
// FileDescriptorStoreMax=). It outlives the instance that filled it.
type fdStore struct {
	max int

	mu    sync.Mutex
	kept  []stored
	epoll *os.File // watches those that may hang up; nil until there are any
	ep    int      // its number
	work  sync.WaitGroup
}

// stored is a bare number: an os.File would change whether it blocks, which is a
// setting that the daemon shares.
type stored struct {
	name string
	fd   int
}

func newFDStore(most int) *fdStore { return &fdStore{max: most} }

// add keeps descriptors under a name, and owns them from here on. It returns how
// many it refused, because the store is full, and dismissed. One that is stored
// already, another number of the same open file, is dropped in silence.
func (f *fdStore) add(fds []int, name string, poll bool) (refused int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fd := range fds {
		switch {
		case f.has(fd):
			notify.Dismiss(fd)
		case len(f.kept) >= f.max:
			notify.Dismiss(fd)
			refused++
		default:
			f.kept = append(f.kept, stored{name, fd})
			if poll {
				f.watch(fd)
			}
		}
	}
	return refused
}

// has reports whether fd is another number of an open file that is kept.
func (f *fdStore) has(fd int) bool {
	self := os.Getpid()
	for _, k := range f.kept {
		const kcmpFile = 0
		// kcmp needs no privilege between our own descriptors. Where seccomp
		// refuses it (containers without CAP_SYS_PTRACE), the same inode of a
		// socket or pipe is the same thing; files may be opened twice.
		r, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(self), uintptr(self), kcmpFile, uintptr(k.fd), uintptr(fd), 0)
		if errno == 0 {
			if r == 0 {
				return true
			}
			continue
		}
		var a, b unix.Stat_t
		if unix.Fstat(k.fd, &a) == nil && unix.Fstat(fd, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino &&
			(a.Mode&unix.S_IFMT == unix.S_IFSOCK || a.Mode&unix.S_IFMT == unix.S_IFIFO) {
			return true
		}
	}
	return false
}

// remove closes all descriptors of a name.
func (f *fdStore) remove(name string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.drop(func(k stored) bool { return k.name == name })
}

func (f *fdStore) drop(which func(stored) bool) (n int) {
	kept := f.kept[:0]
	for _, k := range f.kept {
		if which(k) {
			// Closing is not enough: an open file stays in the epoll set, and
			// tells of its hang-up for ever, while the daemon has it, too.
			if f.epoll != nil {
				_ = unix.EpollCtl(f.ep, unix.EPOLL_CTL_DEL, k.fd, nil)
			}
			notify.Dismiss(k.fd)
			n++
		} else {
			kept = append(kept, k)
		}
	}
	clear(f.kept[len(kept):])
	f.kept = kept
	return n
}

// count is how many descriptors are kept.
func (f *fdStore) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.kept)
}

// handBack returns what is kept, in order, and the names joined by colons. They are
// numbers of the caller's own, because one that hangs up is closed here meanwhile.
func (f *fdStore) handBack() (fds []int, names string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, k := range f.kept {
		fd, err := unix.FcntlInt(uintptr(k.fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil { // no numbers left: the rest comes with the next start
			break
		}
		fds = append(fds, fd)
		all = append(all, k.name)
	}
	return fds, strings.Join(all, ":")
}

// watch drops a descriptor when it hangs up. One that cannot be polled, a file,
// is simply not watched. The lock is held.
func (f *fdStore) watch(fd int) {
	if f.epoll == nil {
		ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return
		}
		_ = unix.SetNonblock(ep, true) // so that the runtime's poller takes it
		f.epoll, f.ep = os.NewFile(uintptr(ep), "fdstore"), ep
		file := f.epoll
		f.work.Go(func() { f.hangUps(file) })
	}
	// EPOLLHUP and EPOLLERR are always told.
	_ = unix.EpollCtl(f.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Fd: int32(fd)})
}

// hangUps parks until something hangs up, and ends when the epoll is closed.
func (f *fdStore) hangUps(epoll *os.File) {
	conn, err := epoll.SyscallConn()
	if err != nil {
		return
	}
	events := make([]unix.EpollEvent, 16)
	_ = conn.Read(func(ep uintptr) bool {
		for {
			n, err := unix.EpollWait(int(ep), events, 0)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return false
			}
			f.mu.Lock()
			for _, e := range events[:n] {
				// The number may be another descriptor's by now.
				f.drop(func(k stored) bool { return k.fd == int(e.Fd) && hungUp(k.fd) })
			}
			f.mu.Unlock()
		}
	})
}

// hungUp reports POLLHUP or POLLERR, which are told unasked.
func hungUp(fd int) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 0)
		if err != unix.EINTR { // which a pending signal makes of 0, also without waiting
			return n > 0 && err == nil
		}
	}
}

// close closes everything.
func (f *fdStore) close() {
	f.mu.Lock()
	f.drop(func(stored) bool { return true })
	ep := f.epoll
	f.epoll = nil
	f.mu.Unlock()
	if ep != nil {
		ep.Close()
	}
	f.work.Wait()
}

// validFDName is systemd's fdname_is_valid: printable ASCII without the colon
// that joins names, at most 255 bytes; empty is allowed.
func validFDName(name []byte) bool {
	if len(name) > 255 {
		return false
	}
	for _, c := range name {
		if c < ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return true
}

// storeFDs is FDSTORE=1 and FDSTOREREMOVE=1. The second wins if both are there.
func (s *Service) storeFDs(p *notify.Packet) {
	m := &p.Message
	name, named := m.Value(notify.KeyFDName)
	if named && !validFDName(name) {
		s.bad("FDNAME")
		name, named = nil, false
	}
	switch {
	case m.Has(notify.FlagFDStoreRemove):
		if named {
			s.store.remove(string(name))
		}
	case !m.Has(notify.FlagFDStore):
	case s.store.max == 0:
		s.dropped["fdstore-off"] += uint64(len(p.FDs))
		for _, fd := range p.TakeFDs() { // or they would be counted twice
			notify.Dismiss(fd)
		}
	default:
		label := storedName
		if named {
			label = string(name)
		}
		if n := s.store.add(p.TakeFDs(), label, !m.Has(notify.FlagFDPollOff)); n > 0 {
			s.dropped["fdstore-full"] += uint64(n)
			s.warn("fdstore-full", fmt.Sprintf("the descriptor store is full with %d: the rest was closed; raise fdstore.max", s.store.max))
		}
	}
}

// Stored returns the descriptors to hand to the next instance, and their names as
// of LISTEN_FDNAMES. The caller closes them; the service keeps its own.
func (s *Service) Stored() ([]int, string) { return s.store.handBack() }
