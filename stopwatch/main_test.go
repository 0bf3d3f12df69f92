package stopwatch

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/podnotify/podnotify/internal/proc"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The tests re-execute this binary as the processes they look at: the variable
// says which.
const role = "STOPWATCH_TEST_ROLE"

// quick keeps the race detector from sleeping a second at every exit.
const quick = "GORACE=atexit_sleep_ms=0"

var roles = map[string]func(){
	// sits until its standard input is closed or a signal kills it.
	"sit": func() {
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
	},
	// stops itself as upstart's expect stop wants it, then sits.
	"raise": func() {
		raise(unix.SIGSTOP)
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
	},
	// ends its leading thread and lives on in the others.
	"headless": func() {
		go func() {
			for { // until the kernel says so
				b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", os.Getpid()))
				if err == nil && bytes.Contains(b, []byte(") Z ")) {
					break
				}
				time.Sleep(time.Millisecond)
			}
			fmt.Println("ready")
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
	},
	// has a hundred threads, then sits.
	"crowd": func() {
		for range 100 {
			locked := make(chan bool)
			go func() {
				runtime.LockOSThread()
				locked <- true
				select {}
			}()
			<-locked
		}
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
	},
	"parent":     parent,
	"launcher":   launcher,
	"leaf":       leaf,
	"unbothered": unbothered,
}

func init() {
	if os.Getenv(role) == "headless" {
		runtime.LockOSThread() // main.main then runs on the leading thread
	}
}

func TestMain(m *testing.M) {
	if run, ok := roles[os.Getenv(role)]; ok {
		run()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// raise sends a signal to this very thread, so that it has been taken on return.
func raise(sig unix.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Tgkill(os.Getpid(), unix.Gettid(), sig)
}

// command makes a command that runs this binary in a role.
func command(what string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), quick, role+"="+what)
	cmd.Stderr = os.Stderr
	return cmd
}

// launch runs this binary in a role, and ends it with the test. The channel
// carries its lines.
func launch(t *testing.T, what string) (pid int, lines <-chan string) {
	t.Helper()
	cmd := command(what)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 100)
	go func() {
		defer close(said)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			said <- scan.Text()
		}
	}()
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		for range said { // until it has ended
		}
		cmd.Wait()
	})
	return cmd.Process.Pid, said
}

// start is launch that waits for the first line.
func start(t *testing.T, what string) *proc.Handle {
	t.Helper()
	pid, lines := launch(t, what)
	next(t, lines)
	return open(t, pid)
}

// open opens a process until the end of the test.
func open(t *testing.T, pid int) *proc.Handle {
	t.Helper()
	h, err := proc.Proc.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// next receives, or fails when it has waited long enough for any machine.
func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v, ok := <-c:
		if !ok {
			t.Fatal("it ended")
		}
		return v
	case <-time.After(30 * time.Second):
		t.Fatal("waited in vain")
	}
	panic("unreachable")
}

// signal sends a signal to a process of the test.
func signal(t *testing.T, h *proc.Handle, sig unix.Signal) {
	t.Helper()
	if err := h.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
