// Package sidecar owns the loop of a service: it turns datagrams, stops, ends
// and time into events for the lifecycle machine, does what the machine asks
// for, and publishes what is known.
//
// News reaches a service from three sides: the receiver (its own goroutine,
// which applies what it reads), the observers of processes, and one timer. Each
// takes the service's lock for as long as one piece of news takes; the last two
// first drain the socket, so that what a process said before it ended, or
// before its time was up, counts (systemd's order: messages, then deaths, then
// time-outs). Signals leave at once; work that can wait for something, and the log,
// leaves over a queue that nobody of them waits on.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
	"github.com/podnotify/podnotify/stopwatch"
)

// batch is how many datagrams the receiver applies before it lets others have the
// lock, and the processor.
const batch = 64

// Scope says which processes are a service's own.
type Scope interface {
	// Member reports whether a live process is one of the service's.
	Member(pid int) bool
	// Entry names the process that stands for the service by default, where pid
	// spoke for it: the container's entry process, or CMD.
	Entry(pid int) (int, bool)
	// Generation changes whenever an earlier answer of Member may be wrong.
	Generation() uint64
}

// Stops watches processes of the service that are not our children for the stop
// they may owe. stopwatch.Sampler is one.
type Stops interface {
	Watch(stopwatch.Process)
	Forget(proc.ID)
}

// Deps are what a service works with.
type Deps struct {
	FS    proc.FS
	Scope Scope
	Stops Stops
	Log   *slog.Logger
	// Started names the processes podnotify started itself (access: exec).
	Started func(proc.ID) bool
	// Orphans lists what a child of ours that ended left behind (run).
	Orphans func(ended proc.ID, starts bool) []Orphan
	// Left counts the processes below us without the one that has ended (run).
	Left func(ended proc.ID) int
	// Parent says that podnotify is the daemon's parent (run): what it hears of
	// ends and stops is exact.
	Parent bool
	// Gone is called, in order and under nobody's lock, when a main process ended;
	// with again, Start will be called in time. If that is called off, Gone is called
	// once more.
	Gone func(x lifecycle.LastExit, again bool)
	// Start is called likewise when the daemon is to be started again.
	Start func()
	// RestartPod is called likewise when the whole pod is to be restarted.
	RestartPod func()
	// Journal keeps what is known over a restart of podnotify; nil: nothing is kept.
	Journal *journal.File
	// Awaiting is called when the service begins or ceases to wait for a process
	// or a stop. It must not call back.
	Awaiting func(bool)
	// Judged adds to the kernel's word of an end what a container's runtime knows.
	Judged func(lifecycle.Exit) lifecycle.Exit
	// Since is when the shared socket of a service without one of its own was bound,
	// in clock ticks since boot: who is older may have spoken to nobody. 0: nobody.
	Since uint64
	// Hides says by which option procfs hides processes from us; empty: none.
	Hides string
	// Descriptors remembers that they ran out; nil: nobody asks.
	Descriptors *proc.Descriptors
	// Among lists the processes to look at for one that is named by a number of another
	// PID namespace; nil: all.
	Among func() ([]int, error)
	// Deaf reports whether the service's processes are not known yet, so that what is said
	// on its own socket waits, and Met waits until they are; nil: they always are.
	Deaf func() bool
	Met  func(context.Context)
	// CatchUp applies what is queued on a socket that the service shares with
	// others, theirs too. It is called without the service's lock.
	CatchUp func()
}

