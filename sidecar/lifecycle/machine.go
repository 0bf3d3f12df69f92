package lifecycle

import "time"

// helperSpan separates the two kinds of process that speak without being the
// main process. One that ends within it after its only word (systemd-notify in
// a script) spoke for the main process; one that lived on spoke for itself, and
// its word ends with it (the temporary server of a database image). The
// protocol does not tell them apart.
const helperSpan = 500 * time.Millisecond

// lateSpan is how long after READY=1 a stop is taken to be the daemon's own.
const lateSpan = 20 * time.Millisecond

// replacedKept is how many replaced main processes are remembered. A daemon is
// upgraded one process at a time; more than a few never talk at once.
const replacedKept = 8

// Machine is the state of one service. Its methods must not be called at the
// same time. The zero Machine is not usable; see New.
type Machine struct {
	p       Policy
	s       Snapshot
	text    []byte // STATUS as received; Snapshot.Status is made from it only when someone looks
	said    uint64 // grows with every other text
	spoke   bool   // the main process itself said READY=1
	doubted bool   // it was unknown what this instance had said; any READY=1 tells

	voice    voice
	server   ProcID // the last process beside the main process that said READY=1
	finished ProcID // it said STOPPING=1 since
	answered ProcID // the last process whose owed stop was answered
	replaced [replacedKept]ProcID
	nextOld  int

	asked   bool  // we asked it to stop: READY and RELOADING are ignored until a new instance
	away    bool  // and it is not to come back
	kills   bool  // and kill it after the stop time-out
	leaving bool  // only because podnotify itself goes down
	before  Phase // then: the phase before
	killed  bool
	held    bool // READY=1 came from the main process while another's STOPPING=1 held

	respawn bool // it is being stopped to be respawned
	why     Why
	pace    pace
	podded  bool // RestartPod was asked for once for this instance
	back    bool // Start was asked for, or will be

	start, reload, stop, watchdog, again, calm time.Time // deadlines; zero: none

	actions []Action
}

// voice is a process other than the main process whose phase word holds now.
type voice struct {
	who             ProcID
	ready, stopping bool
	at              time.Time // its last word
}

// New returns the machine of a service of which nothing is known: not started,
// not ready, live.
func New(p Policy) *Machine {
	m := &Machine{p: p}
	m.s.Watchdog = p.Watchdog
	return m
}

// Apply takes one piece of news that happened at now and returns what is to be
// done about it, in order. The slice is good until the next call.
func (m *Machine) Apply(e Event, now time.Time) []Action {
	m.actions = m.actions[:0]
	m.s.Gen++
	table[m.s.Phase][e.Kind].do(m, e, now)
	return m.actions
}

// Phase is the current phase.
func (m *Machine) Phase() Phase { return m.s.Phase }

// Main is the current main process, zero if there is none.
func (m *Machine) Main() ProcID { return m.s.Main }

// LastExit is the end of the previous main process, nil before the first.
func (m *Machine) LastExit() *LastExit { return m.s.LastExit }

// Owed is the process whose readiness stop is being answered, zero if none.
func (m *Machine) Owed() ProcID { return m.s.Owed }

// Paused reports whether the main process is stopped by a signal, and owes us
// nothing by it.
func (m *Machine) Paused() bool { return m.s.Paused }

// Halted reports whether the main process is known to be stopped, whatever for.
func (m *Machine) Halted() bool {
	return m.s.Paused || m.s.Owed != (ProcID{}) && m.s.Owed == m.s.Main
}

// Notable is what the log tells of beside the phase.
type Notable struct {
	Paused   bool
	LimitHit bool
	Errno    int
}

// Notable returns what is notable now. It allocates nothing.
func (m *Machine) Notable() Notable { return Notable{m.s.Paused, m.s.LimitHit, m.s.Errno} }

// Counted is how many respawns the current window has, the one that is due included.
func (m *Machine) Counted() int { return m.pace.count }

