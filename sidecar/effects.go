package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// effects is work in order, done by one goroutine while there is some. Adding to it
// never waits.
type effects struct {
	mu    sync.Mutex
	todo  []func()
	busy  bool // somebody works
	timed bool // somebody will
	timer *time.Timer
	works sync.WaitGroup
	lost  int // log lines that found the queue full, or were too many

	spare  int       // log lines that may come now
	filled time.Time // when spare was last added to
}

// linesWaiting bounds the work that waits before log lines are dropped: a daemon
// may change its mind faster than anybody can write it down.
const linesWaiting = 1024

// unhurried is how long the log may wait. To wake a thread for it at the moment in which
// a daemon has become ready would take a processor from those who ask whether it has. The
// lines bear the time of what they tell. Warnings do not wait.
const unhurried = 50 * time.Millisecond

// A daemon whose READY and RELOADING take turns must not fill the disk that the log is
// on: of so many lines at once the rest is dropped, and counted, but for one in a while.
// Half of them are kept for warnings.
const (
	linesAtOnce = 1000
	lineEvery   = 100 * time.Millisecond
)

// may reports whether one more log line may be written now. The lock is held.
func (q *effects) may(level slog.Level, now time.Time) bool {
	if q.filled.IsZero() {
		q.spare, q.filled = linesAtOnce, now
	}
	if n := now.Sub(q.filled) / lineEvery; n > 0 {
		q.spare = int(min(linesAtOnce, time.Duration(q.spare)+n))
		q.filled = q.filled.Add(n * lineEvery)
	}
	if q.spare == 0 || level < slog.LevelWarn && q.spare <= linesAtOnce/2 {
		return false
	}
	q.spare--
	return true
}

func (q *effects) add(f func()) {
	q.mu.Lock()
	q.todo = append(q.todo, f)
	q.mu.Unlock()
	q.begin()
}

// addUnhurried is add for work that may be done a moment later.
func (q *effects) addUnhurried(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.todo = append(q.todo, f)
	if q.busy || q.timed {
		return
	}
	q.timed = true
	if q.timer == nil {
		q.timer = time.AfterFunc(unhurried, q.begin)
		return
	}
	q.timer.Reset(unhurried)
}

// begin has what there is done.
func (q *effects) begin() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.timed = false
	if q.busy || len(q.todo) == 0 {
		return
	}
	q.busy = true
	q.works.Go(q.work)
}

// wait waits until nothing is left to do.
func (q *effects) wait() {
	q.begin()
	q.works.Wait()
}

// work does what there is.
func (q *effects) work() {
	for {
		q.mu.Lock()
		todo := q.todo
		q.todo = nil
		q.busy = len(todo) > 0
		q.mu.Unlock()
		if len(todo) == 0 {
			return
		}
		for _, f := range todo {
			f()
		}
	}
}

// offer is add for work that may be dropped when too much waits. f is told how
// much was dropped before it.
func (q *effects) offer(level slog.Level, now time.Time, f func(lost int)) {
	q.mu.Lock()
	full := len(q.todo) >= linesWaiting || !q.may(level, now)
	lost := q.lost
	if full {
		q.lost++
	} else {
		q.lost = 0
	}
	q.mu.Unlock()
	switch {
	case full:
	case level >= slog.LevelWarn: // nobody asks whether it is ready
		q.add(func() { f(lost) })
	default:
		q.addUnhurried(func() { f(lost) })
	}
}

// say writes a line to the log, later.
func (s *Service) say(level slog.Level, msg string, args ...any) {
	s.sayAll(level, func() (string, []any) { return msg, args })
}

// sayAll is say of what is put into words only when it is written.
func (s *Service) sayAll(level slog.Level, words func() (msg string, args []any)) {
	if !s.log.Enabled(context.Background(), level) {
		return
	}
	at := s.now()
	write := func(level slog.Level, msg string, args ...any) {
		line := slog.NewRecord(at, level, msg, 0)
		line.Add(args...)
		_ = s.log.Handler().Handle(context.Background(), line) // as slog itself does
	}
	s.queue.offer(level, at, func(lost int) {
		if lost > 0 {
			write(slog.LevelWarn, "log lines were dropped: too much happened at once", "lines", lost)
		}
		msg, args := words()
		write(level, msg, args...)
	})
}

