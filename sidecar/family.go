package sidecar

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
	"github.com/podnotify/podnotify/stopwatch"
)

// Family is the processes below a podnotify that started the daemon (run): CMD
// and its descendants. Those whose parent went away come to us, because run is a
// subreaper (PR_SET_CHILD_SUBREAPER, Linux 3.4).
type Family struct {
	fs      proc.FS
	scarce  *proc.Descriptors
	self    int
	cmd     atomic.Pointer[proc.ID] // CMD; nil: it has not been started, or was gone at once
	sampler *stopwatch.Sampler
	newest  *proc.Newest
	service *Service

	mu    sync.Mutex
	depth map[proc.ID]int  // how many forks our children are away from CMD
	told  map[proc.ID]bool // whose children are in depth
	early []proc.ID        // children of ours that ended before we knew whose they were
}

// NewFamily returns the family of this process.
func NewFamily(fs proc.FS, scarce *proc.Descriptors) (*Family, error) {
	f := &Family{fs: fs, scarce: scarce, self: os.Getpid()}
	var err error
	if f.newest, err = fs.Newest(); err != nil {
		return nil, err
	}
	f.sampler = stopwatch.NewSampler(f.report)
	f.sampler.Sleep = stopwatch.NewSleep()
	return f, nil
}

// Deps fills in what the service needs of its family.
func (f *Family) Deps(log *slog.Logger) Deps {
	return Deps{FS: f.fs, Scope: f, Stops: f.sampler, Log: log, Parent: true, Started: f.started, Orphans: f.orphans, Left: f.remaining, Awaiting: f.awaits, Hides: f.fs.Hides(), Descriptors: f.scarce}
}

// Join tells the family of its service, before it serves.
func (f *Family) Join(s *Service) { f.service = s }

// Begin names the process that was started.
func (f *Family) Begin(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.depth, f.told, f.early = map[proc.ID]int{}, map[proc.ID]bool{}, nil
	f.cmd.Store(nil)
	if st, err := f.fs.Stat(pid); err == nil {
		id := st.ID()
		f.cmd.Store(&id)
		f.depth[id] = 0
	}
}

// Observe implements supervise.Service.
func (f *Family) Observe(t stopwatch.Transition) { f.service.Observe(t) }

// Start implements supervise.Service, as the methods below do.
func (f *Family) Start(start func() (*proc.Handle, error)) error { return f.service.Start(start) }

// StopAsked implements supervise.Service.
func (f *Family) StopAsked(kill bool) { f.service.StopAsked(kill) }

// Signal implements supervise.Service.
func (f *Family) Signal(sig unix.Signal) error { return f.service.Signal(sig) }

// Orphan is a process whose parent has ended.
type Orphan struct {
	proc.ID
	Forks int // how many forks it is away from CMD
}

// orphans lists, oldest first, what a child that ended left behind: at its end
// they became our children. One of them is the daemon, if it goes into the
// background. Nobody has to trace it for that (fork and daemon of upstart do, and
// a wrong count wedges them). While the daemon starts, those count that come and
// go before it is known whom they came from.
func (f *Family) orphans(ended proc.ID, starts bool) []Orphan {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Orphan
	if !starts {
		f.early = nil
	}
	if _, ok := f.depth[ended]; !ok {
		// The kernel does not tell of ends in their order: its parent's may be next.
		for id := range f.depth {
			if st, err := f.fs.Stat(id.PID); err == nil && st.ID() == id && st.State.Dead() {
				out = append(out, f.left(id)...)
			}
		}
	}
	if _, ok := f.depth[ended]; ok {
		out = append(out, f.left(ended)...)
	} else if starts && len(f.early) < earlyMost { // a grandchild, whose parent is dead and was not told
		f.early = append(f.early, ended)
	}
	slices.SortFunc(out, func(a, b Orphan) int {
		return cmp.Or(cmp.Compare(a.Forks, b.Forks), cmp.Compare(a.Start, b.Start), cmp.Compare(a.PID, b.PID))
	})
	return out
}

// left takes note of the children that came to us from a process that has ended
// and is not reaped yet, and returns those that live.
func (f *Family) left(ended proc.ID) (out []Orphan) {
	if f.told[ended] {
		return nil
	}
	f.told[ended] = true
	forks := f.depth[ended]
	// Some have ended by now, too. What is younger than they are is taken for
	// theirs, for its parent's number is ours already.
	level := forks + 1
	fresh := f.fresh()
	for _, st := range fresh {
		at := level
		if f.unseen(st, ended, fresh) {
			at++
		}
		f.depth[st.ID()] = at
		if st.State.Dead() {
			f.told[st.ID()] = true
			level = at + 1
		} else {
			out = append(out, Orphan{st.ID(), at})
		}
	}
	return out
}

