package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An actor is a process that sends what a test has it send. Its command line is
// actor KIND SERVICE, by which select.process knows it.
const actorVariable = "FAULTS_ACTOR"

// deed is what a speaker is told to do. It answers when podnotify has dealt with it.
type deed struct {
	Data   string   // a datagram
	FDs    []string // what goes with it: null, pipe, event, memfd, tcp or linger
	Times  int      // so many descriptors of each, 1 by default
	Repeat int      // so many such datagrams, 1 by default
	PID    int      // forged
	UID    int      // forged, with PID
	Try    string   // instead: root PID, getfd PID, or trace PID: reaches for another process
	Quick  bool     // the answer does not wait for podnotify
	Die    bool     // instead: it ends
}

func actorMain() int {
	kind, service := os.Args[1], os.Args[2]
	_ = service
	var err error
	switch kind {
	case "speak":
		err = speak()
	case "flood":
		err = flood()
	case "beat":
		err = beat()
	case "probe":
		err = probing()
	default:
		err = errors.New("no such actor")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "actor %s: %v\n", kind, err)
		return 1
	}
	return 0
}

// wire is a socket to send by.
type wire struct {
	fd     int
	to     *unix.SockaddrUnix
	forges bool // the kernel may refuse it
}

func newWire() (*wire, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return &wire{fd: fd, to: &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}}, err
}

func (w *wire) send(data string, oob []byte) error {
	for end := time.Now().Add(bound); ; time.Sleep(time.Millisecond) {
		err := unix.Sendmsg(w.fd, []byte(data), oob, w.to, unix.MSG_NOSIGNAL)
		switch err {
		case unix.EINTR:
		case unix.ETOOMANYREFS: // descriptors on their way are counted for the user who sends them
		case unix.EPERM: // podnotify takes none while many wait to be closed
			if len(oob) == 0 || w.forges || time.Now().After(end) {
				return err
			}
		default:
			return err
		}
	}
}

// barrier waits until podnotify has dealt with all that was sent.
func (w *wire) barrier() error {
	var end [2]int
	if err := unix.Pipe2(end[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(end[0])
	err := w.send("BARRIER=1", unix.UnixRights(end[1]))
	unix.Close(end[1])
	if err != nil {
		return err
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(end[0])}}, int(bound.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return errors.New("the barrier stays closed")
		default:
			return nil
		}
	}
}

// speak does what it is told on standard input.
func speak() error {
	w, err := newWire()
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var d deed
		if err := in.Decode(&d); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if d.Die {
			return nil
		}
		said := ""
		if err := d.do(w); err != nil {
			said = err.Error()
		}
		if err := out.Encode(said); err != nil {
			return err
		}
	}
}

func (d deed) do(w *wire) error {
	if what, arg, _ := strings.Cut(d.Try, " "); what != "" {
		pid, _ := strconv.Atoi(arg)
		return try(what, pid)
	}
	var oob []byte
	if len(d.FDs) > 0 {
		var fds []int
		defer func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}()
		for _, kind := range d.FDs {
			for range max(d.Times, 1) {
				fd, err := descriptor(kind)
				if err != nil {
					return err
				}
				fds = append(fds, fd)
			}
		}
		oob = unix.UnixRights(fds...)
	}
	if d.PID != 0 {
		oob = append(oob, unix.UnixCredentials(&unix.Ucred{Pid: int32(d.PID), Uid: uint32(d.UID), Gid: uint32(d.UID)})...)
	}
	w.forges = d.PID != 0
	for range max(d.Repeat, 1) {
		if err := w.send(d.Data, oob); err != nil {
			return err
		}
	}
	if w.forges = false; d.Quick {
		return nil
	}
	return w.barrier()
}

// try reaches for another process. It fails if that is not to be had.
func try(what string, pid int) error {
	switch what {
	case "root":
		_, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", pid))
		return err
	case "getfd":
		p, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		_, err = unix.PidfdGetfd(p, 0, 0)
		return err
	case "trace":
		return unix.PtraceSeize(pid)
	}
	return errors.New("unknown")
}

