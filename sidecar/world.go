package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
	"github.com/podnotify/podnotify/stopwatch"
)

// sampledMost bounds how many processes of one service are watched for a stop
// at a time: the newest. A stopped process is seen at first sight all the same.
const sampledMost = 64

// A process is looked at again while a service waits: first so long after it was
// new, then ever more rarely. It may have been a runtime's own that had yet to
// become the daemon, and exec is announced nowhere.
const (
	firstLook  = 20 * time.Millisecond
	rarestLook = time.Second
	fewLooks   = 4                     // at most processes; 300 ms
	looksMost  = 128                   // under way, in a storm of forks
	eachLook   = 10 * time.Millisecond // time left to each: looking takes 25 us of it
	someLooks  = 16                    // after them what takes 100 us of each is done more rarely
	atATime    = 64                    // looked at, before others have a turn
)

// afterlife is how long what exec brought into a container may outlive its entry
// process: the runtime kills it.
const afterlife = 10 * time.Second

// World is the processes around a podnotify that is not their parent: those of
// its PID namespace. It notices new ones while a service waits for them, and
// tells whose they are. One World serves all services of a sidecar.
type World struct {
	fs      proc.FS
	log     *slog.Logger
	self    int
	exe     string // our program
	hides   string // by which option procfs hides processes
	scarce  *proc.Descriptors
	above   map[int]bool // our ancestors
	own     proc.Container
	sampler *stopwatch.Sampler
	newest  *proc.Newest
	gen     atomic.Uint64
	looks   atomic.Int64 // second looks under way

	postponed atomic.Bool // a look is to come, see later

	look sync.Mutex // held by who reads /proc to change table and tops; nothing is awaited under it

	mu       sync.Mutex // leaf: no service's lock is taken under it, and nobody waits on anything
	services []*Service
	awaiting int
	late     map[*scope]bool // services that others have seen processes arrive before; a scan for them is due
	table    proc.Table
	most     int           // entries in table before those of the dead are looked for
	spare    []int         // to be looked at again, by the next who looks again
	soon     map[int]bool  // will be looked at again by those who look again
	rare     []int         // to be looked at again, all at a time, as rarely as any
	rarely   bool          // they will be
	claims   map[int]claim // main processes of services, by their numbers
	tops     map[int]top   // container entry processes and what exec brought in: PPid 0
}

// top is a process without a parent in our namespace: the entry process of a
// container, or the root of a tree started by exec.
type top struct {
	proc.Stat
	ctr proc.Container
}

// NewWorld looks around once.
func NewWorld(fs proc.FS, scarce *proc.Descriptors, log *slog.Logger) (*World, error) {
	w := &World{scarce: scarce, fs: fs, log: log, self: os.Getpid(), above: map[int]bool{}, claims: map[int]claim{}, late: map[*scope]bool{}, soon: map[int]bool{}, hides: fs.Hides()}
	w.exe, _ = fs.Exe(w.self) // empty is nobody's
	var err error
	if w.own, err = fs.Container(w.self); err != nil {
		return nil, fmt.Errorf("cannot read our own cgroup: %w", err)
	}
	if w.newest, err = fs.Newest(); err != nil {
		return nil, err
	}
	w.sampler = stopwatch.NewSampler(w.report)
	w.sampler.Sleep = stopwatch.NewSleep()
	w.scan()
	for _, pid := range w.table.Ancestors(w.self) {
		w.above[pid] = true
	}
	return w, nil
}

// Deps fills in what a service needs of the world. Bind the service with Join.
func (w *World) Deps(cfg Config, log *slog.Logger) Deps {
	sc := &scope{w: w, cfg: cfg}
	awaits := func(yes bool) {
		if !yes {
			sc.others = nil // of no use now
		}
		w.awaits(sc, yes)
	}
	return Deps{FS: w.fs, Scope: sc, Stops: w.sampler, Log: log, Awaiting: awaits, Hides: w.hides, Descriptors: w.scarce}
}

// Join tells the world of a service made with its Deps.
func (w *World) Join(s *Service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.services = append(w.services, s)
}

