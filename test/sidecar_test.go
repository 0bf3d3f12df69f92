package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/testdaemon"
)

// Here podnotify is a sidecar: a process beside the daemon, of the same uid and
// without capabilities, in a PID namespace whose process 1 is a third.

// cures of a daemon that is process 1, as the specification has them.
const cures = "add shareProcessNamespace: true, or use podnotify run"

// status is what these tests read of /statusz/NAME.
type status struct {
	Phase string `json:"phase"`
	Main  *struct {
		PID      int    `json:"pid"`
		InnerPID int    `json:"innerPid"`
		Command  string `json:"command"`
	} `json:"main"`
	Paused          bool     `json:"paused"`
	SignalPermitted *bool    `json:"signalPermitted"`
	Warnings        []string `json:"warnings"`
	Checks          []struct {
		Name   string `json:"name"`
		OK     bool   `json:"ok"`
		Reason string `json:"reason"`
	} `json:"checks"`
}

func (n *podnotify) status(service string) status {
	n.t.Helper()
	var s status
	_, body := n.get("/statusz/" + service)
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		n.t.Fatalf("cannot read /statusz/%s: %v: %s", service, err, body)
	}
	return s
}

func (s status) reason(check string) string {
	for _, c := range s.Checks {
		if c.Name == check {
			return c.Reason
		}
	}
	return "there is no check " + check
}

// daemon starts a scripted daemon that hears of the notify socket.
func (n *podnotify) daemon(service, script string, uid int, env ...string) *process {
	n.t.Helper()
	return n.pod.start(n.t, order{uid: uid, env: append(env, testdaemon.Env(script), "NOTIFY_SOCKET="+n.socket(service))}, bin.self)
}

// redis is the command line of Debian's redis-server, with nothing on the disk
// or the network.
func redis(dir, supervised string) []string {
	return []string{"redis-server", "--supervised", supervised, "--daemonize", "no", "--port", "0",
		"--unixsocket", filepath.Join(dir, "redis"), "--dir", dir, "--save", "", "--appendonly", "no"}
}

// ping wants redis to serve: at once where it says READY=1, soon where it stops
// itself, which it does before it listens (gate.tcp is for those who mind).
func ping(t *testing.T, dir string, soon bool) {
	t.Helper()
	var c net.Conn
	eventually(t, "redis listens", func() (ok bool) {
		var err error
		if c, err = net.Dial("unix", filepath.Join(dir, "redis")); err != nil && !soon {
			t.Fatal("redis is called ready and cannot be reached: ", err)
		}
		return err == nil
	})
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(bound))
	b := make([]byte, 16)
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		t.Fatal(err)
	}
	if k, err := c.Read(b); err != nil || string(b[:k]) != "+PONG\r\n" {
		t.Fatalf("redis is called ready and answers %q, %v", b[:k], err)
	}
}

// TestRedis is the promise in short: an unchanged daemon from Debian, either of
// its protocols, and answers that are true: 503 before, 200 after, and 503 again
// for the first who asks 100 ms after its death, every time.
func TestRedis(t *testing.T) {
	need(t, "redis-server", "redis-server")
	needRoot(t)
	rounds := 100 // for each protocol twice
	if testing.Short() {
		rounds = 10
	}
	for _, c := range []struct {
		supervised, expect, says string
		env                      func(*podnotify) string
	}{
		{"upstart", "stop", "supervised by upstart, will stop to signal readiness", upstart},
		{"upstart", "auto", "supervised by upstart, will stop to signal readiness", upstart},
		{"systemd", "notify", "Supervised by systemd", systemd},
		{"systemd", "auto", "Supervised by systemd", systemd},
	} {
		t.Run(c.supervised+"/"+c.expect, func(t *testing.T) {
			t.Parallel()
			p, dir := newPod(t), tempDir(t)
			n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "redis", "--expect", c.expect)
			if caps := field(n.Pid, "CapEff"); caps != "0000000000000000" {
				t.Fatalf("podnotify has capabilities: %s", caps)
			}
			if field(n.Pid, "PPid") == field(os.Getpid(), "Pid") && n.inner() == 1 {
				t.Fatal("podnotify is process 1")
			}
			n.expect("/readyz", 503)
			n.expect("/startupz", 503)
			n.expect("/livez", 200)
			for i := range rounds {
				n.expect("/readyz", 503)
				d := p.start(t, order{uid: nobody, env: []string{c.env(n)}}, redis(dir, c.supervised)...)
				n.until("/readyz/redis", 200)
				n.expect("/startupz", 200)
				if i == 0 && !strings.Contains(d.stdout.String(), c.says) {
					t.Fatalf("redis does not say %q: %s", c.says, &d.stdout)
				}
				if s := n.status("redis"); s.Main == nil || s.Main.PID != d.inner() {
					t.Fatalf("round %d: main process is %+v, want %d", i, s.Main, d.inner())
				}
				ping(t, dir, c.supervised == "upstart")
				promise := time.After(100 * time.Millisecond)
				d.signal(unix.SIGKILL)
				d.exit() // on a starved machine the kernel alone may need more than that
				<-promise
				n.expect("/readyz/redis", 503)
			}
		})
	}
}