// Service is one supervised service.
type Service struct {
	cfg  Config
	dep  Deps
	ln   *notify.Listener
	log  *slog.Logger
	now  func() time.Time
	life context.Context // ends with Close
	end  context.CancelFunc

	stale atomic.Bool
	snap  atomic.Pointer[lifecycle.Snapshot]
	eye   atomic.Pointer[proc.Handle] // the main process, for a look at its state
	alive atomic.Bool                 // the receiver runs

	starts  atomic.Bool            // the daemon is being started, with the lock held: snap tells all
	stopped atomic.Bool            // the main process is known to be stopped
	told    atomic.Pointer[string] // the journal's trouble, in the last snapshot
	scarce  atomic.Pointer[string] // that of the descriptors
	command atomic.Pointer[reading]

	mu        sync.Mutex
	m         *lifecycle.Machine
	facts     lifecycle.Facts
	access    Access
	main      *person
	entry     proc.ID         // the entry process of its container
	left      time.Duration   // since boot, when the last main process ended
	hopeless  proc.ID         // whose stop facts.Impossible is about, if below our namespace
	owes      bool            // the main process was started with UPSTART_JOB
	elected   bool            // the main process was found by us, not named by the daemon
	again     *person         // is about to be looked at once more
	late      bool            // a look for a late stop is under way
	sampled   int             // people whose stops are watched
	people    map[int]*person // by pid; the invisible by minus their inode
	clock     uint64          // orders people by their last use
	awaiting  bool
	timer     *time.Timer
	armed     time.Time
	dropped   map[string]uint64
	named     map[string]bool   // what the log has named already
	strangers map[stranger]bool // senders that the log has named
	closed    bool
	filing    bool        // the PID file is being looked for
	begun     uint64      // when this instance's first process started, in clock ticks
	forks     int         // how many this instance has gone through on its way into the background
	counting  *time.Timer // goes off when they are judged; nil: they were
	store     *fdStore
	gate      context.CancelFunc // ends the knocking at the gate
	queue     effects
	give      func(lifecycle.Event) // apply, as a value made once
	mem       memory
	box       proc.Container   // of the main process
	blind     bool             // the main process before was one that cannot be found again
	since     uint64           // when the socket was bound, clock ticks since boot
	outlived  map[proc.ID]bool // entry processes that have outlived a main process: their ends are awaited
	inside    insides
	ends      sync.WaitGroup
}

// ErrNoPidfd says that access: any cannot be had: senders in PID namespaces that
// are not visible from here are known by their pidfd alone.
var ErrNoPidfd = errors.New("cannot use notify.access any: the kernel has no SO_PASSPIDFD (Linux 6.5); use all, with shareProcessNamespace: true")

// New binds the service's socket. Nothing is heard before Serve. Without an address
// the service has no socket of its own: who has one that it shares hands it on.
func New(cfg Config, dep Deps) (*Service, error) {
	s := newService(cfg, dep)
	// What is recalled may be written at once, and the journal tells of it.
	s.mu.Lock()
	defer s.mu.Unlock()
	if cfg.Address == "" {
		s.since = dep.Since
		s.recall()
		return s, nil
	}
	s.since = uint64(proc.Uptime() / clockTick)
	// A daemon of a sidecar that was stopped lives on, and the next one will listen.
	ln, err := notify.Listen(notify.Config{Address: cfg.Address, Mode: cfg.Mode, Keep: !dep.Parent})
	if err != nil {
		return nil, err
	}
	if cfg.Access == AccessAny && !ln.HasPidfd() {
		ln.Close()
		return nil, ErrNoPidfd
	}
	s.ln = ln
	if !ln.HasPidfd() {
		s.lack("pidfd", "senders are known by their numbers alone, because the kernel has no SO_PASSPIDFD (Linux 6.5) or a seccomp profile refuses it; "+
			"a helper that ends at once may pass for a stranger, or its number for another process")
	}
	if dep.Hides != "" {
		s.lack("proc", hidden(dep.Hides))
	}
	s.recall()
	return s, nil
}

