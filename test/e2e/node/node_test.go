// Package node tests podnotify-node with a real containerd and runc, and with real
// daemons, unchanged, in PID namespaces of their own.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podnotify/podnotify/test/e2e/containerd"
	"github.com/podnotify/podnotify/test/e2e/cri"
	"github.com/podnotify/podnotify/test/e2e/image"
	"github.com/podnotify/podnotify/test/e2e/machine"
)

const (
	// bound is how long anything may take before a test gives up.
	bound = time.Minute
	// space is the namespace of containerd that plain containers are in.
	space = "podnotify-test"
	// daemons is the image with all the daemons of these tests.
	daemons = "podnotify.test/daemons:1"
	// address is podnotify-node's, in the machine.
	address = "127.0.0.1:19119"
)

func TestMain(m *testing.M) {
	machine.Main()
	os.Exit(m.Run())
}

// host is a machine with containerd, the images, and a podnotify-node.
type host struct {
	testing.TB
	*machine.Machine
	containerd *containerd.Containerd
	agent      *machine.Program // podnotify-node
	client     *http.Client
	program    string
	run        string // its run-dir
}

func newHost(t testing.TB) *host {
	t.Helper()
	for program, debian := range map[string]string{"setpriv": "util-linux", "redis-server": "redis-server", "named": "bind9", "haproxy": "haproxy", "mosquitto": "mosquitto"} {
		machine.Need(t, program, debian)
	}
	m := machine.New(t)
	h := &host{TB: t, Machine: m, containerd: containerd.Start(t, m), client: m.HTTP()}
	h.program, h.run = filepath.Join(m.Dir, "podnotify-node"), filepath.Join(m.Dir, "run")
	if err := image.Build(h.program, "../../..", "./cmd/podnotify-node"); err != nil {
		t.Fatal(err)
	}
	i := image.Image{Name: daemons}
	for _, program := range []string{"redis-server", "named", "haproxy", "mosquitto", "dash"} {
		i.Program(program)
	}
	mydaemon := filepath.Join(m.Dir, "mydaemon")
	if err := image.Build(mydaemon, "../../..", "./examples/mydaemon/go"); err != nil {
		t.Fatal(err)
	}
	i.Copy(mydaemon, "/mydaemon", 0o755)
	i.Dir("/d", 0o777)
	i.Dir("/tmp", 0o777)
	i.File("/d/named.conf", 0o644, []byte(`
options {
	directory "/d"; managed-keys-directory "/d"; pid-file none; session-keyfile none;
	listen-on { none; }; listen-on-v6 { none; }; recursion no; dnssec-validation no;
};
controls { };
`))
	i.File("/etc/haproxy.cfg", 0o644, []byte(`
global
	maxconn 16
	nbthread 1
defaults
	mode tcp
	timeout connect 1s
	timeout client 1s
	timeout server 1s
listen pass
	bind unix@/d/front.sock
	server back unix@/d/back.sock
`))
	i.File("/d/mosquitto.conf", 0o644, []byte(`
listener 0 /d/mosquitto.sock
user root
allow_anonymous true
persistence false
log_dest stderr
`))
	archive := filepath.Join(m.Dir, "daemons.tar")
	if err := i.Write(archive); err != nil {
		t.Fatal(err)
	}
	h.containerd.Import(t, archive, space, "k8s.io")
	// With no privilege but those that examples/node gives it.
	h.agent = m.Run(t, "podnotify-node", h.watches, "setpriv", "--bounding-set=-all,+kill", "--inh-caps=-all", "--no-new-privs",
		h.program, "--run-dir", h.run, "--listen", address,
		"--containerd", h.containerd.Address, "--namespaces", space+",k8s.io", "--log-format", "text")
	return h
}

// watches is nil when podnotify-node answers and has seen all that there is.
func (h *host) watches(context.Context) error {
	if code, body := h.get("/healthz"); code != 200 {
		return fmt.Errorf("GET /healthz is %d %s", code, body)
	}
	if _, body := h.get("/metrics"); !strings.Contains(body, `podnotify_degraded{what="containerd"} 0`) {
		return errors.New("it does not watch containerd")
	}
	return nil
}