// descriptor is one of a kind.
func descriptor(kind string) (fd int, err error) {
	switch kind {
	case "null":
		return unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	case "pipe":
		var p [2]int
		err = unix.Pipe2(p[:], unix.O_CLOEXEC)
		unix.Close(p[1])
		return p[0], err
	case "event":
		return unix.Eventfd(0, unix.EFD_CLOEXEC)
	case "memfd":
		return unix.MemfdCreate("actor", unix.MFD_CLOEXEC)
	case "tcp":
		return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	case "linger":
		return lingering()
	}
	return -1, errors.New("unknown kind of descriptor")
}

// clung is a listener whose connections nobody takes.
var clung net.Listener

// small keeps little of what nobody takes.
func small(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)
	})
}

// lingering is a socket whose close(2) takes an hour.
func lingering() (fd int, err error) {
	if clung == nil {
		config := net.ListenConfig{Control: small}
		if clung, err = config.Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
			return -1, err
		}
	}
	dialer := net.Dialer{Control: small}
	c, err := dialer.Dial("tcp", clung.Addr().String())
	if err != nil {
		return -1, err
	}
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		return -1, err
	}
	defer f.Close()
	if fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		return -1, err
	}
	_ = unix.SetNonblock(fd, true)
	for block := make([]byte, 1<<16); err == nil; {
		_, err = unix.Write(fd, block)
	}
	_ = unix.SetNonblock(fd, false)
	return fd, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600})
}

// flooded is what a flood tells at its end.
type flooded struct {
	Sent    int
	Seconds float64
}

// flood sends at least so many datagrams of all sorts as fast as it can, and goes on
// until its standard input ends: actor flood SERVICE COUNT SEED.
func flood() error {
	count, _ := strconv.Atoi(os.Args[3])
	seed, _ := strconv.ParseUint(os.Args[4], 10, 64)
	child := len(os.Args) > 5
	r := rand.New(rand.NewPCG(seed, 1))
	w, err := newWire()
	if err != nil {
		return err
	}
	enough := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(enough)
	}()
	var fds []int
	for _, kind := range []string{"null", "pipe", "event", "memfd"} {
		fd, err := descriptor(kind)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	unknown, long := strings.Repeat("X_%d=1\n", 20), strings.Repeat("x", 5000)
	began := time.Now()
	var last *exec.Cmd
	sent := 0
	for ; ; sent++ {
		if sent >= count && (child || over(enough)) {
			break
		}
		var oob []byte
		data := "WATCHDOG=1"
		switch n := r.IntN(100); {
		case n < 40:
			data = "WATCHDOG=1\nSTATUS=" + strconv.Itoa(sent)
		case n < 55:
		case n < 65:
			data = "READY=1"
		case n < 75:
			data = "RELOADING=1\nMONOTONIC_USEC=" + strconv.Itoa(sent)
		case n < 80:
			data = strings.ReplaceAll(unknown, "%d", strconv.Itoa(sent))
		case n < 82:
			data = long
		case n < 84:
			data = "READY=1\x00STOPPING=1\n"
		case n < 86:
			data = "MAINPID=" + strconv.Itoa(r.IntN(100)+1)
		case n < 88:
			data = "NOTIFYACCESS=all\nWATCHDOG_USEC=" + strconv.Itoa(r.IntN(1<<30)+1<<30) + "\nERRNO=" + strconv.Itoa(r.IntN(200))
		case n < 94:
			data = "X=1"
			oob = unix.UnixRights(fds[:1+r.IntN(len(fds))]...)
		case n < 96:
			data = "FDSTORE=1\nFDNAME=" + strconv.Itoa(sent)
			oob = unix.UnixRights(fds[:1+r.IntN(len(fds))]...)
		case n < 98:
			data = "BARRIER=1"
			oob = unix.UnixRights(fds[:r.IntN(3)]...)
		default:
			data = ""
		}
		if err := w.send(data, oob); err != nil {
			return err
		}
		if !child && sent%2000 == 1999 { // others come and go
			if last != nil {
				_ = last.Wait()
			}
			last = exec.Command(os.Args[0], os.Args[1], os.Args[2], "3", strconv.Itoa(sent), "child")
			if err := last.Start(); err != nil {
				return err
			}
		}
	}
	if last != nil {
		_ = last.Wait()
	}
	return json.NewEncoder(os.Stdout).Encode(flooded{sent, time.Since(began).Seconds()})
}