// AwaitsStop reports whether a process that stops now would be taken to say
// that it is ready.
func (m *Machine) AwaitsStop(now time.Time) bool {
	if !m.p.Expect.Stops() {
		return false
	}
	switch m.s.Phase {
	case Absent, Starting, Gone:
		return true
	}
	return m.s.Owed != (ProcID{})
}

// MayStopLate reports whether the main process may still owe a stop although it
// is ready: in auto, a daemon may send READY=1 and stop itself as well. One that
// was told to (owes: it has UPSTART_JOB in its environment) may do so until the
// start time-out; any other only on the heels of its READY=1, because later it
// is an operator who stops it.
func (m *Machine) MayStopLate(owes bool, now time.Time) bool {
	if m.p.Expect != ExpectAuto || m.answered == m.s.Main || (m.s.Phase != Ready && m.s.Phase != Reloading) {
		return false
	}
	if owes && m.p.StartTimeout > 0 && now.Sub(m.s.StartedAt) < m.p.StartTimeout {
		return true
	}
	return now.Sub(m.s.ReadyAt) < lateSpan
}

// Deadline is the earliest moment at which a Timer event changes something.
func (m *Machine) Deadline() (time.Time, bool) {
	var d time.Time
	for _, t := range [...]time.Time{m.start, m.reload, m.stop, m.watchdog, m.again, m.calm} {
		if !t.IsZero() && (d.IsZero() || t.Before(d)) {
			d = t
		}
	}
	return d, !d.IsZero()
}

// Snapshot returns what is known now. It allocates; Apply does not.
func (m *Machine) Snapshot() Snapshot {
	s := m.s
	s.Status = string(m.text)
	s.Deadline, _ = m.Deadline()
	s.RespawnAt = m.again
	return s
}

func (m *Machine) act(k ActionKind, who ProcID) {
	m.actions = append(m.actions, Action{Kind: k, Who: who})
}

// enter is the only place where the phase is assigned. Each phase has its own
// timer; the others are off.
func (m *Machine) enter(p Phase, now time.Time) {
	if m.s.Phase == p {
		return
	}
	m.s.Phase, m.s.Since = p, now
	m.start, m.reload, m.stop = time.Time{}, time.Time{}, time.Time{}
	m.s.StartLate, m.s.ReloadLate, m.s.StopLate = false, false, false
	switch p {
	case Starting:
		m.start = after(now, m.p.StartTimeout)
		m.watchdog, m.s.Starved = time.Time{}, false
	case Reloading:
		m.reload = after(now, m.p.ReloadTimeout)
	case Stopping:
		m.stop = after(now, m.p.StopTimeout)
		m.watchdog = time.Time{}
		m.s.Unknown = false
	case Gone:
		m.watchdog, m.s.Starved = time.Time{}, false
		m.s.Unknown = false
	}
}

func after(now time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return now.Add(d)
}

// instance begins a new life of the service with who as its main process (zero
// if not known yet).
func (m *Machine) instance(who ProcID, missed bool, now time.Time) {
	if m.s.Phase == Gone {
		m.s.Respawns++
		m.s.Respawned[m.why]++
	}
	m.why, m.respawn, m.podded, m.back, m.again = WhyEnded, false, false, false, time.Time{}
	m.s.Reload = ReloadInfo{}
	m.adopt(who)
	m.spoke, m.asked, m.away, m.kills, m.killed, m.held = false, false, false, false, false, false
	m.leaving, m.before, m.doubted, m.s.Unknown = false, Absent, false, false
	m.voice = voice{}
	m.text = m.text[:0]
	m.s.Started, m.s.Paused, m.s.StopSaid = false, false, false
	m.s.Owed = ProcID{}
	m.s.Errno, m.s.BusError, m.s.VarlinkError = 0, "", ""
	m.s.Triggered, m.s.GateOpen = false, false
	m.s.Watchdog, m.s.PingAt = m.p.Watchdog, time.Time{}
	m.s.Seen = Seen{}
	m.s.StartedAt, m.s.ReadyAt = now, time.Time{}
	m.enter(Starting, now)
	if m.p.Expect == ExpectNone && who != (ProcID{}) {
		m.ready(now)
	}
	// What was said to nobody is missed; a PID file and a process that runs are not.
	if missed && (m.p.Expect.listens() || m.p.Expect.Stops()) {
		m.doubt(now)
	}
}

