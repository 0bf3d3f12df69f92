package sidecar

import (
	"errors"
	"log/slog"
	"os/exec"
	"regexp"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/testdaemon"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
	"github.com/podnotify/podnotify/stopwatch"
)

// TestFirstLooks: nobody who looks while the first snapshot is made gets none.
func TestFirstLooks(t *testing.T) {
	for range 20000 {
		s := newService(Config{Name: "test", Policy: lifecycle.DefaultPolicy()}, Deps{})
		var looks [2]*lifecycle.Snapshot
		var wg sync.WaitGroup
		for i := range looks {
			wg.Go(func() { looks[i] = s.Look() })
		}
		wg.Wait()
		if looks[0] == nil || looks[1] == nil {
			t.Fatal("looked at nothing")
		}
	}
}

// TestLooksBesideOthers: what was applied before a look is in it, also while
// somebody else makes a snapshot.
func TestLooksBesideOthers(t *testing.T) {
	s := newService(Config{Name: "test", Policy: lifecycle.DefaultPolicy()}, Deps{})
	done := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				s.Look()
			}
		}
	})
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		s.mu.Lock()
		s.apply(lifecycle.Event{Kind: lifecycle.Found, Who: lifecycle.ProcID{PID: 1 << 30, Start: 1}})
		applied := s.m.Snapshot().Gen
		s.mu.Unlock()
		if seen := s.Look().Gen; seen < applied {
			t.Errorf("looked at %d after %d was applied", seen, applied)
			break
		}
	}
	close(done)
	others.Wait()
}

// TestStartLooks: an answer does not wait for a daemon that takes long to be started.
func TestStartLooks(t *testing.T) {
	s := newService(Config{Name: "test", Policy: lifecycle.DefaultPolicy()}, Deps{})
	failed := errors.New("no such file")
	err := s.Start(func() (*proc.Handle, error) {
		looked := make(chan *lifecycle.Snapshot)
		go func() { looked <- s.Look() }()
		select {
		case n := <-looked:
			if n == nil || n.Phase != lifecycle.Absent {
				t.Errorf("looked at %+v", n)
			}
		case <-time.After(30 * time.Second):
			t.Error("who looks waits")
			go func() { <-looked }()
		}
		return nil, failed
	})
	if err != failed {
		t.Error(err)
	}
	if n := s.Look(); n.Phase != lifecycle.Absent {
		t.Errorf("then looked at %+v", n)
	}
}

// TestSampledBounded: so many processes are watched for a stop, and not more; of the others
// one that has stopped is seen when it is looked at.
func TestSampledBounded(t *testing.T) {
	b := start(t, func(c *Config) {
		c.Policy.Expect = lifecycle.ExpectStop
		c.Process = regexp.MustCompile("^sleep 86491$")
	})
	var pids []int
	for range sampledMost + 16 {
		cmd := exec.Command("sleep", "86491")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		pids = append(pids, cmd.Process.Pid)
	}
	var last int // is not watched
	b.until("as many are watched as may be", func(*lifecycle.Snapshot) bool {
		b.arrived(pids, nil)
		b.Service.mu.Lock()
		defer b.Service.mu.Unlock()
		if b.sampled > sampledMost {
			t.Fatalf("%d are watched", b.sampled)
		}
		for _, pid := range pids {
			if p := b.people[pid]; p == nil || !p.sampled {
				last = pid
			}
		}
		return b.sampled == sampledMost
	})
	if err := unix.Kill(last, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s := b.until("the stop is seen", func(s *lifecycle.Snapshot) bool {
		b.arrived([]int{last}, nil)
		return s.Phase == lifecycle.Ready
	})
	if s.Main.PID != last {
		t.Errorf("main process is %v, want %d", s.Main, last)
	}
}

// TestSampledMakeRoom: who has ended is not among those that are watched any more.
func TestSampledMakeRoom(t *testing.T) {
	b := start(t, func(c *Config) {
		c.Policy.Expect = lifecycle.ExpectStop
		c.Process = regexp.MustCompile("^sleep 86492$")
	})
	begin := func() *exec.Cmd {
		cmd := exec.Command("sleep", "86492")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	watched := func(what string, pids ...int) {
		t.Helper()
		b.until(what, func(*lifecycle.Snapshot) bool {
			b.arrived(pids, nil)
			b.Service.mu.Lock()
			defer b.Service.mu.Unlock()
			for _, pid := range pids {
				if p := b.people[pid]; p == nil || !p.sampled {
					return false
				}
			}
			return true
		})
	}
	var first []*exec.Cmd
	var pids []int
	for range sampledMost {
		cmd := begin()
		first, pids = append(first, cmd), append(pids, cmd.Process.Pid)
	}
	watched("as many are watched as may be", pids...)
	for _, cmd := range first {
		cmd.Process.Kill()
		cmd.Wait()
	}
	cmd := begin()
	defer cmd.Wait()
	defer cmd.Process.Kill()
	watched("the next one is watched", cmd.Process.Pid)
}

// TestStopAskedLooks: a daemon that was stopped since anybody looked is continued
// when it is asked to stop.
func TestStopAskedLooks(t *testing.T) {
	b := start(t, func(c *Config) { c.Policy.Expect = lifecycle.ExpectNotify })
	cmd := b.daemon(`send READY=1; wait`)
	b.phase(lifecycle.Ready)
	h, err := proc.Proc.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	stopped := func(want bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if st, err := h.State(); err != nil || st.Stopped() == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("stopped is not %v after half a minute", want)
			}
		}
	}
	if err := h.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped(true)
	b.Prestop()
	stopped(false) // nobody looks meanwhile
}

