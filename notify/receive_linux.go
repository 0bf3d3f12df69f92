package notify

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Sender is who sent a datagram, by the kernel's word (SCM_CREDENTIALS) and in the
// receiver's namespaces. Root may name another process than itself.
type Sender struct {
	PID      int    // 0: in a PID namespace that is not visible from here
	UID, GID uint32 // 65534: not mapped in the user namespace here
}

// A Packet is a datagram that is a message, and what came with it. It is valid only
// during the call of the Handler it is given to.
type Packet struct {
	Message Message
	From    Sender

	// Pidfd refers to the sender, also to one that has ended. It is -1 if the kernel gave
	// none: before Linux 6.5, with Config.NoPidfd, when descriptors are used up, and on
	// some kernels when the sender has been reaped.
	Pidfd int

	// FDs are the descriptors sent along (SCM_RIGHTS), close-on-exec.
	FDs []int
}

// TakePidfd returns Pidfd, which is then the caller's to close, and leaves -1.
func (p *Packet) TakePidfd() int {
	fd := p.Pidfd
	p.Pidfd = -1
	return fd
}

// TakeFDs returns FDs, which are then the caller's to close, and leaves none. The slice
// itself is valid only as long as the Packet: copy the numbers out of it.
func (p *Packet) TakeFDs() []int {
	fds := p.FDs
	p.FDs = nil
	return fds
}

// Detach returns a copy that outlives the call of the Handler, and is the caller's to
// Close. The descriptors are taken from p.
func (p *Packet) Detach() *Packet {
	c := *p
	c.Message.buf = bytes.Clone(p.Message.buf)
	c.Pidfd, c.FDs = p.TakePidfd(), slices.Clone(p.TakeFDs())
	return &c
}

// Close closes what nobody took: the pidfd, and the descriptors as [Dismiss] does.
func (p *Packet) Close() {
	if fd := p.TakePidfd(); fd >= 0 {
		unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) // raw, as it does not block
	}
	for _, fd := range p.TakeFDs() {
		Dismiss(fd)
	}
}

// A Drop is the reason for which a datagram was dropped whole.
type Drop uint8

const (
	DropTooLong          Drop = iota // more than MaxDatagram bytes
	DropNUL                          // a NUL byte before the end
	DropControlTruncated             // descriptors could not all be received, mostly because this process has too many open
	DropNoCredentials                // no SCM_CREDENTIALS
)

var dropNames = [...]string{
	DropTooLong:          "too-long",
	DropNUL:              "nul",
	DropControlTruncated: "control-truncated",
	DropNoCredentials:    "no-credentials",
}

// String returns a short constant word, fit for a metric's label.
func (d Drop) String() string {
	if int(d) < len(dropNames) {
		return dropNames[d]
	}
	return "Drop(" + strconv.Itoa(int(d)) + ")"
}

// A Handler is called by Drain for every datagram, in the order of arrival. While it
// runs, senders queue up, and after a handful (net.unix.max_dgram_qlen, 10 by default)
// they block: it must not wait for anything.
type Handler interface {
	// Packet handles a message. Descriptors it does not take are closed when it returns,
	// which is what a sender waits for whose message says BARRIER=1. See [Dismiss] for
	// what is no pipe.
	Packet(p *Packet)

	// Dropped is told of a datagram that is no message; its descriptors are closed.
	// The sender is the zero Sender if it is not known.
	Dropped(d Drop, from Sender)
}

// The control data of one datagram: SCM_RIGHTS with up to MaxFDs descriptors,
// SCM_CREDENTIALS, SCM_PIDFD. unix.CmsgSpace is no constant; this is its arithmetic,
// generous by a word each.
const controlWords = 3*4 + (MaxFDs*4+unix.SizeofUcred+4)/8 + 3

// receiver is the state of Drain.
type receiver struct {
	// Set by Drain for the time of the call: a closure would be an allocation.
	handler Handler
	max     int
	n       int
	again   bool
	errno   unix.Errno
	*buffer

	drain   func(fd uintptr) // receiver.receive, bound once
	look    func(fd uintptr) // receiver.ask, likewise
	asked   pollState        // of Queued
	queued  bool
	conn    syscall.RawConn // of takeRights
	refuses atomic.Bool     // descriptors, see ration
}

// buffer is what every datagram is received into. A Listener has one only while it
// drains: there may be many that hardly ever do.
type buffer struct {
	msg     unix.Msghdr
	iov     unix.Iovec
	packet  Packet
	fds     [MaxFDs]int
	payload [MaxDatagram]byte
	control [controlWords]uint64 // words, because control messages are aligned
}

var buffers = sync.Pool{New: func() any {
	b := &buffer{}
	b.iov.Base = &b.payload[0]
	b.iov.SetLen(len(b.payload))
	b.msg.Iov = &b.iov
	b.msg.SetIovlen(1)
	b.msg.Control = (*byte)(unsafe.Pointer(&b.control))
	return b
}}

func (r *receiver) init() { r.drain, r.look = r.receive, r.ask }

// Queued reports whether Drain would find anything: a datagram, or what is wrong with the
// socket. It may be called like Drain. A Drain of nothing costs a little more, and much more
// if the buffer for it has to be made anew.
func (l *Listener) Queued() bool {
	r := &l.receiver
	return l.raw.Control(r.look) != nil || r.queued
}

// ask is Queued with the descriptor at hand.
func (r *receiver) ask(fd uintptr) { r.queued = r.asked.ask(fd) }

