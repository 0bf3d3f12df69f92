package lifecycle

import (
	"fmt"
	"strings"
)

// Probe is one of the three questions a platform asks. A value may hold several.
type Probe uint8

const (
	Startup Probe = 1 << iota // has the main process been ready once?
	Readyz                    // may it be sent work now?
	Livez                     // would a restart help? (no)
)

var probeNames = [...]struct {
	p    Probe
	name string
}{{Startup, "startup"}, {Readyz, "ready"}, {Livez, "live"}}

// Names lists the probes in p: startup, ready, live.
func (p Probe) Names() []string {
	var out []string
	for _, n := range probeNames {
		if p&n.p != 0 {
			out = append(out, n.name)
		}
	}
	return out
}

// Check is one named reason to answer no.
type Check struct {
	Name   string
	Reason string // why it fails; empty: it does not
	Probes Probe  // the probes that fail with it
}

// OK reports that the check does not fail.
func (c Check) OK() bool { return c.Reason == "" }

// checks in the order in which they are shown; the first that fails is the
// answer's one line.
var checks = [...]struct {
	name   string
	always Probe  // the probes that list the check
	some   Probe  // those of them that fail only where policy or the facts say so
	doc    string // when it fails, for docs/lifecycle.md
	judge  func(*Snapshot, *Policy) (reason string, probes Probe)
}{
	{"socket", Readyz, 0, "the notify socket is not bound", checkSocket},
	{"process", Readyz | Livez, Livez, "no main process; live: one had been seen, it ended uncleanly, and its container lives on without it", checkProcess},
	{"start", Startup | Readyz | Livez, Livez, "not ready yet; live: `timeouts.start` has passed and `policy.start-timeout` is `not-live`", checkStart},
	{"gate", Startup | Readyz, 0, "`gate.tcp` has not accepted a connection yet", checkGate},
	{"reload", Readyz, Readyz, "reloading, with `policy.reloading: not-ready`", checkReload},
	{"paused", Readyz, 0, "the main process is stopped by a signal; never with `policy.paused: ignore`", checkPaused},
	{"errno", Readyz | Livez, Livez, "the last ERRNO is not 0; live: `policy.errno` is `not-live`; never with `ignore`", checkErrno},
	{"watchdog", Readyz | Livez, 0, "no WATCHDOG=1 within the interval, or WATCHDOG=trigger", checkWatchdog},
	{"stopping", Readyz | Livez, Livez, "going down; live: `timeouts.stop`, extended as asked, has passed", checkStopping},
	{"respawn", Readyz, 0, "respawned too often too fast", checkRespawn},
	{"unknown", Readyz, 0, "podnotify was restarted, or started later than the daemon, and cannot prove what it said; never with `policy.unknown: ready`", checkUnknown},
}

// Answers is all the checks as a Markdown table: which probes each fails (x),
// which it fails only at times ((x)), and when.
func Answers() string {
	var b strings.Builder
	b.WriteString("| check | startup | ready | live | fails when |\n|---|---|---|---|---|\n")
	for _, c := range checks {
		fmt.Fprintf(&b, "| `%s` |", c.name)
		for _, p := range probeNames {
			switch {
			case c.some&p.p != 0:
				b.WriteString(" (x) |")
			case c.always&p.p != 0:
				b.WriteString(" x |")
			default:
				b.WriteString(" |")
			}
		}
		fmt.Fprintf(&b, " %s |\n", c.doc)
	}
	return b.String()
}

// CheckNames lists every check there is, in order.
func CheckNames() []string {
	out := make([]string, len(checks))
	for i, c := range checks {
		out[i] = c.name
	}
	return out
}

// Checks judges everything. A failing check's Probes are those it fails; a
// passing one's, those it belongs to.
func (s *Snapshot) Checks(p *Policy) []Check {
	out := make([]Check, len(checks))
	for i, c := range checks {
		out[i] = Check{Name: c.name, Probes: c.always}
		if reason, probes := c.judge(s, p); reason != "" && probes != 0 {
			out[i].Reason, out[i].Probes = reason, probes
		}
	}
	return out
}

// Lists are the checks that belong to a probe, for a verbose answer.
func Lists(p Probe, name string) bool {
	for _, c := range checks {
		if c.name == name {
			return c.always&p != 0
		}
	}
	return false
}

