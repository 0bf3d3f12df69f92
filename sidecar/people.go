package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// peopleKept bounds how many processes a service holds by pidfd at a time. Main
// process, speaker and whoever owes a stop are never given up for it.
const peopleKept = 128

// person is a process the service knows: by a handle, so for certain.
type person struct {
	id         lifecycle.ProcID
	key        int
	h          *proc.Handle
	home       proc.Home // where it lives; empty if it was gone before anybody could look
	child      bool      // is our own, which waitid tells of
	member     bool      // is one of the service's
	mouthpiece bool      // speaks for the main process, never for itself
	generation uint64    // of the scope that said so
	used       uint64
	watched    bool // its end is awaited
	sampled    bool // its stop is awaited
}

// mouthpieces are the programs that say for a script what it has to say. However
// long they take to end, on a throttled machine, their word is not their own.
var mouthpieces = []string{"systemd-notify", "podnotify"}

func idOf(h *proc.Handle) lifecycle.ProcID { return lifecycle.ProcID(h.ID()) }

func (s *Service) generation() uint64 {
	if s.dep.Scope == nil {
		return 0
	}
	return s.dep.Scope.Generation()
}

// meet makes a person of a handle, which the service owns from here on.
func (s *Service) meet(key int, h *proc.Handle) *person {
	if old := s.people[key]; old != nil {
		if old.id == idOf(h) {
			h.Close()
			return s.touch(old)
		}
		if old == s.main {
			// The number has passed on while the end of its process is on its
			// way here; the two must not be mixed up.
			delete(s.people, key)
			old.key = -1 << 62
			s.people[old.key] = old
		} else {
			s.drop(old)
		}
	}
	if len(s.people) >= peopleKept {
		s.dropOldest()
	}
	p := &person{id: idOf(h), key: key, h: h}
	if st, err := s.dep.FS.Stat(p.id.PID); err == nil && st.ID() == h.ID() {
		p.mouthpiece = slices.Contains(mouthpieces, st.Comm)
		p.child = st.PPID == unix.Getpid()
		if home, err := s.dep.FS.Home(p.id.PID); err == nil && h.Holds() {
			p.home = home
		}
	}
	s.people[key] = p
	return s.touch(p)
}

func (s *Service) touch(p *person) *person {
	s.clock++
	p.used = s.clock
	return p
}

// meetID opens a process that an observer named. Nil if it is gone.
func (s *Service) meetID(id proc.ID) *person {
	if p := s.people[id.PID]; p != nil && p.id == lifecycle.ProcID(id) {
		return s.touch(p)
	}
	h, err := s.dep.FS.OpenID(id)
	if err != nil {
		return nil
	}
	p := s.meet(id.PID, h)
	if s.dep.Scope == nil || s.dep.Scope.Member(id.PID) { // else it is judged when that matters
		p.member, p.generation = true, s.generation()
	}
	return p
}

func (s *Service) find(id lifecycle.ProcID) *person {
	if p := s.people[id.PID]; p != nil && p.id == id {
		return p
	}
	for _, p := range s.people { // the invisible, and a main process whose number passed on
		if p.id == id {
			return p
		}
	}
	return nil
}

func (s *Service) drop(p *person) {
	s.unsample(p)
	delete(s.people, p.key)
	p.h.Close() // ends the goroutine that awaits its end
}

// idle is who was used least lately of those that nothing hangs on; nil: there is none.
func (s *Service) idle() (oldest *person) {
	for _, p := range s.people {
		if p != s.main && !p.watched && (oldest == nil || p.used < oldest.used) {
			oldest = p
		}
	}
	return oldest
}

// Spare gives up the process that was silent for the longest time, if nothing hangs on
// it: others need its descriptor. It will be known again when it speaks.
func (s *Service) Spare() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare()
}

// spare gives up somebody for a descriptor, and reports whether there was anybody.
func (s *Service) spare() bool {
	p := s.idle()
	if p == nil || p.used == s.clock { // it is spoken with
		return false
	}
	s.drop(p)
	return true
}

func (s *Service) dropOldest() {
	oldest := s.idle()
	if oldest == nil {
		for _, p := range s.people { // all watched: speakers come and go, too
			if p != s.main && (oldest == nil || p.used < oldest.used) {
				oldest = p
			}
		}
	}
	s.drop(oldest)
}

// unwatch ends the sampling of everybody: no stop is owed any more.
func (s *Service) unwatch() {
	for _, p := range s.people {
		s.unsample(p)
	}
}

// room reports whether one more may be watched for a stop. Those that have ended make
// room: of most nobody tells that they have.
func (s *Service) room() bool {
	if s.sampled < sampledMost {
		return true
	}
	for _, p := range s.people {
		if p.sampled && p.h.Ended() {
			s.unsample(p)
		}
	}
	return s.sampled < sampledMost
}