// Run looks out until ctx is done.
func (w *World) Run(ctx context.Context) error {
	defer w.newest.Close()
	return unlessDone(ctx, w.sampler.Run(ctx))
}

// unlessDone is err, but not where it only says that ctx is done.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

func (w *World) report(t stopwatch.Transition) {
	for _, s := range w.members() {
		if s.samples(t.Who) {
			s.Observe(t)
		}
	}
}

func (w *World) members() []*Service {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.services
}

// awaits counts the services that wait for a process. While none does, nothing
// is looked at.
func (w *World) awaits(by *scope, yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if yes {
		w.awaiting++
	} else {
		w.awaiting--
	}
	switch {
	case yes && w.awaiting == 1:
		w.sampler.Seek(w.newest.Read, w.arrived)
	case yes: // it has not been offered what others saw arrive
		if w.late[by] = true; len(w.late) > 1 {
			break // one scan for all that follow at once
		}
		time.AfterFunc(0, func() {
			w.mu.Lock()
			late, before := w.late, w.table
			w.late = map[*scope]bool{}
			w.mu.Unlock()
			pids, _ := w.scan()
			w.mu.Lock()
			var news []int // to the others: what has changed since they were told last
			for _, pid := range pids {
				if old, ok := before[pid]; !ok || changed(old, w.table[pid]) {
					news = append(news, pid)
				}
			}
			w.mu.Unlock()
			read := map[proc.ID]string{}
			for _, s := range w.members() {
				if sc, ok := s.dep.Scope.(*scope); ok && late[sc] {
					s.arrived(pids, read)
				} else if len(news) > 0 {
					s.arrived(news, read)
				}
			}
			w.lookRarely(pids) // nobody else may look again
		})
	case w.awaiting == 0:
		w.sampler.Rest()
	}
}

