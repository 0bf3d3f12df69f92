package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Handle holds one process by its pidfd. It keeps naming that process, and never
// another, after the process has ended and its number has been given away.
//
// Its methods may be called from several goroutines. It must be closed.
type Handle struct {
	fs  FS
	id  ID
	dev uint64 // of the pidfd; with ino the identity on pidfs
	ino uint64 // of the pidfd; 0 where the kernel has no pidfs

	mu     sync.RWMutex // held for reading while fd or stat is in use, so that Close cannot pull them away
	fd     int          // the pidfd; -1 when closed
	stat   int          // /proc/PID/task/PID/stat, opened by the first State; -1 when not open
	file   *os.File     // owns fd, for the runtime's poller
	closed chan struct{}

	watch  sync.Once
	ended  chan struct{} // closed by the watcher: the process is a zombie or gone
	reaped chan struct{} // closed by the watcher: it is gone
}

// Open opens process pid. It opens the pidfd first, then reads the start time,
// then makes sure that the process still lives: so both name the same one.
//
// The error is ErrGone if there is no such process or it is a zombie. Threads
// that do not lead a process are refused.
func (f FS) Open(pid int) (*Handle, error) {
	h, err := f.open(pid)
	if err == nil && h.Ended() {
		h.Close()
		err = ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open process %d: %w", pid, err)
	}
	return h, nil
}

// OpenID is Open for a process known before. The error is ErrReused if its
// number belongs to another process now.
func (f FS) OpenID(id ID) (*Handle, error) {
	h, err := f.Open(id.PID)
	if err != nil {
		return nil, err
	}
	if h.id != id {
		h.Close()
		return nil, fmt.Errorf("cannot open process %v: %w", id, ErrReused)
	}
	return h, nil
}

// open is Open that takes zombies.
func (f FS) open(pid int) (*Handle, error) {
	if pid <= 0 {
		return nil, ErrGone
	}
	fd, err := pidfdOpen(pid)
	if err != nil {
		return nil, err
	}
	s, err := f.Stat(pid)
	if err == nil && reaped(fd) {
		err = ErrGone // and the start time may be a stranger's
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, ErrGone) {
			return nil, ErrGone
		}
		return nil, err
	}
	return f.handle(fd, s.ID()), nil
}

// pidfdOpen returns a pidfd that the runtime's poller accepts.
func pidfdOpen(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err == unix.EINVAL { // before Linux 5.10 there was no flag; or pid is a thread
		if fd, err = unix.PidfdOpen(pid, 0); err == nil {
			err = unix.SetNonblock(fd, true)
		}
	}
	switch err {
	case nil:
		return fd, nil
	case unix.ESRCH:
		return -1, ErrGone
	case unix.EINVAL, unix.ENOENT: // ENOENT since Linux 6.15
		return -1, errors.New("the number belongs to a thread, not to a process")
	case unix.ENOSYS, unix.EPERM:
		return -1, fmt.Errorf("pidfd_open: %w; it needs Linux 5.3 and a seccomp profile that allows it", err)
	}
	return -1, fmt.Errorf("pidfd_open: %w", err)
}

// FromPidfd makes a handle of a pidfd that somebody else opened: the kernel for
// SCM_PIDFD (Linux 6.5), a daemon for MAINPIDFD=1. The handle owns fd. With an error it
// stays the caller's: it may be anything, and take long to close. pid is the number that
// came with it as we see it; 0 if there was none, then the pidfd tells it.
//
// A process that has ended is no error: the handle has Ended() true, and Start 0
// if it has been reaped. A process that we cannot see has PID 0, see [ID].
func (f FS) FromPidfd(fd, pid int) (*Handle, error) {
	h, err := f.fromPidfd(fd, pid)
	if err != nil {
		return nil, fmt.Errorf("cannot use pidfd: %w", err)
	}
	return h, nil
}

func (f FS) fromPidfd(fd, pid int) (*Handle, error) {
	told, err := f.fdinfo(fd)
	if err != nil {
		return nil, err
	}
	if told > 0 {
		if pid > 0 && pid != told {
			return nil, fmt.Errorf("it names process %d, not %d", told, pid)
		}
		// Open it anew: a pidfd that was sent shares its flags with the sender,
		// who may wait on it and would be surprised by O_NONBLOCK.
		h, err := f.open(told)
		if err == nil {
			if h.Same(fd) {
				unix.Close(fd)
				return h, nil
			}
			h.Close()
		} else if !errors.Is(err, ErrGone) {
			return nil, err
		}
		told = -1 // reaped meanwhile
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	id := ID{PID: pid}
	if told == 0 {
		_, ino := pidfs(fd)
		id = ID{Start: ino}
	}
	return f.handle(fd, id), nil
}

// fdinfo returns the process number that a pidfd stands for: 0 if it is not
// visible from here, -1 if it has been reaped. Any other descriptor is an error.
func (f FS) fdinfo(fd int) (int, error) {
	var buf [512]byte
	b, err := readInto(string(f)+"/self/fdinfo/"+strconv.Itoa(fd), buf[:])
	if err != nil {
		return 0, fmt.Errorf("cannot read its fdinfo: %w", err)
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("Pid:")); ok {
			return strconv.Atoi(string(bytes.TrimSpace(rest)))
		}
	}
	return 0, errors.New("it is another kind of descriptor")
}