func upstart(*podnotify) string   { return "UPSTART_JOB=redis" }
func systemd(n *podnotify) string { return "NOTIFY_SOCKET=" + n.socket("redis") }

// TestFirstProcess is the one case in which a stop cannot be had: the kernel
// does not let the first process of a PID namespace stop itself. Whoever asks is
// told so, and what to do.
func TestFirstProcess(t *testing.T) {
	need(t, "redis-server", "redis-server")
	need(t, "setpriv", "util-linux")
	needRoot(t)
	as := []string{"setpriv", "--reuid", fmt.Sprint(nobody), "--regid", fmt.Sprint(nobody), "--clear-groups"}

	check := func(t *testing.T, n *podnotify) {
		t.Helper()
		n.says(cures)
		body := n.untilBody("/readyz", 503, cures)
		if !strings.Contains(body, "PID 1") || !strings.Contains(body, "redis-server") {
			t.Errorf("/readyz does not say what is PID 1: %s", body)
		}
		if r := n.status("redis").reason("start"); !strings.Contains(r, cures) {
			t.Errorf("check start: %s", r)
		}
		if k := strings.Count(n.stderr.String(), cures); k != 1 {
			t.Errorf("the log says it %d times", k)
		}
		n.expect("/livez", 200) // a restart would not help
		n.expect("/healthz", 200)
		// Last: what starts a command in the pod is a process of its namespace, and may
		// be taken for the daemon until it is the command.
		code, out, _ := n.command("status")
		if code == 0 || !strings.Contains(out, cures) {
			t.Errorf("podnotify status ends with %d: %s", code, out)
		}
	}

	t.Run("of podnotify's namespace", func(t *testing.T) {
		dir := tempDir(t)
		p := newPodOf(t, []string{"UPSTART_JOB=redis"}, append(as, redis(dir, "upstart")...)...)
		eventually(t, "redis serves", func() bool { _, err := os.Stat(filepath.Join(dir, "redis")); return err == nil })
		check(t, p.serve(t, order{uid: nobody}, "sidecar", "--service", "redis", "--expect", "stop"))
	})
	t.Run("of a namespace below", func(t *testing.T) {
		need(t, "unshare", "util-linux")
		p, dir := newPod(t), tempDir(t)
		n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "redis", "--expect", "stop")
		through := append([]string{"unshare", "--pid", "--fork", "--mount-proc"}, as...)
		p.start(t, order{env: []string{"UPSTART_JOB=redis"}, through: through}, redis(dir, "upstart")...)
		check(t, n)
	})
}

