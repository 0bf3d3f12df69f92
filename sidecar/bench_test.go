package sidecar

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/testdaemon"
	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// pinger is a service that nobody serves, so that the test decides when it
// receives, and a sender that it admits: this process, through a real socket.
type pinger struct {
	*Service
	t    testing.TB
	log  *logBuffer // the journal's
	fd   int
	n    int64
	text []byte
}

// state is a directory for state in memory, as a run-dir is.
func state(t testing.TB) *journal.Dir {
	t.Helper()
	return stateLogged(t, slog.New(slog.DiscardHandler))
}

func stateLogged(t testing.TB, log *slog.Logger) *journal.Dir {
	t.Helper()
	parent := "/dev/shm"
	if _, err := os.Stat(parent); err != nil {
		parent = ""
	}
	path, err := os.MkdirTemp(parent, "podnotify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(path) })
	d, err := journal.Open(path, proc.Proc, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// everyone is the Scope of a service that all processes belong to.
type everyone struct{}

func (everyone) Member(int) bool           { return true }
func (everyone) Entry(pid int) (int, bool) { return pid, true }
func (everyone) Generation() uint64        { return 1 }

// newPinger makes one. The main process is this process or, if other, a child of
// it: then this process is a member of the service that speaks beside it.
func newPinger(t testing.TB, noPidfd, other bool) *pinger {
	t.Helper()
	cfg := Config{Name: "test", Address: filepath.Join(t.TempDir(), "n"), Policy: lifecycle.DefaultPolicy()}
	log := &logBuffer{}
	s := newService(cfg, Deps{Scope: everyone{}, Journal: stateLogged(t, slog.New(slog.NewTextHandler(log, nil))).File(cfg.Name)})
	ln, err := notify.Listen(notify.Config{Address: cfg.Address, NoPidfd: noPidfd})
	if err != nil {
		t.Fatal(err)
	}
	if !noPidfd && !ln.HasPidfd() {
		ln.Close()
		t.Skip("the kernel has no SO_PASSPIDFD (Linux 6.5)")
	}
	s.ln = ln
	t.Cleanup(s.Close)

	pid := unix.Getpid()
	if other {
		cmd := testdaemon.Command("wait")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		pid = cmd.Process.Pid
	}
	h, err := proc.Proc.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	s.Adopt(h)

	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: s.Env()}); err != nil {
		t.Fatal(err)
	}
	p := &pinger{Service: s, t: t, log: log, fd: fd, text: make([]byte, 0, 64)}
	p.send("READY=1\n")
	p.receive()
	p.settled()
	if phase := s.Look().Phase; phase != lifecycle.Ready {
		t.Fatalf("phase %v after READY=1: the sender is not admitted", phase)
	}
	return p
}

func (p *pinger) send(text string) {
	if _, err := unix.Write(p.fd, []byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

// ping sends what a busy daemon sends, a new text every time.
func (p *pinger) ping() {
	p.n++
	p.text = append(p.text[:0], "WATCHDOG=1\nSTATUS=ts "...)
	p.text = strconv.AppendInt(p.text, p.n, 10)
	if _, err := unix.Write(p.fd, p.text); err != nil {
		p.t.Fatal(err)
	}
}

// receive does what Serve does when the socket is readable.
func (p *pinger) receive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.drain(batch); err != nil {
		p.t.Fatal(err)
	}
	p.settle()
}

// pingers are the ways in which a datagram's sender is known.
var pingers = []struct {
	name           string
	noPidfd, other bool
}{
	{"pidfd/main", false, false},
	{"pidfd/member", false, true},
	{"pid/main", true, false},
	{"pid/member", true, true},
}

// TestPacketAllocates: a datagram costs no garbage, or a daemon that pings as
// fast as it can would keep the collector busy.
func TestPacketAllocates(t *testing.T) {
	for _, c := range pingers {
		t.Run(c.name, func(t *testing.T) {
			p := newPinger(t, c.noPidfd, c.other)
			if n := testing.AllocsPerRun(1000, func() { p.ping(); p.receive() }); n != 0 {
				t.Errorf("%v allocations a datagram, want 0", n)
			}
			s := p.Look()
			if want := "ts " + strconv.FormatInt(p.n, 10); s.Status != want || s.Facts.Pings != uint64(p.n) {
				t.Errorf("status %q after %d pings, want %q after %d: they were not heard", s.Status, s.Facts.Pings, want, p.n)
			}
		})
	}
}

// TestStormAllocates: a daemon that repeats what is known costs no garbage.
func TestStormAllocates(t *testing.T) {
	for _, c := range pingers {
		t.Run(c.name, func(t *testing.T) {
			p := newPinger(t, c.noPidfd, c.other)
			text := []byte("READY=1\nSTATUS=up")
			if n := testing.AllocsPerRun(1000, func() { unix.Write(p.fd, text); p.receive() }); n != 0 {
				t.Errorf("%v allocations a datagram, want 0", n)
			}
		})
	}
}

// BenchmarkStorm is READY=1 again, which says nothing new.
func BenchmarkStorm(b *testing.B) {
	p := newPinger(b, false, false)
	b.ReportAllocs()
	for b.Loop() {
		p.send("READY=1")
		p.receive()
	}
}

// BenchmarkFlip is a change of phase: it is written before anybody is told.
func BenchmarkFlip(b *testing.B) {
	p := newPinger(b, false, false)
	b.ReportAllocs()
	for b.Loop() {
		p.send("RELOADING=1")
		p.receive()
		p.send("READY=1")
		p.receive()
		for p.Look().Phase != lifecycle.Ready {
			runtime.Gosched()
		}
	}
}

// BenchmarkPacket is one datagram: sent, received, its sender known, applied.
// The sender's system call is in the figure.
func BenchmarkPacket(b *testing.B) {
	for _, c := range pingers {
		b.Run(c.name, func(b *testing.B) {
			p := newPinger(b, c.noPidfd, c.other)
			b.ReportAllocs()
			for b.Loop() {
				p.ping()
				p.receive()
			}
		})
	}
}

// BenchmarkLook is what a probe pays after news: making the snapshot.
func BenchmarkLook(b *testing.B) {
	p := newPinger(b, false, false)
	b.ReportAllocs()
	for b.Loop() {
		p.ping()
		p.receive()
		p.Look()
	}
}