// scan reads the whole process table.
func (w *World) scan() (pids []int, about bool) {
	w.look.Lock()
	defer w.look.Unlock()
	table, err := w.fs.Table()
	if w.scarce.Exhausted(err) {
		w.later()
		return nil, false
	}
	if err != nil {
		w.log.Warn("cannot read the process table", "error", err)
		return nil, false
	}
	tops := map[int]top{}
	for _, st := range table {
		w.note(tops, st)
		about = about || runtimes(st.Comm)
	}
	for pid := range table {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.table, w.tops = table, tops
	w.most = 2*len(table) + 1024
	w.gen.Add(1)
	return pids, about
}

// later has all processes looked at once more, because some could not be for want of a
// descriptor.
func (w *World) later() {
	if w.postponed.Swap(true) {
		return
	}
	time.AfterFunc(rarestLook, func() {
		w.postponed.Store(false)
		if pids, _ := w.scan(); w.awaited(true) {
			w.offer(pids)
		}
	})
}

// note keeps a process that has no parent here, if it is one of a container.
func (w *World) note(tops map[int]top, st proc.Stat) {
	if st.PPID != 0 || st.Kernel() || runtimes(st.Comm) {
		return
	}
	if c, err := w.fs.Container(st.PID); err == nil && w.stands(st) {
		tops[st.PID] = top{st, c}
	}
}

// runtimes reports whether a process is a container runtime's own, which has yet
// to become the container's (runc, youki) or never will. It may be in a cgroup
// and have a uid that are not the container's.
func runtimes(comm string) bool {
	return strings.HasPrefix(comm, "runc:[") || strings.HasPrefix(comm, "youki:[") || comm == "crun"
}

// know takes processes into the table: new ones, and again those that may have
// become something else. It returns who lives, those of them who are new or may be
// others by now, and whether one is still about to be.
// With told the services are told of the news next.
func (w *World) know(pids []int, told bool) (found, news []int, about bool) {
	w.look.Lock()
	defer w.look.Unlock()
	w.mu.Lock()
	tops := maps.Clone(w.tops)
	w.mu.Unlock()
	for pid, t := range tops { // exec probes come and go
		if !w.alive(t.Stat) {
			delete(tops, pid)
		}
	}
	var differ []proc.Stat // from the table; most of a crowd do nothing
	for _, pid := range pids {
		st, ok := w.process(pid)
		if !ok {
			continue
		}
		found = append(found, pid)
		about = about || runtimes(st.Comm)
		w.mu.Lock()
		old, ok := w.table[pid]
		w.mu.Unlock()
		if !ok || old != st {
			differ = append(differ, st)
		}
		if !ok || changed(old, st) {
			news = append(news, pid)
		}
		delete(tops, pid)
		w.note(tops, st)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, st := range differ {
		if old, ok := w.table[st.PID]; !ok || told || old.Start != st.Start {
			w.table[st.PID] = st
		}
	}
	if !maps.Equal(tops, w.tops) {
		w.tops = tops
		w.gen.Add(1)
	}
	return found, news, about
}

// changed reports whether a process may be another than when it was looked at before:
// it has called exec, has another parent, or has stopped.
func changed(old, st proc.Stat) bool {
	return old.Start != st.Start || old.Faults != st.Faults || old.PPID != st.PPID || old.Comm != st.Comm ||
		old.State.Stopped() != st.State.Stopped() || runtimes(st.Comm)
}

// alive reports whether a process still is the one that was seen.
func (w *World) alive(st proc.Stat) bool {
	now, err := w.fs.Stat(st.PID)
	return !w.scarce.Exhausted(err) && err == nil && now.Start == st.Start && !now.Ending()
}

// stands reports whether what was read about a process since st is true: it is no
// other by now, and neither it nor its leading thread has begun to end.
func (w *World) stands(st proc.Stat) bool {
	now, err := w.fs.Stat(st.PID)
	return !w.scarce.Exhausted(err) && err == nil && now.Start == st.Start && !now.Ending() && now.Headless == st.Headless
}

// arrived is told of pid numbers that may be new.
func (w *World) arrived(from, to int, all bool) {
	var pids []int
	about := false
	if all {
		pids, about = w.scan()
	} else {
		if w.crowded() {
			crowd, _ := w.scan()
			w.offer(crowd) // what has changed since is in the table now
		}
		for pid := from; pid < to; pid++ {
			pids = append(pids, pid)
		}
		pids, _, about = w.know(pids, true)
	}
	if len(pids) == 0 {
		return
	}
	w.offer(pids)
	if pids = w.begin(pids); len(pids) == 0 {
		return
	}
	if w.looks.Add(1) > looksMost && !about {
		w.looks.Add(-1)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.spare = append(w.spare, pids...)
		return
	}
	w.lookAgain(pids, 1)
}

// begin is those of new processes that are not going to be looked at again soon anyway: a
// number is named three times.
func (w *World) begin(pids []int) (fresh []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, pid := range pids {
		if !w.soon[pid] {
			w.soon[pid] = true
			fresh = append(fresh, pid)
		}
	}
	return fresh
}

// crowded reports whether most of the table may be the dead, of whose end nobody
// tells.
func (w *World) crowded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.table) > w.most
}

// lookAgain looks once more at processes that were new. It goes on for as long as
// one of them is still a runtime's, because between create and start of a
// container any time may pass, as long as a service waits for a command line
// that one may still get, and as long as it is not clear which of several is the
// daemon: all but one may end. The timers are not stopped when the world ends:
// then they find nobody waiting.
func (w *World) lookAgain(pids []int, n int) {
	rarest := max(rarestLook, time.Duration(len(pids))*eachLook)
	time.AfterFunc(min(firstLook<<(n-1), rarest), func() {
		w.mu.Lock()
		pids = append(pids, w.spare...)
		w.spare = nil
		w.mu.Unlock()
		left, about := w.reconsider(pids, n)
		goesOn := len(left) > 0 && w.awaited(about || n < fewLooks || w.unclear())
		soon := goesOn && firstLook<<n < rarestLook
		w.mu.Lock()
		for _, pid := range pids {
			delete(w.soon, pid)
		}
		for _, pid := range left {
			if soon {
				w.soon[pid] = true
			}
		}
		w.mu.Unlock()
		if soon {
			w.lookAgain(left, n+1)
			return
		}
		if goesOn {
			w.lookRarely(left)
		}
		w.looks.Add(-1)
	})
}