// TestForeignUid: a signal that the kernel will refuse is announced when the
// daemon is first seen, not when it is due; with the cures; and it is tried once.
func TestForeignUid(t *testing.T) {
	needRoot(t)
	const other = nobody + 1
	for _, c := range []struct{ expect, script, env string }{
		{"notify", "send READY=1;wait", ""},
		{"stop", "stop;wait", "UPSTART_JOB=d"},
		{"auto", "stop;wait", "UPSTART_JOB=d"},
	} {
		t.Run(c.expect, func(t *testing.T) {
			p := newPod(t)
			n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", c.expect, "--log-level", "debug")
			d := n.daemon("d", c.script, other, c.env)
			denied := []string{fmt.Sprintf("podnotify runs as uid %d", nobody), fmt.Sprintf("uid %d", other), "runAsUser", "uid 0 with capability KILL"}
			eventually(t, "statusz: signalPermitted is false", func() bool {
				s := n.status("d")
				return s.SignalPermitted != nil && !*s.SignalPermitted
			})
			if c.expect == "notify" {
				n.until("/readyz", 200) // nothing is due
			} else {
				n.untilBody("/readyz", 503, "cannot continue the stopped process")
				n.expect("/readyz", 503, denied...)
			}
			n.expect("/metrics", 200, `podnotify_signal_permitted{service="d"} 0`)
			warnings := strings.Join(n.status("d").Warnings, "\n")
			for _, w := range denied {
				n.says(w)
				if !strings.Contains(warnings, w) {
					t.Errorf("warnings do not say %q: %s", w, warnings)
				}
			}
			code, out, _ := n.command("status")
			if c.expect != "notify" && code == 0 || !strings.Contains(out, "runAsUser") {
				t.Errorf("podnotify status ends with %d: %s", code, out)
			}
			// Time in which it could try again: hundreds of samples.
			for range 50 {
				n.get("/readyz")
				time.Sleep(10 * time.Millisecond)
			}
			log := n.stderr.String()
			if k := strings.Count(log, "signals to process"); k != 1 {
				t.Errorf("the log says it %d times", k)
			}
			tries := 1
			if c.expect == "notify" {
				tries = 0
			}
			if k := strings.Count(log, "signal sent"); k != tries {
				t.Errorf("the signal was tried %d times, not %d", k, tries)
			}
			d.signal(unix.SIGKILL)
			d.exit()
			n.expect("/readyz", 503)

			// An instance of our own uid is served as if nothing had been.
			d = n.daemon("d", c.script, nobody, c.env)
			n.until("/readyz", 200)
			if s := n.status("d"); s.SignalPermitted == nil || !*s.SignalPermitted {
				t.Errorf("statusz: signalPermitted is not true for process %d", d.inner())
			}
			n.expect("/metrics", 200, `podnotify_signal_permitted{service="d"} 1`)
		})
	}
}

// TestUidChanges starts a daemon as a container runtime does: as root, which
// changes its uid and only then becomes the daemon. That root cannot be
// signalled must not be held against the daemon.
func TestUidChanges(t *testing.T) {
	need(t, "setpriv", "util-linux")
	needRoot(t)
	for _, c := range []struct{ expect, script, env string }{
		{"notify", "send READY=1;wait", ""},
		{"stop", "stop;wait", "UPSTART_JOB=d"},
	} {
		t.Run(c.expect, func(t *testing.T) {
			p := newPod(t)
			n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", c.expect)
			through := []string{"setpriv", "--reuid", fmt.Sprint(nobody), "--regid", fmt.Sprint(nobody), "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"}
			for range 20 {
				d := p.start(t, order{through: through, env: []string{c.env, testdaemon.Env(c.script), "NOTIFY_SOCKET=" + n.socket("d")}}, bin.self)
				n.until("/readyz", 200)
				// That it is tried again comes with READY=1, and may be told a moment later.
				var s status
				eventually(t, "statusz: signalPermitted is true", func() bool {
					s = n.status("d")
					return s.SignalPermitted != nil && *s.SignalPermitted
				})
				if strings.Contains(n.stderr.String(), "not permitted") {
					t.Fatal("the log says that signals are not permitted")
				}
				if s.Main == nil || !strings.Contains(s.Main.Command, bin.self) || strings.Contains(s.Main.Command, "setpriv") {
					t.Fatalf("main process is %+v", s.Main)
				}
				if w := amiss(s.Warnings); len(w) > 0 {
					t.Fatalf("warnings: %v", w)
				}
				d.kill()
				n.until("/readyz", 503)
			}
			if strings.Contains(n.stderr.String(), "not permitted") {
				t.Error("the log says that signals are not permitted")
			}
		})
	}
}

