// Package supervise is the parent of a daemon: it starts it, reaps it and its
// orphans, hands on signals, and ends when the daemon has. What ready means is
// none of its business.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/stopwatch"
)

// Exit codes of a shell for a command that cannot be started.
const (
	CodeNotFound      = 127
	CodeNotExecutable = 126
)

// StartError says that the daemon could not be started.
type StartError struct {
	Name string
	Err  error
}

func (e *StartError) Error() string { return fmt.Sprintf("cannot start %s: %v", e.Name, e.Err) }
func (e *StartError) Unwrap() error { return e.Err }

// Code is the exit code that a shell would give.
func (e *StartError) Code() int {
	if errors.Is(e.Err, exec.ErrNotFound) || errors.Is(e.Err, os.ErrNotExist) {
		return CodeNotFound
	}
	return CodeNotExecutable
}

// Service is what is told of the daemon, and asked about it.
type Service interface {
	// Start calls start and takes the process it returns as the main process. It does
	// not call it for a respawn that was called off: then the end follows as a turn.
	Start(start func() (*proc.Handle, error)) error
	// Observe takes a stop, continue or end of a child.
	Observe(stopwatch.Transition)
	// StopAsked is called before a termination is handed on; with kill, the
	// service kills the main process after its stop time-out.
	StopAsked(kill bool)
	// Signal signals the main process. The error is [proc.ErrGone] if there is none.
	Signal(unix.Signal) error
}

// Config is a daemon to run.
type Config struct {
	Args        []string // CMD and its arguments
	Env         []string
	KillSignal  unix.Signal   // sent for SIGTERM
	StopTimeout time.Duration // for what the daemon leaves behind; 0: none
	// Respawns says that it may be started again. Then a terminal stays ours, for
	// what is typed into it (Ctrl-C) is meant for more than one instance.
	Respawns bool
	// Stored returns the descriptors that a start hands to the daemon, and closes
	// after that, and their names; nil: there are none.
	Stored func() (fds []int, names string)
	Begun  func(pid int) // is called when CMD was started, before anything is heard of it
	Log    *slog.Logger
}

// Daemon is a started daemon.
type Daemon struct {
	cfg     Config
	path    string
	service Service
	signals chan os.Signal
	pid     int
	reaped  chan struct{} // closed when no children are left
	failed  chan error    // of the waiter
	idle    bool          // between two instances
	quit    bool          // a termination came that no main process was there to take

	terminal bool                      // the daemon was given the foreground of our terminal
	halts    chan stopwatch.Transition // it was stopped by job control
	stdin    *os.File                  // for the daemon; nil: ours
}

// Turn is a turn in the life of the daemon: a main process ended, or the next one
// is due. They come in order, over one channel.
type Turn struct {
	Start bool      // start it again; else it has ended
	Exit  proc.Exit // how it ended
	Again bool      // a Start will follow in time
}

// Start starts the daemon in a process group of its own, so that what a terminal
// sends to ours reaches it once, from us. If we were in the foreground of a
// terminal, it is from now on, unless it may be respawned.
func Start(cfg Config, service Service) (*Daemon, error) {
	path, err := exec.LookPath(cfg.Args[0])
	if err != nil {
		if e := (*exec.Error)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return nil, &StartError{cfg.Args[0], err}
	}
	// Orphans of the daemon come to us, not to process 1 (Linux 3.4).
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("cannot become a subreaper: %w", err)
	}
	d := &Daemon{cfg: cfg, path: path, service: service, signals: make(chan os.Signal, 64), failed: make(chan error, 1), halts: make(chan stopwatch.Transition, 1)}
	// They stay caught to the end: one that comes when the daemon is no more would
	// end us before we have ended.
	signal.Notify(d.signals, handedOn()...)
	if cfg.Respawns && foreground() {
		// Reading from it would stop who is not in its foreground.
		if d.stdin, err = os.Open(os.DevNull); err != nil {
			return nil, fmt.Errorf("cannot give the daemon an input: %w", err)
		}
	}
	if err := d.start(); err != nil {
		d.letGo()
		return nil, err
	}
	return d, nil
}

