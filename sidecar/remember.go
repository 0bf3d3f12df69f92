package sidecar

import (
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// What podnotify knows is on file before anybody is told: see package journal for
// why, and for why nobody waits. A change is written at the end of the piece of news
// that brought it (remember). Where the directory is not memory it is handed to the
// journal instead, and here is the waiting room: until it is written Look gives the
// snapshot of before, and barriers and signals are held.

// statusEvery is how often a change of STATUS alone is written.
const statusEvery = time.Second

// heldMost bounds the barriers that wait for a write: a daemon that sends more of
// them at once gets its answer early.
const heldMost = 256

// memory is what a service has handed to the journal.
type memory struct {
	file *journal.File              // nil: nothing is kept
	put  func(*journal.Record) bool // file.Put; a test may have one that refuses

	core    core   // as handed over last
	said    uint64 // the STATUS that went with it
	at      time.Time
	due     time.Time              // when a change of STATUS alone is to be written; zero: none waits
	writing bool                   // what was handed over is not published yet, and nothing later is
	next    *lifecycle.Snapshot    // of what was handed over, if more has happened since
	ended   chan struct{}          // closed when the write under way has
	result  atomic.Pointer[result] // how the write under way has ended; nil: it has not

	held  []func(error) // wait for the write under way
	later []func(error) // wait for the one after it
}

// keep says where, nil for nowhere.
func (m *memory) keep(file *journal.File) {
	if m.file = file; file != nil {
		m.put = file.Put
	}
}

type result struct{ err error }

// core is what is written at once when it changes.
type core struct {
	lifecycle.Record
	access  Access
	begun   uint64
	elected bool
	alive   bool
	left    time.Duration
}

// trouble is why the journal keeps nothing, nil if it does.
func (s *Service) trouble() *string {
	if s.mem.file == nil {
		return nil
	}
	return s.mem.file.Trouble()
}

func (s *Service) core() core {
	return core{Record: s.m.Record(), access: s.access, begun: s.begun, elected: s.elected, alive: s.facts.ContainerAlive, left: s.left}
}

// remember writes what has changed, or hands it over. The lock is held, and s.main is who the
// machine says it is.
func (s *Service) remember() {
	m := &s.mem
	if m.file == nil {
		s.release(&m.later, nil)
		return
	}
	if m.writing {
		if r := m.result.Load(); r == nil || !s.publish(r.err) {
			return // publish calls again
		}
	}
	now := s.now()
	c := s.core()
	_, said := s.m.Text()
	changed := c != m.core
	switch {
	case changed:
	case said == m.said:
		m.due = time.Time{}
		s.release(&m.later, nil)
		return
	case now.Before(m.at.Add(statusEvery)):
		m.due = m.at.Add(statusEvery)
		s.release(&m.later, nil)
		return
	}
	m.core, m.said, m.at, m.due = c, said, now, time.Time{}
	if waits := changed && !s.dep.Parent && s.m.Phase() != lifecycle.Gone; !waits {
		// STATUS is no promise; a process that is gone proves itself that a record
		// of its life is old; and with podnotify run the daemon begins anew.
		s.release(&m.later, nil)
		// The parent has let a daemon go on that runs where we do, once we rest.
		if r := s.record(c); s.dep.Parent || !m.put(r) {
			m.file.Write(r, nil)
		}
		return
	}
	r := s.record(c)
	if m.put(r) {
		s.release(&m.later, nil)
		return
	}
	before := s.snap.Load()
	if before == nil {
		before = s.snapshot()
		s.snap.Store(before)
	}
	ended := make(chan struct{})
	m.ended = ended
	m.writing = m.file.Write(r, func(err error) { s.written(err, ended) })
	if !m.writing {
		s.release(&m.later, nil)
		return
	}
	m.held, m.later = m.later, m.held[:0]
}

// written is told by the journal. It must not wait for the lock: whoever has it
// publishes, at the latest the goroutine made here.
func (s *Service) written(err error, ended chan struct{}) {
	s.mem.result.Store(&result{err})
	close(ended)
	if s.mu.TryLock() {
		s.publishWritten()
		s.mu.Unlock()
		return
	}
	go func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.publishWritten()
	}()
}

// publishWritten publishes what has been written, if somebody has not done so
// already, and hands over what has happened meanwhile. The lock is held.
func (s *Service) publishWritten() {
	if s.mem.writing && s.mem.result.Load() != nil {
		s.remember()
		if d := s.mem.due; !d.IsZero() && !s.closed { // a STATUS that came meanwhile
			s.arm(d)
		}
	}
}

// publish shows what has been written. The lock is held. It reports whether more
// is to be written.
func (s *Service) publish(err error) (more bool) {
	m := &s.mem
	m.writing = false
	m.result.Store(nil)
	if m.next != nil {
		s.snap.Store(m.next)
		m.next = nil
	} else {
		s.snap.Store(s.snapshot())
		s.stale.Store(false)
	}
	s.release(&m.held, err)
	if s.closed {
		s.release(&m.later, err)
	}
	return !s.closed
}

func (s *Service) release(held *[]func(error), err error) {
	for _, f := range *held {
		f(err)
	}
	clear(*held)
	*held = (*held)[:0]
}

// unwritten is what may be told while a change is being written: what was known
// before, and what is not on file because the kernel tells it at any time: that the
// main process is paused, or has ended. The lock is held.
func (s *Service) unwritten() *lifecycle.Snapshot {
	n := s.snap.Load()
	if n.Main == (lifecycle.ProcID{}) {
		return n
	}
	if s.m.Main() != n.Main {
		if p := s.m.Phase(); p != lifecycle.Gone && p != lifecycle.Starting {
			return n // it has handed over
		}
		n = s.snapshot() // nothing that holds of an ended process, and no promise of the next
		s.snap.Store(n)
		return n
	}
	if now := s.m.Paused(); n.Paused != now {
		c := *n
		c.Paused = now
		s.snap.Store(&c)
		return &c
	}
	return n
}