// Failing returns the first check that makes the probe fail, apart from those
// skip names. It allocates nothing when the answer is yes.
func (s *Snapshot) Failing(p *Policy, probe Probe, skip func(name string) bool) (Check, bool) {
	for _, c := range checks {
		if reason, probes := c.judge(s, p); reason != "" && probes&probe != 0 && (skip == nil || !skip(c.name)) {
			return Check{Name: c.name, Reason: reason, Probes: probes}, true
		}
	}
	return Check{}, false
}

// Reason is why a check fails, empty if it does not.
func (s *Snapshot) Reason(p *Policy, name string) string {
	for _, c := range checks {
		if c.name == name {
			reason, _ := c.judge(s, p)
			return reason
		}
	}
	return ""
}

func checkSocket(s *Snapshot, _ *Policy) (string, Probe) {
	return s.Facts.Socket, Readyz
}

// checkProcess fails live only where a restart of the container would bring
// back what is missing: one had been seen, it ended uncleanly, and its
// container lives on without it.
func checkProcess(s *Snapshot, _ *Policy) (string, Probe) {
	if s.Main != (ProcID{}) {
		return "", 0
	}
	probes := Readyz
	var why []string
	if x := s.LastExit; s.Phase == Gone && x != nil {
		why = append(why, x.String())
		if !x.Clean && s.Facts.ContainerAlive {
			probes |= Livez
		}
	} else if s.Facts.Impossible != "" {
		return "no main process: " + s.Facts.Impossible, probes
	}
	if len(s.Facts.Candidates) > 0 {
		why = append(why, "it could be any of "+strings.Join(s.Facts.Candidates, ", "), "set select.container or select.process")
	}
	if len(why) == 0 {
		return "no main process", probes
	}
	return "no main process: " + strings.Join(why, "; "), probes
}

// String says how the process ended, for people.
func (x *LastExit) String() string {
	who := fmt.Sprintf("process %d ", x.Who.PID)
	if x.Who.PID == 0 {
		who = "it " // lives where we cannot see
	}
	switch {
	case !x.Known:
		return who + "ended"
	case x.OOM:
		return who + "was killed by the kernel for want of memory"
	case x.Signal != 0:
		return who + fmt.Sprintf("was killed by signal %d", x.Signal)
	}
	return who + fmt.Sprintf("exited with code %d", x.Code)
}

func checkStart(s *Snapshot, p *Policy) (string, Probe) {
	var fails Probe
	if !s.Started {
		fails |= Startup
	}
	switch s.Phase {
	case Absent, Starting, Gone:
		fails |= Readyz
	case Stopping:
		if !s.Started {
			fails |= Readyz
		}
	}
	if fails == 0 {
		return "", 0
	}
	if s.StartLate && p.OnStartTimeout == NotLive {
		fails |= Readyz | Livez
	}
	return s.startReason(p), fails
}

func (s *Snapshot) startReason(p *Policy) string {
	switch {
	case s.Unknown:
		return s.doubt()
	case s.Facts.Impossible != "":
		return "not ready: " + s.Facts.Impossible
	case s.Owed != (ProcID{}) && s.Facts.Denied != "":
		return "not ready: cannot continue the stopped process: " + s.Facts.Denied
	case s.Owed != (ProcID{}):
		return "not ready yet: stopped, waiting to see it run again"
	case s.StartLate:
		return fmt.Sprintf("not ready after %v: %s", p.StartTimeout, s.seen(p))
	}
	return "not ready yet" + waits[p.Expect]
}

var waits = [...]string{
	ExpectAuto:    ": no READY=1 and no stop so far",
	ExpectNotify:  ": no READY=1 so far",
	ExpectStop:    ": no stop so far",
	ExpectFork:    ": no fork so far",
	ExpectDaemon:  ": no second fork so far",
	ExpectPIDFile: ": no PID file so far",
	ExpectNone:    ": nothing runs so far",
}

