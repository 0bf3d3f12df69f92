package supervise

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Pause is all that the first process of a PID namespace has to do: it reaps the
// orphans that the kernel gives it, and returns at TERM or INT. When it then
// ends, the kernel ends all that is left in the namespace.
func Pause() {
	// The runtime would end us for these.
	signal.Ignore(unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	end := make(chan os.Signal, 1)
	signal.Notify(end, unix.SIGTERM, unix.SIGINT)
	// One SIGCHLD may stand for many children, and one in the queue for all later ones.
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for {
		reap()
		select {
		case <-children:
		case <-end:
			return
		}
	}
}

// reap waits for all children that have ended.
func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 && err != unix.EINTR {
			return
		}
	}
}
