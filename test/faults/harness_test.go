package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// bound is how long anything may take before a test gives up. It is no measure of
	// speed: the machine may be busy with other work.
	bound = 60 * time.Second
	// owner is the uid of podnotify and of most daemons, stranger that of nobody's.
	owner    = 65532
	stranger = 65533
)

// needRoot is for all tests here: they make namespaces and use several uids.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const what = "missing uid 0, to make a PID namespace and to start processes of other uids; run as root"
	if os.Getenv("CI") == "true" || os.Getenv("PODNOTIFY_TEST_ALL") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// number is a setting of the run, from the environment.
func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// seed is that of the choices of a test.
func seed(t *testing.T) uint64 {
	n := uint64(number("PODNOTIFY_SEED", int(time.Now().UnixNano()%1e9)))
	t.Logf("the choices of this run again: PODNOTIFY_SEED=%d", n)
	return n
}

// text is what a process has written so far.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (x *text) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(b)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

// process is one that the test has started. It ends with the test at the latest.
type process struct {
	*exec.Cmd
	t      *testing.T
	pid    int
	stderr text
	ended  chan struct{}
}

func start(t *testing.T, uid int, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{Cmd: cmd, t: t, ended: make(chan struct{})}
	cmd.Stderr = &p.stderr
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot start %v: %v", cmd.Args, err)
	}
	p.pid = cmd.Process.Pid
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if said := p.stderr.String(); t.Failed() {
			t.Logf("%v\n%s", cmd.Args, said[max(0, len(said)-8<<10):])
		}
	})
	return p
}

// kill ends the process and those of its group.
func (p *process) kill() {
	if over(p.ended) {
		return
	}
	_ = unix.Kill(-p.pid, unix.SIGKILL)
	_ = p.Process.Kill()
	<-p.ended
}

// exit waits for the end and returns the code.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(bound):
		p.t.Fatalf("%v does not end", p.Args)
	}
	return p.ProcessState.ExitCode()
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(bound); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", bound, what)
		}
	}
}

// room is a directory that everybody may write to, for a run-dir.
func room(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(bin.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// podnotify is a sidecar for services, each the actors that are called after it.
type podnotify struct {
	*process
	dir     string
	address string
}

// sidecar starts one and waits until it answers. more, by the name of a service, is YAML
// of its configuration.
func sidecar(t *testing.T, dir string, more map[string]string, services ...string) *podnotify {
	t.Helper()
	for range 5 {
		n := command(t, dir, more, services...)
		if n.answers() {
			return n
		}
		if !strings.Contains(n.stderr.String(), "another process listens there") {
			t.Fatalf("podnotify ends with %d: %s", n.exit(), &n.stderr)
		}
	}
	t.Fatal("every free port was taken by somebody else")
	return nil
}

// command starts a sidecar.
func command(t *testing.T, dir string, more map[string]string, services ...string) *podnotify {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	n := &podnotify{dir: dir, address: l.Addr().String()}
	var y strings.Builder
	fmt.Fprintf(&y, "listen: %q\nrun-dir: %s\nlog-format: text\nservices:\n", n.address, dir)
	for _, s := range services {
		fmt.Fprintf(&y, "  - {name: %s, expect: notify, select: {process: \"^[^ ]*/actor [a-z]+ %s( |$)\"}, timeouts: {start: 0, reload: 0, stop: 0}, notify: {mode: \"0666\"%s}}\n", s, s, more[s])
	}
	file := filepath.Join(bin.dir, filepath.Base(dir)+".yaml")
	if err := os.WriteFile(file, []byte(y.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	n.process = start(t, owner, exec.Command(bin.podnotify, "sidecar", "--config", file))
	return n
}

// answers waits until /healthz is 200. False: podnotify has ended instead.
func (n *podnotify) answers() bool {
	n.t.Helper()
	for end := time.Now().Add(bound); ; time.Sleep(5 * time.Millisecond) {
		if over(n.ended) {
			return false
		}
		if code, _, err := n.ask("/healthz"); err == nil && code == http.StatusOK {
			return true
		}
		if time.Now().After(end) {
			n.t.Fatal("podnotify does not answer /healthz")
		}
	}
}

// client asks as kubelet does: a connection for each question.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: bound}

func (n *podnotify) ask(path string) (int, string, error) {
	r, err := client.Get("http://" + n.address + path)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

// expect asks once.
func (n *podnotify) expect(path string, code int) string {
	n.t.Helper()
	got, body, err := n.ask(path)
	if err != nil || got != code {
		n.t.Fatalf("GET %s is %d %q, %v; want %d", path, got, body, err, code)
	}
	return body
}

// until asks until the answer is code.
func (n *podnotify) until(path string, code int) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("GET %s is %d", path, code), func() bool {
		got, _, err := n.ask(path)
		return err == nil && got == code
	})
}

// told is what /statusz says of a service.
type told struct {
	Phase       string
	Ready, Live bool
	Started     bool
	Status      string
	Main        *struct{ PID int }
	Warnings    []string
	Counters    struct {
		Datagrams uint64
		Dropped   map[string]uint64
	}
}

func (n *podnotify) status(service string) (s told) {
	n.t.Helper()
	body := n.expect("/statusz/"+service, 200)
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		n.t.Fatalf("%v: %s", err, body)
	}
	if s.Ready && !s.Live {
		n.t.Fatalf("ready and not live: %s", body)
	}
	return s
}

func (n *podnotify) socket(service string) string { return n.dir + "/" + service + "/notify" }

// weight is what podnotify holds.
type weight struct {
	anonymous int // KiB
	fds       int
	threads   int
}

func (n *podnotify) weigh() (w weight) {
	n.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", n.pid))
	if err != nil {
		n.t.Fatal(err)
	}
	w.anonymous = line(string(b), "Anonymous")
	b, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", n.pid))
	if err != nil {
		n.t.Fatal(err)
	}
	w.threads = line(string(b), "Threads")
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.pid))
	if err != nil {
		n.t.Fatal(err)
	}
	w.fds = len(fds)
	return w
}

