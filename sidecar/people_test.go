package sidecar

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
	"github.com/podnotify/podnotify/stopwatch"
)

// However much was said of one instance, the next one's warnings are heard; and
// status shows the newest.
func TestWarningsOfEachInstance(t *testing.T) {
	k := newSpeaker(t, lifecycle.ExpectNotify, nil)
	for i := range 2 * namedMost {
		k.warn("test", fmt.Sprint("warning ", i))
	}
	if w := k.Look().Facts.Warnings; len(w) != warningsMost || w[warningsMost-1] != fmt.Sprint("warning ", namedMost-1) {
		t.Errorf("warnings %q, want the newest that were told", w)
	}
	k.Observe(stopwatch.Transition{Who: proc.ID(k.Look().Main), Kind: stopwatch.Ended})
	h, err := proc.Proc.Open(k.child())
	if err != nil {
		t.Fatal(err)
	}
	k.Adopt(h)
	k.warn("test", "warning 0")
	k.warn("test", "new")
	k.warn("test", "new")
	w := k.Look().Facts.Warnings
	if n := len(w); n != warningsMost || w[n-2] != "warning 0" || w[n-1] != "new" {
		t.Errorf("warnings %q, want those of the new instance last", w)
	}
	if len(k.named) != 2 {
		t.Errorf("%d warnings are remembered, want those of the new instance, 2", len(k.named))
	}
}

// A process whose address space is being changed for long cannot be read. Nobody
// else is to wait for it.
func TestRecallHoldsNobody(t *testing.T) {
	k := newSpeaker(t, lifecycle.ExpectNotify, nil)
	pid := k.child()
	// A /proc as the kernel's, but for two files that nobody has written to yet.
	dir := t.TempDir()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != fmt.Sprint(pid) {
			os.Symlink("/proc/"+e.Name(), filepath.Join(dir, e.Name()))
		}
	}
	own := filepath.Join(dir, fmt.Sprint(pid))
	os.Mkdir(own, 0o755)
	for _, name := range []string{"stat", "task", "status", "cgroup", "ns", "root", "mountinfo", "fd"} {
		os.Symlink(fmt.Sprintf("/proc/%d/%s", pid, name), filepath.Join(own, name))
	}
	for _, name := range []string{"cmdline", "environ"} {
		if err := unix.Mkfifo(filepath.Join(own, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k.dep.FS = proc.FS(dir)
	k.cfg.Policy.Expect = lifecycle.ExpectAuto
	h, err := k.dep.FS.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	k.Observe(stopwatch.Transition{Who: proc.ID(k.Look().Main), Kind: stopwatch.Ended})
	k.Adopt(h)
	if s := k.Look(); s.Main.PID != pid || s.Facts.Command != "" {
		t.Fatalf("main process %v, %q; want %d, not read yet", s.Main, s.Facts.Command, pid)
	}
	for _, name := range []string{"environ", "cmdline"} {
		if err := os.WriteFile(filepath.Join(own, name), []byte("UPSTART_JOB=d\x00x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(30 * time.Second); !strings.HasPrefix(k.Look().Facts.Command, "UPSTART_JOB=d"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the command line is not read")
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.owes {
		t.Error("UPSTART_JOB was not seen")
	}
}