// newService is a service without a socket.
func newService(cfg Config, dep Deps) *Service {
	if dep.Log == nil {
		dep.Log = slog.New(slog.DiscardHandler)
	}
	if dep.FS == "" {
		dep.FS = proc.Proc
	}
	s := &Service{
		cfg: cfg, dep: dep, now: time.Now,
		log:       dep.Log.With("service", cfg.Name),
		m:         lifecycle.New(cfg.Policy),
		access:    cfg.Access,
		people:    map[int]*person{},
		dropped:   map[string]uint64{},
		named:     map[string]bool{},
		strangers: map[stranger]bool{},
		outlived:  map[proc.ID]bool{},
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.facts.Transitions = map[[2]lifecycle.Phase]uint64{}
	s.facts.UnknownKeys = map[string]uint64{}
	s.give = s.apply
	s.store = newFDStore(cfg.FDStoreMax)
	s.stale.Store(true)
	s.mem.keep(dep.Journal)
	s.timer = time.AfterFunc(time.Hour, s.tick)
	s.timer.Stop()
	return s
}

// lack takes note, also in the log, of what podnotify has to do without. It fails no
// check.
func (s *Service) lack(what, text string) {
	if s.facts.Degraded == nil {
		s.facts.Degraded = map[string]string{} // never changed once the service is heard of
	}
	s.facts.Degraded[what] = text
	s.say(slog.LevelWarn, text)
}

// hidden says what it means that procfs hides processes.
func hidden(option string) string {
	return fmt.Sprintf("processes of other users are hidden, because /proc is mounted with %s; podnotify, which runs as uid %d, can serve a daemon of that uid only, "+
		"unless /proc is mounted with gid= and podnotify is in that group", option, os.Geteuid())
}

// Name is the service's name.
func (s *Service) Name() string { return s.cfg.Name }

// Config is what the service was made of.
func (s *Service) Config() Config { return s.cfg }

// Policy is what the operator wants of the service.
func (s *Service) Policy() *lifecycle.Policy { return &s.cfg.Policy }

// Env is the value of NOTIFY_SOCKET for the daemon.
func (s *Service) Env() string {
	if s.ln == nil {
		return ""
	}
	return s.ln.Env()
}

// Healthy returns why the service cannot hear: its socket is not bound, or its
// loop does not run.
func (s *Service) Healthy() error {
	if !s.alive.Load() {
		return fmt.Errorf("service %s does not listen on %s", s.cfg.Name, s.cfg.Address)
	}
	return nil
}

// Serve receives until ctx is done or Close is called. An error of the socket
// ends it.
func (s *Service) Serve(ctx context.Context) error {
	defer s.Close()
	s.listening(true)
	defer s.listening(false)
	s.reconsider()
	for {
		if err := s.ln.Wait(ctx); err != nil {
			if ctx.Err() != nil || errors.Is(err, notify.ErrClosed) {
				return nil
			}
			return fmt.Errorf("cannot receive for service %s: %w", s.cfg.Name, err)
		}
		if s.dep.Met != nil {
			s.dep.Met(s.life) // what is queued stays so, and so does the sender
		}
		for again := true; again; {
			s.mu.Lock()
			var err error
			if again, err = s.drain(batch); err == nil {
				s.settle()
			}
			s.mu.Unlock()
			if err != nil && !errors.Is(err, notify.ErrClosed) {
				return fmt.Errorf("cannot receive for service %s: %w", s.cfg.Name, err)
			}
			if again {
				notify.Yield()
			}
		}
	}
}

func (s *Service) listening(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alive.Store(yes)
	s.stale.Store(true)
}

// Close gives up the socket and every process held. Twice is harmless.
func (s *Service) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	if !s.mem.due.IsZero() { // the newest STATUS
		s.mem.at = time.Time{}
		s.remember()
	}
	s.closed = true
	s.end()
	s.timer.Stop()
	s.eye.Store(nil)
	if s.awaiting && s.dep.Awaiting != nil {
		s.dep.Awaiting(false)
	}
	for _, p := range s.people {
		s.drop(p)
	}
	s.release(&s.mem.held, nil)
	s.release(&s.mem.later, nil)
	s.mu.Unlock()
	if s.ln != nil {
		s.ln.Close()
	}
	s.ends.Wait()
	s.queue.wait()
	s.store.close()
}

// drain applies what is queued on the socket. The lock is held.
func (s *Service) drain(most int) (again bool, err error) {
	if s.ln == nil || s.closed || s.deaf() {
		return false, nil
	}
	_, again, err = s.ln.Drain(s, most)
	return again, err
}

// deaf reports whether nobody could be told from a stranger yet.
func (s *Service) deaf() bool { return s.dep.Deaf != nil && s.dep.Deaf() }

// hear takes the lock, with all applied that was said before. What others said on a
// shared socket takes their locks, so that comes first.
func (s *Service) hear() {
	if s.dep.CatchUp != nil {
		s.dep.CatchUp()
	}
	s.mu.Lock()
	s.catchUp()
}

// catchUp applies what was said before something else happened, and not more: a flood
// cannot hold the end of a process back. An error of the socket is the receiver's to
// report.
func (s *Service) catchUp() {
	if s.ln != nil && !s.closed && s.ln.Queued() { // mostly not
		_, _ = s.drain(s.ln.Backlog())
	}
}