// TestJobControl: a stop by a terminal is nobody's readiness, and is not undone.
func TestJobControl(t *testing.T) {
	s := newService(Config{Name: "test", Policy: lifecycle.DefaultPolicy()}, Deps{Parent: true})
	defer s.Close()
	cmd := testdaemon.Command("wait", "GORACE=atexit_sleep_ms=0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	h, err := proc.Proc.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	who := h.ID()
	s.Adopt(h)
	s.Observe(stopwatch.Transition{Who: who, Kind: stopwatch.Stopped, Signal: unix.SIGTTIN})
	if m := s.m.Snapshot(); m.Phase != lifecycle.Starting || !m.Paused || m.Owed.PID != 0 || m.Seen.Stops != 0 {
		t.Errorf("after SIGTTIN: %+v", m)
	}
	s.Observe(stopwatch.Transition{Who: who, Kind: stopwatch.Continued})
	if m := s.m.Snapshot(); m.Phase != lifecycle.Starting || m.Paused {
		t.Errorf("continued: %+v", m)
	}
	s.Observe(stopwatch.Transition{Who: who, Kind: stopwatch.Stopped, Signal: unix.SIGSTOP})
	if m := s.m.Snapshot(); m.Owed.PID != who.PID || m.Seen.Stops != 1 {
		t.Errorf("after SIGSTOP: %+v", m)
	}
}

// TestElectedLooks: whom a number meant when its command line was read may have ended
// since, and the number be another's, who began in the same clock tick. It is looked at
// once more when it is held.
func TestElectedLooks(t *testing.T) {
	cmd := exec.Command("sleep", "1h")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	st, err := proc.Proc.Stat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Name: "test", Process: regexp.MustCompile("^the one before$"), Policy: lifecycle.DefaultPolicy()}
	w, err := NewWorld(proc.Proc, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer w.newest.Close()
	s := newService(cfg, w.Deps(cfg, slog.New(slog.DiscardHandler)))
	sc := s.dep.Scope.(*scope)
	s.mu.Lock()
	defer s.mu.Unlock()
	sc.read = map[proc.ID]string{st.ID(): "the one before"}
	if pid, _ := sc.elect(0, 0); pid != st.PID {
		t.Fatalf("process %d is named, want %d: the test does not test", pid, st.PID)
	}
	s.elect(sc)
	if main := s.m.Main(); main != (lifecycle.ProcID{}) {
		t.Errorf("main process %v", main)
	}
}
