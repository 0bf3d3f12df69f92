package lifecycle

import (
	"slices"
	"time"
)

// RespawnMode is who brings a daemon back, and how.
type RespawnMode uint8

const (
	RespawnPlatform   RespawnMode = iota // the answers fail; the platform restarts the container
	RespawnSignal                        // signal the main process, and then the container's entry process
	RespawnExec                          // start CMD again here (run)
	RespawnPod                           // exit 79 for a RestartAllContainers rule (Kubernetes 1.36)
	RespawnContainerd                    // a new task (podnotify-node)
)

// Restarts reports whether it is podnotify that starts the daemon again.
func (m RespawnMode) Restarts() bool { return m == RespawnExec || m == RespawnContainerd }

// RespawnWhen is after which ends a daemon is brought back (systemd's Restart=).
// An end that podnotify itself asked for, to bring the daemon back, always counts.
type RespawnWhen uint8

const (
	OnFailure RespawnWhen = iota // unclean ends
	Never
	Always
)

// Respawn is what happens when the main process ended or has to.
type Respawn struct {
	Mode     RespawnMode
	When     RespawnWhen
	Normal   []Exit        // these ends are no failure (upstart's normal exit)
	Limit    int           // respawns within Interval; one more, and it is not tried again; 0: no limit
	Interval time.Duration // 0: no limit
	Delay    time.Duration // before the first respawn; doubles up to MaxDelay
	MaxDelay time.Duration
}

// wants reports whether an end of the main process is one to come back from.
func (r *Respawn) wants(x *LastExit) bool {
	switch r.When {
	case Never:
		return false
	case Always:
		return !r.normal(x)
	}
	return !x.Clean && !r.normal(x)
}

func (r *Respawn) normal(x *LastExit) bool {
	return x.Known && slices.ContainsFunc(r.Normal, func(n Exit) bool { return n.Code == x.Code && n.Signal == x.Signal })
}

// pace counts respawns as upstart does: a window begins with the first, and more
// than limit within it are too many. A respawn after the window begins the next
// one. The delay doubles with every respawn of a window (systemd's RestartSteps).
type pace struct {
	since time.Time // when the window began
	count int
}

// next counts one more respawn at now. It says how long to wait, or that there
// were too many.
func (c *pace) next(r *Respawn, now time.Time) (delay time.Duration, ok bool) {
	if c.count == 0 || r.Interval > 0 && now.Sub(c.since) >= r.Interval {
		*c = pace{since: now}
	}
	c.count++
	if r.Interval > 0 && r.Limit > 0 && c.count > r.Limit {
		return 0, false
	}
	delay = r.Delay
	for i := 1; i < c.count && 0 < delay && delay < r.MaxDelay; i++ {
		delay += min(delay, r.MaxDelay-delay)
	}
	if r.MaxDelay > 0 {
		delay = min(delay, r.MaxDelay)
	}
	return delay, true
}

// quiet is when the window is over, and with it a limit that was hit.
func (c *pace) quiet(r *Respawn) time.Time { return c.since.Add(r.Interval) }

// Why is what a respawn is owed to.
type Why uint8

const (
	WhyEnded Why = iota
	WhyWatchdog
	WhyStartTimeout
	WhyStopTimeout
	WhyAsked
	WhyUnknown
	whys
)

var whyNames = [whys]string{"ended", "watchdog", "start-timeout", "stop-timeout", "asked", "unknown"}

func (w Why) String() string { return whyNames[w] }

// Whys lists all reasons for a respawn.
func Whys() []Why {
	return []Why{WhyEnded, WhyWatchdog, WhyStartTimeout, WhyStopTimeout, WhyAsked, WhyUnknown}
}
