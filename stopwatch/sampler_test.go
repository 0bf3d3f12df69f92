package stopwatch

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podnotify/podnotify/internal/proc"
	"golang.org/x/sys/unix"
)

// fake is a process whose state a test says.
type fake struct {
	id proc.ID

	mu    sync.Mutex
	state proc.State
	err   error
	looks int
}

func (f *fake) ID() proc.ID { return f.id }

func (f *fake) State() (proc.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	return f.state, f.err
}

func (f *fake) set(state proc.State, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.err = state, err
}

func (f *fake) looked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looks
}

// bubble runs a test in virtual time with a running sampler. What it reports is
// kept in the slice; nobody looks at it, or changes a fake, unless the sampler
// sleeps.
func bubble(t *testing.T, test func(t *testing.T, s *Sampler, got *[]Transition)) {
	synctest.Test(t, func(t *testing.T) {
		var got []Transition
		s := NewSampler(func(tr Transition) { got = append(got, tr) })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		test(t, s, &got)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
	})
}

// kinds are the kinds reported, all of which must be of one process.
func kinds(t *testing.T, got []Transition, who proc.ID) []Kind {
	t.Helper()
	var ks []Kind
	for _, tr := range got {
		if tr.Who != who || tr.Seen != Sampled || tr.Exit != nil || tr.Signal != 0 || tr.At.IsZero() {
			t.Errorf("reported %+v", tr)
		}
		ks = append(ks, tr.Kind)
	}
	return ks
}

func TestSamplerReportsChanges(t *testing.T) {
	bubble(t, func(t *testing.T, s *Sampler, got *[]Transition) {
		p := &fake{id: proc.ID{PID: 7, Start: 1}, state: 'S'}
		s.Watch(p)
		for _, state := range "SRtDTTTtSTTZ" {
			p.set(proc.State(state), nil)
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
		}
		want := []Kind{Stopped, Continued, Stopped}
		if ks := kinds(t, *got, p.id); !reflect.DeepEqual(ks, want) {
			t.Errorf("reported %v, want %v", ks, want)
		}
		if s.Len() != 0 {
			t.Error("it keeps a zombie")
		}
	})
}

func TestSamplerFirstSight(t *testing.T) {
	bubble(t, func(t *testing.T, s *Sampler, got *[]Transition) {
		p := &fake{id: proc.ID{PID: 7, Start: 1}, state: 'T'}
		s.Watch(p)
		synctest.Wait() // no time passes
		if ks := kinds(t, *got, p.id); !reflect.DeepEqual(ks, []Kind{Stopped}) {
			t.Errorf("reported %v", ks)
		}
		time.Sleep(time.Second)
		again := &fake{id: p.id, state: 'T'}
		s.Watch(again)
		time.Sleep(time.Second)
		synctest.Wait()
		if ks := kinds(t, *got, p.id); !reflect.DeepEqual(ks, []Kind{Stopped, Stopped}) || s.Len() != 1 {
			t.Errorf("watched again: reported %v, watching %d", ks, s.Len())
		}
	})
}

func TestSamplerPace(t *testing.T) {
	bubble(t, func(t *testing.T, s *Sampler, got *[]Transition) {
		p := &fake{id: proc.ID{PID: 7, Start: 1}, state: 'S'}
		looks := func(p *fake, d time.Duration) int {
			synctest.Wait()
			before := p.looked()
			time.Sleep(d)
			synctest.Wait()
			return p.looked() - before
		}
		about := func(what string, n int, d, pace time.Duration) {
			t.Helper()
			if want := int(d / pace); n < want-1 || n > want+1 {
				t.Errorf("%s: %d looks in %v, want %d", what, n, d, want)
			}
		}
		s.Watch(p)
		about("at first", looks(p, 5*time.Second), 5*time.Second, fast)
		time.Sleep(5 * time.Second)
		about("later", looks(p, 9*time.Second), 9*time.Second, slow)
		about("long after", looks(p, 10*time.Minute), 10*time.Minute, slow)

		q := &fake{id: proc.ID{PID: 8, Start: 1}, state: 'S'}
		s.Watch(q)
		about("with a new one", looks(p, 9*time.Second), 9*time.Second, fast)

		for i := range 998 {
			s.Watch(&fake{id: proc.ID{PID: 100 + i, Start: 1}, state: 'S'})
		}
		about("of a thousand", looks(p, 9*time.Second), 9*time.Second, 1000*each)
		for i := range 998 {
			s.Forget(proc.ID{PID: 100 + i, Start: 1})
		}
		s.Forget(q.id)
		s.Forget(proc.ID{PID: 7, Start: 2}) // somebody else
		time.Sleep(10 * time.Second)
		about("alone again", looks(p, 9*time.Second), 9*time.Second, slow)

		s.Forget(p.id)
		time.Sleep(slow)
		if n := looks(p, time.Hour); n != 0 || s.Len() != 0 {
			t.Errorf("after the last: %d looks, watching %d", n, s.Len())
		}
		if len(*got) != 0 {
			t.Errorf("reported %v", *got)
		}
	})
}

