// Package mydaemon_test builds both daemons and checks each habit against the kernel: a real datagram
// socket, waitid, and the PID file. It sends signals only to processes it started.
package mydaemon_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bound is how long any condition may take to come true on a busy machine.
const bound = 30 * time.Second

// binaries maps an implementation to its program, or to why there is none.
var binaries = map[string]struct{ path, missing string }{}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "mydaemon")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)

	for name, command := range map[string][]string{
		"c":  {"cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(dir, "c"), "c/mydaemon.c"},
		"go": {"go", "build", "-o", filepath.Join(dir, "go"), "./go"},
	} {
		b := binaries[name]
		b.path = filepath.Join(dir, name)
		if _, err := exec.LookPath(command[0]); err != nil {
			b.missing = err.Error()
		} else if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", strings.Join(command, " "), err, out)
			return 1
		}
		binaries[name] = b
	}
	// A daemon that left its parent becomes our child: we can wait for it, and nothing is left behind.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "prctl PR_SET_CHILD_SUBREAPER:", err)
		return 1
	}
	defer killChildren()
	return m.Run()
}

// killChildren ends the daemons that failed tests have lost sight of. They are our children, not yet waited for, so
// their numbers cannot have passed to anybody else.
func killChildren() {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(b)) {
			pid, _ := strconv.Atoi(field)
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
				unix.Close(fd)
			}
		}
	}
}

// each runs f for both implementations.
func each(t *testing.T, f func(t *testing.T, binary string)) {
	for _, name := range []string{"c", "go"} {
		t.Run(name, func(t *testing.T) {
			b := binaries[name]
			if b.missing != "" {
				t.Skipf("cannot build the %s daemon: %s", name, b.missing)
			}
			f(t, b.path)
		})
	}
}

// freeAddress is one that no other test on this machine is likely to use: all of 127/8 is ours.
func freeAddress() string {
	return fmt.Sprintf("127.%d.%d.%d:7070", 1+rand.IntN(254), rand.IntN(255), 1+rand.IntN(254))
}

// command is the daemon with nothing of our own environment that it would look at, and env.
func command(binary, address string, env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, append([]string{"-l", address}, args...)...)
	for _, v := range os.Environ() {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "UPSTART_JOB", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "MYDAEMON_PIDFILE", "XDG_RUNTIME_DIR":
		default:
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	cmd.WaitDelay = bound // ends Wait if a daemon keeps our stderr
	return cmd
}

// start starts cmd; if it still runs when the test ends, it is killed.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
}

// wantExit waits for cmd and checks its exit status.
func wantExit(t *testing.T, cmd *exec.Cmd, want int) {
	t.Helper()
	kill := time.AfterFunc(bound, func() { cmd.Process.Kill() })
	defer kill.Stop()
	err := cmd.Wait()
	if got := cmd.ProcessState; got.ExitCode() != want || errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("ended with %v (%v), want exit status %d", got, err, want)
	}
}

// eventually waits until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(bound); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// A supervisor is the receiving end of NOTIFY_SOCKET.
type supervisor struct {
	*net.UnixConn
	env string
}

func listen(t *testing.T, address string) supervisor {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return supervisor{conn, "NOTIFY_SOCKET=" + address}
}

// socketPath is short, as the kernel allows 107 bytes and t.TempDir likes long names.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "md")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "notify")
}

func (s supervisor) next(t *testing.T) string {
	t.Helper()
	s.SetReadDeadline(time.Now().Add(bound))
	b := make([]byte, 4096)
	n, err := s.Read(b)
	if err != nil {
		t.Fatalf("no datagram: %v", err)
	}
	return string(b[:n])
}

func (s supervisor) want(t *testing.T, want string) {
	t.Helper()
	if got := s.next(t); got != want {
		t.Fatalf("datagram %q, want %q", got, want)
	}
}

// wantNoMore checks that nothing is queued. To be called when the daemon has ended, and so can send no more.
func (s supervisor) wantNoMore(t *testing.T) {
	t.Helper()
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	raw.Control(func(fd uintptr) {
		if n, _, err := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT); err != unix.EAGAIN {
			t.Errorf("one more datagram: %q (%v)", b[:max(n, 0)], err)
		}
	})
}

