package notify

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A Notifier tells a service manager how a daemon is. Whatever it needs to send lines
// is allocated when it is created, so that a daemon can still speak when memory is gone.
// It may be used by several goroutines at the same time.
//
// A nil *Notifier is a daemon without service manager: its methods do nothing and
// return nil.
//
// The receiver is looked up anew each time, so one that was restarted is found again.
// While its queue is full, a method waits: nothing is lost, but a receiver that has
// stopped reading stops its senders too. Only the methods with a context give up.
type Notifier struct {
	lock   chan struct{} // holds one token; not a Mutex, because waiting must end with a context
	closed atomic.Bool
	fd     int
	to     unix.SockaddrUnix
	now    unix.Timespec // of Reloading, here because it would escape to the heap
	buf    []byte        // capacity MaxDatagram; nobody appends beyond it
}

// patience is how long one sendmsg waits for room before it looks at its context.
const patience = 100 * time.Millisecond

// FromEnv returns a Notifier for the socket named by NOTIFY_SOCKET, or nil and no
// error if that is unset or empty. The variable stays: a daemon that starts other
// programs unsets it, lest they speak in its name.
func FromEnv() (*Notifier, error) {
	a := os.Getenv("NOTIFY_SOCKET")
	if a == "" {
		return nil, nil
	}
	n, err := NewNotifier(a)
	if err != nil {
		return nil, fmt.Errorf("cannot use NOTIFY_SOCKET: %w", err)
	}
	return n, nil
}

// NewNotifier returns a Notifier for an absolute path or an abstract @name. Nobody
// needs to listen there yet.
func NewNotifier(address string) (*Notifier, error) {
	if err := checkAddress(address); err != nil {
		return nil, fmt.Errorf("cannot notify %q: %w", address, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot notify %q: %w", address, os.NewSyscallError("socket", err))
	}
	// The poll(2) of an unconnected socket does not see the receiver's queue: only a
	// blocking send waits for room in it.
	wait := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot notify %q: %w", address, os.NewSyscallError("setsockopt SO_SNDTIMEO", err))
	}
	n := &Notifier{
		lock: make(chan struct{}, 1),
		fd:   fd,
		to:   unix.SockaddrUnix{Name: address},
		buf:  make([]byte, 0, MaxDatagram),
	}
	n.lock <- struct{}{}
	return n, nil
}

// Close closes the socket. What was sent stays sent; later calls return [ErrClosed].
func (n *Notifier) Close() error {
	if n == nil {
		return nil
	}
	if n.closed.Swap(true) {
		return ErrClosed
	}
	<-n.lock // who waits for room sees closed soon
	defer n.unlock()
	return os.NewSyscallError("close", unix.Close(n.fd))
}

func (n *Notifier) unlock() { n.lock <- struct{}{} }

// Ready sends READY=1, which ends a start or a reload, and STATUS= if status is not
// empty; see Status for what becomes of that.
func (n *Notifier) Ready(status string) error {
	if n == nil {
		return nil
	}
	<-n.lock
	defer n.unlock()
	b := append(n.buf, "READY=1"...)
	if status != "" {
		b = appendStatus(append(b, '\n'), status)
	}
	return n.send(context.Background(), b, nil)
}

// Reloading sends RELOADING=1 with the current MONOTONIC_USEC. Ready must follow.
func (n *Notifier) Reloading() error {
	if n == nil {
		return nil
	}
	<-n.lock
	defer n.unlock()
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &n.now); err != nil {
		return fmt.Errorf("cannot notify %q: %w", n.to.Name, os.NewSyscallError("clock_gettime", err))
	}
	b := append(n.buf, "RELOADING=1\nMONOTONIC_USEC="...)
	b = strconv.AppendInt(b, n.now.Nano()/1000, 10)
	return n.send(context.Background(), b, nil)
}

// Stopping sends STOPPING=1. It is final: a receiver ignores a later Ready.
func (n *Notifier) Stopping() error { return n.Send("STOPPING=1") }

// Status sends STATUS=, one line for people; an empty one clears what was said before.
// Line ends and NULs in s become spaces, and what does not fit into a datagram is cut
// off at the end of a character, so that no text can keep a message from being sent.
func (n *Notifier) Status(s string) error {
	if n == nil {
		return nil
	}
	<-n.lock
	defer n.unlock()
	return n.send(context.Background(), appendStatus(n.buf, s), nil)
}

// Errno sends ERRNO=, the errno of a failure from 0 to 4095; 0 takes it back.
func (n *Notifier) Errno(errno int) error {
	if errno < 0 || errno > maxErrno {
		return fmt.Errorf("cannot notify: errno %d is not within 0 and %d", errno, maxErrno)
	}
	return n.number("ERRNO=", int64(errno))
}

// MainPID sends MAINPID=, the process that is the daemon from now on, as the sender
// counts processes.
func (n *Notifier) MainPID(pid int) error {
	if pid <= 0 || pid > math.MaxInt32 {
		return fmt.Errorf("cannot notify: %d is no process number", pid)
	}
	return n.number("MAINPID=", int64(pid))
}

// Watchdog sends WATCHDOG=1, the sign of life. See [WatchdogInterval].
func (n *Notifier) Watchdog() error { return n.Send("WATCHDOG=1") }

// WatchdogTrigger sends WATCHDOG=trigger: the receiver acts as if the watchdog had run out.
func (n *Notifier) WatchdogTrigger() error { return n.Send("WATCHDOG=trigger") }

