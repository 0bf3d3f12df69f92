package sidecar

import (
	"context"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
	"github.com/podnotify/podnotify/stopwatch"
)

// Family is the processes below a podnotify that started the daemon (run): CMD
// and its descendants. Those whose parent went away come to us, because run is a
// subreaper (PR_SET_CHILD_SUBREAPER, Linux 3.4).
type Family struct {
	fs      proc.FS
	self    int
	cmd     atomic.Int64
	sampler *stopwatch.Sampler
	newest  *proc.Newest
	service *Service
}

// NewFamily returns the family of this process.
func NewFamily(fs proc.FS) (*Family, error) {
	f := &Family{fs: fs, self: os.Getpid()}
	var err error
	if f.newest, err = fs.Newest(); err != nil {
		return nil, err
	}
	f.sampler = stopwatch.NewSampler(f.report)
	f.sampler.Sleep = stopwatch.Nanosleep
	return f, nil
}

// Deps fills in what the service needs of its family.
func (f *Family) Deps(log *slog.Logger) Deps {
	return Deps{FS: f.fs, Scope: f, Stops: f.sampler, Log: log, Parent: true, Started: f.started, Awaiting: f.awaits}
}

// Join tells the family of its service, before it serves.
func (f *Family) Join(s *Service) { f.service = s }

// Begin names the process that was started.
func (f *Family) Begin(pid int) { f.cmd.Store(int64(pid)) }

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
		if p := s.meetID(st.ID()); p != nil && s.sampled < sampledMost {
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
	return err == nil && st.PPID == f.self // we may be process 1
}

// Entry implements Scope: CMD.
func (f *Family) Entry(pid int) (int, bool) {
	cmd := int(f.cmd.Load())
	return cmd, cmd != 0 && f.Member(pid)
}

func (f *Family) started(id proc.ID) bool { return id.PID == int(f.cmd.Load()) }
