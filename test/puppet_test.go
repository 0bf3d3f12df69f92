package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/testdaemon"
)

// puppetVariable makes the test binary a puppet.
const puppetVariable = "PODNOTIFY_TEST_PUPPET"

// puppet is a daemon whose every datagram the test chooses, byte by byte. What
// it is told it has sent, and podnotify has dealt with, when the call returns.
type puppet struct {
	t    *testing.T
	wire *json.Decoder
	to   *os.File
	from *os.File // the puppet's own end
}

// deed is what a puppet is told to do.
type deed struct {
	Data  []byte // a datagram
	FDs   int    // how many descriptors go with it, of all sorts
	Same  bool   // but they are all numbers of one open file
	Pipe  bool   // but it is one end of a pipe, whose other end the puppet keeps
	Close bool   // instead: that other end is closed
	Tell  bool   // instead: what descriptors it was started with is answered
	Child string // instead: a child with this script, waited for
	No    bool   // instead of a barrier: nothing is waited for
	Stop  bool   // instead: it stops itself, and answers when it is continued
}

// newPuppet makes the strings of a puppet. Its order starts it.
func newPuppet(t *testing.T) *puppet {
	t.Helper()
	ours, theirs := channel(t)
	return &puppet{t: t, wire: json.NewDecoder(ours), to: ours, from: theirs}
}

func (p *puppet) order(o order, socket string) order {
	o.stdin = p.from
	o.env = append(o.env, puppetVariable+"=1")
	if socket != "" {
		o.env = append(o.env, "NOTIFY_SOCKET="+socket)
	}
	return o
}

// channel is two ends of a stream. A daemon that has one of them on its
// standard input can be talked to, and ends when the test does.
func channel(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Ours has deadlines only if the runtime's poller takes it.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func (p *puppet) do(d deed) {
	p.t.Helper()
	if said := p.ask(d); said != "" {
		p.t.Fatalf("the puppet: %s", said)
	}
}

// ask is do for deeds that have an answer.
func (p *puppet) ask(d deed) string {
	p.t.Helper()
	p.to.SetDeadline(time.Now().Add(bound))
	if err := json.NewEncoder(p.to).Encode(d); err != nil {
		p.t.Fatalf("cannot tell the puppet: %v", err)
	}
	var said string
	if err := p.wire.Decode(&said); err != nil {
		p.t.Fatalf("the puppet does not answer: %v", err)
	}
	return said
}

// say sends lines as one datagram.
func (p *puppet) say(lines ...string) {
	p.t.Helper()
	p.do(deed{Data: []byte(strings.Join(lines, "\n"))})
}

// child runs a child of the puppet with a script of package testdaemon.
func (p *puppet) child(script string) {
	p.t.Helper()
	p.do(deed{Child: script})
}

// puppetMain is the puppet's side.
func puppetMain() int {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.NewFile(0, "answers"))
	for {
		var d deed
		if err := in.Decode(&d); errors.Is(err, io.EOF) {
			return 0
		} else if err != nil {
			fmt.Fprintln(os.Stderr, "puppet:", err)
			return 1
		}
		said := ""
		if d.Tell {
			said = handed()
		} else if err := d.do(); err != nil {
			said = err.Error()
		}
		if err := out.Encode(said); err != nil {
			return 1
		}
	}
}

func (d deed) do() error {
	if d.Child != "" {
		cmd := testdaemon.Command(d.Child)
		return cmd.Run()
	}
	if d.Close {
		return otherEnd.Close()
	}
	if d.Stop {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		return unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
	}
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	var rights []byte
	if d.FDs > 0 {
		fds, err := assortment(d.FDs)
		if err != nil {
			return err
		}
		if d.Same {
			for _, fd := range fds[1:] {
				if err := unix.Dup3(fds[0], fd, unix.O_CLOEXEC); err != nil {
					return err
				}
			}
		}
		if d.Pipe {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			defer r.Close()
			otherEnd = w
			if err := unix.Dup3(int(r.Fd()), fds[0], unix.O_CLOEXEC); err != nil {
				return err
			}
		}
		defer func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}()
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(s, d.Data, rights, to, 0); err != nil {
		return fmt.Errorf("cannot send %d bytes with %d descriptors: %w", len(d.Data), d.FDs, err)
	}
	if d.No {
		return nil
	}
	return barrier(s, to)
}

// otherEnd of the pipe that deed.Pipe made.
var otherEnd *os.File

// handed is the descriptors that a puppet was started with, NAME=WHAT each, in
// the way of sd_listen_fds_with_names: only those that are meant for it count.
func handed() string {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return "none"
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	var out []string
	for i := range n {
		what, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", 3+i))
		if err != nil {
			return err.Error()
		}
		what, _, _ = strings.Cut(what, ":[") // the number of a socket or pipe
		name := "?"
		if i < len(names) {
			name = names[i]
		}
		out = append(out, name+"="+what)
	}
	return strings.Join(out, " ")
}

// barrier waits until podnotify has dealt with all that was sent.
func barrier(s int, to unix.Sockaddr) error {
	var end [2]int
	if err := unix.Pipe2(end[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(end[0])
	err := unix.Sendmsg(s, []byte("BARRIER=1"), unix.UnixRights(end[1]), to, 0)
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

// assortment is n descriptors of all sorts.
func assortment(n int) (fds []int, err error) {
	for len(fds) < n {
		var fd, other int
		switch len(fds) % 5 {
		case 0:
			fd, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		case 1:
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		case 2:
			fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
		case 3:
			fd, err = unix.MemfdCreate("puppet", unix.MFD_CLOEXEC)
		case 4:
			var p [2]int
			err = unix.Pipe2(p[:], unix.O_CLOEXEC)
			fd, other = p[0], p[1]
			defer unix.Close(other)
		}
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// compile builds a C program of testdata where every uid can run it.
func compile(t *testing.T, name string, flags ...string) string {
	t.Helper()
	cc := need(t, "cc", "gcc libc6-dev")
	out := filepath.Join(tempDir(t), name)
	args := append([]string{"-O2", "-D_GNU_SOURCE", "-o", out, "testdata/" + name + ".c"}, flags...)
	if b, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		if strings.Contains(string(b), "systemd") {
			lacking(t, "missing the headers of libsystemd; apt-get install libsystemd-dev")
		}
		t.Fatalf("cannot compile %s.c: %v\n%s", name, err, b)
	}
	return out
}