func (h *host) eventually(what string, ok func() bool) {
	h.Helper()
	for end := time.Now().Add(bound); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			h.Fatalf("not within %v: %s", bound, what)
		}
	}
}

func (h *host) get(path string) (code int, body string) {
	r, err := h.client.Get("http://" + address + path)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err.Error()
	}
	return r.StatusCode, strings.TrimSpace(string(b))
}

func (h *host) until(path string, want int) {
	h.Helper()
	code, body := 0, ""
	for end := time.Now().Add(bound); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if code, body = h.get(path); code == want {
			return
		}
	}
	h.Fatalf("GET %s is still %d %s after %v, want %d", path, code, body, bound, want)
}

// status is what these tests read of /statusz.
type status struct {
	Name, Phase, Status string
	Ready, Adopted      bool
	Main                *struct {
		PID, InnerPID int
		Command       string
	}
	Checks []struct {
		Name, Reason string
		OK           bool
	}
	Respawns int
	LastExit *struct {
		Code           *int
		Signal, Reason string
	}
	Warnings []string
	Counters struct{ Dropped map[string]int }
}

func (h *host) status(name string) (s status) {
	h.Helper()
	code, body := h.get("/statusz/" + name)
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		h.Fatalf("GET /statusz/%s is %d %s: %v", name, code, body, err)
	}
	return s
}

// ctr asks containerd's own client.
func (h *host) ctr(args ...string) string {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), bound)
	defer cancel()
	out, err := h.containerd.Ctr(ctx, space, args...)
	if err != nil {
		h.Fatal(err)
	}
	return out
}

// plain starts a plain container that asks to be served, and returns its first
// process.
func (h *host) plain(id string, labels []string, flags []string, argv ...string) int {
	h.Helper()
	args := []string{"run", "--detach", "--null-io", "--cgroup", filepath.Join(h.Cgroup, id),
		"--mount", "type=bind,src=" + h.run + "/node,dst=/run/podnotify,options=rbind:ro", "--env", "NOTIFY_SOCKET=/run/podnotify/notify"}
	for _, l := range labels {
		args = append(args, "--label", "podnotify.io/"+l)
	}
	h.ctr(append(append(append(args, flags...), daemons, id), argv...)...)
	return h.task(id)
}

var taskLine = regexp.MustCompile(`(?m)^(\S+)\s+(\d+)\s+(\w+)`)

// task is a container's first process, 0 if it does not run.
func (h *host) task(id string) int {
	h.Helper()
	for _, m := range taskLine.FindAllStringSubmatch(h.ctr("tasks", "ls"), -1) {
		if m[1] == id && m[3] == "RUNNING" {
			n, _ := strconv.Atoi(m[2])
			return n
		}
	}
	return 0
}

// kill sends a signal to a process of the machine.
func (h *host) kill(sig string, pid int) {
	h.Helper()
	h.Machine.Output(h.TB, "kill", "-"+sig, strconv.Itoa(pid))
}

// command runs podnotify-node to its end.
func (h *host) command(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.Context(), bound)
	defer cancel()
	return h.Command(ctx, h.program, append(args, "--run-dir", h.run)...)
}

func (h *host) inner(pid int) string {
	h.Helper()
	for line := range strings.Lines(h.Machine.Output(h.TB, "cat", fmt.Sprintf("/proc/%d/status", pid))) {
		if v, ok := strings.CutPrefix(line, "NStgid:"); ok {
			return strings.Join(strings.Fields(v), " ")
		}
	}
	return ""
}

