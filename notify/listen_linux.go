package notify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxAddress is the longest address, the @ of an abstract one included: sockaddr_un has
// 108 bytes, one of which is the NUL that ends a path. (x/sys allows abstract names no more.)
const maxAddress = 107

// Errors a caller of this package may want to tell apart.
var (
	ErrInUse  = errors.New("another socket is bound there")
	ErrClosed = errors.New("socket is closed")
)

// Config says where and how to listen.
type Config struct {
	// Address is an absolute path or, with a leading @, an abstract name; at most 107 bytes.
	// Everyone in the network namespace can send to an abstract name; a path has
	// permissions.
	Address string

	// Mode is the permission of a path; senders need write permission. Zero means 0666.
	Mode fs.FileMode

	// NoPidfd does without a pidfd of every sender. The kernel then delivers about 2.7
	// times as many datagrams a second, and a sender is known by a number alone, which
	// may have passed to another process.
	NoPidfd bool

	// Keep leaves the path in place on Close, for the next Listen to replace: so there
	// is a socket at any time, although nobody hears what is sent to it meanwhile.
	Keep bool
}

// A Listener is a bound notification socket.
//
// Wait and Drain may run at the same time in different goroutines, and so may Close;
// each of them must not run concurrently with itself.
type Listener struct {
	address  string
	hasPidfd bool
	backlog  int
	keep     bool
	inode    fileID // of a path, to know it again

	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool

	// Of Wait.
	done   <-chan struct{} // of the context that disarm belongs to
	disarm func() bool
	poll   pollState

	receiver // of Drain
}

// fileID tells one file from another for as long as either exists.
type fileID struct{ dev, ino uint64 }

// Listen binds a notification socket. It asks for credentials before it binds, so that
// no datagram arrives without them, and for pidfds where the kernel has them (Linux 6.5).
//
// A path appears under its name only when it is bound and has its mode. Listen replaces
// a socket nobody is bound to any more; it refuses one that is alive, with [ErrInUse],
// and a file that is no socket. Of two processes that replace one dead socket at the
// same moment the later wins: who must exclude that holds a lock.
func Listen(c Config) (*Listener, error) {
	l, err := listen(c)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", c.Address, err)
	}
	return l, nil
}

func listen(c Config) (*Listener, error) {
	if err := checkAddress(c.Address); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	l := &Listener{address: c.Address, keep: c.Keep, backlog: backlog()}
	if err := l.open(fd, c); err != nil {
		unix.Close(fd)
		return nil, err
	}
	l.file = os.NewFile(uintptr(fd), c.Address)
	l.poll.init()
	l.receiver.init()
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.Close()
		return nil, err
	}
	l.receiver.conn = l.raw
	return l, nil
}

// backlog is how many datagrams the kernel queues on a socket that is made now: one more
// than net.unix.max_dgram_qlen. Where that cannot be read, it is more than any in use.
func backlog() int {
	b, err := os.ReadFile("/proc/sys/net/unix/max_dgram_qlen")
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			return n + 1
		}
	}
	return 4096
}

// open sets the options of the socket fd and binds it.
func (l *Listener) open(fd int, c Config) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_PASSCRED", err)
	}
	if !c.NoPidfd {
		// Linux before 6.5 does not know the option; gVisor and seccomp filters may refuse it.
		l.hasPidfd = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSPIDFD, 1) == nil
	}
	if c.Address[0] == '/' {
		return l.bindPath(fd, c)
	}
	// x/sys turns the leading @ into the NUL of an abstract name.
	err := unix.Bind(fd, &unix.SockaddrUnix{Name: c.Address})
	if err == unix.EADDRINUSE {
		return fmt.Errorf("%w: stop that process or choose another name (see ss -xlp)", ErrInUse)
	}
	return os.NewSyscallError("bind", err)
}

// checkAddress tells what is wrong with an address, as a sender or a listener has it.
func checkAddress(a string) error {
	switch {
	case a == "":
		return errors.New("address is empty")
	case a[0] != '/' && a[0] != '@':
		return errors.New("address is neither an absolute path nor an @name")
	case len(a) == 1:
		return errors.New("address has no name")
	case strings.IndexByte(a, 0) >= 0:
		return errors.New("address contains a NUL byte")
	case len(a) > maxAddress:
		return fmt.Errorf("address has %d bytes, %d are possible: choose a shorter one", len(a), maxAddress)
	}
	return nil
}

// bindPath binds fd under a temporary name beside its path, sets the mode, and moves it
// into place: between bind and chmod no sender can meet a socket it may not write to,
// and where there was a dead socket there is no moment without any.
func (l *Listener) bindPath(fd int, c Config) error {
	if err := vacant(c.Address); err != nil {
		return err
	}
	temp, err := bindTemp(fd, filepath.Dir(c.Address))
	if err != nil {
		return err
	}
	mode := c.Mode
	if mode == 0 {
		mode = 0o666
	}
	if err = chmodSocket(temp, mode); err == nil {
		if l.inode, err = identify(temp); err == nil {
			err = os.Rename(temp, c.Address)
		}
	}
	if err != nil {
		os.Remove(temp)
	}
	return err
}

