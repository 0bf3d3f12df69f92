package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Here podnotify runs where something that it uses is missing or odd: descriptors,
// a /proc that shows everybody, an older kernel, the machine's clocks. It serves on,
// and says what it lacks.

// aroundVariable has the test binary make surroundings and become the program that its
// arguments name: a kernel before pidfds have identities, or "clock:SECONDS:UID", with
// other clocks, as that uid.
const aroundVariable = "PODNOTIFY_TEST_AROUND"

// oldKernel is what aroundVariable says for a kernel like Linux 5.4.
const oldKernel = "old"

// kernelVariable puts every podnotify that tests start on such a kernel.
const kernelVariable = "PODNOTIFY_TEST_KERNEL"

// numbersAlone is what podnotify says there.
const numbersAlone = "senders are known by their numbers alone"

// around is an order in surroundings.
func around(what string, o order) order {
	o.through = append([]string{bin.self}, o.through...)
	o.env = append(o.env, aroundVariable+"="+what)
	return o
}

func aroundMain() error {
	what := strings.Split(os.Getenv(aroundVariable), ":")
	os.Unsetenv(aroundVariable)
	runtime.LockOSThread() // a filter is a thread's, and exec makes it the process's
	if what[0] == oldKernel {
		if err := refuse(); err != nil {
			return fmt.Errorf("cannot set a seccomp filter: %w", err)
		}
	} else if err := otherClocks(what[1], what[2]); err != nil {
		return fmt.Errorf("cannot make other clocks: %w", err)
	}
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		return err
	}
	return unix.Exec(path, os.Args[1:], os.Environ())
}

// refuse has the kernel answer as Linux 5.4 does to what podnotify asks of pidfds: no
// SO_PASSPIDFD (6.5), no identity (6.9), no word on the process (6.13), no signals to
// its group (6.9). And no kcmp, which the seccomp profiles of containers refuse.
func refuse() error {
	const number, arg = 0, 16 // of struct seccomp_data; arguments are 8 bytes each, the lower half first
	low := func(n int) unix.SockFilter { return stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, uint32(arg+8*n)) }
	call := func(nr uintptr, skip int) []unix.SockFilter {
		return []unix.SockFilter{stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, number), jump(unix.BPF_JEQ, uint32(nr), 0, skip)}
	}
	fail := func(errno unix.Errno) unix.SockFilter {
		return stmt(unix.BPF_RET, unix.SECCOMP_RET_ERRNO|uint32(errno))
	}
	var f []unix.SockFilter
	f = append(f, call(unix.SYS_SETSOCKOPT, 3)...)
	f = append(f, low(2), jump(unix.BPF_JEQ, unix.SO_PASSPIDFD, 0, 1), fail(unix.ENOPROTOOPT))
	f = append(f, call(unix.SYS_IOCTL, 4)...)
	f = append(f, low(1), stmt(unix.BPF_ALU|unix.BPF_AND, 0xffff), jump(unix.BPF_JEQ, 0xff<<8|11, 0, 1), fail(unix.ENOTTY))
	f = append(f, call(unix.SYS_FSTATFS, 1)...)
	f = append(f, fail(unix.ENOSYS))
	f = append(f, call(unix.SYS_KCMP, 1)...)
	f = append(f, fail(unix.EPERM))
	f = append(f, call(unix.SYS_PIDFD_SEND_SIGNAL, 3)...)
	f = append(f, low(3), jump(unix.BPF_JEQ, 0, 1, 0), fail(unix.EINVAL))
	f = append(f, stmt(unix.BPF_RET, unix.SECCOMP_RET_ALLOW))
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

func stmt(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func jump(test uint16, k uint32, yes, no int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jt: uint8(yes), Jf: uint8(no), K: k}
}