// switches counts the voluntary context switches of all threads: the wake-ups.
func switches(t *testing.T, pid int) int {
	t.Helper()
	sum := 0
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		var k int
		_, _ = fmt.Sscan(taskField(pid, task.Name(), "voluntary_ctxt_switches"), &k)
		sum += k
	}
	return sum
}

func taskField(pid int, tid, name string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, tid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// quiet wants podnotify to sleep for two seconds while nobody asks. What follows
// a start (second looks at new processes) may take a while to end.
func (n *podnotify) quiet() {
	n.t.Helper()
	var woke int
	for range 5 {
		before := switches(n.t, n.Pid)
		time.Sleep(2 * time.Second)
		if woke = switches(n.t, n.Pid) - before; woke <= 4 {
			return
		}
	}
	n.t.Fatalf("podnotify wakes up %d times in two seconds while nothing happens", woke)
}

// TestPaused: a stop that is not the daemon's own is told, and left to whoever
// made it.
func TestPaused(t *testing.T) {
	needRoot(t)
	for _, c := range []struct{ expect, script, env string }{
		{"notify", "send READY=1;wait", ""},
		{"stop", "stop;wait", "UPSTART_JOB=d"},
		{"auto", "send READY=1;wait", ""},
		{"auto", "stop;wait", "UPSTART_JOB=d"},
	} {
		t.Run(c.expect+"/"+strings.ReplaceAll(c.script, ";", ","), func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", c.expect)
			d := n.daemon("d", c.script, nobody, c.env)
			n.until("/readyz", 200)
			n.quiet()
			for range 2 {
				d.signal(unix.SIGSTOP)
				eventually(t, "every thread of the daemon is stopped", func() bool { return letters(t, d.Pid) == "T" })
				n.expect("/readyz", 503, "paused", "stopped by a signal", fmt.Sprintf("kill -CONT %d", d.inner()))
				n.expect("/livez", 200)
				n.expect("/startupz", 200)
				n.quiet()
				for range 100 { // nobody continues it
					n.expect("/readyz", 503, "paused")
				}
				if s := field(d.Pid, "State"); !strings.HasPrefix(s, "T") {
					t.Fatalf("somebody has continued the daemon: it is %s", s)
				}
				d.signal(unix.SIGCONT)
				n.until("/readyz", 200)
				n.quiet()
			}
		})
	}
}

// threads builds the daemon of many threads.
func threads(t *testing.T) string {
	t.Helper()
	cc := need(t, "cc", "gcc libc6-dev")
	out := filepath.Join(tempDir(t), "threads")
	if b, err := exec.Command(cc, "-O", "-pthread", "-o", out, "testdata/threads.c").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, b)
	}
	return out
}

// letters is the states that the living threads of a process have.
func letters(t *testing.T, pid int) string {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	seen := ""
	for _, task := range tasks {
		if s := taskField(pid, task.Name(), "State"); s != "" && s[0] != 'Z' && !strings.Contains(seen, s[:1]) {
			seen += s[:1]
		}
	}
	return seen
}

