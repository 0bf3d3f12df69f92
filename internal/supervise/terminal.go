package supervise

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/stopwatch"
)

// The daemon is in a process group of its own. What a shell knows as its job is our
// group, so we are to the daemon what the shell is to us: it gets the terminal while
// we have it, and when the terminal stops it (Ctrl-Z, or a read in the background)
// we stop, too, and the shell is heard again.

// foregroundGroup is the process group in the foreground of the terminal on our
// standard input; 0 if that is not our controlling terminal.
func foregroundGroup() int {
	pgrp, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return pgrp
}

// foreground reports whether we are in the foreground of the terminal on our
// standard input.
func foreground() bool {
	// Our group has the number 0 too, if it leads outside of our PID namespace.
	pgrp := foregroundGroup()
	return pgrp > 0 && pgrp == unix.Getpgrp()
}

// setForeground puts a process group into the foreground. Who asks for that from the
// background is stopped, unless SIGTTOU is blocked.
func setForeground(pgrp int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var ttou, old unix.Sigset_t
	ttou.Val[0] = 1 << (unix.SIGTTOU - 1)
	if unix.PthreadSigmask(unix.SIG_BLOCK, &ttou, &old) != nil {
		return
	}
	_ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, pgrp) // its end is noticed otherwise
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
}

// give puts the daemon into the foreground, if we are.
func (d *Daemon) give() {
	if !d.idle && !d.cfg.Respawns && foreground() {
		setForeground(d.pid)
		d.terminal = true
	}
}

// takeBack makes us the foreground again, if the daemon has it from us.
func (d *Daemon) takeBack() {
	if d.terminal {
		d.terminal = false
		setForeground(unix.Getpgrp())
	}
}

// halted is told what the waiter sees, and keeps what job control does.
func (d *Daemon) halted(t stopwatch.Transition) {
	if t.Kind != stopwatch.Stopped {
		return
	}
	switch t.Signal {
	case unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		select {
		case d.halts <- t:
		default: // one is enough
		}
	}
}

// suspend stops us, as the terminal has stopped the daemon, until somebody continues
// us, and then the daemon. Where nobody would, because no shell is above us (our
// process group is orphaned, or we are process 1), the kernel does not stop us:
// Ctrl-Z does nothing there, as with any other program.
func (d *Daemon) suspend(t stopwatch.Transition) {
	if foregroundGroup() == 0 {
		return
	}
	st, err := proc.Proc.Stat(t.Who.PID)
	if err != nil || st.ID() != t.Who || !st.State.Stopped() || st.PGID != d.pid {
		return // it is over already, or no job of the terminal's
	}
	d.takeBack()
	d.group(unix.Getpgrp(), t.Signal)
	if err := proc.Raise(t.Signal); err != nil {
		d.cfg.Log.Warn("not stopped together with the daemon", "error", err)
	}
	// Continued in the background, one that wants to read would only be stopped again.
	if foreground() || t.Signal == unix.SIGTSTP {
		d.give()
		d.group(d.pid, unix.SIGCONT)
	}
}

// group signals the processes of a group, but for ourselves.
func (d *Daemon) group(pgrp int, sig unix.Signal) {
	table, err := proc.Proc.Table()
	if err != nil {
		d.cfg.Log.Warn("cannot look for a process group", "error", err)
		return
	}
	for pid, st := range table {
		if st.PGID != pgrp || pid == os.Getpid() || st.State.Dead() {
			continue
		}
		if h, err := proc.Proc.OpenID(st.ID()); err == nil {
			_ = h.Signal(sig) // whom we may not signal is not of our job
			h.Close()
		}
	}
}
