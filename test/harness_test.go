package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// bound is how long anything may take before a test gives up. It is no
	// measure of speed: the machine may be busy with other work.
	bound = 30 * time.Second
	// nobody is a uid without rights, the one of podnotify's image.
	nobody = 65532
)

// need skips the test if a program is missing, and says where to get it. Where
// everything has to be tested (CI=true, PODNOTIFY_TEST_ALL=1) it fails instead.
func need(t *testing.T, program, debian string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		lacking(t, fmt.Sprintf("missing %s; apt-get install %s", program, debian))
	}
	return path
}

// needRoot is for tests that make PID namespaces or use two uids.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "missing uid 0, to make a PID namespace and to start processes of other uids; run as root")
	}
}

func lacking(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" || os.Getenv("PODNOTIFY_TEST_ALL") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// tempDir is short, because the path of a unix socket has 107 bytes at most, and
// every uid may write to it.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// eventually waits for a condition, and fails with what it says is the case.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(bound); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", bound, what)
		}
	}
}

// firstVariable makes the test binary the first process of a pod.
const firstVariable = "PODNOTIFY_TEST_FIRST"

// first is process 1 of a pod: like the pause process of a real one it does
// nothing but reap, or it becomes the program named by the arguments. When it
// ends, so does everything in the pod.
func first() int {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Println("cannot make mounts private:", err)
		return 1
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		fmt.Println("cannot mount /proc:", err)
		return 1
	}
	fmt.Println("ok")
	if len(os.Args) > 1 {
		_ = os.Stdin.Close()
		os.Unsetenv(firstVariable)
		path, err := exec.LookPath(os.Args[1])
		if err == nil {
			err = unix.Exec(path, os.Args[1:], os.Environ())
		}
		fmt.Println(err)
		return 1
	}
	go func() {
		for {
			if _, err := unix.Wait4(-1, nil, 0, nil); err != nil {
				time.Sleep(10 * time.Millisecond) // no children
			}
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// pod is a private PID and mount namespace, as the containers of a Pod with
// shareProcessNamespace have. A nil *pod is the namespace of the test.
type pod struct {
	pid int // of its process 1, as the test sees it
}

func newPod(t *testing.T) *pod {
	t.Helper()
	return newPodOf(t, nil)
}

// newPodOf is a pod whose process 1 is a program.
func newPodOf(t *testing.T, env []string, argv ...string) *pod {
	t.Helper()
	needRoot(t)
	cmd := exec.Command(bin.pause, argv...)
	cmd.Env = append(os.Environ(), firstVariable+"=1")
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	out := &text{}
	cmd.Stdout, cmd.Stderr = out, out
	in, err := cmd.StdinPipe() // it ends with the test, however that ends
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal("cannot make a PID namespace: ", err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill() // and the kernel kills all that is in the namespace
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("process 1 of the pod %v\n%s", argv, out)
		}
	})
	eventually(t, "the pod is made", func() bool { return strings.Contains(out.String(), "\n") })
	if !strings.HasPrefix(out.String(), "ok\n") {
		t.Fatal("cannot make a pod: ", out)
	}
	return &pod{pid: cmd.Process.Pid}
}

