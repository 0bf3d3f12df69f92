package sidecar

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/testdaemon"
	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// speaker is a service whose main process is this process, which speaks to it
// over a real socket. The test decides when it receives and what time it is.
type speaker struct {
	*pinger
	clock time.Time
}

func newSpeaker(t *testing.T, expect lifecycle.Expect, change func(*Config)) *speaker {
	t.Helper()
	cfg := Config{Name: "test", Address: t.TempDir() + "/n", FDStoreMax: 4, Policy: lifecycle.Policy{Expect: expect, OnErrno: lifecycle.NotReady}}
	if change != nil {
		change(&cfg)
	}
	k := &speaker{&pinger{Service: newService(cfg, Deps{Scope: everyone{}}), t: t}, time.Now()}
	k.now = func() time.Time { return k.clock }
	var err error
	if k.ln, err = notify.Listen(notify.Config{Address: cfg.Address}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	k.adoptPID(os.Getpid())
	if k.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(k.fd) })
	if err := unix.Connect(k.fd, &unix.SockaddrUnix{Name: k.Env()}); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *speaker) adoptPID(pid int) {
	k.t.Helper()
	h, err := proc.Proc.Open(pid)
	if err != nil {
		k.t.Fatal(err)
	}
	k.Adopt(h)
}

// says sends lines as one datagram, with descriptors, and returns what is known
// when it was received.
func (k *speaker) says(text string, fds ...int) *lifecycle.Snapshot {
	k.t.Helper()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(k.fd, []byte(text), rights, nil, 0); err != nil {
		k.t.Fatal(err)
	}
	k.receive()
	return k.Look()
}

// hears gives the machine news that is none of the protocol's.
func (k *speaker) hears(e lifecycle.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.apply(e)
	k.settle()
}

// after lets time pass.
func (k *speaker) after(d time.Duration) *lifecycle.Snapshot {
	k.mu.Lock() // a timer may ask for the time
	k.clock = k.clock.Add(d)
	k.mu.Unlock()
	k.tick()
	return k.Look()
}

// child is another process of the service.
func (k *speaker) child() int {
	k.t.Helper()
	cmd := testdaemon.Command("wait")
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd.Process.Pid
}

// pair is two ends of a stream; both are closed by the end of the test.
func (k *speaker) pair() (a, b *os.File) {
	k.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		k.t.Fatal(err)
	}
	a, b = os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	k.t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// stores has the service keep one end of a pair, and returns the other.
func (k *speaker) stores(text string) *os.File {
	k.t.Helper()
	a, b := k.pair()
	k.says(text, int(a.Fd()))
	a.Close()
	return b
}