// TestManyThreads: a process is stopped when all its living threads are, and a
// leading thread that has ended is neither a dead process nor a running one.
func TestManyThreads(t *testing.T) {
	program := threads(t)
	for _, leader := range []string{"alive", "dead"} {
		for _, how := range []string{"notify", "stop"} {
			judge := func(t *testing.T, n *podnotify, pid func() int) {
				t.Helper()
				n.until("/readyz", 200)
				d := pid()
				if letter := field(d, "State")[:1]; (letter == "Z") != (leader == "dead") {
					t.Fatalf("the leading thread is %s", letter)
				}
				for range 5 {
					n.expect("/readyz", 200)
					if err := unix.Kill(d, unix.SIGSTOP); err != nil {
						t.Fatal(err)
					}
					n.untilBody("/readyz", 503, "paused")
					for range 10 {
						n.expect("/readyz", 503, "paused")
					}
					if err := unix.Kill(d, unix.SIGCONT); err != nil {
						t.Fatal(err)
					}
					n.until("/readyz", 200)
				}
				if err := unix.Kill(d, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			t.Run("sidecar/"+leader+"/"+how, func(t *testing.T) {
				t.Parallel()
				n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", how)
				d := n.pod.start(t, order{uid: nobody, env: []string{"UPSTART_JOB=d", "NOTIFY_SOCKET=" + n.socket("d")}}, program, leader, how)
				judge(t, n, func() int { return d.Pid })
				n.untilBody("/readyz", 503, "process")
			})
			if how == "stop" {
				t.Run("sidecar/"+leader+"/stopped before podnotify came", func(t *testing.T) {
					t.Parallel()
					p := newPod(t)
					d := p.start(t, order{uid: nobody, env: []string{"UPSTART_JOB=d"}}, program, leader, how)
					eventually(t, "every living thread is stopped", func() bool { return letters(t, d.Pid) == "T" })
					n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", how)
					judge(t, n, func() int { return d.Pid })
					n.untilBody("/readyz", 503, "process")
				})
			}
			t.Run("run/"+leader+"/"+how, func(t *testing.T) {
				t.Parallel()
				n := (*pod)(nil).serve(t, order{}, "run", "--service", "d", "--expect", how, "--", program, leader, how)
				judge(t, n, func() int { return n.status("d").Main.PID })
				if code := n.exit(); code != 128+int(unix.SIGKILL) {
					t.Errorf("run ends with %d", code)
				}
			})
		}
	}
}

// TestZombie: what is left of an instance until somebody reaps it is not another
// container, although (with cgroups of version 1) the kernel says that it is in
// another cgroup than it lived in. The next instance speaks before podnotify has
// looked around again.
func TestZombie(t *testing.T) {
	needRoot(t)
	p := newPod(t)
	n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d")
	for i := range 20 {
		reap, said := make(chan struct{}), filepath.Join(n.dir, fmt.Sprint("said", i))
		n.signal(unix.SIGSTOP)
		d := p.start(t, order{uid: nobody, zombie: reap, env: []string{"NOTIFY_SOCKET=" + n.socket("d"),
			testdaemon.Env("send READY=1;touch " + said + ";wait")}}, bin.self)
		t.Cleanup(func() { close(reap) })
		eventually(t, "the daemon has spoken", func() bool { _, err := os.Stat(said); return err == nil })
		n.signal(unix.SIGCONT)
		n.until("/readyz", 200)
		d.signal(unix.SIGKILL)
		n.until("/readyz", 503)
		eventually(t, "the daemon is a zombie", func() bool { return strings.HasPrefix(field(d.Pid, "State"), "Z") })
		for range 20 { // it looks around now
			n.expect("/readyz", 503)
		}
	}
	n.expect("/metrics", 200, `podnotify_datagrams_total{service="d"} 20`)
}

// TestOwnCommands: where no container boundary is visible, a podnotify command
// is a process of the namespace like any other, and still not the daemon.
func TestOwnCommands(t *testing.T) {
	needRoot(t)
	p := newPod(t)
	free := freePort(t)
	commands := []*process{
		p.start(t, order{uid: nobody}, bin.podnotify, "wait", "--for", "ready", "--address", "http://"+free, "--timeout", bound.String()),
		p.start(t, order{uid: nobody}, bin.healthcheck, "--address", "http://"+free, "--wait", bound.String()),
	}
	for _, c := range commands {
		eventually(t, "the command runs", func() bool { return strings.HasPrefix(field(c.Pid, "Name"), "podnotify") })
	}
	n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "none")
	for range 20 {
		n.expect("/readyz", 503, "no main process")
	}
	d := n.daemon("d", "wait", nobody)
	n.until("/readyz", 200)
	if s := n.status("d"); s.Main == nil || s.Main.PID != d.inner() {
		t.Errorf("main process is %+v, want %d", s.Main, d.inner())
	}
	for _, c := range commands {
		if c.over() {
			t.Errorf("%s has ended: %s", c.name, &c.stderr)
		}
	}
}

// TestTwoServices are served by one sidecar and told apart by command line.
func TestTwoServices(t *testing.T) {
	needRoot(t)
	p, dir := newPod(t), tempDir(t)
	file := write(t, filepath.Join(dir, "podnotify.yaml"), `
services:
  - name: one
    expect: notify
    select: {process: "mark-one$"}
  - name: two
    expect: stop
    select: {process: "mark-two$"}
`)
	n := p.serve(t, order{uid: nobody}, "sidecar", "--config", file)
	n.expect("/readyz", 503)
	start := func(mark, script string, env ...string) *process {
		return p.start(t, order{uid: nobody, env: append(env, testdaemon.Env(script))}, bin.self, mark)
	}
	one := start("mark-one", "send READY=1;wait", "NOTIFY_SOCKET="+n.socket("one"))
	n.until("/readyz/one", 200)
	n.expect("/readyz/two", 503)
	n.expect("/readyz", 503, "two")
	two := start("mark-two", "stop;wait", "UPSTART_JOB=two")
	n.until("/readyz/two", 200)
	n.expect("/readyz", 200)
	n.expect("/readyz/three", 404)
	for service, want := range map[string]*process{"one": one, "two": two} {
		if s := n.status(service); s.Main == nil || s.Main.PID != want.inner() {
			t.Errorf("main process of %s is %+v, want %d", service, s.Main, want.inner())
		}
	}

	// The words of one do not count for the other.
	one.kill()
	n.until("/readyz/one", 503)
	n.expect("/readyz/two", 200)
	stranger := start("mark-two", "send READY=1;barrier;wait", "NOTIFY_SOCKET="+n.socket("one"))
	n.untilBody("/metrics", 200, `podnotify_dropped_total{reason="not-admitted",service="one"} 1`)
	n.expect("/readyz/one", 503)
	stranger.kill()

	// A pause of one is nothing to the other.
	start("mark-one", "send READY=1;wait", "NOTIFY_SOCKET="+n.socket("one"))
	n.until("/readyz/one", 200)
	two.signal(unix.SIGSTOP)
	n.untilBody("/readyz/two", 503, "paused")
	n.expect("/readyz/one", 200)
	n.expect("/readyz", 503, "two", "paused")
	two.signal(unix.SIGCONT)
	n.until("/readyz", 200)
}

// refused starts a sidecar that must not start, and returns its last words.
func refused(t *testing.T, want int, args ...string) string {
	t.Helper()
	x := (*pod)(nil).start(t, order{}, append([]string{bin.podnotify, "sidecar"}, args...)...)
	if code := x.exit(); code != want {
		t.Errorf("podnotify sidecar %v ends with %d, want %d", args, code, want)
	}
	return x.stderr.String()
}

// idle is a sidecar that minds nobody.
func idle(t *testing.T, dir string, args ...string) *podnotify {
	t.Helper()
	args = append([]string{"--service", "d", "--expect", "notify", "--select-process", "^no such process$"}, args...)
	return (*pod)(nil).serveIn(t, order{}, dir, "sidecar", args...)
}

// TestRunDirTaken: a second podnotify would take the first one's sockets.
func TestRunDirTaken(t *testing.T) {
	dir := tempDir(t)
	n := idle(t, dir)
	got := refused(t, 1, "--run-dir", dir, "--listen", freePort(t), "--service", "d")
	for _, want := range []string{dir, fmt.Sprintf("process %d", n.Pid), "--run-dir"} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q: %s", want, got)
		}
	}
	n.expect("/healthz", 200)
	if err := send(t.Context(), n.socket("d"), "STATUS=hello"); err != nil {
		t.Error("the first one's socket is gone: ", err)
	}

	n.signal(unix.SIGKILL) // what a killed one leaves behind is nobody's
	n.exit()
	idle(t, dir)
}