// start starts CMD, and waits for it and its orphans in the background. If we are in
// the foreground of a terminal, CMD is from now on.
func (d *Daemon) start() error {
	fd := -1
	attr := &syscall.ProcAttr{
		Env:   d.cfg.Env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true, PidFD: &fd},
	}
	if d.terminal = !d.cfg.Respawns && foreground(); d.terminal {
		attr.Sys.Setpgid, attr.Sys.Foreground, attr.Sys.Ctty = false, true, 0
	}
	if d.stdin != nil {
		attr.Files[0] = d.stdin.Fd()
	}
	path, args := d.path, d.cfg.Args
	if d.cfg.Stored != nil {
		if fds, names := d.cfg.Stored(); len(fds) > 0 {
			for _, fd := range fds {
				defer unix.Close(fd)
				attr.Files = append(attr.Files, uintptr(fd))
			}
			attr.Env = append(slices.Clone(attr.Env), "LISTEN_FDS="+strconv.Itoa(len(fds)), "LISTEN_FDNAMES="+names)
			path, args = listener(path, args)
		}
	}
	started := false
	var cmd proc.ID
	err := d.service.Start(func() (*proc.Handle, error) {
		pid, err := syscall.ForkExec(path, args, attr)
		if err != nil {
			return nil, &StartError{d.cfg.Args[0], err}
		}
		d.pid, started = pid, true
		d.cfg.Begun(pid)
		var h *proc.Handle
		if fd < 0 { // before Linux 5.4
			h, err = proc.Proc.Open(pid)
		} else if h, err = proc.Proc.FromPidfd(fd, pid); err != nil {
			unix.Close(fd)
		}
		if err == nil {
			cmd = h.ID()
		}
		return h, err
	})
	if err != nil || !started {
		return err
	}
	d.idle = false
	reaped := make(chan struct{})
	d.reaped = reaped
	go func() {
		defer close(reaped)
		w := stopwatch.NewWaiter(proc.Proc, func(t stopwatch.Transition) {
			d.service.Observe(t)
			d.halted(t)
		})
		w.Knows(cmd)
		if err := w.Run(); err != nil {
			d.failed <- err
		}
	}()
	return nil
}

func (d *Daemon) letGo() {
	d.stdin.Close() // nil: an error that says nothing
	d.takeBack()
}

// handedOn lists the signals that are meant for the daemon: all that can be
// caught, but those the kernel or the runtime means for us.
func handedOn() []os.Signal {
	var out []os.Signal
	for n := unix.Signal(1); n <= 64; n++ {
		switch n {
		case unix.SIGKILL, unix.SIGSTOP, // cannot be caught
			unix.SIGCHLD,                                                                    // about our children
			unix.SIGPIPE,                                                                    // about our output
			unix.SIGURG,                                                                     // the Go runtime preempts with it
			unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGPROF, // about our code
			unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, // job control stops us, not the daemon
			32, 33: // the C library's own
			continue
		case unix.SIGHUP:
			if signal.Ignored(n) { // nohup: the daemon inherits that
				continue
			}
		}
		out = append(out, n)
	}
	return out
}

// PID is the process started.
func (d *Daemon) PID() int { return d.pid }

// Run supervises until the main process has ended for good, as turns tell, and all
// that it left behind has, too. It returns how the last one ended.
func (d *Daemon) Run(ctx context.Context, turns <-chan Turn) (proc.Exit, error) {
	defer d.letGo()
	var last proc.Exit
	for {
		select {
		case sig := <-d.signals:
			d.handOn(sig.(syscall.Signal))
		case t := <-d.halts:
			d.suspend(t)
		case t := <-turns:
			if t.Start {
				if err := d.start(); err != nil {
					return last, err
				}
				continue
			}
			last, d.idle = t.Exit, true
			d.takeBack()
			d.clear() // also before the next instance: it is not to meet the last one's children
			if !t.Again {
				return last, nil
			}
		case err := <-d.failed:
			d.clear()
			return last, err
		case <-ctx.Done(): // nobody is left to answer for the daemon
			d.clear()
			return last, context.Cause(ctx)
		}
		if d.quit && d.idle {
			return last, nil
		}
	}
}