func readyFrom(pid int) string {
	return fmt.Sprintf("READY=1\nSTATUS=ready\nMAINPID=%d\n", pid)
}

// ask connects and returns the answer, or why there is none.
func ask(address string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, bound)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return hear(conn)
}

func hear(conn net.Conn) (string, error) {
	conn.SetReadDeadline(time.Now().Add(bound))
	b, err := io.ReadAll(conn)
	return string(b), err
}

func wantAnswer(t *testing.T, address, want string) {
	t.Helper()
	if got, err := ask(address); err != nil || got != want {
		t.Fatalf("answer %q (%v), want %q", got, err, want)
	}
}

// uptime is CLOCK_MONOTONIC in microseconds.
func uptime(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / 1000
}

// The whole life with NOTIFY_SOCKET: ready, reload, stop; by a path and by an abstract address.
func TestNotify(t *testing.T) {
	for _, kind := range []string{"path", "abstract", "longest path", "longest abstract"} {
		t.Run(kind, func(t *testing.T) {
			each(t, func(t *testing.T, binary string) {
				name := socketPath(t)
				switch kind {
				case "abstract":
					name = fmt.Sprintf("@mydaemon-test-%d-%d", os.Getpid(), rand.Uint64())
				case "longest path":
					name += strings.Repeat("x", 107-len(name))
				case "longest abstract":
					name = fmt.Sprintf("@%0107d", rand.Uint64())
				}
				address, s := freeAddress(), listen(t, name)
				cmd := command(binary, address, []string{s.env})
				start(t, cmd)

				s.want(t, readyFrom(cmd.Process.Pid))
				wantAnswer(t, address, fmt.Sprintf("mydaemon pid %d generation 1\n", cmd.Process.Pid))

				before := uptime(t)
				cmd.Process.Signal(unix.SIGHUP)
				reloading := s.next(t)
				var at int64
				if _, err := fmt.Sscanf(reloading, "RELOADING=1\nMONOTONIC_USEC=%d\n", &at); err != nil || strings.Count(reloading, "\n") != 2 {
					t.Fatalf("datagram %q, want RELOADING=1 and MONOTONIC_USEC (%v)", reloading, err)
				}
				if after := uptime(t); at < before || at > after {
					t.Errorf("MONOTONIC_USEC=%d, want between %d and %d", at, before, after)
				}
				s.want(t, readyFrom(cmd.Process.Pid))
				wantAnswer(t, address, fmt.Sprintf("mydaemon pid %d generation 2\n", cmd.Process.Pid))

				cmd.Process.Signal(unix.SIGTERM)
				s.want(t, "STOPPING=1\n")
				wantExit(t, cmd, 0)
				s.wantNoMore(t)
			})
		})
	}
}

// A signal that comes the moment READY=1 is heard is neither lost nor deadly.
func TestSignalRightAfterReady(t *testing.T) {
	each(t, func(t *testing.T, binary string) {
		for range 20 {
			s := listen(t, socketPath(t))
			cmd := command(binary, freeAddress(), []string{s.env})
			start(t, cmd)
			s.want(t, readyFrom(cmd.Process.Pid))
			cmd.Process.Signal(unix.SIGTERM)
			s.want(t, "STOPPING=1\n")
			wantExit(t, cmd, 0)
		}
	})
}

// With a supervisor that cannot be reached the daemon serves on, in the foreground.
func TestNotifyNobody(t *testing.T) {
	for kind, name := range map[string]string{
		"missing path": "/nonexistent/notify",
		"unbound name": "@mydaemon-test-nobody",
		"vsock":        "vsock:2:1234",
		"too long":     "/" + strings.Repeat("x", 107),
	} {
		t.Run(kind, func(t *testing.T) {
			each(t, func(t *testing.T, binary string) {
				address := freeAddress()
				cmd := command(binary, address, []string{"NOTIFY_SOCKET=" + name})
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				start(t, cmd)
				eventually(t, "an answer", func() bool { _, err := ask(address); return err == nil })
				wantAnswer(t, address, fmt.Sprintf("mydaemon pid %d generation 1\n", cmd.Process.Pid))
				cmd.Process.Signal(unix.SIGTERM)
				wantExit(t, cmd, 0)
				if !strings.HasPrefix(stderr.String(), "mydaemon: cannot ") {
					t.Errorf("stderr %q, want it to say what it cannot do", &stderr)
				}
			})
		})
	}
}

