package stopwatch

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/podnotify/podnotify/internal/proc"
)

// The pace of a sampler. A wake-up costs a Go program 30 us or so and the reading
// of one state letter 1.3 us, so it is the wake-ups that are kept few.
const (
	fast   = 1500 * time.Microsecond // while the news is expected any moment
	slow   = 4800 * time.Microsecond // once it has been long in coming: then a new process is seen within 5 ms
	eager  = 10 * time.Second        // how long it is expected any moment
	each   = 40 * time.Microsecond   // time left to each process: reading takes 3 % of it
	settle = 100 * time.Millisecond  // how long a new number may have no process yet
	wide   = 512                     // more new numbers than this are not worth listing
)

// Process is what a [Sampler] watches; [proc.Handle] is one.
type Process interface {
	ID() proc.ID
	State() (proc.State, error)
}

// Sampler watches processes that are not our children and still owe a stop, and
// looks out for new processes while asked to. Nothing runs while there is
// neither: no timer, no wake-up.
//
// It samples every 1.5 ms for ten seconds since the newest request, so that half
// of all stops are answered within little more than a millisecond; then every 4.8 ms;
// less often if there are very many processes to look at: 40 us for each. One goroutine
// and one timer serve everything.
type Sampler struct {
	// Sleep, if not nil, is used between two samples instead of a timer: see
	// [NewSleep]. It is not called for more than 4.8 ms at a time. It is to be set
	// before Run.
	Sleep func(time.Duration)

	report func(Transition)
	wake   chan struct{}

	mu    sync.Mutex // guards all that follows
	watch []*watched
	since time.Time // the newest Watch or Seek
	seek  *seeker   // nil while nobody looks out for new processes

	round []*watched // of the goroutine in Run only
}

type watched struct {
	process Process
	stopped bool // as reported; of the goroutine in Run only
}

// NewSampler returns a sampler that hands what it sees to report, one call at a
// time, on the goroutine of Run. The function must not block; it may call the
// sampler's methods.
func NewSampler(report func(Transition)) *Sampler {
	return &Sampler{report: report, wake: make(chan struct{}, 1)}
}

// Watch begins to report the stops and continuations of p. If it is stopped
// already, that is reported as a stop. Watching the same process again begins
// anew.
//
// A process that has ended is forgotten in silence: its pidfd tells that better.
func (s *Sampler) Watch(p Process) {
	s.mu.Lock()
	s.forget(p.ID())
	s.watch = append(s.watch, &watched{process: p})
	s.since = time.Now()
	s.mu.Unlock()
	s.kick()
}

// Forget ends the watching of a process. A report that is under way may still
// arrive.
func (s *Sampler) Forget(id proc.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(id)
}

func (s *Sampler) forget(id proc.ID) {
	s.watch = slices.DeleteFunc(s.watch, func(w *watched) bool { return w.process.ID() == id })
}

// Len returns the number of processes watched.
func (s *Sampler) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watch)
}

// Seek begins to look out for new processes. The function newest returns the
// number most lately given away, [proc.Newest.Read] for one; seen is called, like
// report, whenever there may be new processes: with the numbers from to to-1, or
// with all set when any number may be new: at first, when the numbers have wrapped
// around, and when they are more than 512. Then all of /proc has to be scanned.
//
// Numbers are named more than once, for some are given away a little before their
// process can be found (the kernel counts first and lists later); and most name no
// process at all, because threads have numbers, too, and short lives end. A process
// that chose its number (clone3 with set_tid, which restores checkpoints) goes
// unnoticed.
//
// Seeking again begins anew: with all.
func (s *Sampler) Seek(newest func() (int, error), seen func(from, to int, all bool)) {
	s.mu.Lock()
	s.since = time.Now()
	s.seek = &seeker{newest: newest, seen: seen, last: unread, before: unread, low: unread, mark: unread}
	s.mu.Unlock()
	s.kick()
}