func (m *Machine) adopt(who ProcID) {
	if who == m.s.Main {
		return
	}
	if m.s.Main != (ProcID{}) {
		m.replaced[m.nextOld] = m.s.Main
		m.nextOld = (m.nextOld + 1) % replacedKept
	}
	m.s.Main = who
	m.s.Paused = false
	m.s.Deniable, m.s.Forbidden = false, false
	m.spoke = false
	if m.voice.who == who {
		m.spoke = m.voice.ready
		m.voice = voice{}
	}
	for i, old := range m.replaced {
		if old == who { // named again
			m.replaced[i] = ProcID{}
		}
	}
}

// stale reports a phase word of a process that MAINPID has replaced. What it
// still says is about itself, not about the service.
func (m *Machine) stale(e Event) bool {
	if e.Named || e.Who == (ProcID{}) || e.Who == m.s.Main {
		return false
	}
	for _, old := range m.replaced {
		if old == e.Who {
			m.s.Seen.Ignored++
			return true
		}
	}
	return false
}

// speak remembers who said a phase word, if it was not the main process.
func (m *Machine) speak(e Event, now time.Time) *voice {
	if e.Who == (ProcID{}) || e.Who == m.s.Main || e.Named {
		m.voice = voice{}
		return nil
	}
	if m.voice.who != e.Who {
		m.voice = voice{who: e.Who, ready: m.server == e.Who}
		m.act(Hold, e.Who)
	}
	m.voice.at = now
	return &m.voice
}

func (m *Machine) ready(now time.Time) {
	first := !m.s.Started
	if first {
		m.s.ReadyAt = now
	}
	m.s.Started = true
	m.s.Errno = 0 // an older ERRNO; one in the same datagram is applied after READY
	if m.s.LimitHit {
		m.s.LimitHit, m.calm = false, time.Time{}
	}
	m.enter(Ready, now)
	m.known(now)
	if m.watchdog.IsZero() { // armed when start-up is complete, not by earlier pings
		m.watchdog = after(now, m.s.Watchdog)
	}
	if first && m.p.Gate && !m.s.GateOpen {
		m.act(Knock, m.s.Main)
	}
}

// --- the cells of the table -------------------------------------------------

func nop(*Machine, Event, time.Time) {}

// count notes news that means nothing in this phase.
func count(m *Machine, _ Event, _ time.Time) { m.s.Seen.Ignored++ }

func found(m *Machine, e Event, now time.Time) {
	m.instance(e.Who, e.Missed, now)
	m.heard(now)
}

// heard: the main process of a new instance may have said READY=1 before the end of
// the last one was seen, and so before it was known to be more than another child.
func (m *Machine) heard(now time.Time) {
	if who := m.s.Main; who != (ProcID{}) && who == m.server && who != m.finished && m.p.Expect.listens() {
		m.spoke = true
		m.ready(now)
	}
}

// refound takes a main process while none is known, or while only a launcher
// stood in for the one that will stop.
func refound(m *Machine, e Event, now time.Time) {
	if e.Who == m.s.Main {
		return
	}
	if m.s.Main == (ProcID{}) {
		m.adopt(e.Who)
		if m.p.Expect == ExpectNone {
			m.ready(now)
		}
		return
	}
	m.s.Seen.Forks++
}

func foundNext(m *Machine, e Event, now time.Time) {
	if e.Who != m.s.Main {
		found(m, e, now)
	}
}

func readyStarting(m *Machine, e Event, now time.Time) {
	if m.stale(e) {
		return
	}
	if !m.p.Expect.listens() && !m.doubted {
		m.s.Seen.Readies++
		return
	}
	readyAgain(m, e, now)
}

