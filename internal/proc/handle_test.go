package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	c := start(t, "sit")
	h := open(t, c.pid)
	s, err := Proc.Stat(c.pid)
	if err != nil || h.ID() != s.ID() {
		t.Errorf("ID = %v, want %v, %v", h.ID(), s.ID(), err)
	}
	if h.Ended() || !h.Permitted() {
		t.Errorf("Ended %v, Permitted %v", h.Ended(), h.Permitted())
	}
	if state, err := h.State(); err != nil || state.Dead() || state.Stopped() {
		t.Errorf("State = %v, %v", state, err)
	}

	again, err := Proc.OpenID(h.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !h.Same(again.PIDFD()) || !again.Same(h.PIDFD()) || h.Inode() != again.Inode() {
		t.Error("one process, two names")
	}
	if _, err := Proc.OpenID(ID{c.pid, h.ID().Start + 1}); !errors.Is(err, ErrReused) {
		t.Errorf("OpenID with another start time: %v", err)
	}
	for name, f := range map[string]func(){
		"State": func() { h.State() },
		"Same":  func() { h.Same(again.PIDFD()) },
		"Ended": func() { h.Ended() },
	} {
		if a := testing.AllocsPerRun(100, f); a != 0 && !race {
			t.Errorf("%s allocates %v times", name, a)
		}
	}

	// A zombie still has its number, but is nobody to begin with.
	if err := h.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", h.Ended)
	if state, err := h.State(); err != nil || state != 'Z' {
		t.Errorf("State of a zombie = %v, %v", state, err)
	}
	if _, err := Proc.Open(c.pid); !errors.Is(err, ErrGone) {
		t.Errorf("Open of a zombie: %v", err)
	}
	if err := h.Signal(unix.SIGTERM); err != nil {
		t.Errorf("Signal to a zombie: %v", err)
	}

	c.end()
	if !h.Ended() {
		t.Error("it rose from the dead")
	}
	if _, err := h.State(); !errors.Is(err, ErrGone) {
		t.Errorf("State after the end: %v", err)
	}
	if _, err := again.State(); !errors.Is(err, ErrGone) {
		t.Errorf("first State after the end: %v", err)
	}
	if err := h.Signal(unix.SIGTERM); !errors.Is(err, ErrGone) {
		t.Errorf("Signal after the end: %v", err)
	}
	if _, err := Proc.Open(c.pid); !errors.Is(err, ErrGone) {
		t.Errorf("Open after the end: %v", err)
	}
	for _, pid := range []int{0, -1, -c.pid} {
		if _, err := Proc.Open(pid); !errors.Is(err, ErrGone) {
			t.Errorf("Open(%d): %v", pid, err)
		}
	}
}

func TestOpenRefusesThreads(t *testing.T) {
	tid := thread(t, start(t, "sit").pid)
	h, err := Proc.Open(tid)
	if err == nil {
		t.Fatalf("thread %d was taken for process %v", tid, h.ID())
	}
	if errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "thread") {
		t.Error(err)
	}
	fd, err := unix.PidfdOpen(tid, unix.O_EXCL) // PIDFD_THREAD
	if err != nil {
		t.Skipf("pidfds of threads need Linux 6.9: %v", err)
	}
	if h, err := Proc.FromPidfd(fd, 0); err == nil {
		t.Errorf("the pidfd of thread %d was taken for process %v", tid, h.ID())
	}
}

// thread returns a thread of a process that is not the leading one.
func thread(t *testing.T, pid int) int {
	var found int
	eventually(t, "a second thread", func() bool {
		dir, err := os.ReadDir(Proc.path(pid, "task"))
		for _, d := range dir {
			if tid, _ := strconv.Atoi(d.Name()); tid != pid {
				found = tid
			}
		}
		return err == nil && found != 0
	})
	return found
}