// With nothing to watch no timer is set: virtual time, which jumps to the next
// timer, has none to jump to but the test's.
func TestSamplerParks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wakeups atomic.Int64
		s := NewSampler(func(Transition) {})
		s.Sleep = func(d time.Duration) { wakeups.Add(1); time.Sleep(d) }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		defer func() { cancel(); <-done }()
		p := &fake{id: proc.ID{PID: 7, Start: 1}, state: 'S'}
		s.Watch(p)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := wakeups.Load(); n < 500 {
			t.Errorf("%d wake-ups in the first second", n)
		}
		s.Forget(p.id)
		time.Sleep(slow)
		synctest.Wait()
		before := wakeups.Load()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := wakeups.Load() - before; n != 0 {
			t.Errorf("%d wake-ups in a day of nothing to do", n)
		}
		s.Watch(p)
		time.Sleep(time.Second)
		synctest.Wait()
		if wakeups.Load()-before < 500 {
			t.Error("it did not wake up again")
		}
	})
}

func TestSamplerErrors(t *testing.T) {
	bubble(t, func(t *testing.T, s *Sampler, got *[]Transition) {
		for i, err := range []error{proc.ErrGone, proc.ErrInvisible, os.ErrClosed} {
			s.Watch(&fake{id: proc.ID{PID: i + 1}, err: err})
		}
		passing := &fake{id: proc.ID{PID: 9}, err: unix.EMFILE}
		s.Watch(passing)
		time.Sleep(time.Second)
		synctest.Wait()
		if s.Len() != 1 {
			t.Errorf("watching %d", s.Len())
		}
		passing.set('T', nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if ks := kinds(t, *got, passing.id); !reflect.DeepEqual(ks, []Kind{Stopped}) {
			t.Errorf("reported %v", ks)
		}
	})
}

func TestSamplerMayBeCalledByReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports atomic.Int64
		var s *Sampler
		s = NewSampler(func(tr Transition) {
			n := int(reports.Add(1))
			s.Forget(tr.Who)
			if n < 5 {
				s.Watch(&fake{id: proc.ID{PID: n}, state: 'T'})
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		defer func() { cancel(); <-done }()
		s.Watch(&fake{state: 'T'})
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := reports.Load(); n != 5 || s.Len() != 0 {
			t.Errorf("%d reports, watching %d", n, s.Len())
		}
	})
}

func TestSamplerAllocatesNothing(t *testing.T) {
	s := NewSampler(func(Transition) {})
	h := open(t, os.Getpid())
	s.Watch(h)
	s.Seek(func() (int, error) { return 1, nil }, func(int, int, bool) {})
	for range 3 { // all it has to tell
		s.sample()
	}
	if a := testing.AllocsPerRun(1000, func() { s.sample() }); a != 0 && !race {
		t.Errorf("%v allocations for each sample", a)
	}
}

// running runs a sampler with NewSleep until the end of the test.
func running(t *testing.T) (*Sampler, <-chan Transition) {
	got := make(chan Transition, 4096)
	s := NewSampler(func(tr Transition) { got <- tr })
	s.Sleep = NewSleep()
	run(t, s)
	return s, got
}

func run(t *testing.T, s *Sampler) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestSamplerSeesRealStops(t *testing.T) {
	for _, what := range []string{"sit", "headless", "crowd"} {
		t.Run(what, func(t *testing.T) {
			s, got := running(t)
			h := start(t, what)
			s.Watch(h)
			for range 3 {
				signal(t, h, unix.SIGSTOP)
				if tr := next(t, got); tr.Kind != Stopped || tr.Who != h.ID() {
					t.Fatalf("reported %+v", tr)
				}
				signal(t, h, unix.SIGCONT)
				if tr := next(t, got); tr.Kind != Continued || tr.Who != h.ID() {
					t.Fatalf("reported %+v", tr)
				}
			}
			signal(t, h, unix.SIGKILL)
			for s.Len() != 0 {
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// counted counts how often a state was seen.
type counted struct {
	*proc.Handle
	state proc.State
	n     atomic.Int64
}

func (c *counted) State() (proc.State, error) {
	s, err := c.Handle.State()
	if s == c.state {
		c.n.Add(1)
	}
	return s, err
}

func TestTracingStopIsNoStop(t *testing.T) {
	s, got := running(t)
	traced := &counted{Handle: start(t, "headless"), state: 't'}
	pid := traced.ID().PID

	// The tracer is a thread, and every thread is traced on its own: the kernel
	// says t of each that has been interrupted. One is enough to be no stop.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tids, err := os.ReadDir("/proc/" + itoa(pid) + "/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range tids {
		tid := atoi(d.Name())
		if tid == pid {
			continue // the leading thread is dead
		}
		if err := unix.PtraceSeize(tid); err != nil {
			t.Skipf("tracing needs the same user and Yama's ptrace_scope 0, or CAP_SYS_PTRACE: %v", err)
		}
		defer unix.PtraceDetach(tid) // or nobody else could reap it
		if err := unix.PtraceInterrupt(tid); err != nil {
			t.Fatal(err)
		}
	}
	s.Watch(traced)
	for traced.n.Load() < 10 {
		time.Sleep(time.Millisecond)
	}
	other := start(t, "sit")
	s.Watch(other)
	signal(t, other, unix.SIGSTOP)
	if tr := next(t, got); tr.Who != other.ID() {
		t.Errorf("reported %+v of a traced process", tr)
	}
	signal(t, other, unix.SIGCONT)
}

func TestThousandProcesses(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("there is no sleep(1)")
	}
	n := 1000
	if testing.Short() {
		n = 50
	}
	s, got := running(t)
	handles := make(map[proc.ID]*proc.Handle)
	for range n {
		cmd := exec.Command(sleep, "1000")
		if err := cmd.Start(); err != nil {
			t.Skipf("cannot start so many: %v", err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		h, err := proc.Proc.Open(cmd.Process.Pid)
		if errors.Is(err, unix.EMFILE) {
			t.Skipf("cannot open so many: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		handles[h.ID()] = h
		s.Watch(h)
	}
	if s.Len() != n {
		t.Fatalf("watching %d", s.Len())
	}
	for _, h := range handles {
		signal(t, h, unix.SIGSTOP)
	}
	seen := make(map[proc.ID]Kind)
	for len(seen) < n {
		tr := next(t, got)
		if tr.Kind != Stopped || seen[tr.Who] != 0 || handles[tr.Who] == nil {
			t.Fatalf("reported %+v", tr)
		}
		seen[tr.Who] = tr.Kind
		s.Forget(tr.Who)
	}
	if s.Len() != 0 {
		t.Errorf("watching %d", s.Len())
	}
}

// What a sidecar does: a process nobody has heard of starts and stops itself.
func TestNewcomerThatStopsItself(t *testing.T) {
	newest, err := proc.Proc.Newest()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { newest.Close() })
	got := make(chan Transition, 100)
	s := NewSampler(func(tr Transition) { got <- tr })
	s.Sleep = NewSleep()
	watched := make(map[int]bool)
	s.Seek(newest.Read, func(from, to int, all bool) {
		pids, err := proc.Proc.Pids()
		if err != nil {
			t.Error(err)
		}
		for _, pid := range pids {
			if (all || pid >= from && pid < to) && !watched[pid] {
				if st, err := proc.Proc.Stat(pid); err != nil || st.PPID != os.Getpid() {
					continue // one of the machine's own
				}
				if h, err := proc.Proc.Open(pid); err == nil {
					watched[pid] = true
					t.Cleanup(func() { h.Close() })
					s.Watch(h)
				}
			}
		}
	})
	run(t, s)
	for range 10 {
		pid, lines := launch(t, "raise")
		tr := next(t, got)
		if tr.Kind != Stopped || tr.Who.PID != pid {
			t.Fatalf("reported %+v, want a stop of %d", tr, pid)
		}
		signal(t, open(t, pid), unix.SIGCONT)
		if tr := next(t, got); tr.Kind != Continued || tr.Who.PID != pid {
			t.Fatalf("reported %+v, want a continuation of %d", tr, pid)
		}
		if line := next(t, lines); line != "ready" {
			t.Errorf("it said %q", line)
		}
	}
}