// readyAgain ends a reload, or repeats what is known. It counts whatever the
// service was expected to do first.
func readyAgain(m *Machine, e Event, now time.Time) {
	if m.stale(e) {
		return
	}
	if v := m.speak(e, now); v != nil {
		v.ready = true
		m.server, m.finished = e.Who, ProcID{}
	} else {
		m.spoke = true
	}
	if m.s.Reload.Began {
		m.s.Reload.Done = true
	}
	m.ready(now)
}

// readyStopping: STOPPING=1 is final for the process that said it. Only where
// that was not the main process may the main process still become ready: at
// once if the other had been a server of its own, else when that one's end has
// shown what it was.
func readyStopping(m *Machine, e Event, now time.Time) {
	if m.stale(e) {
		return
	}
	own := e.Who == m.voice.who && !e.Named
	if m.asked || m.voice.who == (ProcID{}) || own || e.Who == (ProcID{}) || !m.p.Expect.listens() {
		m.s.Seen.Ignored++
		return
	}
	if !m.voice.ready {
		m.held = true
		return
	}
	m.restart(now)
	readyStarting(m, e, now)
}

// restart is starting again with the same main process.
func (m *Machine) restart(now time.Time) {
	m.voice, m.held, m.s.StopSaid = voice{}, false, false
	m.enter(Starting, now)
	if m.shown() {
		m.ready(now)
	}
}

// shown reports that the main process has shown that it is ready in a way that
// it will not repeat, whatever others say: by its one stop, or by running.
func (m *Machine) shown() bool {
	switch m.p.Expect {
	case ExpectNotify:
		return false
	case ExpectAuto:
		return m.s.Main != (ProcID{}) && m.answered == m.s.Main
	}
	return m.s.Started
}

// reloadStarting: haproxy says RELOADING=1 before its first READY=1.
func reloadStarting(m *Machine, e Event, now time.Time) {
	if !m.stale(e) {
		m.known(now)
		m.s.Seen.Statuses++
	}
}

func reload(m *Machine, e Event, now time.Time) {
	if !m.stale(e) {
		m.reloads(e)
		m.enter(Reloading, now)
		m.known(now)
	}
}

// reloads tells a reload that we asked for from one that had begun before: its
// MONOTONIC_USEC is not older than our signal (systemd's notify-reload). Daemons
// that send none are believed.
func (m *Machine) reloads(e Event) {
	if r := &m.s.Reload; r.Asked != 0 && (e.Number == 0 || uint64(e.Number) >= r.Asked) {
		r.Began = true
	}
}

func reloadAgain(m *Machine, e Event, now time.Time) {
	if !m.stale(e) {
		m.reloads(e)
		m.reload = after(now, m.p.ReloadTimeout)
		m.s.ReloadLate = false
		m.known(now)
	}
}

func stopping(m *Machine, e Event, now time.Time) {
	if m.stale(e) {
		return
	}
	if v := m.speak(e, now); v != nil {
		v.stopping = true
		m.finished = e.Who
	}
	m.s.StopSaid = true
	m.enter(Stopping, now)
}

// stoppingAgain: the main process saying it too makes it final for the service.
func stoppingAgain(m *Machine, e Event, now time.Time) {
	if m.stale(e) {
		return
	}
	m.s.StopSaid = true
	if e.Who == m.server {
		m.finished = e.Who
	}
	if e.Who == m.s.Main {
		m.voice, m.held = voice{}, false
	}
}

func mainNew(m *Machine, e Event, now time.Time) { found(m, e, now) }

func mainPID(m *Machine, e Event, _ time.Time) {
	if e.Who == m.s.Main {
		return
	}
	m.adopt(e.Who)
	if m.p.Gate && m.s.Started && !m.s.GateOpen { // it was knocked at for the process replaced
		m.act(Knock, m.s.Main)
	}
}

// mainPIDStopping: the STOPPING=1 of a main process is about itself once it has
// named another (an upgrade that announces both).
func mainPIDStopping(m *Machine, e Event, now time.Time) {
	old := m.s.Main
	if old != (ProcID{}) && old != e.Who && !m.asked && m.voice.who == (ProcID{}) {
		m.voice = voice{who: old, ready: true, stopping: true, at: now}
		m.act(Hold, old)
	}
	mainPID(m, e, now)
}