// The supervisor binds its address anew: the next news arrives at the new socket.
func TestNotifyRebound(t *testing.T) {
	each(t, func(t *testing.T, binary string) {
		name := socketPath(t)
		s := listen(t, name)
		cmd := command(binary, freeAddress(), []string{s.env})
		start(t, cmd)
		s.want(t, readyFrom(cmd.Process.Pid))
		s.Close()
		os.Remove(name)
		s = listen(t, name)
		cmd.Process.Signal(unix.SIGTERM)
		s.want(t, "STOPPING=1\n")
		wantExit(t, cmd, 0)
	})
}

// waitStopped waits, as init does, until child pid stops, and returns the signal that stopped it.
func waitStopped(t *testing.T, pid int) syscall.Signal {
	t.Helper()
	var info unix.Siginfo
	eventually(t, "the daemon to stop itself", func() bool {
		if err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOHANG, nil); err != nil && err != unix.EINTR {
			t.Fatalf("waitid: %v", err)
		}
		return info.Code != 0
	})
	const cldStopped = 5
	if info.Code != cldStopped {
		t.Fatalf("waitid si_code %d, want CLD_STOPPED", info.Code)
	}
	// 64-bit siginfo_t: signo, errno, code, padding, pid, uid, status.
	return syscall.Signal(*(*int32)(unsafe.Add(unsafe.Pointer(&info), 24)))
}

// With UPSTART_JOB the daemon stops when it listens, serves once continued, and sends nothing.
func TestStop(t *testing.T) {
	each(t, func(t *testing.T, binary string) {
		address, s := freeAddress(), listen(t, socketPath(t))
		cmd := command(binary, address, []string{"UPSTART_JOB=mydaemon", "WATCHDOG_USEC=2", s.env})
		start(t, cmd)
		if sig := waitStopped(t, cmd.Process.Pid); sig != unix.SIGSTOP {
			t.Errorf("stopped by %v, want SIGSTOP", sig)
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("stopped before it listened: %v", err)
		}
		defer conn.Close()

		cmd.Process.Signal(unix.SIGCONT)
		if got, err := hear(conn); got != fmt.Sprintf("mydaemon pid %d generation 1\n", cmd.Process.Pid) {
			t.Errorf("answer %q (%v)", got, err)
		}
		cmd.Process.Signal(unix.SIGHUP)
		eventually(t, "generation 2", func() bool {
			got, err := ask(address)
			return err == nil && got == fmt.Sprintf("mydaemon pid %d generation 2\n", cmd.Process.Pid)
		})
		cmd.Process.Signal(unix.SIGTERM)
		wantExit(t, cmd, 0)
		s.wantNoMore(t)
	})
}

// SIGTERM for the stopped daemon waits for SIGCONT and then ends it in good order.
func TestTermWhileStopped(t *testing.T) {
	each(t, func(t *testing.T, binary string) {
		cmd := command(binary, freeAddress(), []string{"UPSTART_JOB=anything"})
		start(t, cmd)
		waitStopped(t, cmd.Process.Pid)
		cmd.Process.Signal(unix.SIGTERM)
		cmd.Process.Signal(unix.SIGCONT)
		wantExit(t, cmd, 0)
	})
}

// A background daemon has left its parent, and is our child now, as we are a subreaper.
type background struct {
	pid, fd int // fd is a pidfd
	ended   bool
}

