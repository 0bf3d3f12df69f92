package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// recorder is a Handler that writes down what it gets.
type recorder struct {
	got   []string // describe of messages, "drop:REASON" of others
	froms []Sender
	each  func(p *Packet)
}

func (r *recorder) Packet(p *Packet) {
	r.got = append(r.got, describe(&p.Message))
	r.froms = append(r.froms, p.From)
	if r.each != nil {
		r.each(p)
	}
}

func (r *recorder) Dropped(d Drop, from Sender) {
	r.got = append(r.got, "drop:"+d.String())
	r.froms = append(r.froms, from)
}

func mustListen(t testing.TB, c Config) *Listener {
	t.Helper()
	if c.Address == "" {
		c.Address = filepath.Join(t.TempDir(), "notify")
	}
	l, err := Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustNotifier(t testing.TB, address string) *Notifier {
	t.Helper()
	n, err := NewNotifier(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// sendRaw sends bytes as they are, with descriptors.
func sendRaw(t testing.TB, address string, b []byte, fds ...int) {
	t.Helper()
	if err := sendTo(address, b, fds...); err != nil {
		t.Fatal(err)
	}
}

func sendTo(address string, b []byte, fds ...int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(fd, b, rights, &unix.SockaddrUnix{Name: address}, 0)
}

// drainAll drains what is queued now.
func drainAll(t testing.TB, l *Listener, h Handler) int {
	t.Helper()
	n, again, err := l.Drain(h, 1<<20)
	if err != nil || again {
		t.Fatalf("drain: again %v, %v", again, err)
	}
	return n
}

func expect(t testing.TB, r *recorder, want ...string) {
	t.Helper()
	if !slices.Equal(r.got, want) {
		t.Errorf("\n got %q\nwant %q", r.got, want)
	}
}

func TestDatagrams(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	long := []byte("STATUS=" + strings.Repeat("x", MaxDatagram))
	var r recorder
	for _, b := range [][]byte{
		nil, // zero bytes are a datagram, not the end
		[]byte("READY=1"),
		[]byte("READY=1\x00"),
		[]byte("READY=1\x00STOPPING=1"),
		long[:MaxDatagram],
		long[:MaxDatagram+1],
		[]byte("STOPPING=1"),
	} {
		sendRaw(t, l.Env(), b)
	}
	if n := drainAll(t, l, &r); n != 7 {
		t.Errorf("counted %d of 7 datagrams", n)
	}
	expect(t, &r, "", "flag:READY=1", "flag:READY=1", "drop:nul",
		`STATUS:"`+strings.Repeat("x", MaxDatagram-7)+`"`, "drop:too-long", "flag:STOPPING=1")
	me := Sender{os.Getpid(), uint32(os.Getuid()), uint32(os.Getgid())}
	for i, from := range r.froms {
		if from != me {
			t.Errorf("datagram %d is from %+v, want %+v", i, from, me)
		}
	}
}

// TestBacklog: no more is queued than a Listener says, nor less.
func TestBacklog(t *testing.T) {
	l := mustListen(t, Config{})
	to := &unix.SockaddrUnix{Name: l.Env()}
	n := 0
	var err error
	for ; err == nil; n++ { // each from a socket of its own: SO_SNDBUF bounds what one has under way
		fd, e := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if e != nil {
			t.Fatal(e)
		}
		err = unix.Sendto(fd, []byte("READY=1"), 0, to)
		unix.Close(fd)
	}
	if n--; err != unix.EAGAIN || n != l.Backlog() {
		t.Errorf("%d datagrams are queued, then %v; want %d", n, err, l.Backlog())
	}
	if n, again, err := l.Drain(&recorder{}, l.Backlog()); n != l.Backlog() || err != nil {
		t.Errorf("drained %d, %v, %v", n, again, err)
	}
}

func TestDrainMax(t *testing.T) {
	l := mustListen(t, Config{})
	for i := range 5 {
		sendRaw(t, l.Env(), fmt.Append(nil, "MAINPID=", i))
	}
	var r recorder
	for i, want := range []struct {
		n     int
		again bool
	}{{2, true}, {2, true}, {1, false}, {0, false}} {
		if n, again, err := l.Drain(&r, 2); n != want.n || again != want.again || err != nil {
			t.Errorf("call %d: got %d, %v, %v, want %d, %v", i, n, again, err, want.n, want.again)
		}
	}
	expect(t, &r, `MAINPID:"0"`, `MAINPID:"1"`, `MAINPID:"2"`, `MAINPID:"3"`, `MAINPID:"4"`)
}

func TestQueued(t *testing.T) {
	l := mustListen(t, Config{})
	for range 2 {
		for range 2 {
			if l.Queued() {
				t.Error("something is queued, and nothing was sent")
			}
		}
		sendRaw(t, l.Env(), nil) // zero bytes are a datagram, too
		sendRaw(t, l.Env(), []byte("READY=1"))
		if allocs := testing.AllocsPerRun(10, func() {
			if !l.Queued() {
				t.Fatal("nothing is queued")
			}
		}); allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
		if n := drainAll(t, l, &recorder{}); n != 2 {
			t.Errorf("drained %d of 2 datagrams", n)
		}
	}
	l.Close()
	if !l.Queued() { // that it is closed
		t.Error("Drain of a closed listener would find nothing")
	}
}

// The pidfd of a sender that has been waited for must still be its own.
func TestDeadSender(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+l.Env(), childLines+"=READY=1|STATUS=bye")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var r recorder
	ended := false
	r.each = func(p *Packet) {
		if p.Pidfd >= 0 {
			pfd := []unix.PollFd{{Fd: int32(p.Pidfd), Events: unix.POLLIN}}
			n, err := unix.Poll(pfd, 0)
			ended = n == 1 && err == nil
		}
	}
	drainAll(t, l, &r)
	expect(t, &r, `flag:READY=1 STATUS:"bye"`)
	if want := cmd.Process.Pid; len(r.froms) != 1 || r.froms[0].PID != want {
		t.Errorf("from %+v, want pid %d", r.froms, want)
	}
	if !l.HasPidfd() {
		t.Skip("no SO_PASSPIDFD, Linux 6.5: the pidfd is not tested")
	}
	if !ended {
		t.Error("no pidfd of an ended process")
	}
}

func TestPidfd(t *testing.T) {
	noLeak(t)
	for _, no := range []bool{false, true} {
		l := mustListen(t, Config{NoPidfd: no})
		if no && l.HasPidfd() {
			t.Error("NoPidfd, and yet a pidfd")
		}
		sendRaw(t, l.Env(), []byte("READY=1"))
		taken := -1
		r := recorder{each: func(p *Packet) {
			if (p.Pidfd >= 0) != l.HasPidfd() {
				t.Errorf("pidfd is %d, HasPidfd %v", p.Pidfd, l.HasPidfd())
			}
			taken = p.TakePidfd()
			if p.Pidfd != -1 || p.TakePidfd() != -1 {
				t.Error("the pidfd can be taken twice")
			}
		}}
		drainAll(t, l, &r)
		expect(t, &r, "flag:READY=1")
		if taken >= 0 {
			// Alive, ours, close-on-exec, and left open by Drain.
			if err := unix.PidfdSendSignal(taken, 0, nil, 0); err != nil {
				t.Error(err)
			}
			if flags, err := unix.FcntlInt(uintptr(taken), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("not close-on-exec: %#x, %v", flags, err)
			}
			if err := unix.Close(taken); err != nil {
				t.Error(err)
			}
		}
	}
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestDescriptors(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	end, w := pipe(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fds := slices.Repeat([]int{int(null.Fd())}, MaxFDs)
	fds[MaxFDs-1] = int(w.Fd())
	sendRaw(t, l.Env(), []byte("FDSTORE=1"), fds...)
	sendRaw(t, l.Env(), []byte("BARRIER=1"), int(w.Fd()))
	w.Close()

	var kept []int
	r := recorder{each: func(p *Packet) {
		switch len(p.FDs) {
		case MaxFDs:
			for _, fd := range p.FDs {
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Fatalf("not close-on-exec: %#x, %v", flags, err)
				}
			}
			// Everything but the pipe stays in the packet.
			last := p.FDs[MaxFDs-1]
			p.FDs = p.FDs[:MaxFDs-1]
			kept = append(kept, last)
		case 1:
			kept = append(kept, p.TakeFDs()...)
			if len(p.TakeFDs()) != 0 {
				t.Error("descriptors can be taken twice")
			}
		default:
			t.Errorf("%d descriptors", len(p.FDs))
		}
	}}
	drainAll(t, l, &r)
	expect(t, &r, "flag:FDSTORE=1", "flag:BARRIER=1 barrier-only")

	// Both ends are ours now: the reader must see the end only after the second is closed.
	if len(kept) != 2 {
		t.Fatalf("kept %v", kept)
	}
	for _, fd := range kept {
		pfd := []unix.PollFd{{Fd: int32(end.Fd())}}
		if n, _ := unix.Poll(pfd, 0); n != 0 {
			t.Fatal("a taken descriptor was closed")
		}
		unix.Close(fd)
	}
	pfd := []unix.PollFd{{Fd: int32(end.Fd())}}
	if n, err := unix.Poll(pfd, 0); n != 1 {
		t.Errorf("a pipe nobody has taken is still open: %v", err)
	}
}

// A pipe that nobody takes must be closed when the handler has returned, not later and
// not before: that is the answer to a barrier.
func TestBarrierDescriptor(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	end, w := pipe(t)
	sendRaw(t, l.Env(), []byte("BARRIER=1"), int(w.Fd()))
	w.Close()
	hungUp := func() bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(end.Fd())}}, 0)
		return n == 1
	}
	r := recorder{each: func(*Packet) {
		if hungUp() {
			t.Error("closed before the handler returned")
		}
	}}
	drainAll(t, l, &r)
	expect(t, &r, "flag:BARRIER=1 barrier-only")
	if !hungUp() {
		t.Error("not closed after the handler returned")
	}
}