func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// beaten is what a beat has measured since it was asked last, in microseconds.
type beaten struct {
	Count         int
	P50, P99, Max float64
	Slow          slow
}

func percentiles(took []float64) beaten {
	slices.Sort(took)
	b := beaten{Count: len(took)}
	if len(took) > 0 {
		b.P50, b.P99, b.Max = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	}
	return b
}

// slow are sends that took long, and why.
type slow struct {
	Count   int
	Slept   int     // it waited for room in the socket's queue, so for podnotify
	Longest float64 // of these, us
	Ready   float64 // the others have waited so long for a processor, us
	Ran     float64 // and have taken so long besides
}

// send is how long one took, us.
type send struct {
	took  float64
	delay float64 // ready to run, and another ran
	slept bool
}

// sleeps is how often this thread has slept.
func sleeps() int64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &u)
	return u.Nvcsw
}

// delayed is how long this thread has waited for a processor, us.
func delayed() (us float64) {
	b, _ := os.ReadFile("/proc/thread-self/schedstat")
	if words := strings.Fields(string(b)); len(words) > 1 {
		us, _ = strconv.ParseFloat(words[1], 64)
	}
	return us / 1000
}

// judge tells of the sends that took longer than limit, us.
func judge(all []send, limit float64) (s slow) {
	for _, x := range all {
		if x.took <= limit {
			continue
		}
		s.Count++
		if x.slept {
			s.Slept++
			s.Longest = max(s.Longest, x.took)
			continue
		}
		s.Ready += x.delay
		s.Ran += max(x.took-x.delay, 0)
	}
	return s
}

// beat sends a datagram every 2 ms, and tells how long that took whenever it is asked, by
// the time in us that is long.
func beat() error {
	runtime.LockOSThread()
	w, err := newWire()
	if err != nil {
		return err
	}
	if err := w.send("READY=1", nil); err != nil {
		return err
	}
	asked := make(chan float64)
	go func() {
		defer close(asked)
		for in := json.NewDecoder(os.Stdin); ; {
			var limit float64
			if err := in.Decode(&limit); err != nil {
				return
			}
			asked <- limit
		}
	}()
	var all []send
	tick := time.NewTicker(2 * time.Millisecond)
	for i := 0; ; i++ {
		select {
		case limit, ok := <-asked:
			if !ok {
				return nil
			}
			var took []float64
			for _, x := range all {
				took = append(took, x.took)
			}
			b := percentiles(took)
			b.Slow = judge(all, limit)
			if err := json.NewEncoder(os.Stdout).Encode(b); err != nil {
				return err
			}
			all = nil
		case <-tick.C:
			text := "STATUS=" + strconv.Itoa(i)
			unread, _ := unix.IoctlGetInt(w.fd, unix.SIOCOUTQ) // of ours: else there is room
			delay, slept := delayed(), sleeps()                // nothing between this and the send may sleep
			began := time.Now()
			if err := w.send(text, nil); err != nil {
				return err
			}
			x := send{took: float64(time.Since(began).Nanoseconds()) / 1000}
			x.slept = sleeps() > slept && unread > 0
			x.delay = delayed() - delay
			all = append(all, x)
		}
	}
}