// pidfs returns the device and inode number of a pidfd on pidfs, zeros where the
// kernel has none (before Linux 6.9 all pidfds shared one anonymous inode).
func pidfs(fd int) (dev, ino uint64) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.PID_FS_MAGIC || unix.Fstat(fd, &st) != nil {
		return 0, 0
	}
	return st.Dev, st.Ino
}

// Inode returns the inode number of a pidfd, see [Handle.Inode]. It is 0 where the
// kernel has no pidfs.
func Inode(pidfd int) uint64 {
	_, ino := pidfs(pidfd)
	return ino
}

func (f FS) handle(fd int, id ID) *Handle {
	h := &Handle{
		fs: f, id: id, fd: fd, stat: -1,
		file:   os.NewFile(uintptr(fd), "pidfd"),
		closed: make(chan struct{}),
		ended:  make(chan struct{}),
		reaped: make(chan struct{}),
	}
	h.dev, h.ino = pidfs(fd)
	return h
}

// ID returns the identity of the process.
func (h *Handle) ID() ID { return h.id }

// Inode returns the inode number of the pidfd, which no two processes of one
// boot share; it is what MAINPIDFDID says. It is 0 before Linux 6.9.
func (h *Handle) Inode() uint64 { return h.ino }

// PIDFD returns the pidfd, -1 after Close. It belongs to the handle.
func (h *Handle) PIDFD() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.fd
}

// Same reports whether pidfd names the process of this handle. On pidfs (Linux
// 6.9) that is one fstat and no allocation, and holds for dead processes, too;
// before, two processes are the same if they have one number and both still have it.
func (h *Handle) Same(pidfd int) bool {
	if h.ino != 0 {
		var st unix.Stat_t
		// Raw: it does not block, and the runtime would wake a thread that watches those that do.
		_, _, errno := unix.RawSyscall(unix.SYS_FSTAT, uintptr(pidfd), uintptr(unsafe.Pointer(&st)), 0)
		return errno == 0 && st.Ino == h.ino && st.Dev == h.dev
	}
	pid, err := h.fs.fdinfo(pidfd)
	if err != nil || pid <= 0 || pid != h.id.PID {
		return false
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.fd >= 0 && !reaped(h.fd)
}

// Ended reports whether the process has ended: it is a zombie or gone. It is
// true for a closed handle.
func (h *Handle) Ended() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.fd < 0 || poll(h.fd) != 0
}

// poll asks a pidfd for its events without waiting: POLLIN once every thread of
// the process has ended, POLLHUP as well once it was reaped (Linux 6.9).
func poll(fd int) int16 {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p[:], 0)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return 0
		}
		return p[0].Revents
	}
}

// reaped reports whether the process has given up its number. Until then its
// number is its own.
func reaped(fd int) bool { return unix.PidfdSendSignal(fd, 0, nil, 0) == unix.ESRCH }

// Holds reports whether the process still has its number: it has not been reaped.
// What was read by number before is about it then.
func (h *Handle) Holds() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.fd >= 0 && !reaped(h.fd)
}

// State returns what the process does. It reads one kept-open file and allocates
// nothing while the leading thread runs or sleeps.
//
// It is T only if every thread that is not dead is: while the threads stop one
// after the other the process is not stopped yet, and a leading thread that has
// ended (Z) says nothing about the others.
//
// The error is ErrGone once the process has been reaped.
func (h *Handle) State() (State, error) {
	s, err := h.state()
	if err != nil {
		return 0, fmt.Errorf("cannot read state of process %v: %w", h.id, err)
	}
	return s, nil
}

func (h *Handle) state() (State, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.fd < 0 {
		return 0, os.ErrClosed
	}
	if h.stat < 0 {
		h.mu.RUnlock()
		err := h.openStat()
		h.mu.RLock()
		if err != nil {
			return 0, err
		}
		if h.fd < 0 {
			return 0, os.ErrClosed
		}
	}
	s, err := h.leader()
	if err != nil || !s.Stopped() && !s.Dead() {
		return s, err
	}
	all, _, err := h.fs.threads(h.id.PID)
	if err != nil {
		return 0, err
	}
	// The threads were found by number. They were ours if the number still is.
	if s, err = h.leader(); err != nil {
		return 0, err
	}
	if all == 0 {
		all = s
	}
	return all, nil
}

// leader returns the state of the leading thread.
func (h *Handle) leader() (State, error) {
	var buf [512]byte
	b, err := pread(h.stat, buf[:])
	if err != nil {
		return 0, gone(err)
	}
	s, ok := parseState(b)
	if !ok {
		return 0, errStat
	}
	return s, nil
}

