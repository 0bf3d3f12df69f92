package lifecycle

import (
	"fmt"
	"time"
)

// Record is what a machine has to know again when podnotify was restarted: all
// that a daemon says once, and all that is done once. What the world tells at any
// time (paused, permitted) or what is only counted is not in it. Two records that
// are equal say the same; nothing needs to be written then.
type Record struct {
	Expect Expect    `json:"expect"`
	Phase  Phase     `json:"phase"`
	Since  time.Time `json:"since"`
	Main   ProcID    `json:"main"`
	Status string    `json:"status,omitempty"` // not set by Machine.Record, see Text

	Started   bool      `json:"started,omitempty"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	ReadyAt   time.Time `json:"readyAt,omitzero"`
	Unknown   bool      `json:"unknown,omitempty"`
	Doubted   bool      `json:"doubted,omitempty"` // it was unknown once

	Owed     ProcID `json:"owed,omitzero"`     // its stop is being answered
	Answered ProcID `json:"answered,omitzero"` // its stop was answered

	Errno        int           `json:"errno,omitempty"`
	BusError     string        `json:"busError,omitempty"`
	VarlinkError string        `json:"varlinkError,omitempty"`
	Watchdog     time.Duration `json:"watchdog,omitempty"` // nanoseconds
	Starved      bool          `json:"starved,omitempty"`
	Triggered    bool          `json:"triggered,omitempty"`
	GateOpen     bool          `json:"gateOpen,omitempty"`
	ReloadLate   bool          `json:"reloadLate,omitempty"`
	StopLate     bool          `json:"stopLate,omitempty"`
	StopSaid     bool          `json:"stopSaid,omitempty"`

	Spoke         bool                 `json:"spoke,omitempty"` // the main process said READY=1 itself
	Voice         ProcID               `json:"voice,omitzero"`  // another whose word holds
	VoiceReady    bool                 `json:"voiceReady,omitempty"`
	VoiceStopping bool                 `json:"voiceStopping,omitempty"`
	Server        ProcID               `json:"server,omitzero"`
	Finished      ProcID               `json:"finished,omitzero"`
	Held          bool                 `json:"held,omitempty"`
	Replaced      [replacedKept]ProcID `json:"replaced,omitzero"` // former main processes

	Asked   bool  `json:"asked,omitempty"`   // we asked it to stop
	Away    bool  `json:"away,omitempty"`    // and it is not to come back
	Leaving bool  `json:"leaving,omitempty"` // only because podnotify itself was going down
	Before  Phase `json:"before,omitempty"`  // and this was the phase before
	Kills   bool  `json:"kills,omitempty"`
	Respawn bool  `json:"respawn,omitempty"` // to respawn it
	Why     Why   `json:"why,omitempty"`
	Podded  bool  `json:"podded,omitempty"` // the pod's restart was asked for
	Back    bool  `json:"back,omitempty"`   // it has ended, and is to be started again

	Respawns  int       `json:"respawns,omitempty"`
	Respawned [whys]int `json:"respawned,omitzero"`
	Window    time.Time `json:"window,omitzero"` // when the respawns that are limited began
	Counted   int       `json:"counted,omitempty"`
	LimitHit  bool      `json:"limitHit,omitempty"`
	LastExit  *LastExit `json:"lastExit,omitempty"`
}

// MarshalText implements encoding.TextMarshaler.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Phase) UnmarshalText(b []byte) error {
	for i, n := range phaseNames {
		if n == string(b) {
			*p = Phase(i)
			return nil
		}
	}
	return fmt.Errorf("%q is no phase", b)
}

// MarshalText implements encoding.TextMarshaler.
func (e Expect) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *Expect) UnmarshalText(b []byte) error {
	v, ok := ParseExpect(string(b))
	if !ok {
		return fmt.Errorf("%q is no way of being ready", b)
	}
	*e = v
	return nil
}

// Validate reports whether a machine could have been in the state that a record
// tells. Records come from a file.
func (r *Record) Validate() error {
	living := r.Phase != Absent && r.Phase != Gone
	switch {
	case r.Phase >= phases:
		return fmt.Errorf("phase %d is none", r.Phase)
	case r.Before >= phases:
		return fmt.Errorf("phase %d is none", r.Before)
	case int(r.Expect) >= len(expectNames):
		return fmt.Errorf("expect %d is none", r.Expect)
	case r.Why >= whys:
		return fmt.Errorf("reason %d of a respawn is none", r.Why)
	case !living && r.Main != ProcID{}:
		return fmt.Errorf("a main process, and the phase is %v", r.Phase)
	case !living && (r.Started || r.Unknown || r.Owed != ProcID{}):
		return fmt.Errorf("something known of an instance, and the phase is %v", r.Phase)
	case (r.Phase == Ready || r.Phase == Reloading) && !r.Started:
		return fmt.Errorf("not started, and the phase is %v", r.Phase)
	case r.Main.PID < 0 || r.Owed.PID < 0 || r.Voice.PID < 0:
		return fmt.Errorf("a negative process number")
	case r.Watchdog < 0, r.Respawns < 0, r.Counted < 0:
		return fmt.Errorf("a negative count")
	case r.Phase == Gone && r.LastExit == nil:
		return fmt.Errorf("gone, and no end")
	}
	for _, n := range r.Respawned {
		if n < 0 {
			return fmt.Errorf("a negative count")
		}
	}
	return nil
}

// Moved is the record with every time in it replaced by f of it: the clock may
// have been set since it was taken.
func (r Record) Moved(f func(time.Time) time.Time) Record {
	for _, t := range []*time.Time{&r.Since, &r.StartedAt, &r.ReadyAt, &r.Window} {
		if !t.IsZero() {
			*t = f(*t)
		}
	}
	if r.LastExit != nil {
		x := *r.LastExit
		x.At = f(x.At)
		r.LastExit = &x
	}
	return r
}

// Record returns what has to be known after a restart, without the text of
// STATUS. It allocates nothing.
func (m *Machine) Record() Record {
	s := &m.s
	return Record{
		Expect: m.p.Expect, Phase: s.Phase, Since: s.Since, Main: s.Main,
		Started: s.Started, StartedAt: s.StartedAt, ReadyAt: s.ReadyAt, Unknown: s.Unknown, Doubted: m.doubted,
		Owed: s.Owed, Answered: m.answered,
		Errno: s.Errno, BusError: s.BusError, VarlinkError: s.VarlinkError,
		Watchdog: s.Watchdog, Starved: s.Starved, Triggered: s.Triggered, GateOpen: s.GateOpen,
		ReloadLate: s.ReloadLate, StopLate: s.StopLate, StopSaid: s.StopSaid,
		Spoke: m.spoke, Voice: m.voice.who, VoiceReady: m.voice.ready, VoiceStopping: m.voice.stopping,
		Server: m.server, Finished: m.finished, Held: m.held, Replaced: m.replaced,
		Asked: m.asked, Away: m.away, Leaving: m.leaving, Before: m.before, Kills: m.kills, Respawn: m.respawn, Why: m.why, Podded: m.podded, Back: m.back,
		Respawns: s.Respawns, Respawned: s.Respawned, Window: m.pace.since, Counted: m.pace.count, LimitHit: s.LimitHit,
		LastExit: s.LastExit,
	}
}

// Text is the text of STATUS as received. It is valid until the next Apply. said
// changes whenever the text does.
func (m *Machine) Text() (text []byte, said uint64) { return m.text, m.said }

// Restore returns the machine that a record was taken of. What has happened since
// is news like any other, told as such: Ended of a process that lives no more,
// and Resumed.
func Restore(p Policy, r Record) *Machine {
	m := New(p)
	m.s.Phase, m.s.Since, m.s.Main = r.Phase, r.Since, r.Main
	m.text = append(m.text, r.Status...)
	m.s.Started, m.s.StartedAt, m.s.ReadyAt, m.s.Unknown, m.doubted = r.Started, r.StartedAt, r.ReadyAt, r.Unknown, r.Doubted
	m.s.Owed, m.answered = r.Owed, r.Answered
	m.s.Errno, m.s.BusError, m.s.VarlinkError = r.Errno, r.BusError, r.VarlinkError
	m.s.Watchdog, m.s.Starved, m.s.Triggered, m.s.GateOpen = r.Watchdog, r.Starved, r.Triggered, r.GateOpen
	m.s.ReloadLate, m.s.StopLate, m.s.StopSaid = r.ReloadLate, r.StopLate, r.StopSaid
	m.spoke, m.server, m.finished, m.held, m.replaced = r.Spoke, r.Server, r.Finished, r.Held, r.Replaced
	m.voice = voice{who: r.Voice, ready: r.VoiceReady, stopping: r.VoiceStopping}
	m.asked, m.away, m.leaving, m.before, m.kills = r.Asked, r.Away, r.Leaving, r.Before, r.Kills
	m.respawn, m.why, m.podded, m.back = r.Respawn, r.Why, r.Podded, r.Back
	m.s.Respawns, m.s.Respawned, m.s.LimitHit, m.s.LastExit = r.Respawns, r.Respawned, r.LimitHit, r.LastExit
	m.pace = pace{since: r.Window, count: r.Counted}
	if r.LimitHit {
		m.calm = m.pace.quiet(&m.p.Respawn)
	}
	for i, id := range m.replaced {
		if id != (ProcID{}) {
			m.nextOld = (i + 1) % replacedKept
		}
	}
	return m
}

// The cells of Resumed: podnotify was restarted, and the main process lives on.
// Every clock starts anew, since what would have moved it may have been lost.

// resumeStarting: READY=1 may have been said meanwhile. A stop waits for us, and
// a PID file stays.
func resumeStarting(m *Machine, _ Event, now time.Time) {
	m.start = after(now, m.p.StartTimeout)
	if m.p.Expect.listens() {
		m.doubt(now)
	}
}

func resumeReady(m *Machine, _ Event, now time.Time) {
	if !m.podded {
		m.s.Starved = false
	}
	m.watchdog = after(now, m.s.Watchdog)
	if m.p.Gate && !m.s.GateOpen {
		m.act(Knock, m.s.Main)
	}
	if m.voice.who != (ProcID{}) {
		m.act(Hold, m.voice.who)
	}
	if m.s.Unknown { // policy.unknown may be another now
		m.doubt(now)
	}
}

func resumeReloading(m *Machine, e Event, now time.Time) {
	m.reload = after(now, m.p.ReloadTimeout)
	resumeReady(m, e, now)
	m.doubt(now)
}

// resumeStopping: a stop that was only on account of podnotify going down is
// over, now that it is back.
func resumeStopping(m *Machine, e Event, now time.Time) {
	if m.voice.who != (ProcID{}) {
		m.act(Hold, m.voice.who)
	}
	if !m.leaving || m.kills || m.s.StopSaid {
		m.stop = after(now, m.p.StopTimeout)
		m.killed = false
		return
	}
	m.asked, m.away, m.leaving = false, false, false
	switch m.before {
	case Ready:
		m.enter(Ready, now)
		resumeReady(m, e, now)
	case Reloading:
		m.enter(Reloading, now)
		resumeReloading(m, e, now)
	default:
		m.enter(Starting, now)
		resumeStarting(m, e, now)
	}
}

// resumeGone goes on with a respawn: what was to end with the main process may not
// have, and what was to follow a delay has waited for us. It is counted already.
func resumeGone(m *Machine, _ Event, _ time.Time) {
	restarts := m.p.Respawn.Mode.Restarts()
	m.back = m.back && restarts
	switch {
	case m.s.LastExit == nil:
	case m.back:
		m.act(Start, m.s.LastExit.Who)
	case m.respawn && !restarts:
		m.act(RestartContainer, m.s.LastExit.Who)
	}
}

// doubt is not knowing whether the main process is ready.
func (m *Machine) doubt(now time.Time) {
	m.s.Unknown, m.doubted = true, true
	switch m.p.OnUnknown {
	case UnknownReady:
		m.ready(now)
		m.s.Unknown = true
	case UnknownReload:
		m.act(AskReload, m.s.Main)
	case UnknownRestart:
		m.start = after(now, m.p.StartTimeout)
	}
}

// known ends a doubt: the daemon has said where it stands.
func (m *Machine) known(now time.Time) {
	if !m.s.Unknown {
		return
	}
	m.s.Unknown = false
	switch {
	case m.s.Phase != Starting:
		m.start = time.Time{}
	case m.start.IsZero():
		m.start = after(now, m.p.StartTimeout)
	}
}