func TestSame(t *testing.T) {
	a, b := start(t, "sit"), start(t, "sit")
	ha, hb := open(t, a.pid), open(t, b.pid)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()

	check := func(t *testing.T) {
		other, err := unix.PidfdOpen(a.pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(other)
		if !ha.Same(other) || hb.Same(other) || ha.Same(hb.PIDFD()) || ha.Same(int(null.Fd())) || ha.Same(-1) {
			t.Error("wrong process")
		}
	}
	if ha.Inode() == 0 {
		t.Log("no pidfs, it needs Linux 6.9")
	} else if ha.Inode() == hb.Inode() {
		t.Error("two processes, one inode")
	}
	t.Run("pidfs", check)
	keep := ha.ino
	ha.ino, hb.ino = 0, 0 // as before Linux 6.9
	t.Run("fdinfo", check)
	ha.ino = keep

	dead, err := unix.PidfdOpen(a.pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dead)
	a.end()
	if keep != 0 && !ha.Same(dead) {
		t.Error("pidfs forgot the dead")
	}
	ha.ino = 0
	if ha.Same(dead) {
		t.Error("nobody can know that without pidfs")
	}
}

func TestFromPidfd(t *testing.T) {
	c := start(t, "sit")
	want := open(t, c.pid).ID()
	dup := func() int {
		fd, err := unix.PidfdOpen(c.pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	check := func(fd, pid int, id ID, ended bool) {
		t.Helper()
		h, err := Proc.FromPidfd(fd, pid)
		if err != nil {
			t.Error(err)
			return
		}
		defer h.Close()
		if h.ID() != id || h.Ended() != ended {
			t.Errorf("%v, ended %v; want %v, %v", h.ID(), h.Ended(), id, ended)
		}
		if err := h.Wait(t.Context()); ended && err != nil {
			t.Errorf("Wait for the dead: %v", err)
		} else if _, err := h.State(); !ended && err != nil {
			t.Errorf("State of the living: %v", err)
		}
	}
	alive := func(fd, pid int) {
		t.Helper()
		h, err := Proc.FromPidfd(fd, pid)
		if err != nil {
			t.Error(err)
			return
		}
		defer h.Close()
		if _, err := h.State(); h.ID() != want || h.Ended() || err != nil {
			t.Errorf("%v, ended %v, %v; want %v", h.ID(), h.Ended(), err, want)
		}
	}
	alive(dup(), c.pid)
	alive(dup(), 0)

	if h, err := Proc.FromPidfd(dup(), os.Getpid()); err == nil {
		t.Errorf("it is said to be us and to be %v", h.ID())
	}
	null, err := unix.Open(os.DevNull, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := Proc.FromPidfd(null, c.pid); err == nil {
		t.Errorf("/dev/null was taken for %v", h.ID())
	}
	if err := unix.Close(null); err != nil {
		t.Errorf("it closed a descriptor it refused: %v", err)
	}

	zombie, gone1, gone2 := dup(), dup(), dup()
	c.Process.Kill()
	eventually(t, "the end", func() bool { return poll(zombie) != 0 })
	check(zombie, c.pid, want, true)
	c.end()
	check(gone1, c.pid, ID{PID: c.pid}, true)
	check(gone2, 0, ID{}, true)
}

// A pidfd that a daemon passed on shares its flags with the daemon's.
func TestFromPidfdLeavesTheSendersFlagsAlone(t *testing.T) {
	c := start(t, "sit")
	theirs, err := unix.PidfdOpen(c.pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(theirs)
	ours, err := unix.Dup(theirs)
	if err != nil {
		t.Fatal(err)
	}
	h, err := Proc.FromPidfd(ours, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	flags, err := unix.FcntlInt(uintptr(theirs), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

func TestStop(t *testing.T) {
	for _, what := range []string{"sit", "headless"} {
		t.Run(what, func(t *testing.T) {
			h := open(t, start(t, what).pid)
			is := func(stopped bool) func() bool {
				return func() bool {
					s, err := h.State()
					if err != nil {
						t.Fatal(err)
					}
					if s.Dead() {
						t.Fatalf("State = %v, but it lives", s)
					}
					return s.Stopped() == stopped
				}
			}
			if h.Ended() {
				t.Fatal("it is said to have ended")
			}
			for range 3 {
				if err := h.Signal(unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the stop", is(true))
				if err := h.Signal(unix.SIGCONT); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the continuation", is(false))
			}
		})
	}
}

func TestSignalRefuses(t *testing.T) {
	self := open(t, os.Getpid())
	if err := self.Signal(unix.SIGURG); err == nil {
		t.Error("it signals itself")
	}
	if h, err := Proc.Open(1); err == nil { // may be hidden
		defer h.Close()
		if err := h.Signal(0); err == nil || !strings.Contains(err.Error(), "init") {
			t.Errorf("it signals process 1: %v", err)
		}
	}
	h := open(t, start(t, "sit").pid)
	if err := h.Signal(999); err == nil || !strings.Contains(err.Error(), "signal 999") {
		t.Errorf("signal 999: %v", err)
	}
	h.Close()
	if err := h.Signal(unix.SIGTERM); !errors.Is(err, os.ErrClosed) {
		t.Errorf("it signals through a closed handle: %v", err)
	}
}

// user drops to the user TARGET_UID, and sits.
func user() {
	uid, _ := strconv.Atoi(os.Getenv("TARGET_UID"))
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// asker drops to user 65533, and tells what it may do to process TARGET.
func asker() {
	pid, _ := strconv.Atoi(os.Getenv("TARGET"))
	if err := syscall.Setresuid(65533, 65533, 65533); err != nil {
		panic(err)
	}
	h, err := Proc.Open(pid)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = h.Signal(unix.SIGTERM)
	state, serr := h.State()
	fmt.Println(h.Permitted(), errors.Is(err, ErrNotPermitted), state.Dead(), serr, err)
}

func TestPermission(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing the user needs root")
	}
	for uid, want := range map[string]string{
		"65532": "false true false <nil> cannot send SIGTERM to process %v: not permitted: this process has uid 65533, it has uid 65532",
		"65533": "true false false <nil> <nil>",
	} {
		target := start(t, "user", func(c *exec.Cmd) { c.Env = append(c.Env, "TARGET_UID="+uid) })
		id := open(t, target.pid).ID()
		want = strings.ReplaceAll(want, "%v", id.String())
		got := start(t, "asker", func(c *exec.Cmd) { c.Env = append(c.Env, "TARGET="+strconv.Itoa(target.pid)) })
		// SIGTERM may be quicker than the look at the state.
		if said := strings.Replace(got.said, "false true <nil>", "false false <nil>", 1); said != want {
			t.Errorf("uid %s: it said %q, want %q", uid, got.said, want)
		}
	}
}

func TestWait(t *testing.T) {
	c := start(t, "sit")
	h := open(t, c.pid)

	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	go func() { errs <- h.Wait(ctx) }()
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("Wait called off: %v", err)
	}

	const many = 20
	for range many {
		go func() { errs <- h.Wait(t.Context()) }()
	}
	c.Process.Kill() // and is not reaped yet
	for range many {
		if err := <-errs; err != nil {
			t.Errorf("Wait: %v", err)
		}
	}
	if err := h.Wait(ctx); err != nil {
		t.Errorf("Wait for the dead, called off before: %v", err)
	}
}

func TestCloseWakesAndIsIdempotent(t *testing.T) {
	h := open(t, start(t, "sit").pid)
	errs := make(chan error)
	go func() { errs <- h.Wait(t.Context()) }()
	go func() { _, err := h.Exit(t.Context()); errs <- err }()
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() { h.Close() })
		all.Go(func() { h.State() })
		all.Go(func() { h.Ended() })
		all.Go(func() { h.Permitted() })
		all.Go(func() { h.CgroupID() })
	}
	all.Wait()
	for range 2 {
		if err := <-errs; !errors.Is(err, os.ErrClosed) {
			t.Errorf("woken by Close: %v", err)
		}
	}
	if _, err := h.State(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("State of a closed handle: %v", err)
	}
	if !h.Ended() || h.PIDFD() != -1 || h.Permitted() {
		t.Error("a closed handle still names somebody")
	}
	if err := h.Wait(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Wait on a closed handle: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestHandlesLeakNothing(t *testing.T) {
	c := start(t, "sit")
	count := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	use := func() {
		h, err := Proc.Open(c.pid)
		if err != nil {
			t.Fatal(err)
		}
		h.State()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		h.Wait(ctx)
		h.Close()
		Proc.Open(-1)
		Proc.OpenID(ID{c.pid, 1})
	}
	use()
	before := count()
	for range 50 {
		use()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// reuse makes the kernel give one number to two processes, one after the other.
// It runs as process 1 of a PID namespace of its own, and says ok or what is wrong.
func reuse() {
	fmt.Println(func() string {
		if err := ownProc(); err != nil {
			return "skip: cannot mount procfs: " + err.Error()
		}
		// Few numbers come again soon: the kernel starts over at 300 after the
		// last one. Without a limit of our own (Linux 6.14) it still may let us say
		// which number is next.
		few := os.WriteFile("/proc/sys/kernel/pid_max", []byte("330"), 0)
		spawn := func(what string) (*exec.Cmd, io.Closer) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{quick, role + "=" + what}
			in, _ := cmd.StdinPipe()
			if err := cmd.Start(); err != nil {
				panic(err)
			}
			return cmd, in
		}
		first, in := spawn("sit")
		pid := first.Process.Pid
		for few == nil && pid < 300 { // a number that will come again
			in.Close()
			first.Wait()
			first, in = spawn("sit")
			pid = first.Process.Pid
		}
		old, err := Proc.Open(pid)
		if err != nil {
			return err.Error()
		}
		used, err := Proc.Open(pid)
		if err != nil {
			return err.Error()
		}
		used.State()
		kept, _ := unix.PidfdOpen(pid, 0)
		in.Close()
		first.Wait()

		var second *exec.Cmd
		for end := time.Now().Add(20 * time.Second); ; {
			next := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0)
			if few != nil && next != nil {
				return fmt.Sprint("skip: cannot have one number twice: ", few, ", ", next)
			}
			second, in = spawn("sit")
			// Within one clock tick the start time is the same, too. Without our
			// help the numbers do not go around that fast.
			if second.Process.Pid == pid {
				if s, err := Proc.Stat(pid); err == nil && s.Start != old.ID().Start {
					break
				}
			}
			in.Close()
			second.Wait()
			if time.Now().After(end) {
				return "skip: the number did not come again"
			}
		}
		defer second.Wait()
		defer in.Close()
		now, err := Proc.Open(pid)
		if err != nil {
			return err.Error()
		}
		for _, h := range []*Handle{old, used} {
			if err := h.Signal(unix.SIGKILL); !errors.Is(err, ErrGone) {
				return fmt.Sprint("a signal to the first: ", err)
			}
			if s, err := h.State(); !errors.Is(err, ErrGone) {
				return fmt.Sprint("the state of the first: ", s, err)
			}
			if !h.Ended() || h.Same(now.PIDFD()) || now.Same(h.PIDFD()) {
				return "the first is taken for the second"
			}
		}
		if _, err := Proc.OpenID(old.ID()); !errors.Is(err, ErrReused) {
			return fmt.Sprint("opening the first: ", err)
		}
		late, err := Proc.FromPidfd(kept, pid)
		if err != nil || !late.Ended() || late.ID().Start != 0 || late.Same(now.PIDFD()) {
			return fmt.Sprint("the first's pidfd: ", err)
		}
		if s, err := late.State(); !errors.Is(err, ErrGone) {
			return fmt.Sprint("the state by the first's pidfd: ", s, err)
		}
		if now.Ended() {
			return "the second was hit"
		}
		return "ok"
	}())
}

// ownProc mounts the procfs of our own PID namespace on /proc.
func ownProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("proc", "/proc", "proc", 0, "")
}

// alone runs a command in PID and mount namespaces of its own.
func alone(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
}

func TestReusedNumber(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a PID namespace needs root")
	}
	c := start(t, "reuse", alone)
	if why, ok := strings.CutPrefix(c.said, "skip: "); ok {
		t.Skip(why)
	}
	if c.said != "ok" {
		t.Error(c.said)
	}
}

// invisible looks at the pidfd 3 of a process outside of its PID namespace.
func invisible() {
	if err := ownProc(); err != nil {
		fmt.Println("skip: cannot mount procfs:", err)
		return
	}
	h, err := Proc.FromPidfd(3, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, serr := h.State()
	_, known := h.CgroupID()
	fmt.Println(h.ID().PID, h.ID().Start == h.Inode(), h.Ended(), h.Permitted(), known,
		errors.Is(h.Signal(unix.SIGKILL), ErrInvisible), errors.Is(serr, ErrInvisible))
	err = h.Wait(context.Background())
	_, eerr := h.Exit(context.Background())
	if err == nil && h.Ended() && errors.Is(eerr, ErrUnknown) {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, err, h.Ended(), eerr)
	os.Exit(1)
}

func TestInvisibleProcess(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a PID namespace needs root")
	}
	target := start(t, "sit")
	fd, err := unix.PidfdOpen(target.pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	defer file.Close()
	c := start(t, "invisible", alone, func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{file} })
	if strings.HasPrefix(c.said, "skip: ") {
		t.Skip(c.said)
	}
	if c.said != "0 true false false false true true" {
		t.Errorf("it said %q", c.said)
	}
	target.end()
	c.done = true
	if err := c.Wait(); err != nil {
		t.Errorf("it did not see the end: %v", err)
	}
	c.stdin.Close()
}

// A process in a PID namespace below ours has a number here and one there.
func TestNestedProcess(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a PID namespace needs root")
	}
	c := start(t, "sit", alone)
	inner, err := Proc.NSpid(c.pid)
	if err != nil || len(inner) < 2 || inner[0] != c.pid || inner[len(inner)-1] != 1 {
		t.Errorf("NSpid = %v, %v", inner, err)
	}
	if h := open(t, c.pid); h.ID().PID != c.pid {
		t.Errorf("ID = %v", h.ID())
	}
}

func BenchmarkState(b *testing.B) {
	h, err := Proc.Open(os.Getpid())
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	b.ReportAllocs()
	for b.Loop() {
		h.State()
	}
}

func BenchmarkSame(b *testing.B) {
	h, err := Proc.Open(os.Getpid())
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	b.ReportAllocs()
	for b.Loop() {
		h.Same(h.fd)
	}
}

func BenchmarkOpen(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		h, err := Proc.Open(os.Getpid())
		if err != nil {
			b.Fatal(err)
		}
		h.Close()
	}
}