// apply gives one event to the machine and takes note of what follows. The lock
// is held.
func (s *Service) apply(e lifecycle.Event) {
	now := s.now()
	from, exit, back, before := s.m.Phase(), s.m.LastExit(), s.m.ComesBack(), s.m.Notable()
	switch e.Kind {
	case lifecycle.Found, lifecycle.MainPID:
		e.Missed = s.missed(e.Who)
	}
	s.preserve()
	actions := s.m.Apply(e, now)
	if s.m.Phase() == lifecycle.Gone && from != lifecycle.Gone {
		s.judgeForks()
		s.gone() // before it is started again
	}
	if back && s.m.Phase() == from && !s.m.ComesBack() {
		s.say(slog.LevelInfo, "daemon is not started again, it was told to stop")
		s.gone()
	}
	for _, a := range actions {
		s.act(a)
	}
	if to := s.m.Phase(); to != from {
		s.facts.Transitions[[2]lifecycle.Phase{from, to}]++
		s.transition(from, to, e)
		if from == lifecycle.Absent || from == lifecycle.Gone {
			s.access = s.cfg.Access // NOTIFYACCESS= was the last instance's
			s.facts.Adopted = false
			s.begun = s.m.Main().Start
			s.forget()
			s.forks = 0
		}
		if to == lifecycle.Ready && s.main != nil {
			s.describeAgain(s.main)
			if s.facts.Denied != "" {
				s.probePermission(s.main)
			}
		}
	} else if x := s.m.LastExit(); x != exit { // told only now: its parent has reaped it
		s.say(slog.LevelInfo, "how the daemon ended is known", "exit", x.String())
	}
	if s.m.Notable() != before {
		s.notable(before, e)
	}
	s.stale.Store(true)
}

// settle brings what hangs on the machine in line with it: the main process
// held, the timer, and whether anything is awaited. The lock is held.
func (s *Service) settle() {
	if s.closed {
		return
	}
	if id := s.m.Main(); id != s.mainID() {
		s.setMain(id)
	}
	s.stopped.Store(s.m.Halted())
	s.remember()
	deadline, ok := s.m.Deadline()
	if ok {
		s.arm(deadline)
	}
	if d := s.mem.due; !d.IsZero() {
		s.arm(d)
	} else if !ok && !s.armed.IsZero() { // else it would wake us for nothing
		s.timer.Stop()
		s.armed = time.Time{}
	}
	s.watchPIDFile()
	a := s.awaits()
	if !a && s.sampled > 0 && !s.m.Halted() {
		s.unwatch()
	}
	if a != s.awaiting {
		s.awaiting = a
		if !a {
			s.lookLate(time.Millisecond)
		}
		if s.dep.Awaiting != nil {
			s.dep.Awaiting(a)
		}
	}
}

// arm has the timer go off at d at the latest.
func (s *Service) arm(d time.Time) {
	if s.armed.IsZero() || d.Before(s.armed) {
		s.armed = d
		s.timer.Reset(d.Sub(s.now()))
	}
}

// awaits reports whether new processes or stops matter now.
func (s *Service) awaits() bool {
	switch s.m.Phase() {
	case lifecycle.Absent, lifecycle.Gone:
		return true
	case lifecycle.Starting:
		return s.m.AwaitsStop(s.now()) || s.m.Main() == (lifecycle.ProcID{})
	}
	return s.m.Owed() != (lifecycle.ProcID{})
}

// reconsider settles outside of any news.
func (s *Service) reconsider() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
}

// tick is the timer. A main process that was stopped meanwhile is paused, not
// starved, so it is looked at first.
func (s *Service) tick() {
	s.peek()
	s.hear()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.armed = time.Time{}
	before := s.m.Snapshot()
	s.apply(lifecycle.Event{Kind: lifecycle.Timer})
	s.overdue(before)
	s.settle()
}

// current reports whether the last snapshot tells what is known now.
func (s *Service) current() bool {
	return !s.stale.Load() && s.trouble() == s.told.Load() && s.dep.Descriptors.Trouble() == s.scarce.Load()
}