// seen explains a start that took too long by what did happen, and names the
// expect that would have fitted.
func (s *Snapshot) seen(p *Policy) string {
	switch n := s.Seen; {
	case n.Stops > 0 && !p.Expect.Stops():
		return fmt.Sprintf("a process stopped itself (%d times); expect: stop would fit", n.Stops)
	case n.Readies > 0:
		return "it sent READY=1; expect: notify would fit"
	case p.Expect == ExpectDaemon && n.Forks == 1:
		return "1 fork was seen where 2 are expected; expect: fork would fit"
	case (p.Expect == ExpectFork || p.Expect == ExpectDaemon) && n.Forks == 0:
		return "no fork was seen: it stays in the foreground; expect: notify fits if it sends READY=1, expect: none if it never says it is ready"
	case p.Expect == ExpectPIDFile:
		file := s.Facts.PIDFile
		if file == "" {
			file = "names no process of this service"
		}
		return fmt.Sprintf("the PID file %s; forks seen: %d", file, n.Forks)
	case n.Statuses > 0:
		return "it spoke (STATUS or another word) but did not send READY=1; expect: notify fits once it does, raise timeouts.start if it is only slow"
	case s.Facts.Refused > 0:
		return "what was said came from senders that are not admitted; podnotify's log names them: see notify.access, and whether select fits"
	case n.Forks > 0:
		return fmt.Sprintf("it said nothing and started %d more processes; expect: none would fit a daemon that never says it is ready", n.Forks)
	}
	return "it said nothing and did not stop itself; see that NOTIFY_SOCKET or UPSTART_JOB reaches it, or set expect: none"
}

func checkGate(s *Snapshot, p *Policy) (string, Probe) {
	if !p.Gate || s.GateOpen {
		return "", 0
	}
	reason := "gate.tcp has not accepted a connection yet"
	if s.Facts.Gate != "" {
		reason += ": " + s.Facts.Gate
	}
	return reason, Startup | Readyz
}

func checkReload(s *Snapshot, p *Policy) (string, Probe) {
	if s.Phase != Reloading || p.OnReload == Ignore {
		return "", 0
	}
	if s.ReloadLate {
		return fmt.Sprintf("no READY=1 within %v of RELOADING=1", p.ReloadTimeout), Readyz
	}
	return "reloading", Readyz
}

func checkPaused(s *Snapshot, p *Policy) (string, Probe) {
	if !s.Paused || p.OnPaused == Ignore {
		return "", 0
	}
	return fmt.Sprintf("process %d is stopped by a signal; kill -CONT %d continues it", s.Main.PID, s.Main.PID), Readyz
}

func checkErrno(s *Snapshot, p *Policy) (string, Probe) {
	if s.Errno == 0 || p.OnErrno == Ignore {
		return "", 0
	}
	probes := Readyz
	if p.OnErrno == NotLive {
		probes |= Livez
	}
	if s.Facts.ErrnoName != "" {
		return fmt.Sprintf("the daemon reported errno %d (%s)", s.Errno, s.Facts.ErrnoName), probes
	}
	return fmt.Sprintf("the daemon reported errno %d", s.Errno), probes
}

func checkWatchdog(s *Snapshot, _ *Policy) (string, Probe) {
	switch {
	case s.Triggered:
		return "the daemon sent WATCHDOG=trigger", Readyz | Livez
	case s.Starved:
		return fmt.Sprintf("no WATCHDOG=1 within %v", s.Watchdog), Readyz | Livez
	}
	return "", 0
}

func checkStopping(s *Snapshot, p *Policy) (string, Probe) {
	if s.Phase != Stopping {
		return "", 0
	}
	if s.StopLate {
		return fmt.Sprintf("still stopping after %v", p.StopTimeout), Readyz | Livez
	}
	if s.StopSaid {
		return "the daemon said STOPPING=1", Readyz
	}
	return "it was asked to stop", Readyz
}

func checkRespawn(s *Snapshot, p *Policy) (string, Probe) {
	if !s.LimitHit {
		return "", 0
	}
	return fmt.Sprintf("respawned %d times within %v, not tried again; podnotify respawn begins anew, or see respawn.limit and respawn.interval",
		p.Respawn.Limit, p.Respawn.Interval), Readyz
}

func checkUnknown(s *Snapshot, p *Policy) (string, Probe) {
	if !s.Unknown || p.OnUnknown == UnknownReady {
		return "", 0
	}
	return s.doubt(), Readyz
}

// doubt is why it is not known what the daemon has said, and what to do.
func (s *Snapshot) doubt() string {
	why := "it ran before podnotify listened"
	if s.Facts.Adopted {
		why = "it was " + s.Phase.String() + " when podnotify was restarted"
	}
	return "not known whether it is ready: " + why + ", and READY=1 is said once; podnotify respawn or a reload tells, or see policy.unknown"
}
