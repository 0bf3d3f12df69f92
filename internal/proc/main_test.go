package proc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// quick keeps the race detector from sleeping a second at every exit.
const quick = "GORACE=atexit_sleep_ms=0"

// race is set under the race detector, which allocates.
var race bool

// The tests re-execute this binary as the processes they look at: the variable
// says which.
const role = "PROC_TEST_ROLE"

var roles = map[string]func(){
	// sits until its standard input is closed or a signal kills it.
	"sit": func() {
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
	},
	// exits with code 3 once its standard input is closed.
	"exit3": func() {
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	},
	// ends its leading thread and lives on in the others. The leading
	// thread of a Go program is free to end: main was locked to it by init.
	"headless": func() {
		go func() {
			for { // until the kernel says so
				b, err := os.ReadFile(Proc.path(os.Getpid(), "task/"+strconv.Itoa(os.Getpid())+"/stat"))
				if s, ok := parseState(b); err == nil && ok && s == 'Z' {
					break
				}
				time.Sleep(time.Millisecond)
			}
			fmt.Println("ready")
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // not raw: the runtime must get its P back
	},
	"nanny":      nanny,
	"user":       user,
	"asker":      asker,
	"brood":      brood,
	"translator": translator,
	"reuse":      reuse,
	"invisible":  invisible,
	"nothing":    func() {},
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

// child is a process that a test started and that ends with the test.
type child struct {
	*exec.Cmd
	pid   int
	stdin io.Closer
	said  string // its first line
	done  bool
}

// start runs this binary in a role, and returns when it has said its first line.
func start(t *testing.T, what string, tune ...func(*exec.Cmd)) *child {
	t.Helper()
	cmd := exec.Command(exe(t))
	cmd.Env = append(os.Environ(), quick, role+"="+what)
	cmd.Stderr = os.Stderr
	for _, f := range tune {
		f(cmd)
	}
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
	c := &child{Cmd: cmd, pid: cmd.Process.Pid, stdin: in}
	t.Cleanup(c.end)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: it said %q: %v", what, line, err)
	}
	c.said = strings.TrimSpace(line)
	return c
}

// end kills and reaps the child.
func (c *child) end() {
	if c.done {
		return
	}
	c.done = true
	c.Process.Kill()
	c.stdin.Close()
	c.Wait()
}

// exe is a path to this binary that every user may execute.
func exe(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// eventually waits for a condition, long enough for any machine.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// open opens a process and closes the handle with the test.
func open(t *testing.T, pid int) *Handle {
	t.Helper()
	h, err := Proc.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// fixture writes a procfs of files, path to content.
func fixture(t *testing.T, files map[string]string) FS {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return FS(dir)
}

// line makes a line of /proc/PID/stat.
func line(pid int, comm string, state byte, ppid int, start uint64) string {
	return strconv.Itoa(pid) + " (" + comm + ") " + string(rune(state)) + " " + strconv.Itoa(ppid) +
		" 7 8 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 2 0 " + strconv.FormatUint(start, 10) + " 1000 10 18446744073709551615 0\n"
}