// lookRarely goes on with that for all who are not so new any more, together: after each
// look every service thinks about whom it could have.
func (w *World) lookRarely(pids []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rare = append(w.rare, pids...)
	slices.Sort(w.rare) // numbers are named more than once
	w.rare = slices.Compact(w.rare)
	if !w.rarely {
		w.rarely = true
		w.lookAtRare(1)
	}
}

// lookAtRare is the next of these looks. The lock is held.
func (w *World) lookAtRare(n int) {
	time.AfterFunc(max(rarestLook, time.Duration(len(w.rare))*eachLook), func() {
		w.mu.Lock()
		pids := w.rare
		w.rare = nil
		w.mu.Unlock()
		left, about := w.reconsider(pids, n)
		goesOn := len(left) > 0 && w.awaited(about || w.unclear())
		w.mu.Lock()
		defer w.mu.Unlock()
		if goesOn {
			w.rare = append(w.rare, left...)
			slices.Sort(w.rare)
			w.rare = slices.Compact(w.rare)
		}
		if w.rarely = len(w.rare) > 0; w.rarely {
			w.lookAtRare(n + 1)
		}
	})
}

// reconsider is the n-th look at processes: the services are told who may have become
// another. It returns who lives, and whether one of them is still a runtime's.
func (w *World) reconsider(pids []int, n int) (left []int, about bool) {
	var changed []int
	for some := range slices.Chunk(pids, atATime) {
		found, news, a := w.know(some, true)
		left, changed, about = append(left, found...), append(changed, news...), about || a
	}
	if n%4 == 0 && n <= someLooks || n%someLooks == 0 {
		changed = left // a title may be written without a page fault (setproctitle)
	}
	if len(changed) > 0 || len(left) < len(pids) || w.unclear() { // who ended was in the way, maybe
		w.offer(changed)
	}
	return left, about
}

// awaited reports whether a service waits for a process, or for one with a
// certain command line.
func (w *World) awaited(any bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.awaiting > 0 && (any || slices.ContainsFunc(w.services, func(s *Service) bool { return s.cfg.Process != nil }))
}

// unclear reports whether a service has several processes to choose from.
func (w *World) unclear() bool {
	return slices.ContainsFunc(w.members(), func(s *Service) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.awaiting && len(s.facts.Candidates) > 0
	})
}

// process reads who pid is. Most new numbers are threads, which are no processes
// of their own: their numbers can be read, but not opened. Who is in the table is one.
func (w *World) process(pid int) (proc.Stat, bool) {
	w.mu.Lock()
	known, ok := w.table[pid]
	w.mu.Unlock()
	if ok {
		if st, err := w.fs.Stat(pid); err == nil && st.Start == known.Start && !st.Ending() {
			return st, true
		}
	}
	h, err := w.fs.Open(pid)
	if w.scarce.Exhausted(err) {
		w.later()
	}
	if err != nil {
		return proc.Stat{}, false
	}
	defer h.Close()
	st, err := w.fs.Stat(pid)
	return st, err == nil && st.ID() == h.ID()
}

func (w *World) offer(pids []int) {
	read := map[proc.ID]string{}
	for _, s := range w.members() {
		s.arrived(pids, read)
	}
}

// samples reports whether the stops of a process are watched for this service,
// and are this service's: a runtime's process may have become another's daemon.
func (s *Service) samples(id proc.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.people[id.PID]
	return p != nil && p.sampled && p.id == lifecycle.ProcID(id) && (p == s.main || s.dep.Scope.Member(id.PID))
}

