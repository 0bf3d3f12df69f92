package sidecar

import (
	"context"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// effects is work in order, done by one goroutine. Adding to it never waits.
type effects struct {
	mu   sync.Mutex
	todo []func()
	wake chan struct{}
	lost int // log lines that found the queue full
}

// linesWaiting bounds the work that waits before log lines are dropped: a daemon
// may change its mind faster than anybody can write it down.
const linesWaiting = 1024

func (q *effects) init() { q.wake = make(chan struct{}, 1) }

func (q *effects) add(f func()) {
	q.mu.Lock()
	q.todo = append(q.todo, f)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run works until done is closed, and then does what is left.
func (q *effects) run(done <-chan struct{}) {
	for open := true; open; {
		select {
		case <-q.wake:
		case <-done:
			open = false
		}
		for {
			q.mu.Lock()
			todo := q.todo
			q.todo = nil
			q.mu.Unlock()
			if len(todo) == 0 {
				break
			}
			for _, f := range todo {
				f()
			}
		}
	}
}

// offer is add for work that may be dropped when too much waits. f is told how
// much was dropped before it.
func (q *effects) offer(f func(lost int)) {
	q.mu.Lock()
	full := len(q.todo) >= linesWaiting
	lost := q.lost
	if full {
		q.lost++
	} else {
		q.lost = 0
	}
	q.mu.Unlock()
	if !full {
		q.add(func() { f(lost) })
	}
}

// say writes a line to the log, later.
func (s *Service) say(level slog.Level, msg string, args ...any) {
	s.queue.offer(func(lost int) {
		if lost > 0 {
			s.log.Warn("log lines were dropped: too much happened at once", "lines", lost)
		}
		s.log.Log(context.Background(), level, msg, args...)
	})
}

// transition logs one line.
func (s *Service) transition(from, to lifecycle.Phase, e lifecycle.Event) {
	snap := s.m.Snapshot()
	args := []any{"from", from.String(), "phase", to.String(), "because", e.Kind.String()}
	level := slog.LevelInfo
	msg := "daemon is " + to.String()
	switch to {
	case lifecycle.Ready:
		if from == lifecycle.Starting && !snap.StartedAt.IsZero() {
			args = append(args, "after", snap.ReadyAt.Sub(snap.StartedAt).String())
		}
	case lifecycle.Gone:
		if snap.LastExit != nil {
			args = append(args, "exit", snap.LastExit.String())
			if !snap.LastExit.Clean {
				level = slog.LevelWarn
			}
		}
	}
	if to == lifecycle.Gone && s.dep.Gone != nil && snap.LastExit != nil {
		x := *snap.LastExit
		s.queue.add(func() { s.dep.Gone(x) })
	}
	if snap.Main != (lifecycle.ProcID{}) {
		args = append(args, "pid", snap.Main.PID)
	}
	s.say(level, msg, args...)
}

// act starts what the machine asks for. The lock is held.
func (s *Service) act(a lifecycle.Action) {
	p := s.find(a.Who)
	if p == nil {
		return
	}
	switch a.Kind {
	case lifecycle.Hold:
		s.watch(p)
	case lifecycle.Continue:
		if !s.dep.Parent {
			s.sample(p) // to see it run again
		}
		s.signal(p, unix.SIGCONT)
	case lifecycle.Kill:
		s.say(slog.LevelWarn, "daemon did not stop in time, killing it", "pid", p.id.PID, "timeout", s.cfg.Policy.StopTimeout)
		s.signal(p, unix.SIGKILL)
	}
}

// signal sends a signal to a held process, once. A refusal becomes news.
func (s *Service) signal(p *person, sig unix.Signal) {
	h := p.h
	s.queue.add(func() {
		err := h.Signal(sig)
		s.log.Debug("signal sent", "pid", p.id.PID, "signal", unix.SignalName(sig), "error", err)
		if err == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed || h.Ended() {
			return
		}
		if !h.Permitted() {
			s.denied(p)
		} else {
			s.warn("signal", err.Error())
		}
	})
}

// sample has the stops of p seen, if nobody else sees them.
func (s *Service) sample(p *person) {
	if p.sampled || s.dep.Stops == nil {
		return
	}
	p.sampled = true
	s.sampled++
	s.dep.Stops.Watch(p.h)
}

func (s *Service) uid() int { return os.Geteuid() }