// TestContainers: five daemons in plain containers, served by one podnotify-node,
// which may be killed and started again.
func TestContainers(t *testing.T) {
	h := newHost(t)
	argv := map[string][]string{
		"redis":     {"redis-server", "--supervised", "systemd", "--save", "", "--dir", "/d", "--port", "0", "--unixsocket", "/d/redis.sock"},
		"named":     {"named", "-f", "-n", "1", "-c", "/d/named.conf"},
		"haproxy":   {"haproxy", "-Ws", "-p", "/d/haproxy.pid", "-f", "/etc/haproxy.cfg"},
		"mosquitto": {"mosquitto", "-c", "/d/mosquitto.conf"},
		"mydaemon":  {"/mydaemon"},
	}
	pids := map[string]int{}
	for id, a := range argv {
		labels := []string{"expect=notify"}
		if id == "mydaemon" {
			labels = append(labels, "signals.reload=HUP")
		}
		pids[id] = h.plain(id, labels, nil, a...)
	}
	all := func() {
		t.Helper()
		for id, pid := range pids {
			h.until("/readyz/"+id, 200)
			s := h.status(id)
			if s.Main == nil || s.Main.PID != pid || s.Main.InnerPID != 1 {
				t.Errorf("%s: main process is %+v, want %d", id, s.Main, pid)
			}
		}
		if code, body := h.get("/readyz"); code != 200 {
			t.Errorf("GET /readyz is %d %s", code, body)
		}
	}
	all()
	if code, _ := h.get("/readyz/nobody"); code != 404 {
		t.Errorf("GET /readyz/nobody is %d", code)
	}
	if _, body := h.get("/metrics"); !strings.Contains(body, `podnotify_ready{container="",namespace="",pod="",service="haproxy"} 1`) {
		t.Errorf("/metrics has no haproxy:\n%s", body)
	}
	out, err := h.command("status")
	if err != nil || strings.Count(out, "●") != len(argv) {
		t.Errorf("podnotify-node status: %v\n%s", err, out)
	}
	t.Log("\n" + out)

	// A container may have a socket of its own, by whose path it is known.
	if err := os.Mkdir(filepath.Join(h.run, "own"), 0o755); err != nil {
		t.Fatal(err)
	}
	pids["own"] = h.plain("own", []string{"expect=notify"}, []string{"--mount", "type=bind,src=" + h.run + "/own,dst=/own,options=rbind:ro", "--env", "NOTIFY_SOCKET=/own/notify"},
		"dash", "-c", "until [ -S /own/notify ]; do :; done; exec /mydaemon")
	argv["own"] = nil
	all()

	// A restart adopts all of them: nobody has to say it again.
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		h.agent.Stop(sig)
		h.agent.Start(t, h.watches)
		all()
		for id := range pids {
			if s := h.status(id); !s.Adopted {
				t.Errorf("%s is not adopted: %+v", id, s)
			}
		}
	}
	if out, err := h.command("reload", "mydaemon"); err != nil {
		t.Errorf("reload: %v %s", err, out)
	}
	if _, body := h.get("/metrics"); !strings.Contains(body, `podnotify_transitions_total{container="",from="reloading",namespace="",pod="",service="mydaemon",to="ready"} 1`) {
		t.Errorf("mydaemon did not say that it has reloaded:\n%s", body)
	}
	// What ended while nobody watched is gone, and what is new is not what was.
	h.agent.Stop(syscall.SIGKILL)
	h.kill("KILL", pids["mosquitto"])
	h.agent.Start(t, h.watches)
	h.until("/readyz/mosquitto", 503)
	h.until("/readyz/haproxy", 200)
	h.ctr("tasks", "delete", "mosquitto")
	h.ctr("containers", "delete", "mosquitto")
	h.until("/readyz/mosquitto", 404)

	// containerd may go away, too.
	h.containerd.Stop(syscall.SIGKILL)
	h.eventually("it says so", func() bool {
		_, body := h.get("/metrics")
		return strings.Contains(body, `podnotify_degraded{what="containerd"} 1`)
	})
	h.kill("KILL", pids["named"])
	h.until("/readyz/named", 503)
	h.until("/readyz/redis", 200)
	h.until("/healthz", 200)
	h.containerd.Start(t, h.containerd.Ready)
	h.eventually("it has come back", func() bool {
		_, body := h.get("/metrics")
		return strings.Contains(body, `podnotify_degraded{what="containerd"} 0`)
	})
	id := "late"
	h.plain(id, []string{"expect=notify"}, nil, argv["mydaemon"]...)
	h.until("/readyz/late", 200)
}