// keyTests has a test for each word of the protocol. docs/protocol.md names for
// each word the ones that fail when podnotify does not know it, and no others:
// make mutation proves that. So none uses a word that it is not about.
var keyTests = map[string]func(*testing.T){
	"READY": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNotify, nil)
		if s := k.Look(); s.Phase != lifecycle.Starting {
			t.Fatalf("%v at first, want starting", s.Phase)
		}
		if s := k.says("READY=0"); s.Phase != lifecycle.Starting {
			t.Errorf("%v after READY=0, want starting", s.Phase)
		}
		if s := k.says("READY=1"); s.Phase != lifecycle.Ready {
			t.Errorf("%v, want ready", s.Phase)
		}
	},
	"RELOADING": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		if s := k.says("RELOADING=1"); s.Phase != lifecycle.Reloading {
			t.Errorf("%v, want reloading", s.Phase)
		}
	},
	"MONOTONIC_USEC": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		k.hears(lifecycle.Event{Kind: lifecycle.ReloadAsked, Number: 1000})
		if s := k.says("RELOADING=1\nMONOTONIC_USEC=999"); s.Reload.Began {
			t.Error("a reload that is older than what we asked for is taken for it")
		}
		if s := k.says("MONOTONIC_USEC=1001\nRELOADING=1"); !s.Reload.Began {
			t.Error("the reload we asked for is not seen")
		}
	},
	"STOPPING": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		if s := k.says("STOPPING=1"); s.Phase != lifecycle.Stopping || !s.StopSaid {
			t.Errorf("%v, want stopping", s.Phase)
		}
	},
	"STATUS": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		if s := k.says("STATUS=a \\n= b\xff"); s.Status != "a \\n= b\xff" {
			t.Errorf("status %q", s.Status)
		}
		if s := k.says("STATUS="); s.Status != "" {
			t.Errorf("status %q, want none", s.Status)
		}
	},
	"ERRNO": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		if s := k.says("ERRNO=28"); s.Errno != 28 || s.Facts.ErrnoName != "ENOSPC" {
			t.Errorf("errno %d (%s)", s.Errno, s.Facts.ErrnoName)
		}
		notServed := func(name string) bool { return name == "socket" }
		if c, fails := k.Look().Failing(k.Policy(), lifecycle.Readyz, notServed); !fails || c.Name != "errno" {
			t.Errorf("ready fails with %q, want errno", c.Name)
		}
	},
	"BUSERROR": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		if s := k.says("BUSERROR=org.example.Broken"); s.BusError != "org.example.Broken" {
			t.Errorf("bus error %q", s.BusError)
		}
	},
	"VARLINKERROR": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		if s := k.says("VARLINKERROR=io.example.Bent"); s.VarlinkError != "io.example.Bent" {
			t.Errorf("varlink error %q", s.VarlinkError)
		}
	},
	"EXIT_STATUS": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		if s := k.says("EXIT_STATUS=3"); len(s.Facts.UnknownKeys) > 0 || s.Phase != lifecycle.Ready {
			t.Errorf("%v, unknown %v; want it known and without effect", s.Phase, s.Facts.UnknownKeys)
		}
	},
	"MAINPID": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		child := k.child()
		if s := k.says(fmt.Sprint("MAINPID=", child)); s.Main.PID != child || s.Phase != lifecycle.Ready {
			t.Errorf("main process %v, want %d", s.Main, child)
		}
	},
	"MAINPIDFDID": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		child := k.child()
		h, err := proc.Proc.Open(child)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if h.Inode() == 0 {
			t.Skip("the kernel gives a pidfd no inode number of its own (Linux 6.9)")
		}
		self := k.Look().Main
		if s := k.says(fmt.Sprintf("MAINPID=%d\nMAINPIDFDID=%d", child, h.Inode()+1)); s.Main != self || s.Facts.Dropped["bad-MAINPID"] == 0 && s.Facts.UnknownKeys["MAINPID"] == 0 {
			t.Errorf("main process %v although the inode is another's; dropped %v", s.Main, s.Facts.Dropped)
		}
		if s := k.says(fmt.Sprintf("MAINPIDFDID=%d\nMAINPID=%d", h.Inode(), child)); s.Main.PID != child {
			t.Errorf("main process %v, want %d: the inode is its own", s.Main, child)
		}
	},
	"MAINPIDFD": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		child := k.child()
		fd, err := unix.PidfdOpen(child, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if s := k.says("MAINPIDFD=1", fd); s.Main.PID != child {
			t.Errorf("main process %v, want %d", s.Main, child)
		}
	},
	"WATCHDOG=1": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, func(c *Config) { c.Policy.Watchdog = 10 * time.Second })
		k.after(6 * time.Second)
		if s := k.says("WATCHDOG=1"); s.Facts.Pings != 1 || !s.PingAt.Equal(k.clock) {
			t.Errorf("%d pings, the last at %v", s.Facts.Pings, s.PingAt)
		}
		if s := k.after(10*time.Second - 1); s.Starved {
			t.Error("starved within the interval")
		}
		if s := k.after(1); !s.Starved {
			t.Error("not starved after the interval")
		}
	},
	"WATCHDOG=trigger": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		if s := k.says("WATCHDOG=trigger"); !s.Triggered {
			t.Error("not triggered")
		}
	},
	"WATCHDOG_USEC": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, func(c *Config) { c.Policy.Watchdog = 10 * time.Second })
		if s := k.says("WATCHDOG_USEC=3000000"); s.Watchdog != 3*time.Second || !s.Deadline.Equal(k.clock.Add(3*time.Second)) {
			t.Errorf("interval %v, due at %v", s.Watchdog, s.Deadline)
		}
		if s := k.says("WATCHDOG_USEC=0"); s.Watchdog != 0 || !s.Deadline.IsZero() {
			t.Errorf("interval %v, due at %v; want none", s.Watchdog, s.Deadline)
		}
	},
	"EXTEND_TIMEOUT_USEC": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNotify, func(c *Config) { c.Policy.StartTimeout = 90 * time.Second })
		k.after(80 * time.Second)
		k.says("EXTEND_TIMEOUT_USEC=30000000")
		if s := k.after(30*time.Second - 1); s.StartLate {
			t.Error("late before the time it asked for")
		}
		if s := k.after(1); !s.StartLate {
			t.Error("not late after the time it asked for")
		}
	},
	"RESTART_RESET": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		k.hears(lifecycle.Event{Kind: lifecycle.Ended, Who: k.Look().Main})
		k.adoptPID(k.child())
		if s := k.Look(); s.Respawns != 1 {
			t.Fatalf("%d respawns", s.Respawns)
		}
		if s := k.says("RESTART_RESET=1"); s.Respawns != 0 {
			t.Errorf("%d respawns, want none", s.Respawns)
		}
	},
	"NOTIFYACCESS": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		if s := k.says("NOTIFYACCESS=none\nX_FIRST=1"); s.Facts.Dropped["access"] != 0 {
			t.Errorf("a datagram is judged by what it says itself: %v", s.Facts.Dropped)
		}
		if s := k.says("X_SECOND=1"); s.Facts.Dropped["access"] != 1 || s.Facts.UnknownKeys["X_SECOND"] != 0 {
			t.Errorf("dropped %v, want one for access", s.Facts.Dropped)
		}
	},
	"BARRIER": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		ours, theirs, err := os.Pipe() // as libsystemd's sd_notify_barrier
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		s := k.says("BARRIER=1", int(theirs.Fd()))
		theirs.Close()
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(ours.Fd()), Events: unix.POLLIN}}, 0); n != 1 || err != nil {
			t.Errorf("it is not released when all before it was received: %d, %v", n, err)
		}
		if len(s.Facts.Dropped)+len(s.Facts.UnknownKeys) > 0 {
			t.Errorf("dropped %v, unknown %v: its descriptor is none that nobody wanted", s.Facts.Dropped, s.Facts.UnknownKeys)
		}
		if s := k.says("BARRIER=1\nX=1", int(ours.Fd())); s.Facts.Dropped["barrier"] != 1 || s.Facts.UnknownKeys["X"] != 0 {
			t.Errorf("dropped %v, unknown %v: other lines beside it count", s.Facts.Dropped, s.Facts.UnknownKeys)
		}
	},
	"FDSTORE": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		k.stores("FDSTORE=1")
		if fds, names := k.Stored(); len(fds) != 1 || names != "stored" {
			t.Errorf("%d descriptors called %q", len(fds), names)
		}
	},
	"FDNAME": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		k.stores("FDSTORE=1\nFDNAME=web")
		k.stores("FDNAME=\nFDSTORE=1")
		if fds, names := k.Stored(); len(fds) != 2 || names != "web:" {
			t.Errorf("%d descriptors called %q", len(fds), names)
		}
	},
	"FDSTOREREMOVE": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		for _, name := range []string{"web", "db", "web"} {
			a, _ := k.pair()
			fd, err := unix.FcntlInt(a.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			k.store.add([]int{fd}, name, false)
		}
		k.says("FDSTOREREMOVE=1\nFDNAME=web")
		if fds, names := k.Stored(); len(fds) != 1 || names != "db" {
			t.Errorf("%d descriptors called %q, want db", len(fds), names)
		}
	},
	"FDPOLL": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		kept := k.stores("FDSTORE=1\nFDPOLL=0")
		watched := k.stores("FDSTORE=1")
		if n := k.store.count(); n != 2 {
			t.Fatalf("%d descriptors", n)
		}
		kept.Close()
		watched.Close() // the kernel tells of the second hang-up after the first
		for end := time.Now().Add(30 * time.Second); k.store.count() > 1; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("one that hung up is kept")
			}
		}
		if n := k.store.count(); n != 1 {
			t.Errorf("%d descriptors, want the one not to be watched", n)
		}
	},
	"any other": func(t *testing.T) {
		k := newSpeaker(t, lifecycle.ExpectNone, nil)
		if s := k.says("X_OTHER=1\nnonsense\nX_OTHER=2"); s.Facts.UnknownKeys["X_OTHER"] != 2 || s.Facts.UnknownKeys["nonsense"] != 1 || s.Phase != lifecycle.Ready {
			t.Errorf("%v, unknown %v", s.Phase, s.Facts.UnknownKeys)
		}
	},
}

func TestKey(t *testing.T) {
	for key, f := range keyTests {
		t.Run(strings.ReplaceAll(key, " ", "_"), f)
	}
}