func (s *Service) unsample(p *person) {
	if p.sampled {
		p.sampled = false
		s.sampled--
		s.dep.Stops.Forget(p.h.ID())
	}
}

// watch reports the end of a process as soon as the kernel tells, and how it
// ended when its parent has reaped it.
func (s *Service) watch(p *person) {
	if p.watched || s.closed {
		return
	}
	p.watched = true
	h := p.h
	s.ends.Go(func() {
		if h.Wait(context.Background()) != nil {
			return // given up
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var exit lifecycle.Exit
		if s.dep.Parent {
			switch st, err := s.dep.FS.Stat(h.ID().PID); {
			case p.child, err == nil && st.ID() == h.ID() && st.PPID == unix.Getpid():
				return // our child: waitid tells as well, and how
			case err == nil && st.ID() != h.ID(), errors.Is(err, proc.ErrGone):
				exit = s.exit(ctx, h) // reaped, maybe by us: no waiting
			}
		}
		s.ended(h, exit)
		if !exit.Known {
			if exit = s.exit(ctx, h); exit.Known {
				s.ended(h, exit)
			}
		}
	})
}

func (s *Service) exit(ctx context.Context, h *proc.Handle) lifecycle.Exit {
	x, err := h.Exit(ctx)
	if err != nil {
		return lifecycle.Exit{}
	}
	return lifecycle.Exit{Known: true, Code: x.Code, Signal: int(x.Signal)}
}

func (s *Service) mainID() lifecycle.ProcID {
	if s.main == nil {
		return lifecycle.ProcID{}
	}
	return s.main.id
}

// setMain follows the machine: the process it calls the main process is held,
// watched and looked at.
func (s *Service) setMain(id lifecycle.ProcID) {
	s.main = nil
	if sc, ok := s.dep.Scope.(*scope); ok {
		sc.claim(proc.ID(id))
	}
	s.facts.Denied = ""
	s.eye.Store(nil)
	s.stale.Store(true)
	if id == (lifecycle.ProcID{}) {
		s.left = proc.Uptime()
		time.AfterFunc(afterlife, func() { s.arrived(nil, nil) })
		return
	}
	p := s.find(id)
	if p == nil { // it ended between being named and being opened
		s.apply(lifecycle.Event{Kind: lifecycle.Ended, Who: id})
		return
	}
	s.main = p
	s.entry, s.box = proc.ID{}, proc.Container{}
	if id.PID > 0 {
		s.box, _ = s.dep.FS.Container(id.PID)
	}
	if s.dep.Scope != nil && !s.dep.Parent {
		is := func() (int, bool) {
			pid, ok := s.dep.Scope.Entry(id.PID)
			return pid, ok && p.h.Holds()
		}
		if pid, ok := is(); ok && pid == id.PID {
			s.entry = proc.ID(id)
		} else if ok {
			if h, err := s.openIf(pid, func() bool { again, ok := is(); return ok && again == pid }); err == nil {
				s.entry = h.ID()
				h.Close()
			}
		}
	}
	s.owes = false
	s.describe(p, s.box)
	s.lookInside(p)
	s.eye.Store(p.h)
	s.watch(p)
	s.probePermission(p)
}

// describeAgain looks once more at a process that has become ready: it may have another
// uid by now. That is hardly ever news and costs as much as all the rest, so it is not
// done while those who wait for readiness ask.
func (s *Service) describeAgain(p *person) {
	if s.again == p {
		return
	}
	s.again = p
	s.queue.addUnhurried(func() {
		c, err := s.dep.FS.Container(p.id.PID)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.again == p {
			s.again = nil
		}
		if s.closed || s.main != p || p.h.Ended() { // or its number may be another's
			return
		}
		if err == nil && p.id.PID > 0 {
			s.describe(p, c)
			s.stale.Store(true)
		}
		s.probePermission(p)
		s.settle()
	})
}

// describe gathers what is shown of the main process, which is in container c.
func (s *Service) describe(p *person, c proc.Container) {
	f := &s.facts
	f.Container, f.InnerPID, f.StartTime = "", 0, time.Time{}
	f.Candidates = nil
	if !s.lives(s.hopeless) { // found before the main process was, it stays true
		f.Impossible, s.hopeless = "", proc.ID{}
	}
	if p.id.PID == 0 {
		return
	}
	f.InnerPID = p.id.PID
	if inner := p.home.Inner(); inner != 0 {
		f.InnerPID = inner
	}
	if f.Container = c.Name; f.Container == "" {
		f.Container = c.Instance
	}
	f.StartTime = startTime(p.id.Start, s.now())
	s.judgeStop(p)
}

// commandOf is the command line of a process, or its name if that is not to be had in
// a moment.
func (s *Service) commandOf(st proc.Stat) string {
	if cmd, _ := s.inside.cmdline(s.dep.FS, st.PID, insideWait); cmd != "" {
		return cmd
	}
	return st.Comm
}

const (
	// insideWait bounds how long news waits for what is only shown, or may come later.
	insideWait = 10 * time.Millisecond
	// insideLong bounds how long a decision waits, also on a busy machine.
	insideLong = time.Second
	// insideMost bounds how many reads of one service may hang: a thread each. Then
	// nothing more is read, and nobody waits any more.
	insideMost = 8
)

// insides reads what lies in the memory of processes. The kernel makes who reads that
// wait for whoever changes the address space (mmap_lock), which a hanging file system
// makes long, and a process for ever if it wants to. So nothing waits for it for long,
// not even the end, and of one whose memory hangs nothing more is read until that ends:
// it must not take the place of others.
type insides struct {
	mu      sync.Mutex
	reading int
	hangs   map[int]bool // by pid
}

// cmdline reads a command line, if that is to be had in time.
func (in *insides) cmdline(fs proc.FS, pid int, wait time.Duration) (string, bool) {
	type line struct {
		text string
		ok   bool
	}
	l, ok := glimpse(in, pid, wait, func() line {
		text, err := fs.Cmdline(pid)
		return line{text, err == nil}
	}, nil)
	return l.text, ok && l.ok
}

// environ reports whether a process was started with a variable, if that is to be had
// in time.
func (in *insides) environ(fs proc.FS, pid int, name string, wait time.Duration) bool {
	has, ok := glimpse(in, pid, wait, func() bool { return fs.Environ(pid, name) }, nil)
	return has && ok
}

// glimpse is what read returns, of process pid. If that takes longer it is given to late,
// if there is one, by a goroutine; ok is false.
func glimpse[T any](in *insides, pid int, most time.Duration, read func() T, late func(T)) (seen T, ok bool) {
	if !in.begin(pid) {
		return seen, false
	}
	done, over := make(chan T), make(chan struct{})
	ended := false // of in.mu
	go func() {
		v := read()
		in.mu.Lock()
		ended = true
		in.reading--
		delete(in.hangs, pid)
		in.mu.Unlock()
		select {
		case done <- v:
		case <-over:
			if late != nil {
				late(v)
			}
		}
	}()
	wait := time.NewTimer(most)
	defer wait.Stop()
	select {
	case v := <-done:
		return v, true
	case <-wait.C:
	}
	in.mu.Lock()
	if !ended {
		if in.hangs == nil {
			in.hangs = map[int]bool{}
		}
		in.hangs[pid] = true
	}
	in.mu.Unlock()
	close(over)
	return seen, false
}

// begin reports whether one more may be read.
func (in *insides) begin(pid int) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.hangs[pid] || in.reading >= insideMost {
		return false
	}
	in.reading++
	return true
}