// stopNew is a process that was stopped when it was first seen.
func stopNew(m *Machine, e Event, now time.Time) {
	if !m.p.Expect.Stops() || e.Job {
		return
	}
	m.instance(e.Who, false, now) // its stop waits to be answered
	stopStarting(m, e, now)
}

// stopStarting answers an owed stop: record, continue, and be ready only when
// the process was seen running again. While stopped it cannot serve.
func stopStarting(m *Machine, e Event, _ time.Time) {
	if !e.Job {
		m.s.Seen.Stops++
	}
	switch {
	case e.Who == m.s.Owed:
		if e.Missed { // podnotify was restarted, and it may not have been answered
			m.act(Continue, e.Who)
		}
	case !m.p.Expect.Stops() || e.Job || m.answered == e.Who:
		if e.Who == m.s.Main {
			m.s.Paused = true
		}
	case m.s.Owed != (ProcID{}): // one answer at a time; the other is a helper's
	default:
		m.adopt(e.Who)
		m.s.Owed = e.Who
		m.act(Continue, e.Who)
	}
}

func stopRunning(m *Machine, e Event, now time.Time) {
	switch {
	case e.Who != m.s.Main || e.Who == m.s.Owed:
	case !e.Job && (m.MayStopLate(e.Owes, now) || m.s.Unknown && m.p.Expect == ExpectStop && m.answered != e.Who):
		m.s.Owed = e.Who
		m.act(Continue, e.Who)
	default:
		m.s.Paused = true
	}
}

// stopStopping: a stopped process cannot act on the SIGTERM it was sent; if we
// sent it, we continue it.
func stopStopping(m *Machine, e Event, _ time.Time) {
	if e.Who != m.s.Main {
		return
	}
	m.s.Paused = true
	if m.asked {
		m.act(Continue, e.Who)
	}
}

func continued(m *Machine, e Event, now time.Time) {
	if e.Who == (ProcID{}) {
		return
	}
	if e.Who == m.s.Main && m.s.Paused {
		m.s.Paused = false
		if !m.watchdog.IsZero() { // it could not ping while stopped
			m.watchdog = after(now, m.s.Watchdog)
		}
	}
	if e.Who == m.s.Owed {
		m.s.Owed, m.answered = ProcID{}, e.Who
		if m.s.Phase == Starting {
			m.ready(now)
		}
		m.known(now)
	}
}

func ended(m *Machine, e Event, now time.Time) {
	if e.Who == m.s.Owed { // not always the main process: MAINPID may have named another meanwhile
		m.s.Owed = ProcID{}
	}
	switch e.Who {
	case ProcID{}:
	case m.s.Main:
		m.gone(e, now)
	case m.voice.who:
		m.silenced(e, now)
	default:
		exitTold(m, e, now)
	}
}

func (m *Machine) gone(e Event, now time.Time) {
	reason := "unknown"
	switch {
	case e.Exit.Known && e.Exit.Signal != 0:
		reason = "killed"
	case e.Exit.Known:
		reason = "exited"
	}
	if m.s.Phase == Stopping {
		reason = "stopping"
	}
	if e.Exit.OOM {
		reason = "oom-killed"
	}
	x := &LastExit{Exit: e.Exit, Who: e.Who, At: now, Reason: reason, Asked: m.away || m.respawn}
	x.Clean = x.clean()
	m.s.LastExit = x
	m.s.Main, m.s.Owed = ProcID{}, ProcID{}
	m.s.Paused, m.s.Started = false, false
	m.voice = voice{}
	m.enter(Gone, now)
	m.comeBack(x, now)
}

// comeBack decides what follows the end of a main process.
func (m *Machine) comeBack(x *LastExit, now time.Time) {
	r := &m.p.Respawn
	switch {
	case m.respawn && !r.Mode.Restarts():
		m.act(RestartContainer, x.Who)
	case !r.Mode.Restarts(), m.away && !m.respawn, !m.respawn && !r.wants(x):
	default:
		if delay, ok := m.afford(now); ok {
			m.back = true
			if m.again = after(now, delay); m.again.IsZero() {
				m.act(Start, x.Who)
			}
		}
	}
}