// TestPortTaken names who has the port.
func TestPortTaken(t *testing.T) {
	dir := tempDir(t)
	n := idle(t, dir)
	got := refused(t, 1, "--run-dir", tempDir(t), "--listen", n.address, "--service", "d")
	for _, want := range []string{n.address, fmt.Sprintf("process %d, podnotify", n.Pid), "--listen"} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q: %s", want, got)
		}
	}
}

// TestSocketTaken: a live socket is somebody's, a stale one nobody's.
func TestSocketTaken(t *testing.T) {
	dir := tempDir(t)
	path := filepath.Join(dir, "notify")
	live, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	got := refused(t, 1, "--run-dir", tempDir(t), "--listen", freePort(t), "--service", "d", "--notify-address", path)
	if !strings.Contains(got, path) {
		t.Errorf("it does not name the socket: %s", got)
	}
	if err := send(t.Context(), path, "mine"); err != nil {
		t.Error("a live socket was taken away: ", err)
	}
	b := make([]byte, 16)
	_ = live.SetDeadline(time.Now().Add(bound))
	// Its own question whether somebody listens may come first.
	for {
		k, err := live.Read(b)
		if err != nil {
			t.Fatal("a live socket was taken away: ", err)
		}
		if string(b[:k]) == "mine" {
			break
		}
	}

	f, err := live.File() // a second descriptor: Close then leaves the path
	if err != nil {
		t.Fatal(err)
	}
	live.Close()
	f.Close()
	if _, err := os.Stat(path); err != nil {
		// The net package removes what it has made; make a stale one by hand.
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	if err := send(t.Context(), path, "x"); err == nil {
		t.Fatal("the socket is not stale")
	}
	idle(t, tempDir(t), "--notify-address", path)
	if err := send(t.Context(), path, "STATUS=hello"); err != nil {
		t.Error("the stale socket was not replaced: ", err)
	}
}

// TestTerm: a sidecar that is told to end continues a stopped daemon, which
// could not hear its SIGTERM otherwise, and answers until it has ended.
func TestTerm(t *testing.T) {
	needRoot(t)
	t.Run("a ready daemon", func(t *testing.T) {
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify")
		d := n.daemon("d", "send READY=1;wait;await "+filepath.Join(n.dir, "done")+";exit 0", nobody)
		n.until("/readyz", 200)
		d.signal(unix.SIGSTOP)
		n.untilBody("/readyz", 503, "paused")
		n.signal(unix.SIGTERM)
		eventually(t, "the daemon is continued", func() bool { return !strings.HasPrefix(field(d.Pid, "State"), "T") })
		n.untilBody("/readyz", 503, "stopping")
		n.expect("/livez", 200)
		d.signal(unix.SIGTERM) // as the platform sends it
		for range 20 {
			n.expect("/readyz", 503, "stopping")
			n.expect("/healthz", 200)
			time.Sleep(5 * time.Millisecond)
		}
		write(t, filepath.Join(n.dir, "done"), "")
		if code := d.exit(); code != 0 {
			t.Errorf("the daemon ends with %d", code)
		}
		if code := n.exit(); code != 0 {
			t.Errorf("podnotify ends with %d", code)
		}
	})
	t.Run("stopped by itself", func(t *testing.T) {
		// Of a uid that podnotify may not continue: it stays stopped, and the
		// grace is what ends the sidecar.
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "stop", "--timeouts-stop", "500ms")
		d := n.daemon("d", "stop;wait", nobody+1, "UPSTART_JOB=d")
		n.untilBody("/readyz", 503, "cannot continue")
		n.signal(unix.SIGTERM)
		if code := n.exit(); code != 0 {
			t.Errorf("podnotify ends with %d", code)
		}
		if d.over() {
			t.Error("the daemon has ended")
		}
	})
	t.Run("no daemon", func(t *testing.T) {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
			n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--service", "d")
			n.signal(sig)
			if code := n.exit(); code != 0 {
				t.Errorf("podnotify ends with %d after %s", code, unix.SignalName(sig))
			}
			// A daemon may be there when the next one comes; see TestGracefulRestart.
			if _, err := os.Stat(n.socket("d")); err != nil {
				t.Error("there is no notify socket left for the next podnotify: ", err)
			}
		}
	})
	t.Run("INT does not wait", func(t *testing.T) {
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--service", "d")
		d := n.daemon("d", "send READY=1;wait", nobody)
		n.until("/readyz", 200)
		n.signal(unix.SIGINT)
		if code := n.exit(); code != 0 || d.over() {
			t.Errorf("podnotify ends with %d, the daemon has ended: %v", code, d.over())
		}
	})
}