// transition logs one line.
func (s *Service) transition(from, to lifecycle.Phase, e lifecycle.Event) {
	r := s.m.Record()
	main, began, ready := r.Main, r.StartedAt, r.ReadyAt
	level := slog.LevelInfo
	var end []any
	if to == lifecycle.Gone {
		if r.LastExit != nil && !r.LastExit.Clean {
			level = slog.LevelWarn
		}
		end = s.farewell()
	}
	s.sayAll(level, func() (string, []any) {
		args := []any{"from", from.String(), "phase", to.String(), "because", e.Kind.String()}
		if to == lifecycle.Ready && from == lifecycle.Starting && !began.IsZero() {
			args = append(args, "after", ready.Sub(began).String())
		}
		args = append(args, end...)
		if main != (lifecycle.ProcID{}) {
			args = append(args, "pid", main.PID)
		}
		return "daemon is " + to.String(), args
	})
}

// farewell is what the log tells of an end.
func (s *Service) farewell() (args []any) {
	snap := s.m.Snapshot()
	if snap.LastExit != nil {
		args = append(args, "exit", snap.LastExit.String())
	}
	if snap.Status != "" { // its last words
		args = append(args, "status", snap.Status)
	}
	if snap.Errno != 0 {
		args = append(args, "errno", errnoText(snap.Errno))
	}
	if r := s.cfg.Policy.Respawn; s.m.ComesBack() {
		respawn := strconv.Itoa(s.m.Counted())
		if r.Limit > 0 && r.Interval > 0 {
			respawn += fmt.Sprintf(" of %d within %v", r.Limit, r.Interval)
		}
		args = append(args, "respawn", respawn, "respawn_in", max(0, snap.RespawnAt.Sub(snap.Since)).String())
	}
	return args
}

// notable logs what has come to be known beside the phase, each once when it changes.
func (s *Service) notable(before lifecycle.Notable, e lifecycle.Event) {
	now := s.m.Notable()
	switch {
	case now.Paused && !before.Paused:
		s.say(slog.LevelWarn, "daemon is paused", "reason", s.reason("paused"))
	case before.Paused && !now.Paused && e.Kind == lifecycle.Continued:
		s.say(slog.LevelInfo, "daemon runs again", "pid", e.Who.PID)
	}
	if now.Errno != before.Errno && now.Errno != 0 {
		s.tell("errno", "the daemon reported errno "+errnoText(now.Errno))
	}
	if now.LimitHit && !before.LimitHit {
		s.say(slog.LevelError, "respawned too fast, stopped", "reason", s.reason("respawn"))
	}
}

// reason is why a check fails.
func (s *Service) reason(check string) string {
	n := s.m.Snapshot()
	n.Facts = s.facts
	return n.Reason(&s.cfg.Policy, check)
}

func errnoText(n int) string {
	if name := notify.ErrnoName(n); name != "" {
		return fmt.Sprintf("%d (%s)", n, name)
	}
	return strconv.Itoa(n)
}

// overdue logs the time-outs that have passed since before, each with what its check
// says.
func (s *Service) overdue(before lifecycle.Snapshot) {
	now := s.m.Snapshot()
	now.Facts = s.facts
	now.Facts.Refused = s.shutOut()
	for _, x := range []struct {
		passed   bool
		key, msg string
	}{
		{now.StartLate && !before.StartLate, "start", "daemon is not ready in time"},
		{now.ReloadLate && !before.ReloadLate, "reload", "daemon has not reloaded in time"},
		{now.StopLate && !before.StopLate, "stopping", "daemon has not stopped in time"},
		{now.Starved && !before.Starved, "watchdog", "daemon missed its watchdog"},
	} {
		if x.passed {
			s.say(slog.LevelWarn, x.msg, "reason", now.Reason(&s.cfg.Policy, x.key))
		}
	}
}

// gone tells that a main process ended.
func (s *Service) gone() {
	if s.gate != nil {
		s.gate() // nobody is behind it
	}
	if x := s.m.LastExit(); x != nil && s.dep.Gone != nil {
		x, again := *x, s.m.ComesBack()
		s.queue.add(func() { s.dep.Gone(x, again) })
	}
}