// openStat opens the state file and makes sure that it is this process's: once
// open it stays bound to it, and reads ESRCH when it is gone.
func (h *Handle) openStat() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.fd < 0:
		return os.ErrClosed
	case h.stat >= 0:
		return nil // another goroutine was faster
	case h.id.PID == 0:
		return ErrInvisible
	}
	// task/PID/stat costs 1.3 us to read, stat 3 us: it does not add up threads.
	tid := strconv.Itoa(h.id.PID)
	fd, err := retry(func() (int, error) {
		return unix.Open(h.fs.path(h.id.PID, "task/"+tid+"/stat"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return gone(err)
	}
	if reaped(h.fd) {
		unix.Close(fd)
		return ErrGone
	}
	h.stat = fd
	return nil
}

// Signal sends a signal to the process by its pidfd, so to no other. It refuses
// process 1 (in a Pod that is the sandbox) and our own process.
//
// The error is ErrGone if the process has been reaped, ErrInvisible if it has no
// number here, ErrNotPermitted if our user may not: then the text says which
// user ids are in the way.
func (h *Handle) Signal(sig unix.Signal) error { return h.signalBy(sig, h.send) }

func (h *Handle) signalBy(sig unix.Signal, send func(unix.Signal) error) error {
	if err := h.signal(sig, send); err != nil {
		return fmt.Errorf("cannot send %s to process %v: %w", name(sig), h.id, err)
	}
	return nil
}

func (h *Handle) signal(sig unix.Signal, send func(unix.Signal) error) error {
	switch h.id.PID {
	case 0:
		return ErrInvisible
	case 1:
		return errors.New("process 1 is the init process of this PID namespace")
	case os.Getpid():
		return errors.New("that is this process itself")
	}
	switch err := send(sig); err {
	case nil:
		return nil
	case unix.ESRCH:
		return ErrGone
	case unix.EPERM:
		return fmt.Errorf("%w: %s", ErrNotPermitted, h.why())
	default:
		return err
	}
}

// send is the one system call.
func (h *Handle) send(sig unix.Signal) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.fd < 0 {
		return os.ErrClosed
	}
	return unix.PidfdSendSignal(h.fd, sig, nil, 0)
}

// why says who we are and who the process is, by the rule of kill(2): our real
// or effective user id must be its real or saved one.
func (h *Handle) why() string {
	ours := fmt.Sprintf("this process has uid %d", unix.Geteuid())
	real, _, saved, err := h.fs.Uids(h.id.PID)
	switch {
	case err != nil:
		return ours
	case real == saved:
		return fmt.Sprintf("%s, it has uid %d", ours, real)
	default:
		return fmt.Sprintf("%s, it has real uid %d and saved uid %d", ours, real, saved)
	}
}

// Permitted reports whether [Handle.Signal] would be allowed to our user. It
// sends nothing. A process that is gone takes no signal, which is not a matter of
// permission: true.
func (h *Handle) Permitted() bool {
	if h.id.PID == 0 {
		return false
	}
	err := h.send(0)
	return err == nil || err == unix.ESRCH
}

// name returns the name of a signal for messages: "SIGTERM", "signal 35".
func name(sig unix.Signal) string {
	if s := unix.SignalName(sig); s != "" {
		return s
	}
	return "signal " + strconv.Itoa(int(sig))
}

// Wait waits until the process has ended (it may still be a zombie), the context
// is done, or the handle is closed. It works for processes that are not our
// children, and holds a goroutine but no thread.
//
// The error is nil, the context's, or [os.ErrClosed].
func (h *Handle) Wait(ctx context.Context) error { return h.await(ctx, h.ended) }

func (h *Handle) await(ctx context.Context, done <-chan struct{}) error {
	h.watch.Do(func() { go h.watcher() })
	select {
	case <-done:
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-h.closed:
		return fmt.Errorf("cannot wait for process %v: %w", h.id, os.ErrClosed)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watcher parks on the runtime's poller until the process has been reaped or the
// handle is closed. One serves all waiters: os.File lets only one wait at a time.
func (h *Handle) watcher() {
	conn, err := h.file.SyscallConn()
	if err != nil {
		return // closed
	}
	ended := false
	conn.Read(func(fd uintptr) bool {
		events := poll(int(fd))
		if events != 0 && !ended {
			ended = true
			close(h.ended)
		}
		if events&unix.POLLHUP != 0 {
			close(h.reaped)
			return true
		}
		return false
	})
}

// Close gives the process up. It wakes every Wait and Exit. Closing twice is
// harmless.
func (h *Handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd < 0 {
		return nil
	}
	h.fd = -1
	close(h.closed)
	if h.stat >= 0 {
		unix.Close(h.stat)
		h.stat = -1
	}
	return h.file.Close()
}