// chmodSocket sets the mode of the socket at path. Whoever else may write to the directory
// could put a link there, which a chmod of the path would follow; what is held by O_PATH
// is the file itself, which only /proc can change: fchmodat2 is of Linux 6.6.
func chmodSocket(path string, mode os.FileMode) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("somebody else writes to %s, and put another file where the socket was: let nobody", filepath.Dir(path))
	}
	return os.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
}

// vacant reports, by nil, that a socket may be put at path: nothing is there, or a
// socket nobody is bound to.
func vacant(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.Mode().Type() != fs.ModeSocket:
		return errors.New("a file that is no socket is there: remove it or choose another path")
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err {
	case unix.ECONNREFUSED, unix.ENOENT:
		return nil
	case nil, unix.EPROTOTYPE, unix.EPERM: // bound; bound and not a datagram socket; bound and connected elsewhere
		return fmt.Errorf("%w: stop that process or choose another path (see ss -xlp)", ErrInUse)
	default:
		return fmt.Errorf("cannot tell whether the socket there is alive: %w", err)
	}
}

// bindTemp binds fd under a fresh name in dir and returns its path. The name is as
// short as "notify", because it counts against the length of an address as well.
func bindTemp(fd int, dir string) (string, error) {
	for tries := 0; ; tries++ {
		temp := filepath.Join(dir, ".n"+rand.Text()[:4])
		if len(temp) > maxAddress {
			return "", fmt.Errorf("directory has %d bytes, a temporary name in it needs %d more of the %d possible: choose a shorter directory",
				len(dir), len(temp)-len(dir), maxAddress)
		}
		err := unix.Bind(fd, &unix.SockaddrUnix{Name: temp})
		if err == nil {
			return temp, nil
		}
		if err != unix.EADDRINUSE || tries == 100 {
			return "", os.NewSyscallError("bind", err)
		}
	}
}

func identify(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fileID{}, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// Env returns the value of NOTIFY_SOCKET for those who shall send here.
func (l *Listener) Env() string { return l.address }

// HasPidfd reports whether the kernel adds a pidfd of the sender to datagrams.
func (l *Listener) HasPidfd() bool { return l.hasPidfd }

// Backlog is the most datagrams that can be queued: what is queued at some moment is
// among the next so many that Drain takes, however fast others follow.
func (l *Listener) Backlog() int { return l.backlog }

// Close closes the socket and removes its path, unless another socket has taken that
// meanwhile or Config.Keep is set. What is still queued is lost. Wait and Drain return [ErrClosed] from then
// on; so does a second Close. Close waits for a Drain that is running: it must not be
// called by its Handler.
func (l *Listener) Close() error {
	if l.closed.Swap(true) {
		return ErrClosed
	}
	// While the socket lives nobody else's Listen replaces it: so look, remove, then close.
	if l.address[0] == '/' && !l.keep {
		if id, err := identify(l.address); err == nil && id == l.inode {
			os.Remove(l.address)
		}
	}
	return l.file.Close() // waits for Drain
}

// Wait parks the goroutine, and no thread, until a datagram is queued. It returns nil
// then, also if a Drain elsewhere was faster, and at once if one is queued already, the
// context's error when that is done, and [ErrClosed] after Close.
func (l *Listener) Wait(ctx context.Context) error {
	l.watch(ctx)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		l.poll.parked = false
		err := l.raw.Read(l.poll.ready)
		switch {
		case err == nil:
			return nil
		case l.closed.Load():
			return ErrClosed
		case errors.Is(err, os.ErrDeadlineExceeded):
			// Ours or that of an earlier context. A context is done before its deadline is
			// set: if ours ends only now, the check above sees it or the deadline stays.
			err = l.file.SetReadDeadline(time.Time{})
			if err == nil || l.closed.Load() {
				continue
			}
		}
		return fmt.Errorf("cannot wait on %q: %w", l.address, err)
	}
}

// watch arranges for the end of ctx to end a Wait. One registration serves all the
// Waits with that context, so that waiting does not allocate.
func (l *Listener) watch(ctx context.Context) {
	done := ctx.Done()
	if done == l.done {
		return
	}
	if l.disarm != nil {
		l.disarm()
	}
	l.done, l.disarm = done, nil
	if done != nil {
		file := l.file // not l: a context may outlive the listener
		l.disarm = context.AfterFunc(ctx, func() { file.SetReadDeadline(time.Unix(1, 0)) })
	}
}
