// Package machine makes a machine inside this one, for tests that need a whole
// node: namespaces for processes, mounts and network, one scratch directory, one
// cgroup. It runs nothing in there but its first process.
//
// Whatever happens to the test, nothing of the machine stays: a keeper process
// outlives it, ends the machine and removes what it left. If the keeper is
// killed too, the kernel ends the processes and the next machine removes the
// rest.
//
// A test package that makes machines calls Main first in its TestMain. To share
// a runtime in such a machine, see test/e2e/containerd: tests of the node agent
// can use both.
package machine

import (
	"bufio"
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
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Address is the machine's own, besides loopback.
const Address = "10.247.0.1"

// Machine is a running machine. Its processes see the files of this one, but
// for /proc, an empty /run and an empty /var/log.
type Machine struct {
	// Dir is the scratch directory: the same path inside and outside, short
	// enough for unix sockets (107 bytes) some levels down.
	Dir string
	// Cgroup is the parent of all cgroups to be made, from the root of each
	// hierarchy.
	Cgroup string

	keeper *exec.Cmd
	stdin  io.Closer // its end ends the machine
	ns     []namespace
	net    int
	wait   sync.WaitGroup // for what Start started
	once   sync.Once
}

type namespace struct{ fd, kind int }

// New makes a machine that ends with the test.
func New(t testing.TB) *Machine {
	t.Helper()
	Need(t, "ip", "iproute2")
	NeedRoot(t)
	m, err := start()
	if err != nil {
		t.Fatal("cannot make a machine: ", err)
	}
	t.Cleanup(func() {
		if err := m.close(); err != nil {
			t.Error("cannot remove the machine: ", err)
		}
	})
	for _, args := range []string{
		"link set lo up",
		"link add pn type bridge", // without ports; not every kernel has dummy links
		"address add " + Address + "/32 dev pn",
		"link set pn up",
	} {
		m.Output(t, "ip", strings.Fields(args)...)
	}
	return m
}

func start() (*Machine, error) {
	sweep()
	dir, locked, err := scratch()
	if err != nil {
		return nil, err
	}
	defer locked.Close()
	m := &Machine{Dir: dir, Cgroup: "/" + filepath.Base(dir), net: -1}
	m.keeper, err = again(roleKeeper, dir)
	if err != nil {
		return nil, err
	}
	// It must not get the Ctrl-C that ends the test.
	m.keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	m.keeper.ExtraFiles = []*os.File{locked}
	m.keeper.Stderr = os.Stderr
	in, err := m.keeper.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := m.keeper.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.keeper.Start(); err != nil {
		return nil, err
	}
	m.stdin = in
	line, err := bufio.NewReader(out).ReadString('\n')
	var first int
	if err == nil {
		_, err = fmt.Sscanf(line, "ok %d\n", &first)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the keeper said %q", line), m.close())
	}
	for _, n := range []struct {
		name string
		kind int
	}{{"net", unix.CLONE_NEWNET}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}} {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", first, n.name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		m.ns = append(m.ns, namespace{fd, n.kind})
	}
	m.net = m.ns[0].fd
	return m, nil
}

func (m *Machine) close() (err error) {
	m.once.Do(func() {
		for _, n := range m.ns {
			unix.Close(n.fd)
		}
		m.stdin.Close()
		// Our children in the machine are zombies until we wait for them, and its
		// first process cannot end before.
		m.wait.Wait()
		err = m.keeper.Wait()
	})
	return err
}

// inside calls f on a thread that is in these namespaces: sockets are made and
// children are born there.
func inside(ns []namespace, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		// A thread that shares its root and working directory may not change its
		// mount namespace.
		err := unix.Unshare(unix.CLONE_FS)
		for _, n := range ns {
			if err == nil {
				err = unix.Setns(n.fd, n.kind)
			}
		}
		if err != nil {
			done <- fmt.Errorf("cannot enter the machine: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Start starts a command in the machine and waits for its end: after ended is
// closed, cmd.ProcessState tells how. (Do not call cmd.Wait.)
func (m *Machine) Start(cmd *exec.Cmd) (ended <-chan struct{}, err error) {
	if err := inside(m.ns, cmd.Start); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	m.wait.Go(func() {
		_ = cmd.Wait()
		close(done)
	})
	return done, nil
}

// Command runs a command in the machine to its end and gives what it wrote, both
// outputs in one.
func (m *Machine) Command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	out := &Text{}
	cmd.Stdout, cmd.Stderr = out, out
	ended, err := m.Start(cmd)
	if err != nil {
		return "", err
	}
	<-ended
	if !cmd.ProcessState.Success() {
		return out.String(), fmt.Errorf("%s %s: %v: %s", name, strings.Join(args, " "), cmd.ProcessState, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// Output is Command where a failure is one of the test. It gives up after minutes.
func (m *Machine) Output(t testing.TB, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := m.Command(ctx, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Dial connects as a process of the machine would. The address must be a
// number: names are looked up outside.
func (m *Machine) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = inside([]namespace{{m.net, unix.CLONE_NEWNET}}, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// HTTP is a client for what listens in the machine, with a new connection for
// each request, as a kubelet's probes have.
func (m *Machine) HTTP() *http.Client {
	return &http.Client{
		Transport: &http.Transport{DialContext: m.Dial, DisableKeepAlives: true},
		Timeout:   10 * time.Second,
	}
}

// Text is what a process has written so far.
type Text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (t *Text) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(b)
}

func (t *Text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// Need skips the test if a program is missing, and says which Debian package has
// it. Where everything has to be tested (CI=true, PODNOTIFY_TEST_ALL=1) it fails
// instead.
func Need(t testing.TB, program, debian string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		Lacking(t, fmt.Sprintf("missing %s; apt-get install %s", program, debian))
	}
	return path
}

// NeedRoot is Need for uid 0.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Lacking(t, "missing uid 0, to make namespaces; run as root")
	}
}

// Lacking skips or fails the test, see Need.
func Lacking(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" || os.Getenv("PODNOTIFY_TEST_ALL") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}