// With no descriptors left the kernel cuts the control data off. What it did deliver
// must be closed, and the datagram must be dropped.
func TestControlTruncated(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	sendRaw(t, l.Env(), []byte("FDSTORE=1"), slices.Repeat([]int{fd}, 100)...)
	sendRaw(t, l.Env(), []byte("READY=1"))

	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	few := old
	few.Cur = uint64(descriptors(t) + 50)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	var r recorder
	n, _, err := l.Drain(&r, 100)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if n != 2 || err != nil {
		t.Errorf("drain: %d, %v", n, err)
	}
	expect(t, &r, "drop:control-truncated", "flag:READY=1")
	if r.froms[0].PID != os.Getpid() {
		t.Errorf("from %+v", r.froms[0])
	}
}

// lingering makes TCP sockets with SO_LINGER and unsent data: closing one takes an hour,
// or until free is called.
func lingering(t *testing.T, n int) (fds []int, free func()) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skipf("no TCP on 127.0.0.1: %v", err)
	}
	defer tcp.Close()
	var peers []*net.TCPConn
	free = func() { // closing resets the connection, which ends the lingering
		for _, p := range peers {
			p.SetLinger(0)
			p.Close()
		}
		peers = nil
	}
	t.Cleanup(free)
	for range n {
		out, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		in, err := tcp.Accept()
		if err != nil {
			t.Fatal(err)
		}
		peers = append(peers, in.(*net.TCPConn))
		in.(*net.TCPConn).SetReadBuffer(1 << 12)
		out.(*net.TCPConn).SetWriteBuffer(1 << 12)
		f, err := out.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.SetNonblock(fd, true)
		for err == nil { // until the peer's window and our buffer are full
			_, err = unix.Write(fd, make([]byte, 1<<16))
		}
		unix.SetNonblock(fd, false)
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}); err != nil {
			t.Fatal(err)
		}
		out.Close() // fd still refers to the socket, so these do not linger
		f.Close()
		fds = append(fds, fd)
	}
	return fds, free
}