// TestEnds: how a container ended is told, with the reason.
func TestEnds(t *testing.T) {
	h := newHost(t)
	redis := []string{"redis-server", "--supervised", "systemd", "--save", "", "--dir", "/d", "--port", "7001"}

	t.Run("out of memory", func(t *testing.T) {
		h.plain("hog", []string{"expect=notify"}, []string{"--net-host", "--memory-limit", "25165824"}, redis...)
		h.until("/readyz/hog", 200)
		conn, err := h.Dial(t.Context(), "tcp", "127.0.0.1:7001")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(bound))
		const size = 64 << 20
		fmt.Fprintf(conn, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n", size)
		for sent := 0; sent < size; sent += 1 << 20 {
			if _, err := conn.Write(make([]byte, 1<<20)); err != nil {
				break // it is dead
			}
		}
		h.until("/readyz/hog", 503)
		h.eventually("it is told why", func() bool { s := h.status("hog"); return s.LastExit != nil && s.LastExit.Reason == "oom-killed" })
		_, body := h.get("/readyz/hog")
		if !strings.Contains(body, "killed by the kernel for want of memory") {
			t.Errorf("/readyz says %q", body)
		}
		t.Log(body)
	})
	t.Run("exit code", func(t *testing.T) {
		h.plain("brief", []string{"expect=none"}, nil, "dash", "-c", "exit 7")
		h.eventually("it has ended", func() bool {
			s := h.status("brief")
			return s.LastExit != nil && s.LastExit.Code != nil && *s.LastExit.Code == 7 && s.LastExit.Reason == "exited"
		})
	})
}

// TestRespawn: a container that nobody else restarts gets a new task, so many times.
func TestRespawn(t *testing.T) {
	h := newHost(t)
	const limit = 4
	pid := h.plain("mydaemon", []string{"expect=notify", "respawn.mode=containerd", "respawn.delay=0", "respawn.interval=10m", "respawn.limit=" + strconv.Itoa(limit)},
		nil, "/mydaemon")
	ready := func() {
		t.Helper()
		h.eventually("the new task is ready", func() bool {
			s := h.status("mydaemon")
			return s.Ready && s.Main != nil && s.Main.PID != pid
		})
		was := pid
		if pid = h.task("mydaemon"); pid == was || pid == 0 || h.status("mydaemon").Main.PID != pid {
			t.Fatalf("task %d after %d, main process %+v", pid, was, h.status("mydaemon").Main)
		}
	}
	h.until("/readyz/mydaemon", 200)
	// It ends while nobody watches.
	h.agent.Stop(syscall.SIGKILL)
	h.kill("KILL", pid)
	h.eventually("it has ended", func() bool { return h.task("mydaemon") == 0 })
	h.agent.Start(t, h.watches)
	ready()
	for range limit - 1 {
		h.kill("KILL", pid)
		ready()
	}
	if s := h.status("mydaemon"); s.Respawns != limit {
		t.Errorf("%d respawns", s.Respawns)
	}
	h.kill("KILL", pid)
	h.eventually("the limit is reached", func() bool {
		_, body := h.get("/readyz/mydaemon?verbose")
		return strings.Contains(body, "[-]respawn failed")
	})
	time.Sleep(time.Second) // in which it could try again
	if n := h.task("mydaemon"); n != 0 {
		t.Errorf("it was started again: task %d", n)
	}
	// Somebody asks for it.
	if out, err := h.command("respawn", "mydaemon"); err != nil {
		t.Fatal(err, out)
	}
	ready()
	// Stopped by podnotify-node it stays so.
	if out, err := h.command("stop", "mydaemon"); err != nil {
		t.Fatal(err, out)
	}
	h.until("/readyz/mydaemon", 503)
	time.Sleep(time.Second)
	if n := h.task("mydaemon"); n != 0 {
		t.Errorf("it was started again: task %d", n)
	}
}