// Drain takes datagrams off the queue and hands each to h, until none is left or it has
// taken max of them; again says that it was max. It never blocks and allocates nothing.
// n counts dropped datagrams too.
//
// It may be called while another goroutine is parked in Wait, but not concurrently with
// itself, nor by its own Handler: all datagrams go through one buffer.
//
// The error is [ErrClosed] after Close; any other means that the socket is of no more use.
func (l *Listener) Drain(h Handler, max int) (n int, again bool, err error) {
	if l.closed.Load() {
		return 0, false, ErrClosed
	}
	r := &l.receiver
	r.handler, r.max, r.n, r.again, r.errno = h, max, 0, false, 0
	r.buffer = buffers.Get().(*buffer)
	defer func() {
		buffers.Put(r.buffer)
		r.handler, r.buffer = nil, nil
	}()
	err = l.raw.Control(r.drain)
	switch {
	case err != nil: // closed since the check above
		return 0, false, ErrClosed
	case r.errno != 0:
		return r.n, false, fmt.Errorf("cannot receive from %q: %w", l.address, r.errno)
	}
	return r.n, r.again, nil
}

// receive is Drain with the descriptor at hand.
func (r *receiver) receive(fd uintptr) {
	for ; r.n < r.max; r.n++ {
		r.ration()
		r.msg.SetControllen(int(unsafe.Sizeof(r.control)))
		r.msg.Flags = 0
		// Raw: the call does not block, so the scheduler need not hear of it. Telling it
		// costs as much again as the call when datagrams are few and far between.
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&r.msg)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch errno {
		case 0:
			r.datagram(int(n))
		case unix.EINTR:
			r.n-- // not received, not counted
		case unix.EAGAIN:
			return
		default:
			r.errno = errno
			return
		}
	}
	r.again = true
}

// datagram handles the datagram of n bytes that is in the buffer.
func (r *receiver) datagram(n int) {
	p := &r.packet
	known := r.unpack()
	defer p.Close() // also if the handler panics and someone recovers
	switch {
	case r.msg.Flags&unix.MSG_TRUNC != 0:
		r.handler.Dropped(DropTooLong, p.From)
	case r.msg.Flags&unix.MSG_CTRUNC != 0:
		r.handler.Dropped(DropControlTruncated, p.From)
	case !known:
		r.handler.Dropped(DropNoCredentials, p.From)
	case p.Message.Parse(r.payload[:n]) != nil: // never ErrTooLong: the buffer is not longer
		r.handler.Dropped(DropNUL, p.From)
	default:
		r.handler.Packet(p)
	}
}

// unpack reads the control messages into r.packet and reports whether credentials
// were among them. Every descriptor they hold is in the packet afterwards.
func (r *receiver) unpack() (credentials bool) {
	p := &r.packet
	p.From, p.Pidfd, p.FDs = Sender{}, -1, r.fds[:0]
	base := unsafe.Pointer(&r.control)
	header := unix.CmsgLen(0)
	for left := int(r.msg.Controllen); left >= header; {
		h := (*unix.Cmsghdr)(base)
		size := int(h.Len)
		if size < header || size > left {
			break // the kernel does not write such a thing
		}
		data, n := unsafe.Add(base, header), size-header
		if h.Level == unix.SOL_SOCKET {
			switch h.Type {
			case unix.SCM_CREDENTIALS:
				if n >= unix.SizeofUcred {
					c := (*unix.Ucred)(data)
					p.From, credentials = Sender{int(c.Pid), c.Uid, c.Gid}, true
				}
			case unix.SCM_PIDFD:
				// A negative number instead of a descriptor is an errno.
				if n >= 4 && p.Pidfd < 0 {
					p.Pidfd = int(max(*(*int32)(data), -1))
				}
			case unix.SCM_RIGHTS:
				for _, fd := range unsafe.Slice((*int32)(data), n/4) {
					p.FDs = append(p.FDs, int(fd)) // MaxFDs fit; the kernel never sends more
				}
			}
		}
		step := unix.CmsgSpace(n)
		if step >= left {
			break
		}
		base, left = unsafe.Add(base, step), left-step
	}
	return credentials
}

// pollState asks whether a datagram is queued, without taking it.
type pollState struct {
	ready   func(fd uintptr) bool // pollState.wake, bound once
	parked  bool                  // nothing was queued: what comes next is a wake-up
	pollfd  unix.PollFd
	timeout unix.Timespec // always zero
}

func (s *pollState) init() { s.ready = s.wake }

// wake is for RawConn.Read, which calls it first and after each wake-up. The runtime's
// poller is edge-triggered and Drain does not tell it what it has taken, so that there was
// no wake-up says nothing: ask. One may be about what somebody else has taken already; Drain
// finds out.
func (s *pollState) wake(fd uintptr) bool {
	if s.parked {
		return true
	}
	s.parked = !s.ask(fd)
	return !s.parked
}

func (s *pollState) ask(fd uintptr) bool {
	for {
		s.pollfd = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		// ppoll, because arm64 has no poll. Some kernels write the time left: set it each time.
		s.timeout = unix.Timespec{}
		n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&s.pollfd)), 1, uintptr(unsafe.Pointer(&s.timeout)), 0, 0, 0)
		if errno != unix.EINTR {
			// On an error be ready: Drain finds out what it is.
			return errno != 0 || n > 0
		}
	}
}