// TestLingeringDescriptors: closing what a sender sent can take as long as he likes. He
// must not be able to stop the receiver that way, however often he tries, nor to use up
// its descriptors.
func TestLingeringDescriptors(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	hang := func(fds []int) {
		t.Helper()
		for fds := range slices.Chunk(fds, MaxFDs) {
			sendRaw(t, l.Env(), []byte("READY=1"), fds...)
			for _, fd := range fds {
				unix.Close(fd) // not the last of it: the datagram has it, too
			}
			var r recorder
			done := make(chan struct{})
			go func() { l.Drain(&r, 10); close(done) }()
			receive(t, "drained in spite of sockets that linger", done)
			expect(t, &r, "flag:READY=1")
		}
	}
	fds, free := lingering(t, closersMost+MaxFDs+10) // more than there are closers, and once more what one datagram can bring
	hang(fds)

	// The closers hang, all of them: what else comes waits for them, but for barriers.
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	refused := false
	for range 2 * straysMost / MaxFDs {
		if err := sendTo(l.Env(), []byte("FDSTORE=1"), slices.Repeat([]int{int(null.Fd())}, MaxFDs)...); err == unix.EPERM {
			refused = true
		} else if err != nil {
			t.Fatal(err)
		}
		sendRaw(t, l.Env(), []byte("READY=1"))
		var r recorder
		l.Drain(&r, 10)
		if n := len(r.got); n == 0 || r.got[n-1] != "flag:READY=1" {
			t.Fatalf("got %q", r.got)
		}
	}
	if n := strays.waiting.Load(); n > straysMost+MaxFDs && hasPassRights(t) || !refused && hasPassRights(t) {
		t.Errorf("%d descriptors wait to be closed, refused %v", n, refused)
	}
	free()
	eventually(t, "all closed", func() bool { return strays.waiting.Load() == 0 })

	// Who sends descriptors is heard again, whoever has sent anything meanwhile.
	in, out := pipe(t)
	sendRaw(t, l.Env(), []byte("BARRIER=1"), int(out.Fd()))
	out.Close()
	var r recorder
	drainAll(t, l, &r)
	expect(t, &r, "flag:BARRIER=1 barrier-only")
	in.SetReadDeadline(time.Now().Add(patient))
	if _, err := in.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the barrier: %v", err)
	}
}