// otherClocks moves the process, when it executes its program, into a time namespace
// whose clocks since boot are ahead.
func otherClocks(seconds, uid string) error {
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return err
	}
	ahead := fmt.Sprintf("monotonic %s 0\nboottime %s 0\n", seconds, seconds)
	if err := os.WriteFile("/proc/self/timens_offsets", []byte(ahead), 0); err != nil {
		return err
	}
	id, err := strconv.Atoi(uid)
	if err != nil {
		return err
	}
	if err := unix.Setgroups(nil); err != nil {
		return err
	}
	if err := unix.Setresgid(id, id, id); err != nil {
		return err
	}
	return unix.Setresuid(id, id, id)
}

// lacks waits until a metric says whether podnotify lacks something, and status warns
// of it.
func (n *podnotify) lacks(what string, yes bool, warning string) {
	n.t.Helper()
	want := fmt.Sprintf("podnotify_degraded{what=%q} 0", what)
	if yes {
		want = fmt.Sprintf("podnotify_degraded{what=%q} 1", what)
	}
	n.untilBody("/metrics", 200, want)
	eventually(n.t, fmt.Sprintf("status warns of %s: %v", what, yes), func() bool {
		return yes == strings.Contains(strings.Join(n.status("d").Warnings, "\n"), warning)
	})
	if yes {
		n.says(warning)
	}
}

// limit changes how many descriptors podnotify may have: its own uid may, down and up
// to where it was.
func (n *podnotify) limit(most int) {
	n.t.Helper()
	x := n.pod.start(n.t, order{uid: nobody}, "prlimit", "--pid", strconv.Itoa(n.inner()), fmt.Sprintf("--nofile=%d:", most))
	if x.exit() != 0 {
		n.t.Fatalf("cannot set a limit: %s", &x.stderr)
	}
}

// TestDescriptorLimit: where there are fewer descriptors than senders and connections
// podnotify serves on: who was silent longest is given up.
func TestDescriptorLimit(t *testing.T) {
	t.Parallel()
	prlimit := need(t, "prlimit", "util-linux")
	const warning = "all 48 descriptors that this process may have are in use"
	p := newPod(t)
	n := p.serve(t, order{uid: nobody, through: []string{prlimit, "--nofile=48:48"}}, "sidecar", "--service", "d", "--expect", "notify", "--select-process", "testdaemon$")
	n.lacks("descriptors", false, warning)
	mark := tempDir(t)
	const crowd = 100
	script := strings.Repeat(`spawn send STATUS=helper\n|wait;`, crowd) + `send READY=1\nSTATUS=serving;touch ` + mark + `/ready;wait`
	d := n.daemon("d", script, nobody)
	n.until("/readyz", 200)

	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	for range crowd { // who connects, and says nothing
		c, err := net.Dial("tcp", n.address)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	eventually(t, "all have spoken", func() bool { return n.facts("d").Counters.Datagrams >= crowd+1 })
	n.lacks("descriptors", true, warning)
	for range 50 {
		n.expect("/readyz", 200)
		n.expect("/livez", 200)
		n.expect("/healthz", 200)
	}
	f := n.facts("d")
	if len(f.Counters.Dropped) != 0 {
		t.Errorf("dropped %v: there was somebody to give up each time", f.Counters.Dropped)
	}

	// The next instance is somebody new.
	d.kill()
	n.until("/readyz", 503)
	d = n.daemon("d", "send READY=1;wait", nobody)
	n.until("/readyz", 200)
	if pid := n.mainPID("d"); pid != d.inner() {
		t.Errorf("main process is %d, want %d", pid, d.inner())
	}

	for _, c := range idle {
		c.Close()
	}
	n.lacks("descriptors", false, warning)
	n.says("descriptors are to be had again")
}

// idleDescriptor is the lowest number that is free when nothing is under way: podnotify
// sleeps, and has done so for a while. At that limit it can open none.
func (n *podnotify) idleDescriptor() (least int) {
	n.t.Helper()
	still := 0
	eventually(n.t, "podnotify does nothing", func() bool {
		free := 0
		for ; ; free++ {
			if _, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", n.Pid, free)); err != nil {
				break
			}
		}
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", n.Pid))
		runs := slices.ContainsFunc(threads, func(file string) bool {
			stat, err := os.ReadFile(file)
			return err == nil && !strings.Contains(string(stat), ") S ")
		})
		if still++; runs || free != least {
			least, still = free, 0
		}
		return still >= 10
	})
	return least
}