// TestLabels: ctr makes labels of a container of those of its image. What an image says
// so is heard of plain containers, and starts no program of the host.
func TestLabels(t *testing.T) {
	h := newHost(t)
	const labelled = "podnotify.test/labelled:1"
	file := filepath.Join(h.Dir, "written-by-the-image")
	i := image.Image{Name: labelled, Labels: map[string]string{
		"podnotify.io/expect": "notify", "podnotify.io/respawn.mode": "containerd", "podnotify.io/respawn.delay": "0",
		"io.cri-containerd.kind": "container", "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.name": "web", "io.kubernetes.container.name": "mydaemon",
		"containerd.io/restart.loguri": "file://" + file,
	}}
	i.Copy(filepath.Join(h.Dir, "mydaemon"), "/mydaemon", 0o755)
	archive := filepath.Join(h.Dir, "labelled.tar")
	if err := i.Write(archive); err != nil {
		t.Fatal(err)
	}
	h.containerd.Import(t, archive, space)
	run := func(id, name string, labels ...string) int {
		t.Helper()
		args := []string{"run", "--detach", "--null-io", "--cgroup", filepath.Join(h.Cgroup, id),
			"--mount", "type=bind,src=" + h.run + "/node,dst=/run/podnotify,options=rbind:ro", "--env", "NOTIFY_SOCKET=/run/podnotify/notify"}
		for _, l := range labels {
			args = append(args, "--label", l)
		}
		argv := []string{"/mydaemon"}
		if name == daemons {
			argv = []string{"dash", "-c", "echo it runs; exec /mydaemon"}
		}
		h.ctr(append(append(args, name, id), argv...)...)
		h.until("/readyz/"+id, 200)
		return h.task(id)
	}
	refused := func(id, why string, pid int) {
		t.Helper()
		h.kill("KILL", pid)
		h.until("/readyz/"+id, 503)
		h.eventually("it is said why "+id+" gets no new task", func() bool { return strings.Contains(h.agent.Tail(1000), why) })
		if n := h.task(id); n != 0 {
			t.Errorf("%s has task %d", id, n)
		}
	}
	pid := run("image", labelled)
	if code, _ := h.get("/readyz/default/web/mydaemon"); code != 404 {
		t.Errorf("a label of an image makes it a pod's container: %d", code)
	}
	refused("image", "is the image's", pid)
	if _, err := os.Stat(file); err == nil {
		t.Error("an image has written to the host")
	}

	mine := []string{"podnotify.io/expect=notify", "podnotify.io/respawn.mode=containerd", "podnotify.io/respawn.delay=0"}
	mark := filepath.Join(h.Dir, "mark")
	refused("binary", "only file:///PATH is taken", run("binary", daemons, append(mine, "containerd.io/restart.loguri=binary:///usr/bin/touch?"+mark)...))
	if _, err := os.Stat(mark); err == nil {
		t.Error("a program of the host was started")
	}
	log := filepath.Join(h.Dir, "said")
	h.kill("KILL", run("file", daemons, append(mine, "containerd.io/restart.loguri=file://"+log)...))
	h.eventually("the new task writes to its file", func() bool { b, _ := os.ReadFile(log); return string(b) == "it runs\n" && h.status("file").Ready })
}

// TestChanged: labels may be changed while a container runs.
func TestChanged(t *testing.T) {
	h := newHost(t)
	pid := h.plain("c", []string{"expect=notify"}, nil, "/mydaemon")
	h.until("/readyz/c", 200)
	h.ctr("containers", "label", "c", "podnotify.io/expct=notify")
	h.eventually("the wrong key is told", func() bool {
		code, body := h.get("/readyz/c")
		return code == 503 && strings.Contains(body, "did you mean expect?")
	})
	h.ctr("containers", "label", "c", "podnotify.io/expct=", "podnotify.io/timeouts.reload=5s")
	h.until("/readyz/c", 200)
	if s := h.status("c"); s.Main == nil || s.Main.PID != pid || !s.Adopted {
		t.Errorf("after a change of its labels it is %+v", s)
	}
}

