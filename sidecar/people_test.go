package sidecar

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
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
	k.dep.FS = procBut(t, pid, "cmdline", "environ")
	own := string(k.dep.FS) + "/" + fmt.Sprint(pid)
	for _, name := range []string{"cmdline", "environ"} {
		if err := unix.Mkfifo(filepath.Join(own, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k.cfg.Policy.Expect = lifecycle.ExpectAuto
	h, err := k.dep.FS.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	k.Observe(stopwatch.Transition{Who: proc.ID(k.Look().Main), Kind: stopwatch.Ended})
	k.Adopt(h)
	main := k.Look().Main
	if cmd := k.Command(main); main.PID != pid || cmd != "" {
		t.Fatalf("main process %v, %q; want %d, not read yet", main, cmd, pid)
	}
	if err := os.WriteFile(filepath.Join(own, "environ"), []byte("UPSTART_JOB=d\x00x"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	var answers sync.WaitGroup
	answers.Go(func() { // each reading anew
		for {
			select {
			case <-asked:
				return
			case <-time.After(time.Millisecond):
			}
			f, err := os.OpenFile(filepath.Join(own, "cmdline"), os.O_RDWR, 0) // which waits for no reader
			if err != nil {
				t.Error(err)
				return
			}
			f.WriteString("daemon\x00")
			f.Close()
		}
	})
	for end := time.Now().Add(30 * time.Second); !strings.HasPrefix(k.Command(main), "daemon"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Error("the command line is not read")
			break
		}
	}
	for k.command.Load() != nil { // nor is it read any more
		time.Sleep(time.Millisecond)
	}
	close(asked)
	answers.Wait()
	owes := func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.owes
	}
	for end := time.Now().Add(30 * time.Second); !owes(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("UPSTART_JOB was not seen")
		}
	}
}

// procBut is a /proc as the kernel's, but that process pid has no files of some
// names.
func procBut(t *testing.T, pid int, names ...string) proc.FS {
	t.Helper()
	dir := t.TempDir()
	link := func(from, to string, but ...string) {
		entries, err := os.ReadDir(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if slices.Contains(but, e.Name()) {
				continue
			}
			if err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	number := fmt.Sprint(pid)
	link("/proc", dir, number)
	own := filepath.Join(dir, number)
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	link("/proc/"+number, own, names...)
	return proc.FS(dir)
}

// counted is a scope in which a process becomes a member when it was asked for
// often enough.
type counted struct {
	everyone
	asked, until int
}

func (c *counted) Member(int) bool {
	c.asked++
	return c.asked > c.until
}

// TestMainPIDInExec: a process may be named while exec has not given it its
// command line yet.
func TestMainPIDInExec(t *testing.T) {
	for cmdline, want := range map[string]bool{"": true, "other\x00": false} {
		k := newSpeaker(t, lifecycle.ExpectNotify, func(c *Config) { c.Process = regexp.MustCompile("daemon") })
		next := k.child()
		k.dep.FS = procBut(t, next, "cmdline")
		if err := os.WriteFile(fmt.Sprintf("%s/%d/cmdline", k.dep.FS, next), []byte(cmdline), 0o600); err != nil {
			t.Fatal(err)
		}
		members := &counted{until: 5}
		k.dep.Scope = members
		s := k.says(fmt.Sprintf("MAINPID=%d", next))
		if (s.Main.PID == next) != want {
			t.Errorf("command line %q: main process %d, asked %d times; want it to be %d: %t", cmdline, s.Main.PID, members.asked, next, want)
		}
	}
}

// TestCommandOfNext: the command line of one main process is not shown for the next,
// nor is the next one's hidden for good by a reading that hangs.
func TestCommandOfNext(t *testing.T) {
	one, two := sleeper(t), sleeper(t)
	fs, answer := hanging(t, one)
	s := newService(Config{Name: "test", Policy: lifecycle.DefaultPolicy()}, Deps{FS: fs})
	defer s.Close()
	for _, pid := range []int{one, two} {
		h, err := fs.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		p := s.meet(pid, h)
		p.member = true
		kind := lifecycle.Found
		if pid == two {
			kind = lifecycle.MainPID
		}
		s.apply(lifecycle.Event{Kind: kind, Who: p.id})
		s.settle()
		s.mu.Unlock()
		main := s.Look().Main
		if main.PID != pid {
			t.Fatalf("main process %v, want %d", main, pid)
		}
		if pid == one {
			s.Command(main) // hangs
			continue
		}
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			answer("other\x00")
			cmd := s.Command(main)
			if strings.HasPrefix(cmd, "sleep") {
				break
			}
			if cmd != "" || time.Now().After(end) {
				t.Fatalf("the command line of process %d is %q", pid, cmd)
			}
		}
	}
}

// TestNextLookedAtAgain: the second look at one main process, which waits, is none at the next.
func TestNextLookedAtAgain(t *testing.T) {
	one, two := sleeper(t), sleeper(t)
	s := newService(Config{Name: "test", Policy: lifecycle.DefaultPolicy()}, Deps{})
	defer s.Close()
	s.mu.Lock()
	for i, pid := range []int{one, two} {
		h, err := proc.Proc.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		p := s.meet(pid, h)
		for _, kind := range [][]lifecycle.Kind{{lifecycle.Found, lifecycle.ReadyWord}, {lifecycle.MainPID, lifecycle.Reload, lifecycle.ReadyWord}}[i] {
			s.apply(lifecycle.Event{Kind: kind, Who: p.id})
			s.settle()
		}
	}
	s.facts.Container = "as before" // a look says another
	s.mu.Unlock()
	for end := time.Now().Add(30 * time.Second); s.Look().Facts.Container == "as before"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not looked at")
		}
	}
}

// sleeper is a process that does nothing.
func sleeper(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}