// TestNoDescriptor: where there is none at all, what is known is served, and who is not
// heard is counted and named.
func TestNoDescriptor(t *testing.T) {
	t.Parallel()
	need(t, "prlimit", "util-linux")
	p := newPod(t)
	n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify", "--select-process", "testdaemon$")
	pp := newPuppet(t)
	p.start(t, pp.order(order{uid: nobody}, n.socket("d")), bin.self)
	pp.say("READY=1")
	n.until("/readyz", 200)
	least := n.idleDescriptor()
	n.limit(least)
	n.daemon("d", "send STATUS=who is it;wait", nobody)
	n.says("reason=no-descriptor")
	n.says("podnotify needs more open files")
	n.limit(least + 1) // for questions
	if k := n.facts("d").Counters.Dropped["no-descriptor"]; k != 1 {
		t.Errorf("%d are counted", k)
	}
	pp.do(deed{Data: []byte("STATUS=still heard"), No: true})
	eventually(t, "the daemon is heard", func() bool { return n.facts("d").Status == "still heard" })
	n.expect("/readyz", 200)
	n.expect("/livez", 200)
	n.lacks("descriptors", true, "descriptors that this process may have are in use")
}

// TestHiddenProcesses: /proc tells podnotify nothing of other users. Then a daemon of
// its own uid is served as ever, and of any other it is said why not, with the cures;
// the cures help.
func TestHiddenProcesses(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const other, group = nobody + 1, 4711
	warning := "processes of other users are hidden, because /proc is mounted with hidepid="
	for _, how := range []string{"1", "2", "4"} {
		t.Run("hidepid="+how, func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			p.do(t, "mount", "-o", "remount,hidepid="+how, "/proc")
			n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "auto")
			n.lacks("proc", true, warning)
			d := n.daemon("d", "send READY=1;wait", nobody)
			n.until("/readyz", 200)
			d.signal(unix.SIGKILL)
			n.until("/readyz", 503)
			d = n.daemon("d", "stop;wait", nobody, "UPSTART_JOB=d")
			n.until("/readyz", 200)
			d.kill()
			n.until("/readyz", 503)
			n.daemon("d", "send READY=1;wait", other)
			n.untilBody("/readyz?verbose", 503, "which speaks, cannot be seen: "+warning)
			n.expect("/livez", 200)
			n.expect("/healthz", 200)
		})
	}
	t.Run("gid", func(t *testing.T) {
		t.Parallel()
		setpriv := need(t, "setpriv", "util-linux")
		p := newPod(t)
		p.do(t, "mount", "-o", "remount,hidepid=2,gid="+strconv.Itoa(group), "/proc")
		n := p.serve(t, order{through: []string{setpriv, "--reuid", strconv.Itoa(nobody), "--regid", strconv.Itoa(nobody), "--groups", strconv.Itoa(group)}},
			"sidecar", "--service", "d", "--expect", "auto")
		n.lacks("proc", false, warning)
		n.daemon("d", "send READY=1;wait", other)
		n.until("/readyz", 200)
	})
	t.Run("any", func(t *testing.T) {
		t.Parallel()
		p := newPod(t)
		p.do(t, "mount", "-o", "remount,hidepid=2", "/proc")
		n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify", "--notify-access", "any")
		d := n.daemon("d", "send READY=1;wait", other)
		n.until("/readyz", 200)
		d.signal(unix.SIGKILL) // its pidfd tells of its end, whatever /proc hides
		n.until("/readyz", 503)
	})
}