// TestHung: a containerd that does not answer is away like one that is not there, and
// what is known stays.
func TestHung(t *testing.T) {
	h := newHost(t)
	h.plain("c", []string{"expect=notify"}, nil, "/mydaemon")
	h.until("/readyz/c", 200)
	containerd := func(degraded int) {
		t.Helper()
		want := fmt.Sprintf(`podnotify_degraded{what="containerd"} %d`, degraded)
		for end := time.Now().Add(3 * bound); ; time.Sleep(100 * time.Millisecond) {
			if _, body := h.get("/metrics"); strings.Contains(body, want) {
				return
			}
			if time.Now().After(end) {
				t.Fatal("it does not say ", want)
			}
		}
	}
	h.containerd.Signal(syscall.SIGSTOP)
	containerd(1)
	h.until("/readyz/c", 200)
	h.containerd.Signal(syscall.SIGCONT)
	containerd(0)
	h.until("/readyz/c", 200)
	if s := h.status("c"); s.Adopted || s.Respawns > 0 {
		t.Errorf("it was served anew: %+v", s)
	}
}

// TestTwins: containers that could be taken for each other.
func TestTwins(t *testing.T) {
	h := newHost(t)
	h.plain("twin", []string{"expect=notify"}, nil, "/mydaemon")
	h.until("/readyz/twin", 200)
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	if out, err := h.containerd.Ctr(ctx, "k8s.io", "containers", "create", "--label", "podnotify.io/expect=notify", daemons, "twin", "/mydaemon"); err != nil {
		t.Fatal(err, out)
	}
	h.eventually("the id alone names neither", func() bool {
		code, body := h.get("/readyz/twin")
		return code == 404 && strings.Contains(body, space+"/twin") && strings.Contains(body, "k8s.io/twin")
	})
	h.until("/readyz/"+space+"/twin", 200)
	h.until("/readyz/k8s.io/twin", 503)
	if out, err := h.containerd.Ctr(ctx, "k8s.io", "containers", "delete", "twin"); err != nil {
		t.Fatal(err, out)
	}
	h.until("/readyz/twin", 200)

	// One cgroup for two: whose word would it be?
	h.plain("guest", []string{"expect=notify"}, []string{"--cgroup", filepath.Join(h.Cgroup, "twin")}, "/mydaemon", "-l", "127.0.0.1:7071")
	h.eventually("it says that they live in one cgroup", func() bool {
		code, _ := h.get("/readyz/guest")
		return code == 503 && strings.Contains(strings.Join(h.status("guest").Warnings, " "), "container twin lives in the same cgroup")
	})
	h.until("/readyz/twin", 200)

	// A task that somebody else starts while a respawn is due stays.
	pid := h.plain("own", []string{"expect=notify", "respawn.mode=containerd", "respawn.delay=20s", "respawn.max-delay=20s"}, nil, "/mydaemon", "-l", "127.0.0.1:7072")
	h.until("/readyz/own", 200)
	h.kill("KILL", pid)
	h.until("/readyz/own", 503)
	h.ctr("tasks", "delete", "own")
	h.ctr("tasks", "start", "--detach", "--null-io", "own")
	pid = h.task("own")
	h.until("/readyz/own", 200)
	time.Sleep(21 * time.Second) // in which it would have been replaced
	if s := h.status("own"); h.task("own") != pid || !s.Ready || s.Main.PID != pid {
		t.Errorf("task %d was replaced: %+v", pid, s)
	}
}