// inBackground finds the daemon by its PID file. It is killed and waited for when the test ends, unless wait has done so.
func inBackground(t *testing.T, pidFile string) *background {
	t.Helper()
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatalf("the parent exited before the PID file was there: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSuffix(string(b), "\n"))
	if err != nil {
		t.Fatalf("PID file: %v", err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("the PID file names %d: %v", pid, err)
	}
	d := &background{pid: pid, fd: fd}
	t.Cleanup(func() {
		if !d.ended {
			d.signal(t, unix.SIGKILL)
			d.wait(t)
		}
		unix.Close(fd)
	})
	return d
}

func (d *background) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := unix.PidfdSendSignal(d.fd, sig, nil, 0); err != nil {
		t.Fatalf("cannot signal the daemon: %v", err)
	}
}

func (d *background) wait(t *testing.T) (status unix.WaitStatus) {
	t.Helper()
	eventually(t, "the daemon to end", func() bool {
		got, err := unix.Wait4(d.pid, &status, unix.WNOHANG, nil)
		if err != nil && err != unix.EINTR {
			t.Fatalf("wait4: %v", err)
		}
		return got == d.pid
	})
	d.ended = true
	return status
}

// With neither variable: when the command returns, the daemon serves in the background and its PID file is there.
func TestDaemonize(t *testing.T) {
	for _, by := range []string{"flag", "variable", "XDG_RUNTIME_DIR"} {
		t.Run(by, func(t *testing.T) {
			each(t, func(t *testing.T, binary string) {
				dir, address := t.TempDir(), freeAddress()
				pidFile := filepath.Join(dir, "mydaemon.pid")
				var cmd *exec.Cmd
				switch by {
				case "flag":
					cmd = command(binary, address, []string{"MYDAEMON_PIDFILE=/nonexistent/pid"}, "-p", pidFile)
				case "variable":
					cmd = command(binary, address, []string{"MYDAEMON_PIDFILE=" + pidFile})
				case "XDG_RUNTIME_DIR":
					cmd = command(binary, address, []string{"XDG_RUNTIME_DIR=" + dir})
				}
				var stderr bytes.Buffer
				cmd.Stderr = &stderr // a pipe: Wait returns only when the daemon has closed it
				start(t, cmd)
				wantExit(t, cmd, 0)

				d := inBackground(t, pidFile)
				pid := d.pid
				if pid == cmd.Process.Pid {
					t.Errorf("the PID file names the parent")
				}
				wantAnswer(t, address, fmt.Sprintf("mydaemon pid %d generation 1\n", pid))
				if entries, _ := os.ReadDir(dir); len(entries) != 1 {
					t.Errorf("left beside the PID file: %v", entries)
				}
				if info, err := os.Stat(pidFile); err != nil {
					t.Error(err)
				} else if info.Mode() != 0o644 {
					t.Errorf("PID file mode %v, want 0644", info.Mode())
				}
				ours, _ := unix.Getsid(0)
				if sid, err := unix.Getsid(pid); err != nil || sid == ours {
					t.Errorf("session %d (%v), want one of its own", sid, err)
				}
				for fd := range 3 {
					if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); to != os.DevNull {
						t.Errorf("descriptor %d is %q (%v), want %s", fd, to, err, os.DevNull)
					}
				}

				d.signal(t, unix.SIGHUP)
				eventually(t, "generation 2", func() bool {
					got, err := ask(address)
					return err == nil && got == fmt.Sprintf("mydaemon pid %d generation 2\n", pid)
				})
				d.signal(t, unix.SIGTERM)
				if status := d.wait(t); !status.Exited() || status.ExitStatus() != 0 {
					t.Errorf("ended with %#x, want exit status 0", status)
				}
				if _, err := os.Stat(pidFile); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("PID file after the end: %v, want it removed", err)
				}
				if stderr.Len() > 0 {
					t.Errorf("stderr: %s", &stderr)
				}
			})
		})
	}
}

// A daemon that cannot start says so to the one who started it, and leaves nothing behind.
func TestDaemonizeFails(t *testing.T) {
	each(t, func(t *testing.T, binary string) {
		address := freeAddress()
		cmd := command(binary, address, nil, "-p", filepath.Join(t.TempDir(), "missing", "pid"))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		start(t, cmd)
		wantExit(t, cmd, 1)
		if !strings.Contains(stderr.String(), "cannot create PID file") {
			t.Errorf("stderr %q, want the reason", &stderr)
		}
		eventually(t, "the port to be free again", func() bool {
			_, err := net.Dial("tcp", address)
			return errors.Is(err, unix.ECONNREFUSED)
		})
	})
}

