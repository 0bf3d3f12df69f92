package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nanny has a child that exits with 3, and reaps it when told to. It says its
// number.
func nanny() {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{role + "=exit3"}
	in, _ := cmd.StdinPipe()
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	fmt.Println(cmd.Process.Pid)
	io.Copy(io.Discard, os.Stdin)
	in.Close()
	cmd.Wait()
}

// tells skips the test if this kernel does not tell how a process ended.
func tells(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, ErrUnknown) && !kernel(t, 6, 15) {
		t.Skip("PIDFD_INFO_EXIT needs Linux 6.15")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// kernel reports whether this one is at least as new.
func kernel(t *testing.T, major, minor int) bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); err != nil {
		t.Fatal(err)
	}
	return a > major || a == major && b >= minor
}

func TestExitOfSomebodyElsesChild(t *testing.T) {
	c := start(t, "nanny")
	pid, err := strconv.Atoi(c.said)
	if err != nil {
		t.Fatal(err)
	}
	h := open(t, pid)
	c.stdin.Close()
	e, err := h.Exit(t.Context())
	tells(t, err)
	if e != (Exit{Code: 3}) {
		t.Errorf("it %v", e)
	}
}

func TestExitOfAKilledChild(t *testing.T) {
	c := start(t, "sit")
	h := open(t, c.pid)
	cgroup, known := h.CgroupID()
	if !known && kernel(t, 6, 13) {
		t.Error("no cgroup")
	}
	if ours, _ := open(t, os.Getpid()).CgroupID(); ours != cgroup {
		t.Errorf("our child's cgroup is %d, ours is %d", cgroup, ours)
	}
	if err := h.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := h.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The kernel does not tell about a zombie.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if e, err := h.Exit(ctx); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrUnknown) {
		t.Errorf("Exit before it was reaped: %v, %v", e, err)
	}
	c.end()
	e, err := h.Exit(t.Context())
	tells(t, err)
	if e != (Exit{Signal: unix.SIGKILL}) {
		t.Errorf("it %v", e)
	}
	if after, ok := h.CgroupID(); !ok || after != cgroup {
		t.Errorf("cgroup after the end: %d, %v; want %d", after, ok, cgroup)
	}
}

func TestExitString(t *testing.T) {
	for _, c := range []struct {
		status unix.WaitStatus
		text   string
		shell  int
	}{
		{0, "exited 0", 0},
		{3 << 8, "exited 3", 3},
		{9, "killed by SIGKILL", 137},
		{6 | 0x80, "killed by SIGABRT", 134}, // with core
		{35, "killed by signal 35", 163},
	} {
		e := ExitOf(c.status)
		if e.String() != c.text || e.Status() != c.shell {
			t.Errorf("%#x: %v, %d", c.status, e, e.Status())
		}
	}
}
