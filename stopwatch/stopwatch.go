// Package stopwatch reports when a process stops, continues or ends. It never
// decides what that means, and sends no signal.
//
// There are two ways of knowing. A [Waiter] is told by the kernel, exactly and at
// once, but only about our own children. A [Sampler] looks at the state letters of
// any process that is visible in /proc: no event source tells anybody but the
// parent of a stop (a pidfd stays silent, waitid answers ECHILD). A process that
// has stopped to be continued by us waits for us, so a sample cannot miss it.
package stopwatch

import (
	"time"

	"github.com/podnotify/podnotify/internal/proc"
	"golang.org/x/sys/unix"
)

// Kind is what a process did.
type Kind uint8

const (
	Stopped   Kind = iota + 1 // by a signal; a tracer's stop is none
	Continued                 // it runs again
	Ended                     // it exited or was killed
)

// String returns "stopped", "continued" or "ended".
func (k Kind) String() string {
	switch k {
	case Stopped:
		return "stopped"
	case Continued:
		return "continued"
	case Ended:
		return "ended"
	}
	return "unknown"
}

// Source is how we know.
type Source uint8

const (
	Sampled Source = iota + 1 // read from /proc
	Waited                    // told by waitid(2)
)

// String returns "sampled" or "waited".
func (s Source) String() string {
	switch s {
	case Sampled:
		return "sampled"
	case Waited:
		return "waited"
	}
	return "unknown"
}

// Transition is one thing that a process did.
type Transition struct {
	Who  proc.ID
	Kind Kind
	At   time.Time // when it was seen
	Seen Source

	// Signal is the signal that stopped it: SIGSTOP, or SIGTSTP, SIGTTIN and
	// SIGTTOU of job control. Only a parent is told; 0 when sampled.
	Signal unix.Signal

	// Exit is how it ended; nil unless it has ended and we waited for it.
	Exit *proc.Exit
}