// handOn sends a signal on to the main process. A termination is announced
// first, so that a daemon that says nothing about it is not ready meanwhile.
func (d *Daemon) handOn(sig syscall.Signal) {
	if d.idle {
		d.quit = d.quit || terminates(sig)
		return
	}
	to := sig
	switch sig {
	case unix.SIGCONT:
		d.give() // a shell has us in the foreground now
	case unix.SIGTERM:
		to = d.cfg.KillSignal
		d.service.StopAsked(true)
	case unix.SIGINT, unix.SIGQUIT:
		d.service.StopAsked(true)
	}
	switch err := d.service.Signal(to); {
	case errors.Is(err, proc.ErrGone) && terminates(sig):
		d.quit = true // its end is on its way to us
	case err != nil:
		d.cfg.Log.Warn("signal not handed on", "signal", unix.SignalName(sig), "error", err)
	}
}

func terminates(sig os.Signal) bool {
	return sig == unix.SIGTERM || sig == unix.SIGINT || sig == unix.SIGQUIT
}

// clear ends what the daemon left behind: TERM, and KILL after the stop
// time-out. Who is forked meanwhile is looked for again, ever more rarely.
func (d *Daemon) clear() {
	var late <-chan time.Time
	if d.cfg.StopTimeout > 0 {
		t := time.NewTimer(d.cfg.StopTimeout)
		defer t.Stop()
		late = t.C
	}
	told := map[proc.ID]bool{}
	wait := 10 * time.Millisecond
	again := time.NewTimer(wait)
	defer again.Stop()
	term := func() {
		if n := d.all(unix.SIGTERM, told); n > 0 {
			d.cfg.Log.Info("ending what the daemon left behind", "processes", n)
		}
	}
	term()
	for {
		select {
		case <-d.reaped:
			return
		case sig := <-d.signals:
			if terminates(sig) {
				d.quit = true
				d.all(sig.(syscall.Signal), nil)
			}
		case <-again.C:
			term()
			wait = min(2*wait, time.Second)
			again.Reset(wait)
		case <-late:
			n := d.all(unix.SIGKILL, nil)
			d.cfg.Log.Warn("killing what the daemon left behind", "processes", n, "timeout", d.cfg.StopTimeout)
			t := time.NewTimer(time.Second) // whoever was forked meanwhile
			defer t.Stop()
			late = t.C
		}
	}
}

// all signals every descendant that has not been told, continued first if it stands
// still. It returns how many there were.
func (d *Daemon) all(sig unix.Signal, told map[proc.ID]bool) (n int) {
	table, err := proc.Proc.Table()
	if err != nil {
		d.cfg.Log.Warn("cannot look for what the daemon left behind", "error", err)
		return 0
	}
	self := os.Getpid()
	for pid, st := range table {
		if pid == self || st.State.Dead() || told[st.ID()] || !table.Descends(pid, self) {
			continue
		}
		h, err := proc.Proc.OpenID(st.ID())
		if err != nil {
			continue
		}
		err = h.Signal(sig)
		if !errors.Is(err, proc.ErrGone) {
			n++
			if err != nil {
				d.cfg.Log.Warn("signal not sent to what the daemon left behind", "error", err)
			}
		}
		if told != nil {
			told[st.ID()] = true
		}
		if st.State.Stopped() && sig != unix.SIGKILL {
			_ = h.Signal(unix.SIGCONT) // its failure is the one above
		}
		h.Close()
	}
	return n
}
