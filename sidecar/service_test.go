package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/testdaemon"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

func TestMain(m *testing.M) {
	testdaemon.Main()
	goleak.VerifyTestMain(m)
}

// bench is a service of a World that runs in this test process: the daemons are
// our children, but nothing here makes use of that.
type bench struct {
	*testing.T
	*Service
	world *World
	log   *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start serves a service. What the test may do to its configuration comes first.
func start(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	log := &logBuffer{}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := Config{Name: "test", Address: filepath.Join(t.TempDir(), "n"), Mode: 0o666, Policy: lifecycle.DefaultPolicy()}
	// No container boundary is visible here: what others run on this machine
	// would count, and a daemon that somebody has stopped would be continued.
	cfg.Process = regexp.MustCompile("^" + regexp.QuoteMeta(testdaemon.Args()[0]))
	if change != nil {
		change(&cfg)
	}
	world, err := NewWorld(proc.Proc, nil, logger)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, world.Deps(cfg, logger))
	if err != nil {
		t.Fatal(err)
	}
	world.Join(s)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := world.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := s.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	for s.Healthy() != nil { // who asks may be faster than who listens
		time.Sleep(time.Millisecond)
	}
	b := &bench{t, s, world, log}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if t.Failed() {
			t.Logf("log:\n%s", log)
		}
	})
	return b
}

// daemon starts a daemon of the service. It is killed at the end of the test.
func (b *bench) daemon(script string, env ...string) *exec.Cmd {
	b.Helper()
	// Under the race detector a process sleeps for a second before it ends.
	cmd := testdaemon.Command(script, append(env, "NOTIFY_SOCKET="+b.Env(), "GORACE=atexit_sleep_ms=0")...)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

// until waits for a snapshot that satisfies ok.
func (b *bench) until(what string, ok func(*lifecycle.Snapshot) bool) *lifecycle.Snapshot {
	b.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		s := b.Look()
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			b.Fatalf("not %s after half a minute: %+v", what, s)
		}
	}
}

func (b *bench) phase(p lifecycle.Phase) *lifecycle.Snapshot {
	b.Helper()
	return b.until(p.String(), func(s *lifecycle.Snapshot) bool { return s.Phase == p })
}

func (b *bench) ready() bool {
	_, failing := b.Look().Failing(b.Policy(), lifecycle.Readyz, nil)
	return !failing
}

func TestReadyByWord(t *testing.T) {
	b := start(t, nil)
	if b.ready() {
		t.Fatal("ready before anything")
	}
	cmd := b.daemon(`send STATUS=loading; send READY=1\nSTATUS=up; wait; send STOPPING=1`)
	s := b.phase(lifecycle.Ready)
	if s.Main.PID != cmd.Process.Pid || !b.ready() || s.Facts.InnerPID != cmd.Process.Pid {
		t.Fatalf("main process %d, want %d; %+v", s.Main.PID, cmd.Process.Pid, s)
	}
	b.until("up", func(s *lifecycle.Snapshot) bool { return s.Status == "up" })
	cmd.Process.Kill()
	s = b.phase(lifecycle.Gone)
	if b.ready() || s.LastExit.Clean {
		t.Fatalf("killed: %+v", s.LastExit)
	}
	cmd.Wait()
	if s = b.until("told how", func(s *lifecycle.Snapshot) bool { return s.LastExit.Known }); s.LastExit.Signal != 9 {
		t.Fatalf("exit %+v", s.LastExit)
	}
	next := b.daemon(`send READY=1; wait`)
	if s = b.phase(lifecycle.Ready); s.Main.PID != next.Process.Pid || s.Respawns != 1 {
		t.Fatalf("next: %+v", s)
	}
}