// lookInside finds out whether the main process was started with UPSTART_JOB, later if
// need be.
func (s *Service) lookInside(p *person) {
	if p.id.PID == 0 || s.cfg.Policy.Expect != lifecycle.ExpectAuto {
		return
	}
	fs := s.dep.FS
	owes, ok := glimpse(&s.inside, p.id.PID, insideWait, func() bool {
		return fs.Environ(p.id.PID, "UPSTART_JOB") && !p.h.Ended() // or its number may be another's
	}, func(owes bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sawInside(p, owes)
	})
	if ok {
		s.sawInside(p, owes)
	}
}

func (s *Service) sawInside(p *person, owes bool) {
	if !s.closed && s.main == p {
		s.owes = s.owes || owes
	}
}

// reading is a command line on its way.
type reading struct {
	of   *proc.Handle
	done chan struct{} // closed when text is there
	text string
}

// Command is the command line that the main process has now, which need not be the one
// it was started with. It is empty if main is the main process no more, or if it
// cannot be read in a moment; see insides.
func (s *Service) Command(main lifecycle.ProcID) string {
	h := s.eye.Load()
	if h == nil || idOf(h) != main || main.PID == 0 {
		return ""
	}
	r := &reading{of: h, done: make(chan struct{})}
	if s.command.CompareAndSwap(nil, r) { // one at a time, however many ask
		go func() {
			if cmd, err := s.dep.FS.Cmdline(main.PID); err == nil && !h.Ended() { // or its number may be another's
				r.text = cmd
			}
			s.command.Store(nil)
			close(r.done)
		}()
	} else if under := s.command.Load(); under != nil {
		r = under
	} else {
		return s.Command(main)
	}
	wait := time.NewTimer(insideWait)
	defer wait.Stop()
	select {
	case <-r.done:
		if r.of != h {
			return ""
		}
		return r.text
	case <-wait.C:
		return ""
	}
}

// clockTick is the unit in which the kernel tells when a process started. USER_HZ
// is 100 on every architecture that Go runs on.
const clockTick = time.Second / 100