// hasPassRights reports whether the kernel has SO_PASSRIGHTS (Linux 6.16).
func hasPassRights(t *testing.T) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 1) == nil
}

func TestAddressErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ address, want string }{
		{"", "address is empty"},
		{"relative", "neither an absolute path nor an @name"},
		{"vsock:2:1234", "neither an absolute path nor an @name"},
		{"/", "has no name"},
		{"@", "has no name"},
		{"/a\x00b", "NUL"},
		{"/tmp/" + strings.Repeat("x", 103), "108 bytes, 107 are possible: choose a shorter one"},
		{"@" + strings.Repeat("x", 107), "108 bytes, 107 are possible: choose a shorter one"},
		{"/tmp/" + strings.Repeat("x", 100) + "/n", "choose a shorter directory"},
		{file, "no socket"},
		{dir, "no socket"},
		{filepath.Join(dir, "absent", "notify"), "no such file or directory"},
		{filepath.Join(file, "notify"), "not a directory"},
	} {
		l, err := Listen(Config{Address: tt.address})
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "cannot listen on ") {
			t.Errorf("%q: got %v, want %q", tt.address, err, tt.want)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestLongestPath(t *testing.T) {
	dir := t.TempDir()
	rest := 107 - len(dir) - len("/notify") - 1
	if rest < 1 {
		t.Skipf("TMPDIR is too long: %s", dir)
	}
	dir = filepath.Join(dir, strings.Repeat("d", rest))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := mustListen(t, Config{Address: dir + "/notify"})
	if len(l.Env()) != 107 {
		t.Fatal(len(l.Env()))
	}
	if err := mustNotifier(t, l.Env()).Ready(""); err != nil {
		t.Fatal(err)
	}
	var r recorder
	drainAll(t, l, &r)
	expect(t, &r, "flag:READY=1")
}

func TestPath(t *testing.T) {
	noLeak(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for _, tt := range []struct{ set, want fs.FileMode }{{0, 0o666}, {0o600, 0o600}, {0o777, 0o777}} {
		dir := t.TempDir()
		path := filepath.Join(dir, "n")
		l := mustListen(t, Config{Address: path, Mode: tt.set})
		if l.Env() != path {
			t.Errorf("Env is %q", l.Env())
		}
		fi, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode() != tt.want|fs.ModeSocket {
			t.Errorf("mode %v, want %v", fi.Mode(), tt.want)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

func TestPathInUse(t *testing.T) {
	noLeak(t)
	path := filepath.Join(t.TempDir(), "notify")
	first := mustListen(t, Config{Address: path})
	if _, err := Listen(Config{Address: path}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v, want ErrInUse and the path", err)
	}
	// The first one must not have noticed.
	sendRaw(t, path, []byte("READY=1"))
	var r recorder
	drainAll(t, first, &r)
	expect(t, &r, "flag:READY=1")

	// A stream socket is somebody's as well.
	stream := filepath.Join(t.TempDir(), "stream")
	s, err := net.Listen("unix", stream)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Listen(Config{Address: stream}); !errors.Is(err, ErrInUse) {
		t.Errorf("stream socket: got %v, want ErrInUse", err)
	}
}

func TestStalePath(t *testing.T) {
	noLeak(t)
	path := filepath.Join(t.TempDir(), "notify")
	dead, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.Close() // which leaves the path, as a crash does
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	l := mustListen(t, Config{Address: path})
	sendRaw(t, path, []byte("READY=1"))
	var r recorder
	drainAll(t, l, &r)
	expect(t, &r, "flag:READY=1")
}

func TestRebind(t *testing.T) {
	noLeak(t)
	for _, address := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@podnotify-test-%d", os.Getpid())} {
		n := mustNotifier(t, address)
		for range 3 {
			l, err := Listen(Config{Address: address})
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Ready(""); err != nil { // the same sender finds each of them
				t.Error(err)
			}
			var r recorder
			drainAll(t, l, &r)
			expect(t, &r, "flag:READY=1")
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != ErrClosed {
				t.Errorf("second Close: %v", err)
			}
			if err := n.Ready(""); !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT) {
				t.Errorf("nobody listens, and yet: %v", err)
			}
		}
	}
}

// A listener whose path was given to another must leave it alone.
func TestCloseLeavesSuccessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	first := mustListen(t, Config{Address: path})
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	second := mustListen(t, Config{Address: path})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	sendRaw(t, path, []byte("READY=1"))
	var r recorder
	drainAll(t, second, &r)
	expect(t, &r, "flag:READY=1")
}

func TestAbstract(t *testing.T) {
	noLeak(t)
	name := fmt.Sprintf("@podnotify-test/%d", os.Getpid())
	l := mustListen(t, Config{Address: name})
	if l.Env() != name {
		t.Errorf("Env is %q", l.Env())
	}
	if _, err := Listen(Config{Address: name}); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	// The name is exactly this, without NULs at its end, as libsystemd addresses it.
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(strings.Split(string(b), "\n"), func(s string) bool { return strings.HasSuffix(s, " "+name) }) {
		t.Error("bound under another name")
	}
	if err := mustNotifier(t, name).Ready(""); err != nil {
		t.Fatal(err)
	}
	var r recorder
	drainAll(t, l, &r)
	expect(t, &r, "flag:READY=1")
}

// Who sends as soon as the path is there must be known by its credentials.
func TestCredentialsFromTheFirstDatagram(t *testing.T) {
	for i := range 1000 {
		path := filepath.Join(t.TempDir(), "notify")
		n := mustNotifier(t, path)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for n.Ready("") != nil {
			}
		}()
		l := mustListen(t, Config{Address: path, NoPidfd: true}) // for a pidfd the kernel notes them too
		receive(t, "sent", sent)
		var r recorder
		drainAll(t, l, &r)
		if len(r.froms) != 1 || r.froms[0].PID != os.Getpid() {
			t.Fatalf("round %d: %q from %+v", i, r.got, r.froms)
		}
		l.Close()
		n.Close()
	}
}

func TestWait(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	n := mustNotifier(t, l.Env())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	woken := make(chan error)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			err := l.Wait(ctx)
			woken <- err
			if err != nil {
				return
			}
		}
	}()
	for range 100 {
		n.Watchdog()
		if err := receive(t, "woken by a datagram", woken); err != nil {
			t.Fatal(err)
		}
		// It waits again or tests again while the datagram is taken here, in another
		// goroutine. If it is woken for nothing once more that is no harm.
		var r recorder
		drainAll(t, l, &r)
		expect(t, &r, `WATCHDOG:"1"`)
		select {
		case err := <-woken:
			if err != nil {
				t.Fatal(err)
			}
		default:
		}
	}
	cancel()
	for {
		err := receive(t, "woken by cancel", woken)
		if err == nil {
			continue
		}
		if err != context.Canceled {
			t.Errorf("got %v, want context.Canceled", err)
		}
		break
	}
	receive(t, "ended", ended)

	// The end of one context must not end a Wait with the next, whenever it comes.
	for range 1000 {
		ctx, cancel := context.WithCancel(context.Background())
		go cancel()
		if err := l.Wait(ctx); err != context.Canceled {
			t.Fatalf("got %v, want context.Canceled", err)
		}
	}
	n.Watchdog()
	if err := l.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := l.Wait(ctx); err != context.Canceled {
		t.Errorf("a context that is done: got %v", err)
	}
}

