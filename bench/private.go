package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inside is set for the process that runs in the private namespaces.
const inside = "BENCH_INSIDE"

// private reports whether this is the process inside. A sidecar that looks after any
// process continues all that are stopped: it must not see those of the machine.
func private() bool { return os.Getenv(inside) != "" && os.Getpid() == 1 }

// inPrivate runs this program again in PID and mount namespaces of its own, and returns
// its exit code. All it starts ends with it.
func inPrivate() int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	c := exec.Command(self, os.Args[1:]...)
	c.Env = append(os.Environ(), inside+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		c.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // Pdeathsig is about the thread
	if err := c.Run(); err != nil {
		if c.ProcessState != nil {
			return max(c.ProcessState.ExitCode(), 1)
		}
		fmt.Fprintln(os.Stderr, "bench: cannot make a PID namespace:", err, "; run it as root, or allow user namespaces")
		return 1
	}
	return 0
}

// memoryDir mounts the new namespace's /proc and a directory in memory, as a Pod has them.
func memoryDir() (string, error) {
	dir := filepath.Join(os.TempDir(), "podnotify-bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, m := range []struct {
		what, where, kind string
		flags             uintptr
	}{
		{"none", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{"tmpfs", dir, "tmpfs", 0},
	} {
		if err := unix.Mount(m.what, m.where, m.kind, m.flags, ""); err != nil {
			return "", fmt.Errorf("cannot mount %s on %s: %w", m.what, m.where, err)
		}
	}
	return dir, nil
}

// machine says what the figures were taken on, without saying where.
func machine() string {
	cpu := "unknown CPU"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.Join(strings.Fields(value), " ")
				break
			}
		}
	}
	var u unix.Utsname
	_ = unix.Uname(&u)
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	prio := "no priority"
	if mayPrioritize() {
		prio = "nice " + strconv.Itoa(*priority)
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, %s, %s", cpu, runtime.NumCPU(), release, runtime.Version(), prio)
}