// arrived is told of processes that are new in the namespace, or may have
// become something else since. Several services that are told of the same share what
// they have read of command lines.
func (s *Service) arrived(pids []int, read map[proc.ID]string) {
	sc, ok := s.dep.Scope.(*scope)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.awaiting {
		return
	}
	sc.doubt(pids)
	sc.read = read
	defer func() { sc.read = nil }()
	if s.m.AwaitsStop(s.now()) {
		for _, pid := range slices.Backward(pids) { // the newest first
			if p := s.people[pid]; p != nil && p.sampled && !p.h.Ended() {
				continue
			}
			if sc.stranger(pid) {
				continue
			}
			st, err := s.dep.FS.Stat(pid)
			if err != nil || !st.State.Stopped() && !s.room() {
				continue
			}
			if !runtimes(st.Comm) && !sc.Member(pid) {
				continue
			}
			if p := s.meetID(st.ID()); p != nil {
				s.judgeMember(p)
				s.sample(p)
			}
		}
		s.judgeFirst(sc)
	}
	if s.m.Main() == (lifecycle.ProcID{}) {
		s.elect(sc)
	}
	s.settle()
}

// elect makes the process that stands for the service its main process, if it
// is clear which that is.
func (s *Service) elect(sc *scope) {
	var after uint64
	if x := s.m.LastExit(); x != nil {
		after = x.Who.Start // a new instance is younger than the last one
	}
	sc.shared = ""
	pid, candidates := sc.elect(after, s.leftovers())
	if s.unwarn("shared"); pid == 0 && sc.shared != "" {
		s.warn("shared", sc.shared)
	}
	if pid == 0 {
		if !slices.Equal(candidates, s.facts.Candidates) {
			s.facts.Candidates = candidates
			s.stale.Store(true)
		}
		return
	}
	h, err := s.openIf(pid, func() bool { return sc.is(pid) })
	if err != nil {
		return
	}
	if h.ID() == s.entry { // its container lives on without the main process
		h.Close()
		return
	}
	s.elected = true
	s.adopt(h)
}

// leftovers is when, in clock ticks since boot, the last main process ended, if
// that is not long ago. Where it was a container's entry process, what has no
// parent and is older was brought in by exec, and is no new instance.
func (s *Service) leftovers() uint64 {
	if proc.Uptime()-s.left > afterlife {
		return 0
	}
	return uint64(s.left / clockTick)
}

// judgeMember looks for a daemon that is the first process of a PID namespace
// below ours.
func (s *Service) judgeMember(p *person) {
	if s.cfg.Policy.Expect != lifecycle.ExpectStop || s.facts.Impossible != "" {
		return
	}
	if ns, err := s.dep.FS.NSpid(p.id.PID); err == nil && len(ns) > 1 && ns[len(ns)-1] == 1 {
		st, _ := s.dep.FS.Stat(p.id.PID)
		s.impossible(st)
		s.hopeless = p.h.ID()
	}
}

// ours reports whether a process runs podnotify, or the podnotify-healthcheck
// beside it. Where a container boundary is visible that may well be a daemon's
// podnotify run; where there is none, it is one of our own commands or checks.
func (w *World) ours(pid int) bool {
	exe, err := w.fs.Exe(pid)
	return err == nil && (exe == w.exe || exe == filepath.Join(filepath.Dir(w.exe), "podnotify-healthcheck"))
}

// judgeFirst looks whether process 1 of our own PID namespace is the daemon.
func (s *Service) judgeFirst(sc *scope) {
	w := sc.w
	if s.cfg.Policy.Expect != lifecycle.ExpectStop || s.facts.Impossible != "" || w.self == 1 || w.above[1] {
		return
	}
	st, err := s.dep.FS.Stat(1)
	if err != nil {
		return
	}
	told := strings.Contains(st.Comm, s.cfg.Name)
	if sc.cfg.Process != nil {
		told = sc.matches(st.ID())
	}
	if !told && !s.inside.environ(s.dep.FS, 1, "UPSTART_JOB", insideLong) { // of the same uid; others' cannot be read
		return // an init of some kind, which is process 1 for others' sake
	}
	s.impossible(st)
}

// scope is the service's share of a World. See spec "The service's processes":
// the container named by select.container, by default the one called like the
// service, else the only other one; where no container boundary is visible,
// every process of the namespace but ours, our ancestors and process 1.
type scope struct {
	w         *World
	cfg       Config
	contained atomic.Bool // the service was seen in a container, so it will be in one again
	claimed   int         // the number of its main process; under w.mu
	inside    insides
	others    map[int]uint64     // whom select.process did not fit when they were looked at last, and when they started; of the service's lock
	read      map[proc.ID]string // command lines read a moment ago; likewise. Nil: there are none
	shared    string             // the last process that it could have been, and whose it is
}