// A datagram that a Drain elsewhere has taken must not wake.
func TestWaitParks(t *testing.T) {
	l := mustListen(t, Config{})
	n := mustNotifier(t, l.Env())
	for range 10 {
		n.Watchdog()
		if err := l.Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := l.Wait(context.Background()); err != nil { // still there: at once
			t.Fatal(err)
		}
		drainAll(t, l, &recorder{})
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		if err := l.Wait(ctx); err != context.DeadlineExceeded {
			t.Fatalf("nothing is queued, Wait says %v", err)
		}
		cancel()
	}
}

func TestCloseEndsWait(t *testing.T) {
	noLeak(t)
	for range 100 {
		l := mustListen(t, Config{})
		got := make(chan error)
		go func() { got <- l.Wait(context.Background()) }()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := receive(t, "woken by Close", got); err != ErrClosed {
			t.Fatalf("got %v, want ErrClosed", err)
		}
		if _, _, err := l.Drain(&recorder{}, 1); err != ErrClosed {
			t.Errorf("Drain: got %v, want ErrClosed", err)
		}
	}
}

// Close may come at any moment of a flood.
func TestCloseDuringDrain(t *testing.T) {
	noLeak(t)
	for range 20 {
		l := mustListen(t, Config{})
		n := mustNotifier(t, l.Env())
		end, w := pipe(t)
		sending, drained := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(sending)
			for n.SendFDs(context.Background(), []int{int(end.Fd())}, "WATCHDOG=1") == nil {
			}
		}()
		started := make(chan struct{})
		go func() {
			defer close(drained)
			for first := true; l.Wait(context.Background()) == nil; {
				l.Drain(&recorder{}, 4)
				if first {
					close(started)
					first = false
				}
			}
		}()
		receive(t, "drained once", started)
		l.Close()
		receive(t, "drain ended", drained)
		receive(t, "sender refused", sending)
		n.Close()
		end.Close()
		w.Close()
	}
}