// preserve keeps what was handed over from what happens next, until it is
// published. The lock is held.
func (s *Service) preserve() {
	if s.mem.writing && s.mem.next == nil {
		s.mem.next = s.snapshot()
	}
}

// glance is how long an answer waits for a change that is just being written. In
// memory that takes some ten microseconds, and the answer is the newer one for it.
// If the directory is not in memory, or hangs, the answer tells what was before.
const glance = time.Millisecond

// await gives the write under way a moment. The lock is held, but not meanwhile.
func (s *Service) await() {
	ended := s.mem.ended
	s.mu.Unlock()
	defer s.mu.Lock()
	timer := time.NewTimer(glance)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
}

// remembered reports whether everything is on file that has to be.
func (s *Service) remembered() bool {
	return s.mem.file == nil || !s.mem.writing && s.core() == s.mem.core
}

// hold has f called when what is known now is on file. The lock is held; the news
// that it belongs to ends with settle.
func (s *Service) hold(f func(error)) { s.mem.later = append(s.mem.later, f) }

// holdBarrier keeps the descriptor of a barrier until what was said before it can
// be seen. It reports false if that is so already, and of what is no pipe: it may not
// be closed by the journal's goroutine, and libsystemd sends nothing else.
func (s *Service) holdBarrier(fd int) bool {
	if s.remembered() || !notify.IsPipe(fd) || len(s.mem.later)+len(s.mem.held) >= heldMost {
		return false
	}
	s.hold(func(error) { unix.Close(fd) })
	return true
}

// record is what is written.
func (s *Service) record(c core) *journal.Record {
	r := &journal.Record{State: c.Record, Entry: s.entry, Access: c.access.String(), Begun: c.begun, Elected: c.elected, Alive: c.alive, Left: c.left}
	text, _ := s.m.Text()
	r.State.Status = string(text)
	if s.main != nil {
		r.Main = journal.Process{ID: s.main.h.ID(), Inode: s.main.h.Inode(), Container: s.box}
	}
	return r
}

// recall takes up what the podnotify before this one knew, as far as it can be
// proven. It comes before anything is heard or answered.
func (s *Service) recall() {
	if s.mem.file == nil || s.dep.Parent {
		return
	}
	r, err := s.mem.file.Read()
	if err != nil {
		s.warn("state", err.Error())
	}
	if r == nil {
		return
	}
	world, h := s.mem.file.Look(s.dep.FS, r)
	verdict := r.Judge(world, s.cfg.Policy.Expect)
	s.say(slog.LevelInfo, "found what was known before podnotify was restarted", "verdict", verdict.String(), "phase", r.State.Phase.String(), "pid", r.Main.PID)
	if verdict == journal.Foreign {
		return
	}
	main := r.State.Main
	s.blind = main.PID == 0 && main != lifecycle.ProcID{}
	if verdict != journal.Changed {
		s.m = lifecycle.Restore(s.cfg.Policy, r.State)
		s.entry, s.begun, s.elected = r.Entry, r.Begun, r.Elected
		if a, ok := ParseAccess(r.Access); ok {
			s.access = a
		}
	}
	switch verdict {
	case journal.Idle:
		s.left = r.Left
		s.apply(lifecycle.Event{Kind: lifecycle.Resumed})
		if x := s.m.LastExit(); x != nil && r.Alive {
			s.facts.ContainerAlive = s.containerAlive(x.Who)
		}
	case journal.Lost:
		// That its container lives on without it is not held against it: it may have
		// handed over to another, and said so to nobody.
		s.apply(lifecycle.Event{Kind: lifecycle.Ended, Who: main, Missed: true})
	case journal.Proven:
		p := s.meet(h.ID().PID, h)
		p.member, p.generation = true, s.generation()
		h = nil
		s.facts.Adopted = true
		for _, who := range []lifecycle.ProcID{r.State.Voice, r.State.Owed} {
			if who != (lifecycle.ProcID{}) && who != main && s.meetID(proc.ID(who)) == nil {
				s.apply(lifecycle.Event{Kind: lifecycle.Ended, Who: who, Missed: true})
			}
		}
		s.setMain(main)
		s.apply(lifecycle.Event{Kind: lifecycle.Resumed, Who: main})
		s.resumeStop()
	}
	if h != nil {
		h.Close()
	}
}

// resumeStop goes on with a stop that was being answered: a process that runs has
// had its answer, one that does not gets it again.
func (s *Service) resumeStop() {
	who := s.m.Owed()
	p := s.find(who)
	if who == (lifecycle.ProcID{}) || p == nil {
		return
	}
	st, err := p.h.State()
	switch {
	case err != nil:
	case st.Stopped():
		s.apply(lifecycle.Event{Kind: lifecycle.Stopped, Who: who, Missed: true})
	default:
		s.apply(lifecycle.Event{Kind: lifecycle.Continued, Who: who})
	}
}

// missed reports whether a process may have spoken, or stopped and been continued,
// before this podnotify listened. The kernel tells starts to 10 ms; one in the very
// tick in which the socket was bound counts as later, since nothing speaks at once.
func (s *Service) missed(id lifecycle.ProcID) bool {
	switch {
	case id.PID <= 0:
		return s.blind
	case s.dep.Parent, id.Start >= s.since:
		return false
	}
	if !s.cfg.Policy.Expect.Stops() {
		return true
	}
	st, err := s.dep.FS.Stat(id.PID)
	return err != nil || !st.State.Stopped() // it waits for us still
}