func TestReadyByStop(t *testing.T) {
	for _, expect := range []lifecycle.Expect{lifecycle.ExpectStop, lifecycle.ExpectAuto} {
		t.Run(expect.String(), func(t *testing.T) {
			mark := filepath.Join(t.TempDir(), "running")
			b := start(t, func(c *Config) { c.Policy.Expect = expect })
			cmd := b.daemon("stop; touch " + mark + "; wait")
			s := b.phase(lifecycle.Ready)
			if s.Main.PID != cmd.Process.Pid || s.Paused {
				t.Fatalf("%+v", s)
			}
			for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
				if _, err := os.Stat(mark); err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("not continued")
				}
			}
			// The next stop is an operator's: seen when asked, and not undone.
			h, err := proc.Proc.Open(cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			time.Sleep(2 * lateForTests)
			h.Signal(19)
			b.until("paused", func(s *lifecycle.Snapshot) bool { return s.Paused })
			if b.ready() {
				t.Fatal("ready while paused")
			}
			if st, _ := h.State(); st != 'T' {
				t.Fatalf("state %v: it was continued", st)
			}
			h.Signal(18)
			b.until("running", func(s *lifecycle.Snapshot) bool { return !s.Paused })
			if !b.ready() {
				t.Fatal("not ready after it was continued")
			}
		})
	}
}

const lateForTests = 20 * time.Millisecond

// TestHandOver: the old process names the new one and ends at once, the new one
// says READY=1. Its end must not be taken for the service's.
func TestHandOver(t *testing.T) {
	b := start(t, nil)
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	for i := range rounds {
		next := filepath.Join(t.TempDir(), "next"+strconv.Itoa(i))
		old := b.daemon(fmt.Sprintf(`send READY=1; spawn await %s|send READY=1\nSTATUS=new|wait; barrier; await %[1]s.go; send MAINPID=$CHILD; touch %[1]s; exit 0`, next))
		b.phase(lifecycle.Ready)
		os.WriteFile(next+".go", nil, 0o644)
		s := b.until("handed over", func(s *lifecycle.Snapshot) bool {
			if s.Phase != lifecycle.Ready {
				t.Fatalf("round %d: phase %v", i, s.Phase)
			}
			return s.Main.PID != old.Process.Pid && s.Status == "new"
		})
		old.Wait()
		h, err := proc.Proc.Open(s.Main.PID)
		if err != nil {
			t.Fatal(err)
		}
		h.Signal(9)
		h.Close()
		b.phase(lifecycle.Gone)
	}
}

// TestServerDeadOnArrival: a temporary server has said READY=1 and STOPPING=1
// and is gone before either is read. It was a server of its own all the same,
// so the READY=1 of the main process, which comes last, counts. A helper that
// says one of the two speaks for the main process, dead or alive.
func TestServerDeadOnArrival(t *testing.T) {
	for _, noPidfd := range []bool{false, true} {
		t.Run(fmt.Sprint("pidfd ", !noPidfd), func(t *testing.T) {
			say := func(p *pinger, lines ...string) {
				script := ""
				for _, l := range lines {
					script += "send " + l + ";"
				}
				cmd := testdaemon.Command(script, "NOTIFY_SOCKET="+p.Env(), "GORACE=atexit_sleep_ms=0")
				if err := cmd.Run(); err != nil { // it is reaped, and nothing was received
					t.Fatal(err)
				}
			}
			want := func(p *pinger, phase lifecycle.Phase) {
				t.Helper()
				p.settled()
				if got := p.Look().Phase; got != phase {
					t.Fatalf("phase %v, want %v", got, phase)
				}
			}
			p := newPinger(t, noPidfd, false)
			say(p, "STATUS=temporary", "READY=1", "STOPPING=1")
			p.send("READY=1\nSTATUS=own")
			p.receive()
			want(p, lifecycle.Ready)
			if s := p.Look().Status; s != "own" {
				t.Fatalf("status %q", s)
			}

			p = newPinger(t, noPidfd, false)
			say(p, "READY=1")
			p.receive()
			want(p, lifecycle.Ready)
			say(p, "STOPPING=1")
			p.send("READY=1")
			p.receive()
			want(p, lifecycle.Stopping)
		})
	}
}