// ComesBack reports whether a main process that is gone will be started again.
func (m *Machine) ComesBack() bool { return m.back }

// afford counts a respawn. Too many of them are not tried again until one
// becomes ready, somebody asks for one, or the window is over.
func (m *Machine) afford(now time.Time) (time.Duration, bool) {
	delay, ok := m.pace.next(&m.p.Respawn, now)
	if !ok {
		m.s.LimitHit = true
		m.calm = m.pace.quiet(&m.p.Respawn)
	}
	return delay, ok
}

// bringBack ends the main process so that it is respawned, if the mode says so.
func (m *Machine) bringBack(why Why, now time.Time) {
	mode := m.p.Respawn.Mode
	switch {
	case m.respawn, m.s.Main == ProcID{}, mode == RespawnPlatform && why != WhyAsked && why != WhyUnknown:
		return
	case m.asked && why != WhyAsked: // it is to go, and not to come back
		return
	case mode == RespawnPod && why != WhyAsked:
		if m.podded {
			return
		}
		if _, ok := m.afford(now); ok {
			m.podded, m.why = true, why
			m.act(RestartPod, m.s.Main)
		}
		return
	case why == WhyUnknown, mode == RespawnSignal && why != WhyAsked:
		if _, ok := m.afford(now); !ok {
			return
		}
	}
	m.respawn, m.why = true, why
	signal := Terminate
	switch why {
	case WhyWatchdog:
		signal = Abort
	case WhyStopTimeout:
		signal, m.killed = Kill, true
	}
	m.leaving = false
	m.goDown(true, now)
	m.act(signal, m.s.Main)
}

func respawnAsked(m *Machine, _ Event, now time.Time) {
	m.s.LimitHit, m.calm, m.pace = false, time.Time{}, pace{}
	m.bringBack(WhyAsked, now)
}

// notStarted counts a start that failed like one that ended at once.
func notStarted(m *Machine, e Event, now time.Time) {
	if !m.back || !m.again.IsZero() {
		return
	}
	delay, ok := m.afford(now)
	m.back = ok
	if !ok {
		return
	}
	if m.again = after(now, delay); m.again.IsZero() {
		m.act(Start, e.Who)
	}
}

// respawnGone starts the daemon at once, where we are who starts it.
func respawnGone(m *Machine, e Event, now time.Time) {
	due := m.back && m.again.IsZero() // Start was asked for already
	m.s.LimitHit, m.calm, m.pace, m.again = false, time.Time{}, pace{}, time.Time{}
	if m.p.Respawn.Mode.Restarts() && !due {
		m.why, m.back = WhyAsked, true
		m.act(Start, e.Who)
	}
}

func reloadAsked(m *Machine, e Event, _ time.Time) { m.s.Reload = ReloadInfo{Asked: uint64(e.Number)} }

// forked follows a daemon that goes into the background: CMD has exited and left
// Who behind, or a process it had left has exited in its turn.
func forked(m *Machine, e Event, now time.Time) {
	m.s.Seen.Forks = max(m.s.Seen.Forks, int(e.Number))
	want := int64(0)
	switch m.p.Expect {
	case ExpectFork:
		want = 1
	case ExpectDaemon:
		want = 2
	case ExpectPIDFile:
		want = 1 << 32
	default:
		return
	}
	m.adopt(e.Who)
	if e.Number >= want {
		m.ready(now)
	}
}

// forkedOn: a main process that had been taken for the daemon has ended and left
// Who behind. It was one more fork than expected, and this is the daemon.
func forkedOn(m *Machine, e Event, _ time.Time) {
	more := int(e.Number) > m.s.Seen.Forks
	m.s.Seen.Forks = max(m.s.Seen.Forks, int(e.Number))
	if more && (m.p.Expect == ExpectFork || m.p.Expect == ExpectDaemon) {
		m.adopt(e.Who)
	}
}

