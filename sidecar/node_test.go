package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/testdaemon"
	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// host is a Node that runs in this test process, and containers of our own making.
type host struct {
	*testing.T
	*Node
	log *logBuffer
}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("missing uid 0, to make cgroups and PID namespaces; run as root")
	}
	log := &logBuffer{}
	dir, err := os.MkdirTemp("", "pn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n, err := NewNode(proc.Proc, filepath.Join(dir, "notify"), 0o666, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	n.Connected(true)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", log)
		}
	})
	return &host{t, n, log}
}

// serve is a container that is served, and not started.
func (h *host) serve(name string, change func(*Config)) *lodger {
	h.Helper()
	cfg := Config{Name: name, Policy: lifecycle.DefaultPolicy(), KillSignal: unix.SIGTERM}
	cfg.Policy.Expect = lifecycle.ExpectNotify
	if change != nil {
		change(&cfg)
	}
	t, err := h.Add(cfg, Deps{Log: slog.New(slog.NewTextHandler(h.log, nil))})
	if err != nil {
		h.Fatal(err)
	}
	return &lodger{bench{T: h.T, Service: t.Service, log: h.log}, t, h, newCgroup(h.T)}
}

// lodger is one container.
type lodger struct {
	bench
	ctr    *Tenant
	host   *host
	cgroup string
}

// run starts a process in the container: its first, with a PID namespace of its own,
// or one that exec brings in, in ours.
func (l *lodger) run(below bool, script string, env ...string) *exec.Cmd {
	l.Helper()
	dir, err := os.Open(l.cgroup)
	if err != nil {
		l.Fatal(err)
	}
	defer dir.Close()
	socket := l.host.Env()
	if own := l.Service.Env(); own != "" {
		socket = own
	}
	cmd := testdaemon.Command(script, append(env, "NOTIFY_SOCKET="+socket, "GORACE=atexit_sleep_ms=0")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if below {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
	}
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

// start is run for the first process, told of.
func (l *lodger) start(script string, env ...string) int {
	l.Helper()
	cmd := l.run(true, script, env...)
	if err := l.ctr.Started(atPID(l.T, cmd.Process.Pid)); err != nil {
		l.Fatal(err)
	}
	return cmd.Process.Pid
}

// newCgroup is a cgroup in the unified hierarchy.
func newCgroup(t *testing.T) string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		mount, fs, _ := strings.Cut(s.Text(), " - ")
		if fields := strings.Fields(mount); strings.HasPrefix(fs, "cgroup2 ") && len(fields) > 4 {
			dir, err := os.MkdirTemp(fields[4], "podnotify-test-")
			if err != nil {
				continue
			}
			t.Cleanup(func() { // busy until its last process is reaped
				for end := time.Now().Add(30 * time.Second); os.Remove(dir) != nil && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
			})
			return dir
		}
	}
	t.Skip("missing a cgroup file system of version 2 to write to; mount one")
	return ""
}

func (l *lodger) dropped(reason string) uint64 { return l.Look().Facts.Dropped[reason] }

// TestNodeTells: one socket, and each container's words are its own.
func TestNodeTells(t *testing.T) {
	h := newHost(t)
	a, b := h.serve("a", nil), h.serve("b", nil)
	pid := a.start(`send READY=1\nSTATUS=a; wait`)
	b.start(`send STATUS=b; wait`)
	a.phase(lifecycle.Ready)
	b.until("heard", func(s *lifecycle.Snapshot) bool { return s.Status == "b" })
	if s := a.Look(); s.Main.PID != pid || s.Facts.InnerPID != 1 || s.Status != "a" {
		t.Errorf("main process %v, called %d, says %q; want %d", s.Main, s.Facts.InnerPID, s.Status, pid)
	}
	if b.ready() {
		t.Error("b is ready because a is")
	}

	// The next instance, of the same service.
	a.Kill(unix.SIGKILL)
	a.phase(lifecycle.Gone)
	if x := a.Look().LastExit; x.Reason != "killed" && x.Known {
		t.Errorf("it %v: %s", x, x.Reason)
	}
	a.ctr.Ended()
	a.start(`send READY=1; wait`)
	a.phase(lifecycle.Ready)
	if s := a.Look(); s.Respawns != 1 {
		t.Errorf("%d respawns", s.Respawns)
	}
}