// TestPrestop: the hook announces the end before the platform's SIGTERM.
func TestPrestop(t *testing.T) {
	needRoot(t)
	n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify")
	d := n.daemon("d", "send READY=1;wait;send READY=1;barrier;touch "+filepath.Join(n.dir, "again")+";await "+filepath.Join(n.dir, "done"), nobody)
	n.until("/readyz", 200)
	d.signal(unix.SIGSTOP)
	n.untilBody("/readyz", 503, "paused")
	if code, out, errs := n.command("prestop"); code != 0 || out != "" {
		t.Fatalf("prestop ends with %d: %s%s", code, out, errs)
	}
	n.expect("/readyz", 503, "stopping")
	eventually(t, "the daemon is continued", func() bool { return !strings.HasPrefix(field(d.Pid, "State"), "T") })

	d.signal(unix.SIGTERM) // some repeat READY=1 after it
	eventually(t, "the daemon says READY=1 again", func() bool { _, err := os.Stat(filepath.Join(n.dir, "again")); return err == nil })
	n.expect("/readyz", 503, "stopping")
	write(t, filepath.Join(n.dir, "done"), "")
	d.exit()
	n.expect("/healthz", 200) // the hook is not the end of podnotify

	// A new instance is a new beginning.
	n.daemon("d", "send READY=1;wait", nobody)
	n.until("/readyz", 200)

	// Whoever is not the same uid may not.
	x := n.pod.start(t, order{uid: nobody + 1}, bin.podnotify, "prestop", "--run-dir", n.dir)
	if code := x.exit(); code != 1 {
		t.Errorf("prestop of another uid ends with %d: %s", code, &x.stderr)
	}
	n.expect("/readyz", 200)
}