func (w *weight) atLeast(v weight) {
	w.anonymous, w.fds, w.threads = max(w.anonymous, v.anonymous), max(w.fds, v.fds), max(w.threads, v.threads)
}

// line is the number in a line of a file of /proc.
func line(s, name string) int {
	for l := range strings.Lines(s) {
		if v, ok := strings.CutPrefix(l, name+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(v)[0])
			return n
		}
	}
	return -1
}

// actor is a process that a test tells what to do.
type actor struct {
	*process
	in  io.WriteCloser
	out *json.Decoder
}

// actor starts one. It speaks to a socket, or to that of a service, under the name of
// another.
func (n *podnotify) actor(uid int, kind, name, socket string, args ...string) *actor {
	n.t.Helper()
	if !filepath.IsAbs(socket) {
		socket = n.socket(socket)
	}
	cmd := exec.Command(bin.actor, append([]string{kind, name}, args...)...)
	cmd.Env = []string{actorVariable + "=1", "GORACE=atexit_sleep_ms=0", "NOTIFY_SOCKET=" + socket, "PATH=" + os.Getenv("PATH")}
	in, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		n.t.Fatal(err)
	}
	cmd.Stdout = w
	a := &actor{start(n.t, uid, cmd), in, json.NewDecoder(out)}
	w.Close()
	n.t.Cleanup(func() { in.Close(); out.Close() })
	_ = out.SetReadDeadline(time.Now().Add(10 * time.Minute))
	return a
}

// speaker is an actor of a service that does what it is told.
func (n *podnotify) speaker(service string) *actor {
	n.t.Helper()
	return n.actor(owner, "speak", service, service)
}

// do has it do something, and returns what went wrong.
func (a *actor) do(d deed) error {
	a.t.Helper()
	if err := json.NewEncoder(a.in).Encode(d); err != nil {
		a.t.Fatalf("cannot tell %v: %v", a.Args, err)
	}
	var said string
	if err := a.out.Decode(&said); err != nil {
		a.t.Fatalf("%v does not answer: %v", a.Args, err)
	}
	if said != "" {
		return fmt.Errorf("%s", said)
	}
	return nil
}

// say sends lines as one datagram, which podnotify has dealt with on return.
func (a *actor) say(lines ...string) {
	a.t.Helper()
	if err := a.do(deed{Data: strings.Join(lines, "\n")}); err != nil {
		a.t.Fatalf("%v cannot say %q: %v", a.Args, lines, err)
	}
}