// Where the port is taken, text and number arrive in one datagram; in the background, no PID file is left.
func TestPortTaken(t *testing.T) {
	each(t, func(t *testing.T, binary string) {
		taken, err := net.Listen("tcp", freeAddress())
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		address := taken.Addr().String()

		s := listen(t, socketPath(t))
		cmd := command(binary, address, []string{s.env})
		start(t, cmd)
		want := fmt.Sprintf("STATUS=cannot listen on %s: address already in use\nERRNO=%d\n", address, int(unix.EADDRINUSE))
		if got := s.next(t); !strings.EqualFold(got, want) { // C says Address, Go says address
			t.Errorf("datagram %q, want %q", got, want)
		}
		wantExit(t, cmd, 1)
		s.wantNoMore(t)

		pidFile := filepath.Join(t.TempDir(), "pid")
		cmd = command(binary, address, nil, "-p", pidFile)
		start(t, cmd)
		wantExit(t, cmd, 1)
		if _, err := os.Stat(pidFile); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("PID file: %v, want none", err)
		}
	})
}

// Other failures at start: their number, and exit status 1.
func TestFailures(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args  []string
		errno syscall.Errno
	}{
		"greeting missing": {[]string{"-g", "/nonexistent/greeting"}, unix.ENOENT},
		"greeting empty":   {[]string{"-g", empty}, unix.ENODATA},
		"no port":          {[]string{"-l", "127.0.0.1"}, unix.EINVAL},
		"port too high":    {[]string{"-l", "127.0.0.1:65536"}, unix.EINVAL},
		"not our address":  {[]string{"-l", "192.0.2.1:7070"}, unix.EADDRNOTAVAIL},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, binary string) {
				s := listen(t, socketPath(t))
				cmd := command(binary, freeAddress(), []string{s.env}, c.args...)
				start(t, cmd)
				got := s.next(t)
				if !strings.HasPrefix(got, "STATUS=cannot ") || !strings.HasSuffix(got, fmt.Sprintf("\nERRNO=%d\n", int(c.errno))) {
					t.Errorf("datagram %q, want STATUS=cannot ... and ERRNO=%d", got, int(c.errno))
				}
				wantExit(t, cmd, 1)
				s.wantNoMore(t)
			})
		})
	}
}