// doubt has processes looked at again, and those above them: they may be others by now.
func (sc *scope) doubt(pids []int) {
	w := sc.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(sc.others) > 2*len(w.table)+1024 { // most of them are dead
		clear(sc.others)
	}
	for _, pid := range pids {
		for n := 0; n < 1024 && pid > 1; n++ {
			delete(sc.others, pid)
			pid = w.table[pid].PPID
		}
	}
}

// fits reports whether select.process fits a process of the table, and keeps it in mind
// if not: in a crowd most do not, and every new process has all of them asked.
func (sc *scope) fits(st proc.Stat) bool {
	switch {
	case sc.cfg.Process == nil:
		return true
	case sc.other(st):
		return false
	}
	cmd, ok := sc.cmdline(st.ID())
	if ok && sc.cfg.Process.MatchString(cmd) {
		return true
	}
	if ok && cmd != "" { // it is in no exec
		if sc.others == nil {
			sc.others = map[int]uint64{}
		}
		sc.others[st.PID] = st.Start
	}
	return false
}

func (sc *scope) other(st proc.Stat) bool {
	start, ok := sc.others[st.PID]
	return ok && start == st.Start
}

// stranger reports whether select.process fits neither a process nor any above it, as far
// as they were looked at. It says so of most, and spares them to be looked at anew.
func (sc *scope) stranger(pid int) bool {
	w := sc.w
	if sc.cfg.Process == nil {
		return false
	}
	for range 1024 {
		w.mu.Lock()
		st, ok := w.table[pid]
		w.mu.Unlock()
		if !ok || runtimes(st.Comm) || sc.fits(st) {
			return false
		}
		if pid = st.PPID; pid <= 1 || pid == w.self || w.above[pid] {
			return true
		}
	}
	return false
}

func (sc *scope) Generation() uint64 { return sc.w.gen.Load() }

// container chooses the service's container. bounded is false where no container
// boundary is visible, or select.process has to tell without; others lists the
// choices if it is unclear. The container is zero if there is none at present.
func (sc *scope) container() (c proc.Container, bounded bool, others []string) {
	w := sc.w
	w.mu.Lock()
	defer w.mu.Unlock()
	found := map[string]proc.Container{}
	for pid, t := range w.tops {
		if pid != 1 && !w.above[pid] && pid != w.self && t.ctr.Cgroup != w.own.Cgroup {
			found[t.ctr.Cgroup] = t.ctr
		}
	}
	want := sc.cfg.Container
	if want == "" {
		want = sc.cfg.Name
	}
	var newest uint64
	for pid, t := range w.tops { // the newest instance, while the last one is being cleared away
		if f, ok := found[t.ctr.Cgroup]; ok && pid != 1 && f.Name == want && t.Start >= newest {
			c, bounded, newest = f, true, t.Start
		}
	}
	switch {
	case bounded:
		return c, true, nil
	case sc.cfg.Container == "" && len(found) == 0:
		return proc.Container{}, sc.contained.Load(), nil
	case sc.cfg.Container == "" && len(found) == 1:
		for _, c = range found {
		}
		return c, true, nil
	case len(found) > 0 && sc.cfg.Process != nil:
		return proc.Container{}, false, nil
	}
	return proc.Container{}, true, names(found)
}

func names(cs map[string]proc.Container) []string {
	var out []string
	for _, c := range cs {
		name := c.Name
		if name == "" {
			name = strings.TrimSpace(c.Cgroup)
		}
		out = append(out, "container "+name)
	}
	slices.Sort(out)
	return out[:min(len(out), 8)]
}

// Member implements Scope.
func (sc *scope) Member(pid int) bool {
	_, ok := sc.Entry(pid)
	return ok
}