func pidFile(m *Machine, e Event, now time.Time) {
	if m.p.Expect == ExpectPIDFile {
		m.adopt(e.Who)
		m.ready(now)
	}
}

func pidFileNew(m *Machine, e Event, now time.Time) {
	if m.p.Expect == ExpectPIDFile {
		m.instance(e.Who, false, now)
		m.ready(now)
	}
}

// silenced: the process whose word held has ended and the main process lives.
func (m *Machine) silenced(e Event, now time.Time) {
	v := m.voice
	helper := v.ready != v.stopping && now.Sub(v.at) < helperSpan
	m.voice = voice{}
	if e.Missed && !m.asked && !(v.ready && (m.spoke || m.shown())) { // a helper or a server, and which is not known
		m.held = false
		m.restart(now)
		if m.s.Phase == Starting {
			m.doubt(now)
		}
		return
	}
	switch {
	case helper:
		m.spoke = m.spoke || v.ready
	case m.asked:
	case v.stopping:
		held := m.held
		m.restart(now)
		if held {
			m.spoke = true
			m.ready(now)
		}
		return
	case v.ready && !m.spoke && !m.shown():
		m.restart(now)
		return
	}
	m.held = false
}

// exitTold: the kernel tells a non-parent how a process ended only when its
// parent has reaped it (6.15), which is after the end was seen.
func exitTold(m *Machine, e Event, _ time.Time) {
	x := m.s.LastExit
	if x == nil || x.Who != e.Who || !e.Exit.Known || x.Known && (x.OOM || !e.Exit.OOM) {
		return
	}
	told := *x // published snapshots share the old one
	told.Exit = e.Exit
	if told.Reason == "unknown" {
		told.Reason = "exited"
		if e.Exit.Signal != 0 {
			told.Reason = "killed"
		}
	}
	if e.Exit.OOM {
		told.Reason = "oom-killed"
	}
	told.Clean = told.clean()
	m.s.LastExit = &told
}

// clean reports an end that is no failure: exit code 0, and for a service that
// was stopping also an end we asked for, one the kernel said nothing about, and
// one by the usual termination signals (systemd's SuccessExitStatus: HUP, INT,
// PIPE, TERM).
func (x *LastExit) clean() bool {
	if x.Reason != "stopping" {
		return x.Exit.Clean()
	}
	switch x.Signal {
	case 1, 2, 13, 15:
		return true
	}
	return x.Asked || !x.Known || x.Exit.Clean()
}

// stopAsked: whoever asks last is heard. A daemon on its way to a respawn that is
// told to stop stays away; one that is only sent a signal does as respawn.when says.
func stopAsked(m *Machine, e Event, now time.Time) {
	if e.Number == Leaving && !m.asked && m.s.Phase != Stopping {
		m.leaving, m.before = true, m.s.Phase
	} else if e.Number != Leaving {
		m.leaving = false
	}
	if e.Number != Signalling {
		m.away, m.respawn = true, m.respawn && e.Number == Leaving
	}
	m.goDown(e.Number == Killing, now)
}

func (m *Machine) goDown(kill bool, now time.Time) {
	m.asked = true
	m.kills = m.kills || kill
	if m.s.Paused || m.s.Owed != (ProcID{}) {
		who := m.s.Main
		if m.s.Owed != (ProcID{}) {
			who = m.s.Owed
		}
		m.act(Continue, who) // or the termination would stay pending
	}
	m.enter(Stopping, now)
	if m.kills && m.stop.IsZero() { // it said STOPPING=1 long ago; our asking starts the time-out anew
		m.stop = after(now, m.p.StopTimeout)
	}
}

// stopGone calls off the respawn that is due, if one is: what is told to stop stays
// away, as a unit of systemd's in auto-restart.
func stopGone(m *Machine, e Event, _ time.Time) {
	if e.Number != Leaving && e.Number != Signalling {
		m.back, m.again = false, time.Time{}
	}
}