// Rest ends the looking out for new processes. A call of seen that is under way
// may still come.
func (s *Sampler) Rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seek = nil
}

func (s *Sampler) kick() {
	select {
	case s.wake <- struct{}{}:
	default: // it has not even noticed the last one
	}
}

// Run samples until the context is done, and returns its error, or that of newest
// (see Seek) if it fails. Only one Run may be under way.
func (s *Sampler) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	timer.Stop()
	defer timer.Stop()
	for ctx.Err() == nil {
		if err := s.sample(); err != nil {
			return err
		}
		pause := s.pause()
		switch {
		case pause == 0:
		case pause <= slow && s.Sleep != nil:
			s.Sleep(pause)
			continue
		default:
			timer.Reset(pause)
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
			timer.Stop()
		case <-timer.C: // never, if it was not set
		}
	}
	return ctx.Err()
}

// pause returns the time until the next sample, 0 for none.
func (s *Sampler) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.watch) == 0 && s.seek == nil {
		return 0
	}
	pace := fast
	if time.Since(s.since) >= eager {
		pace = slow
	}
	return max(pace, time.Duration(len(s.watch))*each)
}

// sample looks once at everything. New processes come first, so that one that is
// watched on their account is looked at in the same round.
func (s *Sampler) sample() error {
	s.mu.Lock()
	seek := s.seek
	s.mu.Unlock()
	if seek != nil {
		if err := seek.look(time.Now()); err != nil {
			return err
		}
	}

	// No lock is held while reading and reporting: both may take their time, and
	// the report may call us.
	s.mu.Lock()
	s.round = append(s.round[:0], s.watch...)
	s.mu.Unlock()
	defer func() { clear(s.round) }()
	for _, w := range s.round {
		state, err := w.process.State()
		switch {
		case errors.Is(err, proc.ErrGone), errors.Is(err, proc.ErrInvisible), errors.Is(err, os.ErrClosed),
			err == nil && state.Dead():
			s.drop(w)
			continue
		case err != nil: // too many open files, say: it may pass
			continue
		}
		if stopped := state.Stopped(); stopped != w.stopped {
			w.stopped = stopped
			kind := Continued
			if stopped {
				kind = Stopped
			}
			s.report(Transition{Who: w.process.ID(), Kind: kind, At: time.Now(), Seen: Sampled})
		}
	}
	return nil
}

// drop forgets this very request, not one made meanwhile for the same process.
func (s *Sampler) drop(w *watched) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = slices.DeleteFunc(s.watch, func(v *watched) bool { return v == w })
}

// unread stands for a number that is not known: everything after it may be new.
const unread = -1

// seeker looks out for new processes. A number that was given away can be read a
// moment before its process can be found in /proc, a long moment on a busy
// machine. So each is named three times: when it is first read, at the next look,
// and once it has settled.
type seeker struct {
	newest func() (int, error)
	seen   func(from, to int, all bool)

	last, before int // the number as read last, and the time before
	low, mark    int // every number up to low has settled; those up to mark will at due
	due          time.Time
}

func (k *seeker) look(now time.Time) error {
	n, err := k.newest()
	if err != nil {
		return err
	}
	if n < k.last { // wrapped around: what was known is worthless
		k.last, k.low, k.mark = unread, unread, unread
	}
	from := k.before
	k.before, k.last = k.last, n
	if k.before < from {
		from = unread
	}
	switch {
	case k.mark == k.low: // nothing was waiting to settle
		if n != k.low {
			k.mark, k.due = n, now.Add(settle)
		}
	case !now.Before(k.due):
		from = min(from, k.low)
		k.low, k.mark, k.due = k.mark, n, now.Add(settle)
	}
	if from == n {
		return nil
	}
	if from == unread || n-from > wide {
		k.seen(0, 0, true)
	} else {
		k.seen(from+1, n+1, false)
	}
	return nil
}