// TestHangup: there is no reload, and who asks for one is told.
func TestHangup(t *testing.T) {
	n := idle(t, tempDir(t))
	n.signal(unix.SIGHUP)
	n.says("cannot reload the configuration; a restart applies it")
	n.expect("/healthz", 200)
}

// TestSharedProcess: a process belongs to one service, the first in the file that it
// fits; the other one says so, and does not signal it.
func TestSharedProcess(t *testing.T) {
	needRoot(t)
	t.Parallel()
	p := newPod(t)
	file := write(t, filepath.Join(tempDir(t), "podnotify.yaml"), `
services:
  - {name: one, expect: none, select: {process: "mark"}}
  - {name: two, expect: none, select: {process: "mark"}}
`)
	n := p.serve(t, order{uid: nobody}, "sidecar", "--config", file)
	d := p.start(t, order{uid: nobody, env: []string{testdaemon.Env("wait")}}, bin.self, "mark")
	n.until("/readyz/one", 200)
	want := fmt.Sprintf("process %d could be this service, and is service one already", d.inner())
	eventually(t, "status warns", func() bool { return strings.Contains(strings.Join(n.facts("two").Warnings, "\n"), want) })
	n.says(want)
	n.expect("/readyz/two", 503, "no main process")
	n.fails("cannot stop service two: it has no main process", "stop", "two")
	n.expect("/readyz/one", 200)
	next := p.start(t, order{uid: nobody, env: []string{testdaemon.Env("wait")}}, bin.self, "mark") // what one does not need
	n.until("/readyz/two", 200)
	if s := n.facts("two"); s.Main == nil || s.Main.PID != next.inner() || len(s.Warnings) > 0 {
		t.Errorf("service two: %+v, want process %d and no warnings", s, next.inner())
	}
}