// ExtendTimeout sends EXTEND_TIMEOUT_USEC=: the start, reload or stop now under way may
// last at least d from now. It must be repeated before d is over. d is rounded up to
// microseconds and must be positive.
func (n *Notifier) ExtendTimeout(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("cannot notify: a time-out cannot be extended by %v", d)
	}
	usec := int64(d / time.Microsecond)
	if d%time.Microsecond != 0 {
		usec++
	}
	return n.number("EXTEND_TIMEOUT_USEC=", usec)
}

// Send sends lines as one datagram. A line must not contain a line end or a NUL, and all
// of them with what separates them must fit into [MaxDatagram] bytes. No lines at all are
// an empty datagram, which says nothing.
func (n *Notifier) Send(lines ...string) error {
	return n.SendFDs(context.Background(), nil, lines...)
}

// SendFDs is Send with up to [MaxFDs] descriptors, which stay the caller's own and open.
// It gives up waiting for room with the context's error when that is done.
func (n *Notifier) SendFDs(ctx context.Context, fds []int, lines ...string) error {
	if n == nil {
		return nil
	}
	if len(fds) > MaxFDs {
		return fmt.Errorf("cannot notify: %d descriptors, the kernel allows %d in a datagram", len(fds), MaxFDs)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	select {
	case <-n.lock:
	case <-ctx.Done():
		return fmt.Errorf("cannot notify %q: the receiver does not read: %w", n.to.Name, ctx.Err())
	}
	defer n.unlock()
	b, sep := n.buf, 0
	for i, s := range lines {
		if strings.ContainsAny(s, "\n\r\x00") {
			return fmt.Errorf("cannot notify: line %d contains a line end or a NUL", i+1)
		}
		if i > 0 {
			sep = 1
		}
		if len(s) > MaxDatagram-sep-len(b) {
			return fmt.Errorf("cannot notify: %w", ErrTooLong)
		}
		b = append(append(b, "\n"[:sep]...), s...)
	}
	return n.send(ctx, b, rights)
}

// Barrier returns nil when the receiver has acted upon everything that was sent before,
// by anyone. It sends BARRIER=1 with the end of a pipe and waits until the receiver has
// closed that, or with the context's error until the context is done.
func (n *Notifier) Barrier(ctx context.Context) error {
	if n == nil {
		return nil
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("cannot notify %q: %w", n.to.Name, os.NewSyscallError("pipe2", err))
	}
	end := os.NewFile(uintptr(p[0]), "barrier")
	defer end.Close()
	err := n.SendFDs(ctx, p[1:], "BARRIER=1")
	unix.Close(p[1])
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { end.SetReadDeadline(time.Unix(1, 0)) })()
	var b [64]byte
	for {
		if _, err := end.Read(b[:]); err != nil { // a receiver that writes is none of our business
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("cannot notify %q: the receiver does not answer: %w", n.to.Name, ctx.Err())
			}
			return nil // end of file: hung up
		}
	}
}

// number sends the one line that key starts and v ends.
func (n *Notifier) number(key string, v int64) error {
	if n == nil {
		return nil
	}
	<-n.lock
	defer n.unlock()
	return n.send(context.Background(), strconv.AppendInt(append(n.buf, key...), v, 10), nil)
}

// send sends one datagram. The caller holds the lock.
func (n *Notifier) send(ctx context.Context, b, rights []byte) error {
	for {
		if n.closed.Load() {
			return fmt.Errorf("cannot notify %q: %w", n.to.Name, ErrClosed)
		}
		_, err := unix.SendmsgN(n.fd, b, rights, &n.to, unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			return nil
		case unix.EAGAIN, unix.EINTR: // no room for all our patience; or a signal
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("cannot notify %q: the receiver does not read: %w", n.to.Name, err)
			}
		case unix.ENOENT, unix.ECONNREFUSED:
			return fmt.Errorf("cannot notify %q: nobody listens there: %w", n.to.Name, err)
		default:
			return fmt.Errorf("cannot notify %q: %w", n.to.Name, err)
		}
	}
}

// appendStatus appends STATUS=s to b, made to fit.
func appendStatus(b []byte, s string) []byte {
	b = append(b, "STATUS="...)
	if room := MaxDatagram - len(b); len(s) > room {
		cut := room
		for cut > room-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
			cut--
		}
		if !utf8.RuneStart(s[cut]) { // not UTF-8 anyway
			cut = room
		}
		s = s[:cut]
	}
	from := len(b)
	b = append(b, s...)
	for i, c := range b[from:] {
		if c == '\n' || c == '\r' || c == 0 {
			b[from+i] = ' '
		}
	}
	return b
}

// WatchdogInterval returns how often the service manager wants a sign of life, and
// whether it wants any, by the rule of sd_watchdog_enabled(3): WATCHDOG_USEC is a
// positive number, and WATCHDOG_PID is this process or unset. Send one in half the time.
func WatchdogInterval() (time.Duration, bool) {
	usec, err := ParseUint([]byte(os.Getenv("WATCHDOG_USEC")))
	if err != nil || usec == 0 || usec == math.MaxUint64 {
		return 0, false
	}
	if s, ok := os.LookupEnv("WATCHDOG_PID"); ok {
		if pid, err := ParsePID([]byte(s)); err != nil || pid != os.Getpid() {
			return 0, false
		}
	}
	return time.Duration(min(usec, math.MaxInt64/1000)) * time.Microsecond, true
}