// TestOtherClocks: the daemon's start is told by clocks that may be others than the
// daemon's own. It is no older for that, and a podnotify that is started again by the
// same clocks knows it again.
func TestOtherClocks(t *testing.T) {
	t.Parallel()
	// No clock may become negative, and the machine may have just been booted.
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []string{"10000000", fmt.Sprint(-min(1000, up.Sec/2))} {
		t.Run(ahead+"s", func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			o := around(fmt.Sprintf("clock:%s:%d", ahead, nobody), order{})
			args := []string{"--service", "d", "--expect", "auto"}
			n := p.serve(t, o, "sidecar", args...)
			if same, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/time", n.Pid)); err != nil || same == must(os.Readlink("/proc/self/ns/time")) {
				lacking(t, "missing time namespaces that are entered on exec (Linux 6.3)")
			}
			d := n.daemon("d", "send READY=1;wait", nobody)
			n.until("/readyz", 200)
			var s struct {
				Main struct {
					StartTime time.Time `json:"startTime"`
				} `json:"main"`
			}
			_, body := n.get("/statusz/d")
			if err := json.Unmarshal([]byte(body), &s); err != nil {
				t.Fatal(err)
			}
			if age := time.Since(s.Main.StartTime); age < -time.Second || age > bound {
				t.Errorf("the daemon is %v old", age)
			}
			n.crash()
			n = p.serveIn(t, o, n.dir, "sidecar", args...)
			n.expect("/readyz", 200)
			if !n.adopted("d") {
				t.Error("not adopted")
			}
			n.crash()
			// By clocks that disagree nothing is proven.
			n = p.serveIn(t, order{uid: nobody}, n.dir, "sidecar", args...)
			n.expect("/readyz", 503)
			n.expect("/livez", 200)
			d.kill()
			n.daemon("d", "send READY=1;wait", nobody)
			n.until("/readyz", 200)
		})
	}
}

func must(s string, err error) string {
	if err != nil {
		return err.Error()
	}
	return s
}

// again are the tests that are run once more on an older kernel: what is promised of
// the protocol, of stops and of restarts.
const again = "^(TestRedis|TestBarrier|TestOddDatagrams|TestAccess|TestStranger|TestHandOver|TestLastWords|TestPaused|TestTwoServices|" +
	"TestUidChanges|TestRestart|TestRestartReplaced|TestRestartReusedNumber|TestRunExitCode|TestRunForwards|TestRunFollowsMainPID|TestRunWatchdog|TestNamespaceBeside|TestStoredSocket)$"

// TestOldKernel: without SO_PASSPIDFD and without what newer pidfds tell, podnotify does
// the same by numbers and start times, and says so.
func TestOldKernel(t *testing.T) {
	if os.Getenv(kernelVariable) != "" {
		t.Skip("it is running")
	}
	needRoot(t)
	t.Parallel()
	t.Run("says so", func(t *testing.T) {
		p := newPod(t)
		n := p.serve(t, around(oldKernel, order{uid: nobody}), "sidecar", "--service", "d", "--expect", "auto")
		n.lacks("pidfd", true, numbersAlone)
		n.daemon("d", "send READY=1;wait", nobody)
		n.until("/readyz", 200)
		n.expect("/livez", 200)
		x := p.start(t, around(oldKernel, order{uid: nobody}), bin.podnotify, "sidecar", "--listen", "127.0.0.1:0", "--run-dir", tempDir(t), "--service", "d", "--notify-access", "any")
		if code := x.exit(); code != 78 {
			t.Errorf("with notify.access any it ends with %d, want 78", code)
		}
		x.says("the kernel has no SO_PASSPIDFD")
	})
	t.Run("again", func(t *testing.T) {
		cmd := exec.Command(os.Args[0], "-test.run="+again, "-test.short", "-test.parallel=2", "-test.timeout=15m", "-test.v")
		cmd.Env = append(os.Environ(), kernelVariable+"="+oldKernel)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Count(string(out), "\n--- PASS") < strings.Count(again, "|") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