func TestDropString(t *testing.T) {
	for d, want := range map[Drop]string{DropTooLong: "too-long", DropNUL: "nul", DropControlTruncated: "control-truncated", DropNoCredentials: "no-credentials", 77: "Drop(77)"} {
		if d.String() != want {
			t.Errorf("got %q, want %q", d, want)
		}
	}
}

// counter is a Handler that costs nothing.
type counter struct{ packets, ready, drops int }

func (c *counter) Packet(p *Packet) {
	c.packets++
	if p.Message.Has(FlagReady) {
		c.ready++
	}
}

func (c *counter) Dropped(Drop, Sender) { c.drops++ }

func TestReceiveAllocates(t *testing.T) {
	l := mustListen(t, Config{})
	n := mustNotifier(t, l.Env())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var c counter
	allocs := testing.AllocsPerRun(1000, func() {
		n.Ready("up")
		n.Send("READY=1", "X_FOO=bar\x01")
		l.Wait(ctx)
		l.Drain(&c, 64)
	})
	if allocs != 0 {
		t.Errorf("%v allocations for two datagrams", allocs)
	}
	if c.ready != 2002 {
		t.Errorf("%d datagrams received", c.ready)
	}
}

func benchmarkDrain(b *testing.B, c Config) {
	l := mustListen(b, c)
	n := mustNotifier(b, l.Env())
	if !c.NoPidfd && !l.HasPidfd() {
		b.Skip("no SO_PASSPIDFD, Linux 6.5")
	}
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for n.Send("WATCHDOG=1", "STATUS=ts 1234567890123456") == nil {
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	var h counter
	b.ReportAllocs()
	b.ResetTimer()
	for h.packets < b.N {
		if err := l.Wait(context.Background()); err != nil {
			b.Fatal(err)
		}
		l.Drain(&h, 64)
	}
	b.StopTimer()
	close(stop)
	for {
		select {
		case <-stopped:
			return
		default:
			l.Drain(&h, 64)
		}
	}
}

// BenchmarkDrain is one datagram from a sender that never pauses.
func BenchmarkDrain(b *testing.B) {
	b.Run("pidfd", func(b *testing.B) { benchmarkDrain(b, Config{}) })
	b.Run("nopidfd", func(b *testing.B) { benchmarkDrain(b, Config{NoPidfd: true}) })
}

// What somebody puts where the socket was just bound is not followed.
func TestChmodSocket(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, file} {
		if err := chmodSocket(path, 0o666); err == nil || !strings.Contains(err.Error(), "somebody else") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the file has %v, %v", fi.Mode(), err)
	}
}
