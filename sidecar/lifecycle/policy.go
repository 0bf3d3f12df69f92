// Package lifecycle decides what a daemon's news means. It owns the phase of a
// service and the verdicts drawn from it, and never does anything: no I/O, no
// clock, no goroutine. News goes in as an Event with the time it happened,
// work to do comes out as Actions, and what is known comes out as a Snapshot.
package lifecycle

import "time"

// Expect is the way a daemon says that it is ready, in upstart's and systemd's
// words (expect stop, Type=notify ...).
type Expect uint8

const (
	ExpectAuto    Expect = iota // the first of READY=1 or a stop
	ExpectNotify                // systemd Type=notify: READY=1
	ExpectStop                  // upstart expect stop: SIGSTOP, answered by SIGCONT
	ExpectFork                  // upstart expect fork: one fork followed
	ExpectDaemon                // upstart expect daemon: two forks followed
	ExpectPIDFile               // systemd PIDFile=: the file names a live process
	ExpectNone                  // upstart without expect, systemd Type=exec: it runs
)

var expectNames = [...]string{"auto", "notify", "stop", "fork", "daemon", "pidfile", "none"}

func (e Expect) String() string { return expectNames[e] }

// ParseExpect is the inverse of String.
func ParseExpect(s string) (Expect, bool) {
	for i, n := range expectNames {
		if n == s {
			return Expect(i), true
		}
	}
	return 0, false
}

// listens reports whether READY=1 makes the service ready. A daemon that is
// expected to stop may send STATUS and the rest, but its stop is what counts.
func (e Expect) listens() bool { return e == ExpectAuto || e == ExpectNotify }

// Stops reports whether a process of the service owes a stop.
func (e Expect) Stops() bool { return e == ExpectAuto || e == ExpectStop }

// Follows reports whether a daemon is followed into the background.
func (e Expect) Follows() bool { return e == ExpectFork || e == ExpectDaemon || e == ExpectPIDFile }

// Effect is what a fact does to the answers.
type Effect uint8

const (
	Ignore   Effect = iota // shown, fails nothing
	NotReady               // fails ready
	NotLive                // fails ready and live (ready implies live)
)

// Unknown is what to do about a daemon whose news podnotify may have missed.
type Unknown uint8

const (
	UnknownNotReady Unknown = iota
	UnknownReady
	UnknownReload
	UnknownRestart
)

// Policy is what the operator wants of one service. A zero duration means no
// time-out, as everywhere in podnotify.
type Policy struct {
	Expect Expect

	StartTimeout  time.Duration // from the main process found to ready (TimeoutStartSec)
	ReloadTimeout time.Duration // from RELOADING=1 to READY=1
	StopTimeout   time.Duration // from stopping to the end (TimeoutStopSec)

	Watchdog time.Duration // WATCHDOG=1 is due within it (WatchdogSec); 0: off until WATCHDOG_USEC
	Gate     bool          // ready waits for an Opened event

	OnStartTimeout Effect // Ignore (report) or NotLive
	OnReload       Effect // Ignore (keep) or NotReady
	OnErrno        Effect
	OnPaused       Effect // Ignore or NotReady
	OnUnknown      Unknown

	Respawn Respawn
}

// DefaultPolicy is the policy of a service for which nothing is configured.
func DefaultPolicy() Policy {
	return Policy{
		StartTimeout:  90 * time.Second,
		ReloadTimeout: 90 * time.Second,
		StopTimeout:   90 * time.Second,
		OnErrno:       NotReady,
		OnPaused:      NotReady,
		Respawn: Respawn{
			Limit: 10, Interval: 5 * time.Minute,
			Delay: 100 * time.Millisecond, MaxDelay: 30 * time.Second,
		},
	}
}