// TestNodeEarly: what a daemon says before its runtime's word of it has come is kept,
// barrier and all.
func TestNodeEarly(t *testing.T) {
	h := newHost(t)
	a, b := h.serve("a", nil), h.serve("b", nil)
	mark := filepath.Join(t.TempDir(), "mark")
	cmd := a.run(true, `send READY=1\nSTATUS=early; barrier; touch `+mark+`; wait`)
	h.eventually("the word is kept", func() bool {
		h.hearing.Lock()
		defer h.hearing.Unlock()
		return len(h.letters) == 2
	})
	if _, err := os.Stat(mark); err == nil || a.Look().Phase != lifecycle.Absent || b.Look().Phase != lifecycle.Absent {
		t.Fatal("somebody has heard it")
	}
	if err := a.ctr.Started(atPID(t, cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if s := a.Look(); s.Phase != lifecycle.Ready || s.Status != "early" {
		t.Errorf("%v, status %q", s.Phase, s.Status)
	}
	h.eventually("the barrier is released", func() bool { _, err := os.Stat(mark); return err == nil })
}

// own gives a container a socket of its own.
func own(t *testing.T) func(*Config) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return func(c *Config) { c.Address, c.Mode = filepath.Join(dir, "notify"), 0o666 }
}

// speak runs a container's first process, until it has said something.
func (l *lodger) speak(what string) *exec.Cmd {
	l.Helper()
	mark := filepath.Join(l.TempDir(), "mark")
	cmd := l.run(true, "send "+what+"; touch "+mark+"; wait")
	l.host.eventually("it is said", func() bool { _, err := os.Stat(mark); return err == nil })
	return cmd
}

// hearNow has all heard that is said.
func (l *lodger) hearNow() {
	l.hear()
	l.settle()
	l.Service.mu.Unlock()
}

// TestNodeOwnEarly: what a daemon says on a socket of its own before its runtime's word of
// it has come is kept, also of a later task.
func TestNodeOwnEarly(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", own(t))
	cmd := a.speak(`READY=1`)
	a.hearNow()
	for respawns := range 3 {
		if p := a.Look().Phase; p == lifecycle.Ready || a.dropped(dropStranger) != 0 {
			t.Fatalf("after %d respawns it is %v, dropped %v", respawns, p, a.Look().Facts.Dropped)
		}
		for _, tell := range []func(proc.ID) error{a.ctr.Created, a.ctr.Started, a.ctr.Started} {
			if err := tell(atPID(t, cmd.Process.Pid)); err != nil {
				t.Fatal(err)
			}
		}
		if s := a.phase(lifecycle.Ready); s.Respawns != respawns {
			t.Errorf("%d respawns, want %d", s.Respawns, respawns)
		}
		a.Kill(unix.SIGKILL)
		a.phase(lifecycle.Gone)
		cmd.Wait()
		a.ctr.Exited(cmd.Process.Pid, lifecycle.Exit{Known: true, Signal: 9}, true)
		cmd = a.speak(`READY=1`)
		a.hearNow()
	}
}

// TestNodeOwnRecalls: nothing is heard before what was known is recalled, or it would be
// forgotten.
func TestNodeOwnRecalls(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", own(t))
	id := atPID(t, a.speak(`READY=1`).Process.Pid)
	created := make(chan error, 1)
	a.Service.mu.Lock() // nothing can be recalled
	go func() { created <- a.ctr.Created(id) }()
	h.eventually("it is about to be recalled", func() bool {
		a.ctr.mu.Lock()
		defer a.ctr.mu.Unlock()
		return a.ctr.entry == id
	})
	time.Sleep(10 * time.Millisecond)
	if !a.ctr.deaf() {
		t.Error("it is heard")
	}
	a.Service.mu.Unlock()
	if err := <-created; err != nil || a.ctr.deaf() {
		t.Errorf("then it is deaf: %v, %v", a.ctr.deaf(), err)
	}
	a.phase(lifecycle.Ready)
}

// TestNodeOwnNobody: who speaks on a container's own socket, and is never told of by its
// runtime, is a stranger in the end, and does not wait for ever; nor does the end of the service.
func TestNodeOwnNobody(t *testing.T) {
	h := newHost(t)
	h.hearing.Lock()
	h.age = 50 * time.Millisecond
	h.hearing.Unlock()
	a, b, c := h.serve("a", own(t)), h.serve("b", own(t)), h.serve("c", own(t))
	cmd := a.speak(`READY=1`)
	h.eventually("it is dropped", func() bool { return a.dropped(dropStranger) == 1 })
	if err := a.ctr.Started(atPID(t, cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	a.run(false, "send STATUS=x; barrier").Wait()
	h.eventually("it is heard again", func() bool { return a.dropped(dropStranger) == 2 })

	h.Connected(false)
	cmd = b.speak(`READY=1`)
	time.Sleep(5 * h.age)
	if n := b.dropped(dropStranger); n != 0 {
		t.Error("containerd could not tell, and it is dropped")
	}
	if err := b.ctr.Started(atPID(t, cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	b.phase(lifecycle.Ready)
	h.hearing.Lock()
	h.age = time.Hour
	h.hearing.Unlock()
	c.speak("READY=1") // and waits while everything ends

	d := h.serve("d", own(t))
	d.ctr.Refuse("of no reason")
	d.speak("READY=1")
	h.eventually("who is refused is not waited for", func() bool { return d.dropped(dropStranger) == 1 })
}

func (h *host) eventually(what string, ok func() bool) {
	h.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.Fatalf("not within half a minute: %s", what)
		}
	}
}

// TestNodeMainPID: MAINPID is the container's own number, and only of its own.
func TestNodeMainPID(t *testing.T) {
	h := newHost(t)
	a, b := h.serve("a", nil), h.serve("b", nil)
	a.start(`spawn ignore|wait; send MAINPID=$CHILD\nREADY=1; wait`)
	s := a.phase(lifecycle.Ready)
	names, err := proc.Proc.NSpid(s.Main.PID)
	if err != nil || len(names) < 2 || names[len(names)-1] == 1 || s.Facts.InnerPID != names[len(names)-1] {
		t.Errorf("main process %v is called %v, %v; shown as %d", s.Main, names, err, s.Facts.InnerPID)
	}
	// b has no process of that number. a has, and so has the host.
	first := b.start(fmt.Sprintf(`send MAINPID=%d\nSTATUS=1; send MAINPID=%d\nSTATUS=2; send MAINPID=%d\nSTATUS=3; send MAINPID=1\nREADY=1\nSTATUS=4; wait`,
		names[len(names)-1], s.Main.PID, os.Getpid()))
	s = b.until("all is said", func(s *lifecycle.Snapshot) bool { return s.Status == "4" })
	if s.Main.PID != first || s.Facts.Dropped["bad-MAINPID"] != 3 || s.Phase != lifecycle.Ready {
		t.Errorf("main process %v, want %d; %v", s.Main, first, s.Facts.Dropped)
	}
}

// TestNodeExec: what exec brings into a container speaks for nobody.
func TestNodeExec(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", nil)
	a.start("wait")
	a.run(false, `send READY=1; barrier`).Wait()
	if n := a.dropped(dropStranger); n != 1 || a.ready() {
		t.Errorf("dropped %d, ready %v", n, a.ready())
	}
}

// TestNodeOutOfMemory: whichever word comes first.
func TestNodeOutOfMemory(t *testing.T) {
	h := newHost(t)
	for _, early := range []bool{true, false} {
		a := h.serve("a", nil)
		pid := a.start("send READY=1; wait")
		a.phase(lifecycle.Ready)
		if early {
			a.ctr.OutOfMemory()
		}
		a.Kill(unix.SIGKILL)
		a.phase(lifecycle.Gone)
		a.ctr.Exited(pid, lifecycle.Exit{Known: true, Signal: 9}, true)
		if !early {
			a.ctr.OutOfMemory()
		}
		s := a.until("known", func(s *lifecycle.Snapshot) bool { return s.LastExit != nil && s.LastExit.OOM })
		if c, _ := s.Failing(a.Policy(), lifecycle.Readyz, nil); s.LastExit.Reason != "oom-killed" || !strings.Contains(c.Reason, "for want of memory") {
			t.Errorf("early %v: %s, %s", early, s.LastExit.Reason, c.Reason)
		}
		a.ctr.Remove()
	}
}

// TestNodeStops: expect stop works but for process 1 of a PID namespace, which says why.
func TestNodeStops(t *testing.T) {
	h := newHost(t)
	stops := func(c *Config) { c.Policy.Expect = lifecycle.ExpectStop }
	a, b := h.serve("a", stops), h.serve("b", stops)
	first := a.start("stop; wait")
	c, no := a.Look().Failing(a.Policy(), lifecycle.Readyz, nil)
	if want := fmt.Sprintf("process %d", first); !no || !strings.Contains(c.Reason, want) || !strings.Contains(c.Reason, "PID 1 of its PID namespace") {
		t.Errorf("it says %q", c.Reason)
	}
	b.start("spawn stop|wait; wait")
	s := b.phase(lifecycle.Ready)
	if s.Facts.InnerPID == 1 {
		t.Errorf("main process %v", s.Main)
	}
	h.eventually("nothing is looked out for", func() bool {
		h.Node.mu.Lock()
		defer h.Node.mu.Unlock()
		return h.seeking == 1 // a's
	})
}

// TestNodeMany: containers that say nothing cost nothing that runs.
func TestNodeMany(t *testing.T) {
	h := newHost(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	had := runtime.NumGoroutine()
	const many = 1000
	var all []*Tenant
	for i := range many {
		cfg := Config{Name: fmt.Sprint("c", i), Policy: lifecycle.DefaultPolicy()}
		x, err := h.Add(cfg, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	h.eventually("no goroutine is for one of them", func() bool { return runtime.NumGoroutine() <= had })
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d bytes each", int(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/many)
	for _, x := range all {
		x.Look()
	}
}

// TestNodeBrief: a process that has ended before it could be looked at has been there.
func TestNodeBrief(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", nil)
	cmd := a.run(true, "exit 7")
	cmd.Wait()
	if err := a.ctr.Started(proc.ID{PID: cmd.Process.Pid}); err == nil {
		t.Error("it is held")
	}
	for range 2 { // it may be told twice
		a.ctr.Exited(cmd.Process.Pid, lifecycle.Exit{Known: true, Code: 7}, true)
	}
	if s := a.Look(); s.Respawns != 0 || s.Phase != lifecycle.Gone || s.LastExit == nil || s.LastExit.Code != 7 {
		t.Errorf("%v, %v", s.Phase, s.LastExit)
	}
}

// TestNodeCreatedOnly: a process that has ended between being created and being started
// has been there, also if it is not the first.
func TestNodeCreatedOnly(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", nil)
	for code := range 3 {
		mark := filepath.Join(t.TempDir(), "mark")
		cmd := a.run(true, fmt.Sprintf("await %s; exit %d", mark, code))
		if err := a.ctr.Created(atPID(t, cmd.Process.Pid)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(mark, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		for range 2 {
			a.ctr.Exited(cmd.Process.Pid, lifecycle.Exit{Known: true, Code: code}, true)
		}
		if s := a.Look(); s.Respawns != code || s.Phase != lifecycle.Gone || s.LastExit == nil || s.LastExit.Code != code {
			t.Errorf("%v, %v, %d respawns, want code %d", s.Phase, s.LastExit, s.Respawns, code)
		}
	}
}

// TestNodeEndsOnce: a container that ends after its main process, which was not its first,
// has not ended twice.
func TestNodeEndsOnce(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", nil)
	cmd := a.run(true, `spawn ignore|wait; send MAINPID=$CHILD\nREADY=1; wait`)
	if err := a.ctr.Started(atPID(t, cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	a.phase(lifecycle.Ready)
	a.Kill(unix.SIGKILL)
	child := a.phase(lifecycle.Gone).LastExit.Who
	cmd.Process.Kill()
	cmd.Wait()
	a.ctr.Exited(cmd.Process.Pid, lifecycle.Exit{Known: true, Code: 1}, true)
	if s := a.Look(); s.Phase != lifecycle.Gone || s.LastExit.Who != child {
		t.Errorf("it is %v, and ended is %v, want %v", s.Phase, s.LastExit.Who, child)
	}
}

// TestNodeOldEnd: what was listed is not ended by older news that comes after it.
func TestNodeOldEnd(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", nil)
	old := a.run(true, "exit 0")
	old.Wait()
	pid := a.start("send READY=1; wait")
	a.phase(lifecycle.Ready)
	a.ctr.Exited(old.Process.Pid, lifecycle.Exit{Known: true}, true)
	if s := a.Look(); s.Phase != lifecycle.Ready || s.Main.PID != pid || !a.ctr.Member(pid) {
		t.Errorf("it is %v, main process %v, known %v", s.Phase, s.Main, a.ctr.Member(pid))
	}
}

// TestNodeRestarts: what the last podnotify-node knew is known again, once it is known
// what there is.
func TestNodeRestarts(t *testing.T) {
	h := newHost(t)
	state, err := journal.Open(t.TempDir(), proc.Proc, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	a := h.serve("a", nil)
	add := func() *Tenant {
		x, err := h.Add(a.Config(), Deps{Journal: state.File("a")})
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	first := add()
	cmd := a.run(true, "send READY=1; wait")
	if err := first.Started(atPID(t, cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	h.eventually("it is ready", func() bool { return first.Look().Phase == lifecycle.Ready })
	first.Remove()
	for range 3 {
		x := add()
		if p := x.Look().Phase; p != lifecycle.Absent {
			t.Errorf("it is %v before anybody has looked", p)
		}
		if err := x.Started(atPID(t, cmd.Process.Pid)); err != nil {
			t.Fatal(err)
		}
		h.eventually("it is adopted", func() bool { return x.Look().Phase == lifecycle.Ready })
		if s := x.Look(); !s.Facts.Adopted || s.Main.PID != cmd.Process.Pid {
			t.Errorf("%v, adopted %v, %v", s.Phase, s.Facts.Adopted, s.Main)
		}
		x.Remove()
	}
	cmd.Process.Kill()
	cmd.Wait()
	x := add()
	x.Ended()
	h.eventually("its end is known", func() bool { return x.Look().Phase == lifecycle.Gone })
}

// TestNodeHangs: what one container sends may take for ever to close. The others are
// heard all the same.
func TestNodeHangs(t *testing.T) {
	h := newHost(t)
	a, b, c := h.serve("a", nil), h.serve("b", nil), h.serve("c", nil)
	mark := filepath.Join(t.TempDir(), "mark")
	a.start(`await ` + mark + `; linger MAINPIDFD=1; linger FDSTORE=1; linger BARRIER=1; linger READY=1\nFDNAME=x; touch ` + mark + `2; wait`)
	early := c.run(true, `await `+mark+`; linger FDSTORE=1; linger MAINPIDFD=1; linger BARRIER=1; touch `+mark+`3; wait`) // of one that is not known yet
	// Who is born later has what we were sent, until exec closes that, and hangs itself.
	other := b.run(true, `await `+mark+`4; send READY=1; wait`)
	func() {
		h.hearing.Lock() // until they have closed their own: ours are the last
		defer h.hearing.Unlock()
		if err := os.WriteFile(mark, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, end := range []string{"2", "3"} {
			h.eventually("all is sent", func() bool { _, err := os.Stat(mark + end); return err == nil })
		}
	}()
	started, born, id := make(chan error, 1), atPID(t, other.Process.Pid), atPID(t, early.Process.Pid)
	go func() {
		started <- errors.Join(os.WriteFile(mark+"4", nil, 0o600), b.ctr.Started(born), c.ctr.Started(id))
	}()
	select {
	case err := <-started:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		early.Process.Kill() // that ends the hanging
		t.Fatal("everybody waits for what one has sent")
	}
	b.phase(lifecycle.Ready)
	a.phase(lifecycle.Ready)
	if err := h.Healthy(); err != nil {
		t.Error(err)
	}
}

// TestNodeHealthy: a Node that hears nobody any more says so.
func TestNodeHealthy(t *testing.T) {
	h := newHost(t)
	h.eventually("it runs", func() bool { return h.Healthy() == nil })
	h.hearing.Lock()
	if err := h.Healthy(); err != nil {
		t.Errorf("busy for a moment: %v", err)
	}
	h.hearing.since.Add(-int64(deafAfter) - 1)
	if err := h.Healthy(); err == nil || !strings.Contains(err.Error(), "nobody is heard") {
		t.Errorf("busy for too long: %v", err)
	}
	h.hearing.Unlock()
	if err := h.Healthy(); err != nil {
		t.Error(err)
	}
}

// TestNodeOutside: nobody names a process of the host or of another container, not even
// root in the host's own namespace, and not where the configuration says any.
func TestNodeOutside(t *testing.T) {
	h := newHost(t)
	a, b := h.serve("a", nil), h.serve("b", func(c *Config) { c.Access = AccessAny })
	victim := a.start("send READY=1; wait")
	pid := b.start("wait")
	b.run(false, fmt.Sprintf(`send MAINPID=%d\nSTATUS=said; barrier`, victim)).Wait()
	s := b.until("it is heard", func(s *lifecycle.Snapshot) bool { return s.Status == "said" })
	if s.Main.PID != pid || s.Facts.Dropped["bad-MAINPID"] != 1 {
		t.Errorf("main process %v, want %d and not %d; %v", s.Main, pid, victim, s.Facts.Dropped)
	}
}

// TestNodeSearches: a container cannot have the host's processes looked through as often
// as it likes.
func TestNodeSearches(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", nil)
	mark := filepath.Join(t.TempDir(), "mark")
	pid := a.start("await " + mark + "; " + strings.Repeat("send MAINPID=4711; ", 100) + "send STATUS=said; wait")
	blind := procBut(t, pid, "ns") // as without CAP_SYS_PTRACE
	began := time.Now()
	var looks, at int
	a.Service.mu.Lock()
	among := a.dep.Among
	a.dep.FS = blind
	a.dep.Among = func() ([]int, error) {
		pids, err := among()
		if err == nil {
			looks++
			at = len(pids)
		}
		return pids, err
	}
	a.Service.mu.Unlock()
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := a.until("all is said", func(s *lifecycle.Snapshot) bool { return s.Status == "said" })
	a.Service.mu.Lock()
	defer a.Service.mu.Unlock()
	if most := searchBurst + 2 + int(time.Since(began)/searchEvery); looks == 0 || looks > most || s.Facts.Dropped["bad-MAINPID"] != 100 {
		t.Errorf("looked %d times, at most %d; %v", looks, most, s.Facts.Dropped)
	}
	if at > 1 && h.unified != "" {
		t.Errorf("looked at %d processes, there is one in the container", at)
	}
}

// TestNodeLetters: what is kept of a container that is not known yet is bounded, and
// waits while nobody can tell whose it is.
func TestNodeLetters(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", nil)
	h.Connected(false)
	before := descriptors(t, "")
	cmd := a.run(true, `flood FDSTORE=1; flood FDSTORE=1; send READY=1; wait`)
	kept := func(n int) func() bool {
		return func() bool {
			h.hearing.Lock()
			defer h.hearing.Unlock()
			return len(h.letters) == n
		}
	}
	h.eventually("all is kept", kept(3))
	h.eventually("what came with it is not", func() bool { return descriptors(t, "") < before+100 })
	age := func() {
		h.hearing.Lock()
		for i := range h.letters {
			h.letters[i].at = h.letters[i].at.Add(-letterAge)
		}
		h.hearing.Unlock()
		h.forget()
	}
	if age(); !kept(3)() {
		t.Fatal("it is forgotten while nobody could claim it")
	}
	if h.Connected(true); !kept(3)() {
		t.Fatal("it is forgotten at once")
	}
	if err := a.ctr.Started(atPID(t, cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	a.phase(lifecycle.Ready)

	b := h.serve("b", nil)
	b.run(true, `send READY=1; wait`)
	h.eventually("it is kept", kept(1))
	if age(); !kept(0)() {
		t.Error("nobody has claimed it, and it is kept")
	}
}

// TestNodeNumberAlone: of who is known by a number alone nothing is believed where the
// kernel could tell more.
func TestNodeNumberAlone(t *testing.T) {
	h := newHost(t)
	if !h.ln.HasPidfd() {
		t.Skip("missing SO_PASSPIDFD; it needs Linux 6.5")
	}
	a := h.serve("a", nil)
	pid := a.start("wait")
	p := &notify.Packet{From: notify.Sender{PID: pid}, Pidfd: -1}
	if err := p.Message.Parse([]byte("READY=1")); err != nil {
		t.Fatal(err)
	}
	h.hearing.Lock()
	h.Packet(p)
	h.hearing.Unlock()
	if n := h.Unclaimed()["no-pidfd"]; n != 1 || a.ready() {
		t.Errorf("dropped %d, ready %v", n, a.ready())
	}
}

// TestNodeOutlived: while a container lives on, main processes of it may come and go.
func TestNodeOutlived(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", nil)
	dir := t.TempDir()
	mark := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	var script strings.Builder
	for i := range 30 {
		fmt.Fprintf(&script, `spawn send MAINPID=$PID\nREADY=1|wait; join; await %s; `, mark(i))
	}
	a.start(script.String() + "wait")
	few := 0
	for i := range 30 {
		a.phase(lifecycle.Ready)
		if i == 3 {
			few = runtime.NumGoroutine()
		}
		a.Kill(unix.SIGKILL)
		a.phase(lifecycle.Gone)
		if i < 29 {
			if err := os.WriteFile(mark(i), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !a.Look().Facts.ContainerAlive {
		t.Error("its container is not alive")
	}
	h.eventually("no goroutines are for those that have ended", func() bool { return runtime.NumGoroutine() < few+15 })
}

// TestNodeToldAgain: that a container runs is told again after each reconnect. A service
// whose main process has ended is not alive for it.
func TestNodeToldAgain(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", nil)
	first := a.start(`spawn wait; send MAINPID=$CHILD\nREADY=1; wait`)
	a.phase(lifecycle.Ready)
	a.Kill(unix.SIGKILL)
	a.phase(lifecycle.Gone)
	if err := a.ctr.Started(atPID(t, first)); err != nil {
		t.Fatal(err)
	}
	if s := a.Look(); s.Phase != lifecycle.Gone || s.Respawns != 0 {
		t.Errorf("%v, %d respawns", s.Phase, s.Respawns)
	}
}

// TestNodeNames: however many containers have been named in the log, new ones are, too.
func TestNodeNames(t *testing.T) {
	h := newHost(t)
	names := func(s string) func() bool {
		return func() bool { return strings.Contains(h.log.String(), "cgroup="+s+"\n") }
	}
	for i := range strangersNamed + 50 {
		h.drop(dropStranger, notify.Sender{PID: 1}, proc.Container{Cgroup: fmt.Sprint("c", i)})
	}
	h.eventually("the first is named", names("c0"))
	h.Node.mu.Lock()
	n := len(h.named)
	h.renamed = h.renamed.Add(-2 * renameAfter)
	h.Node.mu.Unlock()
	h.drop(dropStranger, notify.Sender{PID: 1}, proc.Container{Cgroup: "late"})
	h.eventually("so is the last", names("late"))
	if n > strangersNamed || h.Unclaimed()[dropStranger] != strangersNamed+51 {
		t.Errorf("%d names are kept; dropped: %v", n, h.Unclaimed())
	}
}

// hanging is procfs, but who reads the command line of a process waits for answer.
func hanging(t *testing.T, pid int) (fs proc.FS, answer func(string)) {
	t.Helper()
	fs = procBut(t, pid, "cmdline")
	path := fmt.Sprintf("%s/%d/cmdline", fs, pid)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return fs, func(s string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR, 0) // which waits for no reader
		if err == nil {
			_, err = f.WriteString(s)
			f.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// TestNodeCommandHangs: a process can have the reading of its command line take for ever.
// Nobody waits for that, and it counts when it is read.
func TestNodeCommandHangs(t *testing.T) {
	h := newHost(t)
	// Who is slow to read has been answered more than once.
	a := h.serve("a", func(c *Config) { c.Process = regexp.MustCompile("^daemon( daemon)*$") })
	pid := a.start("wait")
	fs, answer := hanging(t, pid)
	a.Service.mu.Lock()
	a.dep.FS = fs
	a.Service.mu.Unlock()
	st, err := proc.Proc.Stat(pid)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { a.ctr.offer(st); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		answer("")
		t.Fatal("it waits")
	}
	if s := a.Look(); s.Main != (lifecycle.ProcID{}) {
		t.Fatalf("main process %v", s.Main)
	}
	a.until("it is found", func(s *lifecycle.Snapshot) bool {
		answer("daemon\x00") // whoever opens it now or soon
		return s.Main.PID == pid
	})
	h.eventually("nothing hangs", func() bool {
		answer("daemon\x00") // to who reads what is shown of it
		return a.inside.count() == 0
	})
}

// TestInsideHangs: the wait for what hangs ends. One process whose memory hangs takes one
// thread, and nothing from others; there are as many such threads as is said.
func TestInsideHangs(t *testing.T) {
	fs, answer := hanging(t, os.Getpid())
	var in insides
	for range 2 * insideMost {
		if cmd, ok := in.cmdline(fs, os.Getpid(), time.Millisecond); ok {
			t.Fatalf("it is %q", cmd)
		}
	}
	if n := in.count(); n != 1 {
		t.Errorf("%d reads hang", n)
	}
	if cmd, ok := in.cmdline(proc.Proc, os.Getppid(), time.Minute); !ok || cmd == "" {
		t.Errorf("another process's is %q, %v", cmd, ok)
	}
	for pid := range 2 * insideMost {
		glimpse(&in, -pid, time.Millisecond, func() bool { _, err := fs.Cmdline(os.Getpid()); return err == nil }, nil)
	}
	if n := in.count(); n != insideMost {
		t.Errorf("%d reads of many hang", n)
	}
	for end := time.Now().Add(30 * time.Second); in.count() > 0; {
		answer("x\x00")
		if time.Now().After(end) {
			t.Fatal("some hang for good")
		}
	}
	cmd, ok := in.cmdline(proc.Proc, os.Getpid(), time.Minute)
	if !ok || cmd == "" {
		t.Errorf("%q, %v", cmd, ok)
	}
}

// count is how many reads are under way.
func (in *insides) count() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.reading
}

// TestNodeLettersBounded: nobody can have datagrams kept without end.
func TestNodeLettersBounded(t *testing.T) {
	h := newHost(t)
	h.hearing.Lock()
	defer h.hearing.Unlock()
	for i := range 2 * lettersEach {
		if kept := h.keep(&notify.Packet{Pidfd: -1}, proc.Container{Cgroup: "/one"}); kept != (i < lettersEach) {
			t.Fatalf("datagram %d of one container is kept: %v", i, kept)
		}
	}
	for i := range 2 * lettersKept {
		kept := h.keep(&notify.Packet{Pidfd: -1}, proc.Container{Cgroup: fmt.Sprintf("/%d", i)})
		if kept != (i < lettersKept-lettersEach) {
			t.Fatalf("datagram %d of all is kept: %v", i, kept)
		}
	}
}

// TestNodeRoutesBounded: what is remembered of senders and of cgroups is bounded, and who
// was forgotten is heard.
func TestNodeRoutesBounded(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", nil)
	h.hearing.Lock()
	for i := range routesKept {
		h.routes[-i-1] = route{inode: 1}
	}
	h.hearing.Unlock()
	a.start("send READY=1; wait")
	a.phase(lifecycle.Ready)
	h.hearing.Lock()
	defer h.hearing.Unlock()
	if n := len(h.routes); n == 0 || n > routesKept {
		t.Errorf("%d senders are remembered", n)
	}
	for i := range 2 * routesKept {
		if h.holder(proc.Container{Cgroup: fmt.Sprint("/", i)}) != nil {
			t.Fatal("somebody holds it")
		}
		if n := len(h.below); n > routesKept {
			t.Fatalf("%d cgroups are remembered", n)
		}
	}
	if x := h.holder(proc.Container{Cgroup: a.ctr.ctr.Cgroup + "/below"}); x != a.ctr {
		t.Errorf("a cgroup below that of a is held by %v", x)
	}
}

// TestNodeReused: a number that is another process's by now is not the container's.
func TestNodeReused(t *testing.T) {
	h := newHost(t)
	a := h.serve("a", nil)
	cmd := a.run(true, "send READY=1; wait")
	id := atPID(t, cmd.Process.Pid)
	id.Start--
	if err := a.ctr.Started(id); !errors.Is(err, proc.ErrReused) {
		t.Errorf("it is taken: %v", err)
	}
	if s := a.Look(); s.Phase != lifecycle.Absent {
		t.Errorf("it is %v", s.Phase)
	}
}

func atPID(t *testing.T, pid int) proc.ID {
	t.Helper()
	st, err := proc.Proc.Stat(pid)
	if err != nil {
		t.Fatal(err)
	}
	return st.ID()
}
