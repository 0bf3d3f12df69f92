package test

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/testdaemon"
)

// newCgroup is a cgroup of a container, in one hierarchy: v2, or any of v1.
func newCgroup(t *testing.T) string {
	t.Helper()
	needRoot(t)
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var dir string
	for s := bufio.NewScanner(f); s.Scan(); {
		mount, fs, _ := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(mount)
		v2 := strings.HasPrefix(fs, "cgroup2 ")
		if len(fields) < 5 || dir != "" && !v2 || !v2 && !strings.HasPrefix(fs, "cgroup ") {
			continue
		}
		made, err := os.MkdirTemp(fields[4], "podnotify-test-")
		if err != nil {
			continue
		}
		if dir != "" {
			os.Remove(dir)
		}
		dir = made
	}
	if dir == "" {
		lacking(t, "missing a cgroup file system to write to; mount one")
	}
	t.Cleanup(func() { // busy until its last process is reaped
		eventually(t, "the cgroup is empty", func() bool { return os.Remove(dir) == nil })
	})
	return dir
}

// container is one of docker's: its entry process and what exec brings in have no
// parent in the pod, and the next instance is in the same cgroup.
type container struct {
	t       *testing.T
	pod     *pod
	runtime string
	cgroup  string
	gate    string // where the entry process waits
}

func (p *pod) newContainer(t *testing.T) *container {
	t.Helper()
	c := &container{t: t, pod: p, runtime: compile(t, "runtime"), cgroup: newCgroup(t), gate: filepath.Join(tempDir(t), "gate")}
	if err := unix.Mkfifo(c.gate, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(c.gate, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	return c
}

// inmate is a process in a container. The runtime's that waits for it is the
// embedded one.
type inmate struct {
	*process
	pid int // the test's number of it
}

func (c *container) start(cgroup, gate string, env []string, argv ...string) inmate {
	c.t.Helper()
	through := []string{c.runtime, strconv.Itoa(c.pod.pid), cgroup, strconv.Itoa(nobody), gate}
	x := inmate{process: (*pod)(nil).start(c.t, order{env: env, through: through}, argv...)}
	eventually(c.t, "the runtime has forked", func() bool {
		line, _, ok := strings.Cut(x.stdout.String(), "\n")
		x.pid, _ = strconv.Atoi(line)
		return ok
	})
	return x
}

// create returns the entry process, which is the runtime's until run.
func (c *container) create(env []string, argv ...string) inmate {
	c.t.Helper()
	x := c.start(c.cgroup, c.gate, env, argv...)
	x.until("Uid", strconv.Itoa(nobody))
	return x
}

// run lets the entry process become the daemon.
func (c *container) run() {
	c.t.Helper()
	eventually(c.t, "the gate is waited at", func() bool {
		fd, err := unix.Open(c.gate, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return false
		}
		defer unix.Close(fd)
		n, _ := unix.Write(fd, []byte("."))
		return n == 1
	})
}

// exec brings a process into the container.
func (c *container) exec(env []string, argv ...string) inmate {
	c.t.Helper()
	return c.start(c.cgroup, "-", env, argv...)
}

// beside brings a process into podnotify's own container.
func (c *container) beside(env []string, argv ...string) inmate {
	c.t.Helper()
	return c.start("-", "-", env, argv...)
}

// until waits until a line of the process's status begins with something.
func (x inmate) until(name, want string) {
	x.t.Helper()
	eventually(x.t, name+" is "+want, func() bool { return strings.HasPrefix(field(x.pid, name), want) })
}

func (x inmate) inner() int {
	x.t.Helper()
	return (&process{Process: &os.Process{Pid: x.pid}, t: x.t, name: x.name}).inner()
}

// TestContainerRuntime: only the daemon is the daemon. A runtime's process that
// has yet to become it is not, nor is what exec brings in, into the daemon's
// container or podnotify's own, before, while and after the daemon runs.
func TestContainerRuntime(t *testing.T) {
	needRoot(t)
	for _, c := range []struct{ expect, script string }{
		{"notify", "send READY=1; wait"},
		{"stop", "stop; wait"},
		{"auto", "stop; wait"},
		{"auto", "send READY=1; wait"},
	} {
		t.Run(c.expect+"/"+c.script[:4], func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			box := p.newContainer(t)
			n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "redis", "--expect", c.expect)
			probe := []string{bin.podnotify, "healthcheck", "bound", "--address", "http://" + n.address}
			env := []string{testdaemon.Env(c.script), "NOTIFY_SOCKET=" + n.socket("redis")}
			nobodyIs := func(when string) {
				t.Helper()
				for range 10 {
					box.beside(nil, probe...).exit()
					if s := n.status("redis"); s.Main != nil {
						t.Fatalf("%s: main process is %+v", when, s.Main)
					}
				}
			}
			var strangers []inmate
			const rounds = 4
			for i := range rounds {
				nobodyIs("no container")
				d := box.create(env, bin.self)
				nobodyIs("created")
				if i == 1 {
					time.Sleep(2 * time.Second) // it may take any time
				}
				nobodyIs("still created")
				box.run()
				n.until("/readyz/redis", 200)
				if s := n.status("redis"); s.Main == nil || s.Main.PID != d.inner() || len(amiss(s.Warnings)) > 0 {
					t.Fatalf("round %d: main process is %+v, want %d; warnings %q", i, s.Main, d.inner(), s.Warnings)
				}
				for range 3 {
					box.exec(nil, probe...).exit()
				}
				left := box.exec([]string{testdaemon.Env("wait")}, bin.self)
				left.until("Name", filepath.Base(bin.self))
				n.expect("/readyz/redis", 200)
				d.kill()
				n.until("/readyz/redis", 503)
				nobodyIs("one is left of those that exec brought in")
				left.kill()
				// Somebody in podnotify's own container stops: no business of ours.
				x := box.beside([]string{testdaemon.Env("stop; wait")}, bin.self)
				x.until("State", "T")
				strangers = append(strangers, x)
			}
			for _, x := range strangers {
				if s := field(x.pid, "State"); !strings.HasPrefix(s, "T") {
					t.Errorf("process %d of podnotify's own container was continued: %s", x.inner(), s)
				}
			}
			n.signal(unix.SIGTERM)
			n.exit()
			log := n.stderr.String()
			for _, said := range []string{`"daemon is starting"`, `"daemon is ready"`, `"daemon is gone"`, "level=WARN"} {
				got := strings.Count(log, said)
				if said == "level=WARN" { // a busy disk is none of ours
					got -= strings.Count(log, `level=WARN msg="state is not kept`)
				}
				if got != rounds {
					t.Errorf("the log says %s %d times, want %d", said, got, rounds)
				}
			}
		})
	}
}