// Look returns what is known now. What has been said and not yet been heard, because
// who asks was faster than the receiver is to wake, counts. A stop of the main process
// by somebody else is seen here, when it matters, and costs nothing before.
func (s *Service) Look() *lifecycle.Snapshot {
	s.peek()
	if s.starts.Load() {
		return s.snap.Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.drain(batch); err == nil && s.stale.Load() {
		s.settle()
	}
	if s.publishWritten(); s.mem.writing {
		s.await()
	}
	if s.publishWritten(); s.mem.writing {
		return s.unwritten()
	}
	if s.current() { // it was published just now
		return s.snap.Load()
	}
	n := s.snapshot()
	s.snap.Store(n)
	s.stale.Store(false) // last: who finds it false, without the lock, loads this one
	return n
}

// snapshot is what is known now. The lock is held.
func (s *Service) snapshot() *lifecycle.Snapshot {
	n := s.m.Snapshot()
	n.Facts = s.facts
	n.Facts.UnknownKeys = maps.Clone(s.facts.UnknownKeys)
	n.Facts.Transitions = maps.Clone(s.facts.Transitions)
	n.Facts.Dropped = maps.Clone(s.dropped)
	n.Facts.Refused = s.shutOut()
	n.Facts.Warnings = append([]string(nil), s.facts.Warnings...)
	if len(s.facts.Degraded) > 0 { // or the list of no keys would be garbage
		for _, what := range slices.Sorted(maps.Keys(s.facts.Degraded)) {
			n.Facts.Warnings = append(n.Facts.Warnings, s.facts.Degraded[what])
		}
	}
	if s.ln != nil && !s.alive.Load() {
		n.Facts.Socket = "the notify socket " + s.cfg.Address + " is not bound"
	}
	if n.Errno != 0 {
		n.Facts.ErrnoName = notify.ErrnoName(n.Errno)
	}
	if n.Unknown && s.cfg.Policy.OnUnknown == lifecycle.UnknownReady {
		n.Facts.Warnings = append(n.Facts.Warnings, "called ready because policy.unknown says so; what the daemon said may have been missed")
	}
	t := s.trouble()
	if s.told.Store(t); t != nil {
		n.Facts.Warnings = append(n.Facts.Warnings, *t)
	}
	t = s.dep.Descriptors.Trouble()
	if s.scarce.Store(t); t != nil {
		n.Facts.Warnings = append(n.Facts.Warnings, *t)
	}
	return &n
}

// peek reads the state letter of the main process and reports what changed.
func (s *Service) peek() {
	h := s.eye.Load()
	if h == nil {
		return
	}
	st, err := h.State()
	switch {
	case errors.Is(err, proc.ErrGone), errors.Is(err, proc.ErrInvisible), err == nil && st.Dead():
		if h.Ended() && !s.dep.Parent { // of children waitid tells as well, and how
			s.ended(h, lifecycle.Exit{})
		}
		return
	case err != nil, st.Stopped() == s.stopped.Load():
		return
	}
	s.hear()
	defer s.mu.Unlock()
	if s.main == nil || s.main.h != h {
		return
	}
	if st, err = h.State(); err != nil {
		return
	}
	if st.Stopped() && s.dep.Parent && s.m.AwaitsStop(s.now()) {
		if st, err := s.dep.FS.Stat(h.ID().PID); err == nil && st.PPID == unix.Getpid() {
			return // waitid tells as well, and by which signal
		}
	}
	kind := lifecycle.Continued
	if st.Stopped() {
		kind = lifecycle.Stopped
	}
	s.apply(lifecycle.Event{Kind: kind, Who: idOf(h), Owes: s.owes})
	s.settle()
}

// lookLate looks at a main process that is ready but may still stop itself:
// at once, then ever more rarely. Of our own children waitid tells.
func (s *Service) lookLate(wait time.Duration) {
	if s.dep.Parent || s.late || !s.m.MayStopLate(s.owes, s.now()) {
		return
	}
	s.late = true
	time.AfterFunc(wait, func() {
		s.peek()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.late = false
		if !s.closed {
			s.lookLate(min(2*wait, time.Second))
		}
	})
}

// ended applies the end of a process, after all it said.
func (s *Service) ended(h *proc.Handle, exit lifecycle.Exit) {
	s.hear()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	id := idOf(h)
	if s.dep.Judged != nil {
		exit = s.dep.Judged(exit)
	}
	if id == s.m.Main() {
		s.facts.ContainerAlive = s.containerAlive(id)
	}
	s.apply(lifecycle.Event{Kind: lifecycle.Ended, Who: id, Exit: exit})
	s.settle()
}

// follow takes note of what a process that ended left behind, before its end is
// applied: where the daemon goes into the background, one of them is it. What a
// daemon leaves that crashed, or a helper of a live one, is not.
func (s *Service) follow(ended proc.ID, exit *proc.Exit) {
	if s.dep.Orphans == nil {
		return
	}
	starts := s.m.Phase() == lifecycle.Starting
	counts := (exit == nil || *exit == proc.Exit{}) && (starts || lifecycle.ProcID(ended) == s.m.Main())
	judge := counts && s.backgrounds()
	if judge && !s.cfg.Policy.Expect.Follows() {
		judge = false
		if id := lifecycle.ProcID(ended); id == s.m.Main() {
			s.judgeLeft(id)
		}
	}
	for todo := []proc.ID{ended}; len(todo) > 0; todo = todo[1:] {
		for _, o := range s.dep.Orphans(todo[0], starts) {
			switch {
			case !counts:
				continue
			case s.m.Phase() != lifecycle.Starting && s.m.Main() != lifecycle.ProcID(ended):
				return // the one before was the daemon
			case s.meetID(o.ID) != nil:
				s.apply(lifecycle.Event{Kind: lifecycle.Forked, Who: lifecycle.ProcID(o.ID), Number: int64(o.Forks)})
			default: // it has just ended, too: whom it left counts
				todo = append(todo, o.ID)
			}
			if judge {
				s.counted(o.Forks)
			}
		}
	}
}

// backgrounds reports whether a main process that ends now, and leaves others
// behind, may be going into the background. Later it is a crash, or its end.
func (s *Service) backgrounds() bool {
	switch e := s.cfg.Policy.Expect; s.m.Phase() {
	case lifecycle.Starting:
		return true
	case lifecycle.Ready, lifecycle.Reloading:
		return e == lifecycle.ExpectFork || e == lifecycle.ExpectDaemon || e == lifecycle.ExpectNone
	}
	return false
}

// judgeLeft is about a daemon that ends and leaves others behind where that is its
// end. Which expect would fit cannot be told: they are ended, too, and who of them
// would have forked once more is not seen any more.
func (s *Service) judgeLeft(ended lifecycle.ProcID) {
	if n := s.dep.Left(proc.ID(ended)); n > 0 {
		s.warn("forks", fmt.Sprintf("process %d exited with code 0 and left %d process(es) behind, which is the end where expect: %v; "+
			"if it went into the background keep it in the foreground, or set expect: fork (it forks once), daemon (twice) or pidfile (it writes one)",
			ended.PID, n, s.cfg.Policy.Expect))
	}
}

// forksSettle is how long after a fork it is judged how many there were: others may
// follow.
const forksSettle = 500 * time.Millisecond

// counted takes note of how many forks away from CMD the daemon is.
func (s *Service) counted(forks int) {
	s.forks = max(s.forks, forks)
	if s.counting == nil {
		s.counting = time.AfterFunc(forksSettle, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.judgeForks()
		})
	}
}