// TestRespawnResumed: a respawn that was due is not forgotten by a podnotify-node that is
// started again meanwhile.
func TestRespawnResumed(t *testing.T) {
	h := newHost(t)
	pid := h.plain("c", []string{"expect=notify", "respawn.mode=containerd", "respawn.delay=1h", "respawn.max-delay=1h"}, nil, "/mydaemon")
	h.until("/readyz/c", 200)
	h.kill("KILL", pid)
	h.until("/readyz/c", 503)
	h.agent.Stop(syscall.SIGTERM)
	h.agent.Start(t, h.watches)
	h.until("/readyz/c", 200)
	if s := h.status("c"); s.Respawns != 1 || s.Main.PID == pid || s.Main.PID != h.task("c") {
		t.Errorf("after a restart of podnotify-node it is %+v", s)
	}
}

// TestReadme does with a plain container what examples/node/README.md says, word by word.
func TestReadme(t *testing.T) {
	h := newHost(t)
	curl := machine.Need(t, "curl", "curl")
	b, err := os.ReadFile("../../../examples/node/README.md")
	if err != nil {
		t.Fatal(err)
	}
	// Where both are on every other machine, and where ctr looks.
	h.Machine.Output(t, "sh", "-c", "mkdir -p /run/podnotify /run/containerd && mount --bind "+h.run+" /run/podnotify && touch /run/containerd/containerd.sock && mount --bind "+
		h.containerd.Address+" /run/containerd/containerd.sock")
	said := map[string]string{}
	_, text, _ := strings.Cut(string(b), "## Plain containers")
	text, _, _ = strings.Cut(text, "\n## ")
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", "")) {
		command, is := strings.CutPrefix(line, "    ")
		verb, _, _ := strings.Cut(command, " ")
		switch {
		case !is, verb == "install", verb == "systemctl":
			continue
		case verb == "ctr":
			command = strings.Replace(strings.Replace(command, "ctr run -d", "ctr --namespace "+space+" run -d --null-io --cgroup "+filepath.Join(h.Cgroup, "redis"), 1), "IMAGE", daemons, 1)
		case verb == "curl":
			command = strings.Replace(command, "curl", curl+" -sS --retry 60 --retry-all-errors --retry-delay 1 -f", 1)
		case verb == "podnotify-node":
			command = filepath.Join(h.Dir, command)
		}
		out, err := h.Command(t.Context(), "sh", "-c", command)
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		t.Logf("%s%s", command, out)
		said[verb] += out
	}
	if said["curl"] != "ok" || !strings.Contains(said["podnotify-node"], "redis") {
		t.Errorf("it says %q", said)
	}
}