// act starts what the machine asks for. The lock is held.
func (s *Service) act(a lifecycle.Action) {
	switch a.Kind {
	case lifecycle.Start:
		if s.dep.Start != nil {
			s.queue.add(s.dep.Start)
		}
		return
	case lifecycle.RestartPod:
		s.hold(s.restartPod)
		return
	case lifecycle.AskReload:
		s.hold(func(error) { s.queue.add(s.askReload) })
		return
	case lifecycle.RestartContainer:
		s.restartContainer(a.Who)
		return
	}
	p := s.find(a.Who)
	if p == nil {
		return
	}
	switch a.Kind {
	case lifecycle.Terminate:
		s.signal(p, s.cfg.KillSignal)
	case lifecycle.Abort:
		s.say(slog.LevelWarn, "respawning the daemon for its watchdog", "pid", p.id.PID)
		s.signal(p, s.cfg.WatchdogSignal)
	case lifecycle.Knock:
		s.knock(a.Who)
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

// signal sends a signal to a held process, once, when what led to it is on file. A
// refusal becomes news.
func (s *Service) signal(p *person, sig unix.Signal) {
	h := p.h
	if sig == unix.SIGKILL { // with the others of its group: nobody is left to end them
		s.hold(func(error) { s.queue.add(func() { s.sent(p, h, sig, h.SignalGroup(sig)) }) })
		return
	}
	s.hold(func(error) {
		// At once: it waits for nothing, and a daemon that has stopped itself waits for it.
		err := h.Signal(sig)
		if sig == unix.SIGCONT && s.dep.Parent {
			// Waking us, it has left us its processor, where it goes on once we leave that.
			unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
		if err != nil {
			s.queue.add(func() { s.sent(p, h, sig, err) })
		} else {
			s.say(slog.LevelDebug, "signal sent", "pid", p.id.PID, "signal", unix.SignalName(sig))
		}
	})
}

// sent takes note of what has become of a signal.
func (s *Service) sent(p *person, h *proc.Handle, sig unix.Signal, err error) {
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
}

// restartPod is done once for an instance, and so not without a note of it: the
// podnotify that comes back would do it again, for ever.
func (s *Service) restartPod(err error) {
	if err != nil && s.mem.file != nil {
		s.warn("pod", "the pod is not restarted, because it cannot be noted that it was: "+err.Error())
		return
	}
	s.say(slog.LevelWarn, "asking for a restart of the pod", "because", "respawn.mode is pod")
	if s.dep.RestartPod != nil {
		s.queue.add(s.dep.RestartPod)
	}
}

// askReload is policy.unknown: reload. A daemon that does not catch the signal
// would be ended by it.
func (s *Service) askReload() {
	h := s.eye.Load()
	if h == nil {
		return
	}
	if ok, err := s.dep.FS.Catches(h.ID().PID, s.cfg.ReloadSignal); err == nil && !ok {
		s.log.Warn("cannot ask the daemon where it stands: it would be ended by signals.reload", "pid", h.ID().PID)
		return
	}
	if err := s.Reload(); err != nil {
		s.log.Warn("cannot ask the daemon where it stands", "error", err)
	}
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

// restartContainer ends the entry process of the container whose main process
// has ended, if it lives on: the platform then restarts the container.
func (s *Service) restartContainer(main lifecycle.ProcID) {
	if s.entry.PID == 0 || lifecycle.ProcID(s.entry) == main {
		return
	}
	h, err := s.dep.FS.OpenID(s.entry)
	if err != nil {
		return // it has ended, too
	}
	s.say(slog.LevelInfo, "ending the container's entry process", "pid", s.entry.PID)
	s.ends.Go(func() {
		defer h.Close()
		if err := h.Signal(s.cfg.KillSignal); err != nil {
			if !errors.Is(err, proc.ErrGone) { // it followed by itself
				s.log.Warn("container not ended", "error", err)
			}
			return
		}
		ctx, cancel := s.life, context.CancelFunc(func() {})
		if d := s.cfg.Policy.StopTimeout; d > 0 {
			ctx, cancel = context.WithTimeout(ctx, d)
		}
		defer cancel()
		if errors.Is(h.Wait(ctx), context.DeadlineExceeded) {
			_ = h.Signal(unix.SIGKILL) // it was allowed the first signal
		}
	})
}

// gateSilence is how long the log says nothing of a gate that is shut.
const gateSilence = time.Second

// knocked takes note of how an attempt at the gate ended, and reports whether it was
// the last.
func (s *Service) knocked(who lifecycle.ProcID, err error, tell bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return true
	}
	if err == nil {
		s.facts.Gate = ""
		s.apply(lifecycle.Event{Kind: lifecycle.Opened, Who: who})
		s.settle()
		return true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err // "connection refused" without "connect:"
	}
	if text := s.cfg.Gate + ": " + err.Error(); text != s.facts.Gate {
		s.facts.Gate = text
		s.stale.Store(true)
	}
	if tell {
		s.tell("gate", "the daemon says that it is ready, and gate.tcp has not accepted a connection yet: "+s.facts.Gate)
	}
	return false
}

// knock tries the gate until it accepts once, for as long as who is the main
// process.
func (s *Service) knock(who lifecycle.ProcID) {
	if s.gate != nil {
		s.gate()
	}
	ctx, cancel := context.WithCancel(s.life)
	s.gate = cancel
	s.ends.Go(func() {
		defer cancel()
		dialer := net.Dialer{Timeout: time.Second}
		began := s.now()
		for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
			c, err := dialer.DialContext(ctx, "tcp", s.cfg.Gate)
			if err == nil {
				c.Close()
			}
			if s.knocked(who, err, ctx.Err() == nil && s.now().Sub(began) > gateSilence) {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	})
}
