// Package faults drives a podnotify that is shipped, and real processes that wish it ill:
// they flood, forge, cling and play games with its files. What must hold whatever they do
// is checked from outside. Choices are made by a seed, which each test prints.
//
// All of it runs in PID and mount namespaces of its own, whose process 1 is the test.
package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// bin is the programs of a test.
var bin struct {
	dir       string // in memory, as a run-dir is
	podnotify string
	actor     string // this test binary
}

func TestMain(m *testing.M) {
	if os.Getenv(actorVariable) != "" {
		os.Exit(actorMain())
	}
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // every test says what it lacks
	}
	if os.Getpid() != 1 {
		os.Exit(inPrivate())
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = unix.Unmount(bin.dir, unix.MNT_DETACH)
	os.Exit(code)
}

// inPrivate runs the tests again in namespaces of their own, and returns their exit code.
// Whatever they start ends with them.
func inPrivate() int {
	dir, err := os.MkdirTemp("", "pnf")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.Remove(dir)
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c := exec.Command(self, os.Args[1:]...)
	c.Env = append(os.Environ(), dirVariable+"="+dir)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about the thread
	if err := c.Run(); err != nil {
		if c.ProcessState != nil {
			return max(c.ProcessState.ExitCode(), 1)
		}
		fmt.Fprintln(os.Stderr, "cannot make a PID namespace:", err)
		return 1
	}
	return 0
}

const dirVariable = "FAULTS_DIR"

// prepare mounts what a Pod has and builds what is tested.
func prepare() error {
	bin.dir = os.Getenv(dirVariable)
	for _, m := range []struct {
		what, where, kind string
		flags             uintptr
		data              string
	}{
		{"none", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"proc", "/proc", "proc", 0, ""},
		{"tmpfs", bin.dir, "tmpfs", 0, "mode=0755"},
	} {
		if err := unix.Mount(m.what, m.where, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("cannot mount %s on %s: %w", m.what, m.where, err)
		}
	}
	bin.podnotify, bin.actor = filepath.Join(bin.dir, "podnotify"), filepath.Join(bin.dir, "actor")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", "nethttpomithttp2", "-o", bin.podnotify, "../../cmd/podnotify")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build podnotify: %w\n%s", err, out)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return os.WriteFile(bin.actor, self, 0o755)
}
