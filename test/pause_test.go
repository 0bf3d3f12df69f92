package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// children counts the processes whose parent is pid, and those of them that are
// zombies.
func children(t *testing.T, pid int) (all, zombies int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // gone
		}
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if fields[1] != fmt.Sprint(pid) {
			continue
		}
		all++
		if fields[0] == "Z" {
			zombies++
		}
	}
	return all, zombies
}

// TestPause holds a PID namespace: orphans do not stay, what would end any other
// program does not end it, and SIGTERM does, with 0 and with all that is left.
func TestPause(t *testing.T) {
	for _, last := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		t.Run(unix.SignalName(last), func(t *testing.T) {
			needRoot(t)
			cmd := exec.Command(bin.podnotify, "pause")
			var out text
			cmd.Stdout, cmd.Stderr = &out, &out
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			defer cmd.Process.Kill()
			pod := &pod{pid: cmd.Process.Pid}

			// 100 orphans that end at once, and one that stays.
			x := pod.start(t, order{}, "sh", "-c", `i=0; while [ $i -lt 100 ]; do (sh -c "exit 3" &); i=$((i+1)); done; (sleep 1000 &)`)
			if code := x.exit(); code != 0 {
				t.Fatal("code ", code)
			}
			eventually(t, "one orphan is left, and no zombie", func() bool {
				all, zombies := children(t, pod.pid)
				return all == 1 && zombies == 0
			})
			for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGPIPE} {
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			if err := cmd.Process.Signal(last); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Errorf("ended with %v", err)
			}
			if out.String() != "" {
				t.Errorf("it says %q", &out)
			}
		})
	}
}