// judgeForks says which expect would have fitted what the daemon has done.
func (s *Service) judgeForks() {
	if s.closed || s.counting == nil {
		return
	}
	s.counting.Stop()
	s.counting = nil
	expects := 1
	switch s.cfg.Policy.Expect {
	case lifecycle.ExpectPIDFile:
		return
	case lifecycle.ExpectDaemon:
		expects = 2
	}
	if s.forks <= expects { // fewer: the start time-out tells
		return
	}
	fits := "expect: pidfile would fit, if it writes one"
	if s.forks == 2 {
		fits = "expect: daemon would fit"
	}
	s.unwarn("forks")
	s.warn("forks", fmt.Sprintf("the daemon went into the background: %d forks were seen where expect: %v expects %d; %s, or keep it in the foreground",
		s.forks, s.cfg.Policy.Expect, expects, fits))
}

// Adopt makes a process the main process of a new instance: the one podnotify
// has just started, or found. The service owns the handle from here on.
func (s *Service) Adopt(h *proc.Handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adopt(h)
	s.settle()
}

func (s *Service) adopt(h *proc.Handle) {
	if s.closed {
		h.Close()
		return
	}
	p := s.meet(h.ID().PID, h)
	p.member, p.generation = true, s.generation()
	s.apply(lifecycle.Event{Kind: lifecycle.Found, Who: p.id})
}