// startTime turns clock ticks since boot into the time of day.
func startTime(ticks uint64, now time.Time) time.Time {
	return now.Add(time.Duration(ticks)*clockTick - proc.Uptime()).Round(clockTick)
}

// judgeStop finds out whether a stop of p could be seen at all: the kernel
// ignores the SIGSTOP that the first process of a PID namespace sends itself.
func (s *Service) judgeStop(p *person) {
	if s.cfg.Policy.Expect != lifecycle.ExpectStop || s.facts.InnerPID != 1 {
		return
	}
	st, err := s.dep.FS.Stat(p.id.PID)
	if err != nil || runtimes(st.Comm) {
		return // it is not the daemon yet
	}
	s.impossible(st)
}

func (s *Service) impossible(st proc.Stat) {
	pid, command := st.PID, s.commandOf(st)
	text := fmt.Sprintf("the daemon (process %d, %q) is PID 1 of its PID namespace, where the kernel ignores SIGSTOP, so expect: stop cannot work; "+
		"add shareProcessNamespace: true, or use podnotify run", pid, command)
	if s.facts.Impossible == text {
		return
	}
	s.facts.Impossible = text
	s.warn("stop", text)
}

// lives reports whether a process that is not held lives.
func (s *Service) lives(id proc.ID) bool {
	if id.PID == 0 {
		return false
	}
	st, err := s.dep.FS.Stat(id.PID)
	return err == nil && st.ID() == id && !st.State.Dead()
}

// uidSettles is how long a process may have been seen too early: a container
// runtime starts as root and changes its uid before it becomes the daemon.
const uidSettles = time.Second

// probePermission finds out at first sight whether the main process takes
// signals from us, not only when one is due. A refusal is shown at once, and
// goes to the log if it lasts.
func (s *Service) probePermission(p *person) {
	if p.id.PID == 0 || s.permitted(p) {
		return
	}
	s.refused(p)
	time.AfterFunc(uidSettles, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed || s.main != p || p.h.Ended() {
			return
		}
		if !s.permitted(p) {
			s.denied(p)
		}
		s.settle()
	})
}

func (s *Service) permitted(p *person) bool {
	if !p.h.Permitted() {
		return false
	}
	s.facts.Denied = ""
	s.apply(lifecycle.Event{Kind: lifecycle.Permitted, Who: p.id})
	return true
}

// denied notes, also in the log, that the kernel refuses us a signal to p.
func (s *Service) denied(p *person) {
	s.refused(p)
	s.tell("denied", s.facts.Denied)
}

// refused notes that the kernel refuses us a signal to p, with who is who and
// the cures.
func (s *Service) refused(p *person) {
	real, _, saved, err := s.dep.FS.Uids(p.id.PID)
	need := "another uid"
	if err == nil {
		need = fmt.Sprintf("uid %d", saved)
		if real != saved {
			need = fmt.Sprintf("uid %d or %d", real, saved)
		}
	}
	s.facts.Denied = fmt.Sprintf("signals to process %d are not permitted: podnotify runs as uid %d, the process as %s; "+
		"give podnotify the runAsUser of the daemon's process (after it dropped privileges), or uid 0 with capability KILL (a non-root user gets none of an added capability)",
		p.id.PID, s.uid(), need)
	s.apply(lifecycle.Event{Kind: lifecycle.Denied, Who: p.id})
}

// warningsMost bounds the warnings that status shows: the newest.
const warningsMost = 16

// warn shows a warning in status and names it in the log, once of each instance.
func (s *Service) warn(key, text string) {
	s.tell(key, text)
	if !s.named[key+text] || slices.Contains(s.facts.Warnings, text) {
		return
	}
	w := s.facts.Warnings
	s.facts.Warnings = append(w[max(0, len(w)+1-warningsMost):len(w):len(w)], text)
	s.stale.Store(true)
}

// unwarn takes the warnings of a key out of status: they are true no more.
func (s *Service) unwarn(key string) {
	kept := slices.DeleteFunc(slices.Clone(s.facts.Warnings), func(text string) bool { return s.named[key+text] })
	if len(kept) != len(s.facts.Warnings) {
		s.facts.Warnings = kept
		s.stale.Store(true)
	}
}

// namedMost bounds what is remembered of what the log has said of one instance.
const namedMost = 256

// tell names something once in the log, of each instance. It reports whether it
// was new.
func (s *Service) tell(key, text string) bool {
	if s.named[key+text] || len(s.named) >= namedMost {
		return false
	}
	s.named[key+text] = true
	s.say(slog.LevelWarn, text)
	return true
}

// forget has the log say of a new instance what it has said of others.
func (s *Service) forget() {
	clear(s.named)
	clear(s.strangers)
}

var errNotMember = errors.New("it is not a process of this service")