// TestPod: a pod whose containers share nothing with podnotify-node, nor with each
// other, as they are by default.
func TestPod(t *testing.T) {
	h := newHost(t)
	r := cri.Connect(t, h.Machine, h.containerd.Address)
	p := r.Pod(t, "web", false, map[string]string{
		"podnotify.io/redis.expect":            "notify",
		"podnotify.io/haproxy.expect":          "notify",
		"podnotify.io/mydaemon.expect":         "notify",
		"podnotify.io/mydaemon.signals.reload": "HUP",
		"podnotify.io/stops.expect":            "stop",
		"podnotify.io/wrong.expct":             "stop",
		"podnotify.io/mine.respawn.mode":       "containerd",
	})
	start := func(name string, env []string, argv ...string) (id string) {
		t.Helper()
		return p.Start(cri.Container{Name: name, Image: daemons, UID: 65532, Args: argv, Env: append(env, "NOTIFY_SOCKET=/run/podnotify/notify"),
			RO: map[string]string{"/run/podnotify": h.run + "/node"}, Mounts: map[string]string{"/d": name}})
	}
	id := start("mydaemon", nil, "/mydaemon")
	const path = "default/web/mydaemon"
	h.until("/readyz/"+path, 200)
	h.until("/readyz/"+id, 200)
	h.until("/startupz/"+path, 200)
	h.until("/livez/"+path, 200)
	s, pid := h.status(path), p.PID(id)
	if s.Main == nil || s.Main.PID != pid || s.Main.InnerPID != 1 || s.Status == "" {
		t.Errorf("status is %+v, want process %d (%s)", s, pid, h.inner(pid))
	}
	t.Logf("the daemon is process %s; podnotify-node says %+v, %q", h.inner(pid), *s.Main, s.Status)
	if _, body := h.get("/metrics"); !strings.Contains(body, `podnotify_ready{container="mydaemon",namespace="default",pod="web",service="default/web/mydaemon"} 1`) {
		t.Errorf("/metrics has no mydaemon:\n%s", body)
	}

	// MAINPID is written in the daemon's own numbers: haproxy says 1.
	haproxy := start("haproxy", nil, "haproxy", "-Ws", "-p", "/d/haproxy.pid", "-f", "/etc/haproxy.cfg")
	h.until("/readyz/default/web/haproxy", 200)
	if s := h.status("default/web/haproxy"); s.Main.PID != p.PID(haproxy) || s.Main.InnerPID != 1 || s.Counters.Dropped["bad-MAINPID"] > 0 || len(s.Warnings) > 0 {
		t.Errorf("haproxy is %+v, want process %d", s, p.PID(haproxy))
	}
	redis := start("redis", nil, "redis-server", "--supervised", "systemd", "--save", "", "--dir", "/d", "--port", "0", "--unixsocket", "/d/s")
	h.until("/readyz/default/web/redis", 200)
	if s := h.status("default/web/redis"); s.Main.PID != p.PID(redis) || len(s.Warnings) > 0 {
		t.Errorf("redis is %+v, want process %d", s, p.PID(redis))
	}

	if out, err := h.command("reload", path); err != nil {
		t.Errorf("reload: %v %s", err, out)
	}
	if s := h.status(path); !s.Ready || s.Main.PID != pid {
		t.Errorf("after a reload it is %+v", s)
	}
	if _, body := h.get("/metrics"); !strings.Contains(body, `podnotify_transitions_total{container="mydaemon",from="reloading",namespace="default",pod="web",service="default/web/mydaemon",to="ready"} 1`) {
		t.Errorf("it did not say that it has reloaded:\n%s", body)
	}

	start("stops", []string{"UPSTART_JOB=stops"}, "/mydaemon", "-l", "127.0.0.1:7071")
	h.eventually("it says why it cannot be", func() bool {
		code, body := h.get("/readyz/default/web/stops")
		return code == 503 && strings.Contains(body, "PID 1 of its PID namespace") && strings.Contains(body, "shareProcessNamespace")
	})
	_, body := h.get("/readyz/default/web/stops")
	t.Log(body)

	start("wrong", nil, "/mydaemon", "-l", "127.0.0.1:7072")
	start("mine", nil, "/mydaemon", "-l", "127.0.0.1:7073")
	for name, want := range map[string]string{"wrong": "did you mean expect?", "mine": "kubelet"} {
		h.eventually("it says what is wrong with "+name, func() bool {
			code, body := h.get("/readyz/default/web/" + name)
			return code == 503 && strings.Contains(body, want)
		})
	}

	// Kubelet starts it again, under another id: it is the same service.
	if out, err := h.command("kill", "--signal", "KILL", path); err != nil {
		t.Fatal(err, out)
	}
	h.until("/readyz/"+path, 503)
	h.eventually("its container has ended", func() bool { return !p.Running(id) })
	again := p.Start(cri.Container{Name: "mydaemon", Image: daemons, UID: 65532, Args: []string{"/mydaemon"}, Attempt: 1,
		Env: []string{"NOTIFY_SOCKET=/run/podnotify/notify"}, RO: map[string]string{"/run/podnotify": h.run + "/node"}, Mounts: map[string]string{"/d": "mydaemon"}})
	h.until("/readyz/"+path, 200)
	h.until("/readyz/"+again, 200)
	if s := h.status(path); s.Respawns != 1 || s.Main.PID != p.PID(again) || s.LastExit == nil || s.LastExit.Signal != "KILL" {
		t.Errorf("the second instance is %+v", s)
	}
}