// remaining counts the living processes below us, when one has ended. A table is not
// of one moment: who was dead in it may have left somebody that it has not.
func (f *Family) remaining(ended proc.ID) (n int) {
	dead := map[proc.ID]bool{ended: true}
	for range tablesMost {
		table, err := f.fs.Table()
		if err != nil {
			return 0
		}
		settled := true
		for pid, st := range table {
			switch {
			case pid == f.self || !table.Descends(pid, f.self):
			case !st.State.Dead():
				n++
			case !dead[st.ID()]:
				dead[st.ID()], settled = true, false
			}
		}
		if settled || n > 0 {
			break
		}
	}
	return n
}

// unseen reports whether a process came between st and the one that has ended of
// which nothing is left: its parent has reaped it (libdaemon does). It is known by
// the session that it made, which bears its number, and which st is in.
func (f *Family) unseen(st proc.Stat, ended proc.ID, fresh []proc.Stat) bool {
	maker := st.Session
	if last, err := f.fs.Stat(ended.PID); err != nil || last.ID() != ended || last.Session <= 0 || maker == last.Session {
		return false
	}
	if maker <= 0 || maker == st.PID || maker == ended.PID {
		return false
	}
	for id := range f.depth {
		if id.PID == maker {
			return false
		}
	}
	return !slices.ContainsFunc(fresh, func(o proc.Stat) bool { return o.PID == maker })
}

// earlyMost bounds the children that are remembered after their end.
const earlyMost = 64

// tablesMost bounds how often the process table is read for one end.
const tablesMost = 16

// fresh lists our children that are not known yet, oldest first. A table is not of
// one moment: who was seen alive, or dead, may have left somebody that it has not,
// or below a parent that is no more. So it is read again until all the dead in it
// were dead before it was begun. They stay: only we reap, and not now.
func (f *Family) fresh() (out []proc.Stat) {
	dead := map[proc.ID]bool{}
	var early []proc.Stat
	for _, id := range f.early {
		early = append(early, proc.Stat{PID: id.PID, Start: id.Start, State: 'X'})
	}
	f.early = nil
	for range tablesMost {
		table, err := f.fs.Table()
		if err != nil {
			return out
		}
		out = slices.Clone(early)
		settled := true
		for _, st := range table {
			id := st.ID()
			if _, known := f.depth[id]; st.PPID != f.self || known {
				continue
			}
			out = append(out, st)
			if dead[id] {
				continue
			}
			if now, err := f.fs.Stat(st.PID); err != nil || now.ID() != id || now.State.Dead() {
				dead[id], settled = true, false
			}
		}
		if settled {
			break
		}
	}
	slices.SortFunc(out, func(a, b proc.Stat) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.PID, b.PID))
	})
	return out
}

// Run looks for stops of descendants that are not our children, while one is
// owed, until ctx is done. Our children's stops are told by waitid.
func (f *Family) Run(ctx context.Context) error {
	defer f.newest.Close()
	return unlessDone(ctx, f.sampler.Run(ctx))
}

func (f *Family) report(t stopwatch.Transition) {
	if f.service.samples(t.Who) {
		f.service.Observe(t)
	}
}

// awaits looks for new processes only where a stop may come from one: waitid
// tells of everything else.
func (f *Family) awaits(yes bool) {
	if e := f.service.cfg.Policy.Expect; yes && (e == lifecycle.ExpectStop || e == lifecycle.ExpectAuto) {
		f.sampler.Seek(f.newest.Read, f.arrived)
	} else {
		f.sampler.Rest()
	}
}

func (f *Family) arrived(from, to int, all bool) {
	pids := make([]int, 0, to-from)
	for pid := from; pid < to; pid++ {
		pids = append(pids, pid)
	}
	if all {
		pids, _ = f.fs.Pids()
	}
	s := f.service
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.m.AwaitsStop(s.now()) {
		return
	}
	for _, pid := range pids {
		if pid == f.self {
			continue
		}
		st, err := f.fs.Stat(pid)
		if err != nil || st.PPID == f.self || !f.Member(pid) {
			continue
		}
		if p := s.meetID(st.ID()); p != nil && s.room() {
			s.sample(p)
		}
	}
	s.settle()
}

// Generation implements Scope. A process never leaves its family while it lives.
func (f *Family) Generation() uint64 { return 1 }

// Member implements Scope.
func (f *Family) Member(pid int) bool {
	st, err := f.fs.Stat(pid)
	for steps := 0; err == nil && st.PPID > 1 && steps < 1024; steps++ {
		if st.PPID == f.self {
			return true
		}
		st, err = above(f.fs, st)
	}
	return !f.scarce.Exhausted(err) && err == nil && st.PPID == f.self // we may be process 1
}

// Entry implements Scope: CMD, as long as its number is its own.
func (f *Family) Entry(pid int) (int, bool) {
	cmd := f.cmd.Load()
	if cmd == nil || !f.Member(pid) {
		return 0, false
	}
	st, err := f.fs.Stat(cmd.PID)
	return cmd.PID, err == nil && st.ID() == *cmd
}

func (f *Family) started(id proc.ID) bool {
	cmd := f.cmd.Load()
	return cmd != nil && id == *cmd
}