// enter brings the calling thread into the pod: its children are born there
// without a parent (PPid 0), as those of a container runtime are.
func (p *pod) enter() error {
	// A thread that shares its root and working directory may not change its
	// mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	for _, ns := range []struct {
		name string
		flag int
	}{{"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}} {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", p.pid, ns.name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if ns.name == "mnt" {
			defer func() { _ = unix.Chdir("/") }()
		}
		if err := unix.Setns(fd, ns.flag); err != nil {
			return fmt.Errorf("cannot enter the %s namespace: %w", ns.name, err)
		}
	}
	return nil
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

// process is one that the test has started. It is killed when the test ends.
type process struct {
	*os.Process // numbers are the test's, see inner
	t           *testing.T
	pod         *pod
	name        string
	stdout      text
	stderr      text
	ended       chan struct{}
	state       *os.ProcessState // after ended
}

// order is a process to be started.
type order struct {
	uid   int      // 0: the test's own
	env   []string // beside PATH
	stdin io.Reader
	// through precedes the command line: setpriv, say.
	through []string
	// zombie, if not nil, leaves the process a zombie until it is closed.
	zombie <-chan struct{}
}

// start starts a process in the pod, or beside the test in a nil pod.
func (p *pod) start(t *testing.T, o order, argv ...string) *process {
	t.Helper()
	argv = append(append([]string{}, o.through...), argv...)
	x := &process{t: t, pod: p, name: filepath.Base(argv[0]), ended: make(chan struct{})}
	cmd := exec.Command(argv[0], argv[1:]...)
	// Under the race detector a process sleeps for a second before it ends.
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/", "GORACE=atexit_sleep_ms=0"}, o.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = o.stdin, &x.stdout, &x.stderr
	cmd.WaitDelay = time.Second // descendants may hold the pipes
	// A session of its own, as every container has: in one's own session the
	// kernel permits SIGCONT whatever the uid.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if o.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.uid)}
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if p != nil {
			if err := p.enter(); err != nil {
				started <- err
				return
			}
		}
		started <- cmd.Start()
	}()
	if err := <-started; err != nil {
		t.Fatalf("cannot start %s: %v", x.name, err)
	}
	x.Process = cmd.Process
	go func() {
		if o.zombie != nil {
			<-o.zombie
		}
		_ = cmd.Wait()
		x.state = cmd.ProcessState
		close(x.ended)
	}()
	t.Cleanup(func() {
		x.kill()
		if t.Failed() {
			t.Logf("%s %v\n--- stdout\n%s--- stderr\n%s", x.name, argv[1:], &x.stdout, &x.stderr)
		}
	})
	return x
}

// kill ends the process and those of its group, and waits for the end.
func (x *process) kill() {
	select {
	case <-x.ended:
	default:
		_ = unix.Kill(-x.Pid, unix.SIGKILL)
		_ = x.Process.Kill()
		<-x.ended
	}
}

func (x *process) signal(sig unix.Signal) {
	x.t.Helper()
	if err := x.Signal(sig); err != nil {
		x.t.Fatalf("cannot send %s to %s: %v", unix.SignalName(sig), x.name, err)
	}
}

// exit waits for the end and returns the exit code, 128+n for a signal.
func (x *process) exit() int {
	x.t.Helper()
	select {
	case <-x.ended:
	case <-time.After(bound):
		x.t.Fatalf("%s does not end", x.name)
	}
	if ws := x.state.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return x.state.ExitCode()
}

func (x *process) over() bool {
	select {
	case <-x.ended:
		return true
	default:
		return false
	}
}

// says waits until the process has written something to standard error.
func (x *process) says(want string) {
	x.t.Helper()
	eventually(x.t, fmt.Sprintf("%s says %q", x.name, want), func() bool { return strings.Contains(x.stderr.String(), want) })
}