// Entry implements Scope. A process belongs to one service: what is another's main
// process, and what stands below it, is not this one's.
func (sc *scope) Entry(pid int) (int, bool) {
	entry, ok := sc.entry(pid)
	if !ok || sc.owner(pid) != "" || entry != pid && sc.owner(entry) != "" {
		return 0, false
	}
	return entry, true
}

// claim is a process that is the main process of a service.
type claim struct {
	start uint64
	by    *scope
}

// claim makes a process the service's own, unless it is another's already; the zero
// ID gives up the one before.
func (sc *scope) claim(id proc.ID) {
	w := sc.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if old, ok := w.claims[sc.claimed]; ok && old.by == sc {
		delete(w.claims, sc.claimed)
	}
	sc.claimed = 0
	if old, ok := w.claims[id.PID]; id.PID > 0 && (!ok || old.start != id.Start) {
		w.claims[id.PID] = claim{id.Start, sc}
		sc.claimed = id.PID
	}
	w.gen.Add(1)
}

// owner names the other service that a process is the main process of.
func (sc *scope) owner(pid int) string {
	w := sc.w
	w.mu.Lock()
	c, ok := w.claims[pid]
	w.mu.Unlock()
	if !ok || c.by == sc {
		return ""
	}
	if st, err := w.fs.Stat(pid); err != nil || st.Start != c.start {
		return ""
	}
	return c.by.cfg.Name
}

func (sc *scope) entry(pid int) (int, bool) {
	w := sc.w
	if pid == w.self || pid == 1 || w.above[pid] {
		return 0, false
	}
	root, entry := sc.climb(pid)
	if root.PID == 0 {
		return 0, false
	}
	if root.PPID == 0 {
		w.meet(root)
	}
	c, bounded, others := sc.container()
	switch {
	case len(others) > 0:
		return 0, false
	case !bounded:
		return entry, entry != 0
	}
	theirs, err := w.fs.Container(pid)
	if w.scarce.Exhausted(err) || err != nil || !c.Holds(theirs) {
		return 0, false
	}
	first := w.first(c.Cgroup)
	if root.PPID == 0 && root.PID != first {
		return 0, false // brought in by exec (kubectl exec, exec probes)
	}
	sc.contained.Store(true)
	if sc.cfg.Process == nil && first != 0 {
		entry = first // also of an orphan that process 1 adopted
	}
	return entry, entry != 0
}

// climb goes from a process up to the one whose parent is none of the service's,
// its root, and names the uppermost that select.process fits. The root is zero if
// there is none.
func (sc *scope) climb(pid int) (root proc.Stat, entry int) {
	w := sc.w
	st, err := w.fs.Stat(pid)
	for range 1024 {
		if w.scarce.Exhausted(err) || err != nil || st.Kernel() {
			break
		}
		if sc.matches(st.ID()) {
			entry = st.PID
		}
		if up := st.PPID; up <= 1 || up == w.self || w.above[up] {
			return st, entry
		}
		st, err = above(w.fs, st)
	}
	return proc.Stat{}, 0
}

// meet takes in a process without a parent that has become what it is, and spoken
// or stopped, since it was looked at last.
func (w *World) meet(st proc.Stat) {
	w.mu.Lock()
	_, met := w.tops[st.PID]
	w.mu.Unlock()
	if !met {
		w.know([]int{st.PID}, false)
	}
}

// above is the parent of a process, or the process itself once more if its
// parent has changed since st was read: when a parent ends, its children are
// another's, and the number they had for it is nobody's, or soon a stranger's.
func above(fs proc.FS, st proc.Stat) (proc.Stat, error) {
	up, err := fs.Stat(st.PPID)
	if err == nil && !up.State.Dead() && up.Start <= st.Start {
		return up, nil
	}
	again, e := fs.Stat(st.PID)
	switch {
	case e != nil:
		return proc.Stat{}, e
	case again.Start != st.Start:
		return proc.Stat{}, proc.ErrReused
	case again.PPID != st.PPID:
		return again, nil
	}
	return up, err // its leading thread has ended, it has not
}