func timer(m *Machine, _ Event, now time.Time) {
	passed := func(d *time.Time) bool {
		if d.IsZero() || now.Before(*d) {
			return false
		}
		*d = time.Time{}
		return true
	}
	switch {
	case !passed(&m.start):
	case m.s.Unknown: // no fault of the daemon's
		if m.p.OnUnknown == UnknownRestart {
			m.bringBack(WhyUnknown, now)
		}
	default:
		m.s.StartLate = true
		if m.p.OnStartTimeout == NotLive {
			m.bringBack(WhyStartTimeout, now)
		}
	}
	if passed(&m.reload) {
		m.s.ReloadLate = true
	}
	if passed(&m.stop) {
		m.s.StopLate = true
		if m.kills && !m.killed && m.s.Main != (ProcID{}) {
			m.killed = true
			m.act(Kill, m.s.Main)
		} else if !m.asked {
			m.bringBack(WhyStopTimeout, now)
		}
	}
	if passed(&m.again) {
		m.act(Start, ProcID{})
	}
	if passed(&m.calm) {
		m.s.LimitHit, m.pace = false, pace{}
	}
	if passed(&m.watchdog) {
		if m.s.Paused { // stopped, not starved
			m.watchdog = after(now, m.s.Watchdog)
		} else {
			m.s.Starved = true
			m.bringBack(WhyWatchdog, now)
		}
	}
}

func status(m *Machine, e Event, _ time.Time) {
	if string(m.text) != string(e.Text) {
		m.text = append(m.text[:0], e.Text...)
		m.said++
	}
	if m.s.Phase == Starting {
		m.s.Seen.Statuses++
	}
}

func errno(m *Machine, e Event, _ time.Time)    { m.s.Errno = int(e.Number) }
func busError(m *Machine, e Event, _ time.Time) { m.s.BusError = keep(m.s.BusError, e.Text) }
func varlinkError(m *Machine, e Event, _ time.Time) {
	m.s.VarlinkError = keep(m.s.VarlinkError, e.Text)
}

// keep allocates only for a text that is new.
func keep(old string, b []byte) string {
	if old == string(b) {
		return old
	}
	return string(b)
}

// pingEarly: a ping before ready does not arm the timer.
func pingEarly(m *Machine, _ Event, now time.Time) { m.s.PingAt = now }

func ping(m *Machine, _ Event, now time.Time) {
	m.s.PingAt = now
	if m.s.Starved && m.podded { // too late: the pod is being restarted for it
		return
	}
	m.s.Starved = false
	m.watchdog = after(now, m.s.Watchdog)
}

func trigger(m *Machine, _ Event, now time.Time) {
	m.s.Triggered = true
	m.bringBack(WhyWatchdog, now)
}

func watchdogEarly(m *Machine, e Event, now time.Time) {
	m.s.Watchdog = e.Span
	m.s.PingAt = now
}

func watchdogEvery(m *Machine, e Event, now time.Time) {
	m.s.Watchdog = e.Span
	ping(m, e, now)
}

// extend moves the deadline of the current phase, and the watchdog's, to
// max(deadline, now+n). It never makes one.
func extend(m *Machine, e Event, now time.Time) {
	for _, d := range [...]*time.Time{&m.start, &m.reload, &m.stop, &m.watchdog} {
		if to := now.Add(e.Span); !d.IsZero() && to.After(*d) {
			*d = to
		}
	}
}

func resetRespawns(m *Machine, _ Event, _ time.Time) {
	m.s.Respawns, m.pace = 0, pace{}
	m.s.LimitHit, m.calm = false, time.Time{}
}

func opened(m *Machine, e Event, _ time.Time) {
	if e.Who == m.s.Main {
		m.s.GateOpen = true
	}
}

func denied(m *Machine, e Event, _ time.Time) {
	if e.Who == m.s.Main {
		m.s.Deniable, m.s.Forbidden = true, true
	}
}

func permitted(m *Machine, e Event, _ time.Time) {
	if e.Who == m.s.Main {
		m.s.Deniable, m.s.Forbidden = true, false
	}
}