// SIGHUP reads the greeting again; if that fails the old one stays, and the supervisor is told.
func TestReload(t *testing.T) {
	each(t, func(t *testing.T, binary string) {
		file := filepath.Join(t.TempDir(), "greeting")
		write := func(text string) {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("good morning\nand nothing else\n")
		address, s := freeAddress(), listen(t, socketPath(t))
		cmd := command(binary, address, []string{s.env}, "-g", file)
		start(t, cmd)
		pid := cmd.Process.Pid
		s.want(t, readyFrom(pid))
		wantAnswer(t, address, fmt.Sprintf("good morning pid %d generation 1\n", pid))

		reload := func() {
			cmd.Process.Signal(unix.SIGHUP)
			if got := s.next(t); !strings.HasPrefix(got, "RELOADING=1\n") {
				t.Fatalf("datagram %q, want RELOADING=1", got)
			}
		}
		write("good evening")
		reload()
		s.want(t, readyFrom(pid))
		wantAnswer(t, address, fmt.Sprintf("good evening pid %d generation 2\n", pid))

		os.Remove(file)
		reload()
		if got := s.next(t); !strings.HasPrefix(got, "READY=1\nSTATUS=cannot read "+file+": ") {
			t.Errorf("datagram %q, want READY=1 and the reason", got)
		}
		wantAnswer(t, address, fmt.Sprintf("good evening pid %d generation 2\n", pid))
		cmd.Process.Signal(unix.SIGTERM)
		s.want(t, "STOPPING=1\n")
		wantExit(t, cmd, 0)
	})
}

// Pings come, and none sooner than half the interval after the one before: they are a clock, not a loop.
func TestWatchdog(t *testing.T) {
	each(t, func(t *testing.T, binary string) {
		s := listen(t, socketPath(t))
		begin := time.Now()
		cmd := command(binary, freeAddress(), []string{s.env, "WATCHDOG_USEC=200000"})
		start(t, cmd)
		s.want(t, readyFrom(cmd.Process.Pid))
		for n := 1; n <= 5; n++ {
			s.want(t, "WATCHDOG=1\n")
			if took := time.Since(begin); took < time.Duration(n)*100*time.Millisecond {
				t.Errorf("ping %d came %v after the start, want no sooner than %d times 100ms", n, took, n)
			}
		}
	})
}

// WATCHDOG_PID says whose watchdog it is: nobody else pings.
func TestWatchdogPID(t *testing.T) {
	each(t, func(t *testing.T, binary string) {
		for _, c := range []struct {
			env  string // for sh, which becomes the daemon: $$ is its pid
			want bool
		}{
			{"WATCHDOG_USEC=2 WATCHDOG_PID=$$", true},
			{"WATCHDOG_USEC=2 WATCHDOG_PID=1", false},
			{"WATCHDOG_USEC=2 WATCHDOG_PID=", true},
			{"WATCHDOG_USEC=2", true},
			{"WATCHDOG_USEC=0", false},
			{"WATCHDOG_USEC=-2", false},
			{"WATCHDOG_USEC=2s", false},
			{"WATCHDOG_USEC=", false},
			{"WATCHDOG_USEC=18446744073709551615", false},
		} {
			address, s := freeAddress(), listen(t, socketPath(t))
			inner := command(binary, address, []string{s.env})
			cmd := exec.Command("/bin/sh", append([]string{"-c", "export " + c.env + `; exec "$0" "$@"`}, inner.Args...)...)
			cmd.Env = inner.Env
			start(t, cmd)
			s.want(t, readyFrom(cmd.Process.Pid))

			// One microsecond is half the interval: who pings at all has pinged before this reload is over.
			cmd.Process.Signal(unix.SIGHUP)
			pings := 0
			for got := ""; got != readyFrom(cmd.Process.Pid); got = s.next(t) {
				if got == "WATCHDOG=1\n" {
					pings++
				}
			}
			for c.want && pings == 0 {
				if s.next(t) == "WATCHDOG=1\n" {
					pings++
				}
			}
			cmd.Process.Signal(unix.SIGTERM)
			for got := ""; got != "STOPPING=1\n"; got = s.next(t) {
				if got == "WATCHDOG=1\n" {
					pings++
				}
			}
			wantExit(t, cmd, 0)
			if pings > 0 != c.want {
				t.Errorf("%s: %d pings, want some: %v", c.env, pings, c.want)
			}
		}
	})
}

// With 0, 1 and 2 closed at the start no socket gets their numbers, and the daemon comes up all the same.
func TestClosedDescriptors(t *testing.T) {
	each(t, func(t *testing.T, binary string) {
		address, pidFile := freeAddress(), filepath.Join(t.TempDir(), "pid")
		inner := command(binary, address, nil, "-p", pidFile)
		cmd := exec.Command("/bin/sh", append([]string{"-c", `exec "$0" "$@" 0<&- 1>&- 2>&-`}, inner.Args...)...)
		cmd.Env = inner.Env
		start(t, cmd)
		wantExit(t, cmd, 0)
		d := inBackground(t, pidFile)
		wantAnswer(t, address, fmt.Sprintf("mydaemon pid %d generation 1\n", d.pid))
	})
}

// A wrong command line ends with status 2.
func TestUsage(t *testing.T) {
	each(t, func(t *testing.T, binary string) {
		for _, args := range [][]string{{"-x"}, {"extra"}} {
			cmd := command(binary, freeAddress(), []string{"NOTIFY_SOCKET=/nonexistent/notify"}, args...)
			start(t, cmd)
			wantExit(t, cmd, 2)
		}
	})
}