// first is the entry process of the container with the given cgroup: the oldest
// living one that has no parent here. 0 if there is none.
func (w *World) first(cgroup string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	var first top
	for pid, t := range w.tops {
		if pid == 1 || t.ctr.Cgroup != cgroup ||
			first.PID != 0 && (t.Start > first.Start || t.Start == first.Start && pid > first.PID) {
			continue
		}
		if w.alive(t.Stat) {
			first = t
		}
	}
	return first.PID
}

func (sc *scope) matches(id proc.ID) bool {
	if sc.cfg.Process == nil {
		return true
	}
	cmd, ok := sc.cmdline(id)
	return ok && sc.cfg.Process.MatchString(cmd)
}

// cmdline is the command line of a process, if that is to be had in time.
func (sc *scope) cmdline(id proc.ID) (string, bool) {
	if cmd, ok := sc.read[id]; ok {
		return cmd, true
	}
	cmd, ok := sc.inside.cmdline(sc.w.fs, id.PID, insideLong)
	if ok && sc.read != nil {
		sc.read[id] = cmd
	}
	return cmd, ok
}

// is reports whether the process that has a number now is what elect took it for. What
// was read of its command line before may be another's.
func (sc *scope) is(pid int) bool {
	st, err := sc.w.fs.Stat(pid)
	if err != nil || st.Ending() || runtimes(st.Comm) {
		return false
	}
	if _, bounded, _ := sc.container(); !bounded && sc.w.ours(pid) {
		return false
	}
	delete(sc.read, st.ID())
	entry, ok := sc.Entry(pid)
	return ok && entry == pid && sc.matches(st.ID())
}

// elect names the process that stands for the service, or what it could be.
// Processes that started before after do not stand for a new instance, nor do
// those that exec left in the container, nor a runtime's own that has yet to
// become the daemon.
func (sc *scope) elect(after, leftovers uint64) (int, []string) {
	w := sc.w
	c, bounded, others := sc.container()
	switch {
	case len(others) > 0:
		return 0, others
	case bounded && c.Cgroup == "":
		return 0, nil // the container has not started
	}
	w.mu.Lock()
	var pool []proc.Stat
	for pid, st := range w.table {
		if pid == 1 || pid == w.self || w.above[pid] || st.Kernel() || st.Start < after || bounded && st.PPID == 0 && st.Start <= leftovers {
			continue
		}
		if !bounded && sc.cfg.Process == nil && st.PPID > 1 && st.PPID != w.self && !w.above[st.PPID] {
			continue // its parent stands for it
		}
		if sc.other(st) {
			continue
		}
		pool = append(pool, st)
	}
	w.mu.Unlock()
	slices.SortFunc(pool, func(a, b proc.Stat) int {
		if a.Start != b.Start {
			return int(int64(a.Start) - int64(b.Start))
		}
		return a.PID - b.PID
	})
	var found []proc.Stat
	for _, st := range pool {
		if !sc.fits(st) {
			continue
		}
		now, err := w.fs.Stat(st.PID)
		if err != nil || now.Start != st.Start || now.Ending() {
			w.mu.Lock()
			if w.table[st.PID].Start == st.Start {
				delete(w.table, st.PID)
			}
			w.mu.Unlock()
			continue
		}
		if runtimes(now.Comm) || !bounded && w.ours(st.PID) { // podnotify status, say
			continue
		}
		if e, ok := sc.entry(st.PID); !ok || e != st.PID || !w.stands(now) {
			continue
		}
		if owner := sc.owner(st.PID); owner != "" {
			sc.shared = fmt.Sprintf("process %d could be this service, and is service %s already: a process belongs to one service, the first in the file; "+
				"set select.container or select.process so that they differ", st.PID, owner)
			continue
		}
		found = append(found, st)
		if bounded {
			break // the oldest is the entry process
		}
	}
	switch {
	case len(found) == 1:
		return found[0].PID, nil
	case len(found) > 1:
		var out []string
		for _, st := range found[:min(len(found), 8)] {
			out = append(out, fmt.Sprintf("process %d (%s)", st.PID, st.Comm))
		}
		return 0, out
	}
	return 0, nil
}