// field is a line of /proc/PID/status.
func field(pid int, name string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// inner is the number of the process where it lives.
func (x *process) inner() int {
	x.t.Helper()
	f := strings.Fields(field(x.Pid, "NSpid"))
	if len(f) == 0 {
		x.t.Fatalf("%s is gone", x.name)
	}
	n, _ := strconv.Atoi(f[len(f)-1])
	return n
}

// podnotify is a running podnotify, sidecar or run, that answers.
type podnotify struct {
	*process
	address string // host:port
	dir     string // --run-dir
}

// serve starts podnotify with a run-dir and a port of its own and waits until it
// answers. command is "sidecar" or "run"; args are what follows.
func (p *pod) serve(t *testing.T, o order, command string, args ...string) *podnotify {
	t.Helper()
	return p.serveIn(t, o, tempDir(t), command, args...)
}

func (p *pod) serveIn(t *testing.T, o order, dir, command string, args ...string) *podnotify {
	t.Helper()
	if kernel := os.Getenv(kernelVariable); kernel != "" {
		o = around(kernel, o)
	}
	for range 5 {
		n := &podnotify{dir: dir, address: freePort(t)}
		all := append([]string{bin.podnotify, command, "--listen", n.address, "--run-dir", dir, "--log-format", "text"}, args...)
		n.process = p.start(t, o, all...)
		if n.answers() {
			return n
		}
		if !strings.Contains(n.stderr.String(), "another process listens there") {
			t.Fatalf("podnotify ended with code %d:\n%s", n.exit(), &n.stderr)
		}
	}
	t.Fatal("every free port was taken by somebody else")
	return nil
}

// freePort is an address that was free a moment ago, and that no other test asks
// for: the hosts of 127/8 are dealt out, a network for each process that tests.
func freePort(t *testing.T) string {
	t.Helper()
	pid, n := os.Getpid(), hosts.Add(1)
	return free(t, net.IPv4(127, byte(pid>>8), byte(pid), byte(2+n%250)).String())
}

// free is an address on a host of loopback that was free a moment ago.
func free(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

var hosts atomic.Uint32

// answers waits until /healthz is 200. False: podnotify has ended instead.
func (n *podnotify) answers() bool {
	n.t.Helper()
	for end := time.Now().Add(bound); ; time.Sleep(5 * time.Millisecond) {
		if n.over() {
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
var client = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true},
	Timeout:   bound,
}

func (n *podnotify) ask(path string) (int, string, error) {
	r, err := client.Get("http://" + n.address + path)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

// get asks once.
func (n *podnotify) get(path string) (int, string) {
	n.t.Helper()
	code, body, err := n.ask(path)
	if err != nil {
		n.t.Fatalf("GET %s: %v", path, err)
	}
	return code, body
}

// until asks until the answer is code, and returns the body.
func (n *podnotify) until(path string, code int) string {
	n.t.Helper()
	var got int
	var body string
	for end := time.Now().Add(bound); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got, body = n.get(path); got == code {
			return body
		}
	}
	n.t.Fatalf("GET %s is %d after %v, want %d: %s", path, got, bound, code, body)
	return ""
}

// untilBody asks until the answer is code and says something.
func (n *podnotify) untilBody(path string, code int, want string) string {
	n.t.Helper()
	var got int
	var body string
	for end := time.Now().Add(bound); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got, body = n.get(path); got == code && strings.Contains(body, want) {
			return body
		}
	}
	n.t.Fatalf("GET %s is %d after %v, want %d with %q: %s", path, got, bound, code, want, body)
	return ""
}

// expect asks once and wants an answer.
func (n *podnotify) expect(path string, code int, want ...string) {
	n.t.Helper()
	got, body := n.get(path)
	if got != code {
		n.t.Fatalf("GET %s is %d, want %d: %s", path, got, code, body)
	}
	for _, w := range want {
		if !strings.Contains(body, w) {
			n.t.Fatalf("GET %s does not say %q: %s", path, w, body)
		}
	}
}

// socket is the NOTIFY_SOCKET of a service.
func (n *podnotify) socket(service string) string { return n.dir + "/" + service + "/notify" }

// command runs another podnotify command to its end, as the same uid and in the
// same pod.
func (n *podnotify) command(args ...string) (code int, stdout, stderr string) {
	n.t.Helper()
	uid, _ := strconv.Atoi(strings.Fields(field(n.Pid, "Uid") + " 0")[0])
	x := n.pod.start(n.t, order{uid: uid, env: []string{"PODNOTIFY_ADDRESS=http://" + n.address, "PODNOTIFY_RUN_DIR=" + n.dir}},
		append([]string{bin.podnotify}, args...)...)
	return x.exit(), x.stdout.String(), x.stderr.String()
}

// amiss are the warnings but for the one that only says how busy the disk is, and the
// one of kernels that we have made older than they are.
func amiss(warnings []string) (out []string) {
	for _, w := range warnings {
		if !strings.Contains(w, "a write has taken longer than") && (os.Getenv(kernelVariable) == "" || !strings.Contains(w, numbersAlone)) {
			out = append(out, w)
		}
	}
	return out
}

// send sends one datagram from the test itself.
func send(ctx context.Context, socket, text string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "unixgram", socket)
	if err != nil {
		return err
	}
	_, err = c.Write([]byte(text))
	return errors.Join(err, c.Close())
}