// Start calls start, which starts the daemon, and adopts what it returns. No
// datagram is applied in between, so the daemon's first word finds it known. It
// does nothing if a respawn was called off meanwhile.
func (s *Service) Start(start func() (*proc.Handle, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m.Phase() == lifecycle.Gone && !s.m.ComesBack() {
		return nil
	}
	// A file system that hangs makes exec long. Nobody who asks waits for that.
	s.snap.Store(s.snapshot())
	s.stale.Store(false)
	s.starts.Store(true)
	h, err := start()
	s.starts.Store(false)
	if err != nil {
		return err
	}
	s.adopt(h)
	s.settle()
	return nil
}

// Observe takes a stop, continue or end of one of the service's processes.
func (s *Service) Observe(t stopwatch.Transition) {
	s.hear()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	e := lifecycle.Event{Who: lifecycle.ProcID(t.Who), Owes: s.owes}
	switch t.Kind {
	case stopwatch.Stopped:
		// Only SIGSTOP is upstart's readiness; a sampler cannot tell (Signal 0).
		e.Kind = lifecycle.Stopped
		e.Job = t.Signal != 0 && t.Signal != unix.SIGSTOP
		if e.Job && s.m.Main() != e.Who {
			return
		}
		s.meetID(t.Who)
	case stopwatch.Continued:
		e.Kind = lifecycle.Continued
	case stopwatch.Ended:
		e.Kind = lifecycle.Ended
		s.follow(t.Who, t.Exit)
		if t.Exit != nil {
			e.Exit = lifecycle.Exit{Known: true, Code: t.Exit.Code, Signal: int(t.Exit.Signal)}
		}
		if e.Who == s.m.Main() {
			s.facts.ContainerAlive = s.containerAlive(e.Who)
		}
	}
	s.apply(e)
	s.settle()
}

// StopAsked tells the service that a termination is about to be sent to its
// main process, by podnotify or through it. With kill, the main process is
// killed after the stop time-out.
func (s *Service) StopAsked(kill bool) {
	number := int64(0)
	if kill {
		number = lifecycle.Killing
	}
	s.announce(lifecycle.Event{Kind: lifecycle.StopAsked, Number: number})
}

// announce tells the machine what is about to be done to the main process, and
// returns that process when it is on file: the next one is not the one that was
// meant.
func (s *Service) announce(e lifecycle.Event) *proc.Handle {
	s.peek() // nobody may have looked since it was stopped
	s.hear()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	filed := make(chan struct{})
	s.apply(e)
	s.hold(func(error) { close(filed) })
	s.settle()
	h := s.eye.Load()
	s.mu.Unlock()
	<-filed
	return h
}

// Stop asks the main process to end, by signals.kill, and kills it after the stop
// time-out. It is not respawned, also if it has ended and is about to be.
func (s *Service) Stop() error {
	if s.callOff() {
		return nil
	}
	if err := s.mayEnd("stop", s.cfg.KillSignal); err != nil {
		return err
	}
	return s.signalMain(s.announce(lifecycle.Event{Kind: lifecycle.StopAsked, Number: lifecycle.Killing}), s.cfg.KillSignal)
}

// callOff calls off the respawn that is due, if one is.
func (s *Service) callOff() bool {
	s.hear()
	defer s.mu.Unlock()
	if s.closed || !s.m.ComesBack() {
		return false
	}
	s.apply(lifecycle.Event{Kind: lifecycle.StopAsked})
	s.settle()
	return true
}

// Kill sends a signal to the main process. One that usually ends a process is
// announced first.
func (s *Service) Kill(sig unix.Signal) error {
	if err := s.mayEnd("signal", sig); err != nil {
		return err
	}
	switch sig {
	case unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGKILL, s.cfg.KillSignal:
		return s.signalMain(s.announce(lifecycle.Event{Kind: lifecycle.StopAsked, Number: lifecycle.Signalling}), sig)
	}
	return s.Signal(sig)
}

// mayEnd finds out whether a signal could be sent, before the end is announced:
// what is not permitted must not make a service that runs on unready.
func (s *Service) mayEnd(verb string, sig unix.Signal) error {
	h := s.eye.Load()
	if h == nil {
		return fmt.Errorf("cannot %s service %s: it has no main process", verb, s.cfg.Name)
	}
	if h.Permitted() {
		return nil
	}
	return h.Signal(sig)
}

// Reload sends signals.reload to the main process, unless that is known to do no good.
func (s *Service) Reload() error {
	if s.cfg.ReloadSignal == 0 {
		return fmt.Errorf("cannot reload service %s: signals.reload is not set; set it, to HUP for most daemons", s.cfg.Name)
	}
	switch n := s.Look(); {
	case n.Phase == lifecycle.Starting && !n.Unknown:
		return fmt.Errorf("cannot reload service %s: it is starting, and the signal could end it", s.cfg.Name)
	case n.Phase == lifecycle.Stopping:
		return fmt.Errorf("cannot reload service %s: it is stopping", s.cfg.Name)
	case n.Paused:
		return fmt.Errorf("cannot reload service %s: process %d is stopped by a signal; kill -CONT %d continues it", s.cfg.Name, n.Main.PID, n.Main.PID)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("cannot reload service %s: %w", s.cfg.Name, err)
	}
	return s.signalMain(s.announce(lifecycle.Event{Kind: lifecycle.ReloadAsked, Number: now.Nano() / 1000}), s.cfg.ReloadSignal)
}

// Respawn ends the main process so that it is started again: by us where we
// started it, else by the platform.
func (s *Service) Respawn() error {
	if s.eye.Load() != nil || !s.cfg.Policy.Respawn.Mode.Restarts() {
		if err := s.mayEnd("respawn", s.cfg.KillSignal); err != nil {
			return err
		}
	}
	s.hear()
	defer s.mu.Unlock()
	s.apply(lifecycle.Event{Kind: lifecycle.RespawnAsked})
	s.settle()
	return nil
}

// Prestop is what a sidecar does when the platform begins to terminate the pod:
// the service enters stopping, and a stopped daemon is continued, so that the
// SIGTERM that follows reaches it. The podnotify that comes back, if it was only
// podnotify that was told to go, finds it as it was.
func (s *Service) Prestop() {
	if s.callOff() { // what we would start again is not started into the end
		return
	}
	s.announce(lifecycle.Event{Kind: lifecycle.StopAsked, Number: lifecycle.Leaving})
}

// Signal sends a signal to the main process. The error says whose permission is
// missing, or that there is no main process.
func (s *Service) Signal(sig unix.Signal) error { return s.signalMain(s.eye.Load(), sig) }

// noMain is proc.ErrGone in the words for a service.
type noMain struct{}

func (noMain) Error() string { return "it has no main process" }
func (noMain) Unwrap() error { return proc.ErrGone }

func (s *Service) signalMain(h *proc.Handle, sig unix.Signal) error {
	if h == nil {
		return fmt.Errorf("cannot signal service %s: %w", s.cfg.Name, noMain{})
	}
	return h.Signal(sig)
}

// containerAlive reports whether the container of the main process, which has
// ended, lives on: its entry process does. When that ends, too, it is noted.
func (s *Service) containerAlive(id lifecycle.ProcID) bool {
	if s.entry.PID == 0 || s.entry.PID == id.PID {
		return false
	}
	h, err := s.dep.FS.OpenID(s.entry)
	if err != nil {
		return false
	}
	if h.Ended() {
		h.Close()
		return false
	}
	if s.outlived[h.ID()] {
		h.Close()
		return true
	}
	s.outlived[h.ID()] = true
	s.ends.Go(func() {
		defer h.Close()
		if h.Wait(s.life) != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.outlived, h.ID())
		if s.entry == h.ID() {
			s.facts.ContainerAlive = false
			s.stale.Store(true)
		}
	})
	return true
}
