package lifecycle

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// cast are the processes that any sequence of events is about. The two with one
// pid are one number used twice.
var cast = []ProcID{nobody, daemon, child, next, helper, {PID: 10, Start: 9000}}

// watcher holds a machine to what must be true whatever happens.
type watcher struct {
	p    Policy
	m    *Machine
	last Snapshot

	halted map[ProcID]bool // processes told to be stopped
	asked  bool            // we asked this instance to stop
	kills  bool            // and will kill it
	killed bool
	opened bool // the startup probe said yes of this main process

	back    bool        // we ended this instance to bring it back
	leaves  bool        // we ended it, and not to bring it back
	podded  bool        // we had the pod restarted for it
	renewed int         // instances after the first
	paced   []time.Time // respawns that count for the limit
}

func watch(p Policy) *watcher {
	w := &watcher{p: p, m: New(p), halted: map[ProcID]bool{}}
	w.last = w.m.Snapshot()
	return w
}

// arrows are the phases that a cell of the table says it leads to.
var arrows = regexp.MustCompile(`-> (\w+)`)

// may reports whether the table's words allow that news of kind k changes the
// phase from from to to.
func may(from Phase, k Kind, to Phase) bool {
	if from == to {
		return true
	}
	for _, a := range arrows.FindAllStringSubmatch(table[from][k].doc, -1) {
		if a[1] == to.String() {
			return true
		}
	}
	return false
}

func (w *watcher) apply(e Event, now time.Time) error {
	if e.Kind == Resumed {
		if w.last.Main == nobody && w.last.Phase != Gone && w.last.Phase != Absent {
			return nil // of whom nothing can be proven
		}
		var err error
		if w.m, err = rebirth(w.m, w.p); err != nil {
			return err
		}
		w.last = w.m.Snapshot()
	}
	actions := w.m.Apply(e, now)
	old, s := w.last, w.m.Snapshot()
	w.last = s
	says := func(probe Probe) bool { _, fails := s.Failing(&w.p, probe, nil); return !fails }

	// What the world looks like after the event, whatever the machine thinks.
	switch e.Kind {
	case Stopped:
		w.halted[e.Who] = true
	case Continued, Ended:
		delete(w.halted, e.Who)
	}
	living := old.Phase != Absent && old.Phase != Gone
	renewed := s.Phase != Gone && (!living && s.Phase != old.Phase || e.Kind == Found && old.Phase == Stopping && e.Who != old.Main)
	mode := w.p.Respawn.Mode
	asked, leaves, back, podded := w.asked, w.leaves, w.back, w.podded
	if renewed && old.Phase == Gone {
		w.renewed++
	}
	if renewed || s.Phase == Gone {
		w.asked, w.leaves, w.kills, w.killed, w.opened, w.back = false, false, false, false, false, false
	}
	if renewed {
		w.podded = false
	}
	if e.Kind == StopAsked && living {
		w.asked = true
		w.kills = w.kills || e.Number == Killing
		if e.Number != Signalling {
			w.leaves, w.back = true, w.back && e.Number == Leaving
		}
	}
	if e.Kind == Resumed {
		w.killed = false               // it may not have been sent
		w.asked = w.asked && w.m.asked // it was only us who went down
		w.leaves = w.leaves && w.m.away
	}
	switch e.Kind {
	case RespawnAsked:
		w.paced = nil
		if old.Main != nobody {
			w.asked, w.kills, w.back = true, true, true
		}
	case ResetRespawns:
		w.paced = nil
	}
	if old.LimitHit && !s.LimitHit && e.Kind == Timer {
		w.paced = nil
	}

	must := func(ok bool, format string, args ...any) error {
		if ok {
			return nil
		}
		return fmt.Errorf("%v of %v, %v -> %v: %s", e.Kind, e.Who, old.Phase, s.Phase, fmt.Sprintf(format, args...))
	}
	due, timed := w.m.Deadline()
	over := s.Phase == Gone || s.Phase == Absent
	var err error
	for _, x := range []error{
		must(s.Gen > old.Gen, "Gen went from %d to %d", old.Gen, s.Gen),
		must(may(old.Phase, e.Kind, s.Phase), "the table says %q", table[old.Phase][e.Kind].doc),
		must(s.Phase == old.Phase || s.Since.Equal(now), "Since is %v at %v", s.Since, now),
		must(!says(Readyz) || says(Livez), "ready and not live"),
		must(!says(Readyz) || says(Startup), "ready and not started"),
		must(!over || !says(Readyz) && !says(Startup), "ready or started without a process"),
		must(!over || s.Main == nobody && s.Owed == nobody && !s.Paused, "main %v owed %v paused %v", s.Main, s.Owed, s.Paused),
		must(!over || !timed || s.LimitHit || due.Equal(s.RespawnAt), "a deadline at %v", due),
		must(s.RespawnAt.IsZero() || mode == RespawnExec && over && w.m.ComesBack() && (!old.RespawnAt.IsZero() || back || !leaves), "respawned at %v", s.RespawnAt),
		must(s.LimitHit == old.LimitHit || s.LimitHit && w.p.Respawn.Limit > 0 && w.p.Respawn.Interval > 0 && (e.Kind == Ended || e.Kind == Timer || e.Kind == Trigger || e.Kind == NotStarted) ||
			!s.LimitHit && (s.Phase == Ready || e.Kind == RespawnAsked || e.Kind == ResetRespawns || e.Kind == Timer), "limit hit: %v", s.LimitHit),
		must(!old.Starved || s.Starved || over || s.Phase != Stopping && (s.Phase == Starting || old.Phase == Stopping) || !w.podded && s.Phase != Stopping, "no longer starved, although it is being respawned for it"),
		must(timed != due.IsZero() && due.Equal(s.Deadline), "deadline %v %v, in the snapshot %v", due, timed, s.Deadline),
		must(e.Kind != Timer || !timed || due.After(now), "deadline %v is not after its timer at %v", due, now),
		must(!s.Paused || w.halted[s.Main], "paused, and process %v was not seen stopped", s.Main),
		must(s.Owed == nobody || w.halted[s.Owed], "process %v owes a stop and was not seen stopped", s.Owed),
		must(s.Owed == nobody || w.p.Expect.Stops(), "a stop is owed"),
		must(e.Kind != Continued || e.Who == nobody || e.Who != s.Main || !w.m.Halted(), "runs and is taken for stopped"),
		must(!w.asked || s.Phase == Stopping, "we asked it to stop"),
		must(s.LastExit != nil || s.Phase != Gone && old.LastExit == nil, "no last exit"),
		must(s.Main == old.Main || e.Who == s.Main && (e.Kind == Found || e.Kind == MainPID || e.Kind == Stopped || e.Kind == Forked || e.Kind == PIDFileRead) ||
			s.Main == nobody && e.Kind == Ended && e.Who == old.Main || renewed, "main process %v became %v", old.Main, s.Main),
		must(!w.opened || says(Startup), "startup was yes and the main process has not ended"),
		must(s.StartLate == (s.StartLate && s.Phase == Starting) && s.ReloadLate == (s.ReloadLate && s.Phase == Reloading) && s.StopLate == (s.StopLate && s.Phase == Stopping),
			"late: start %v reload %v stop %v", s.StartLate, s.ReloadLate, s.StopLate),
		must(s.Started || s.Phase != Ready && s.Phase != Reloading, "not started"),
		must(s.Respawns >= old.Respawns || e.Kind == ResetRespawns, "respawns went from %d to %d", old.Respawns, s.Respawns),
		must(sum(s.Respawned) == w.renewed, "%d respawns, counted %v", w.renewed, s.Respawned),
	} {
		if err == nil {
			err = x
		}
	}
	for _, a := range actions {
		var x error
		switch a.Kind {
		case Continue:
			if x = must(w.halted[a.Who], "continues process %v, which is not stopped", a.Who); x == nil {
				x = must(w.asked || a.Who == s.Owed || slices.ContainsFunc(actions, func(b Action) bool { return b.Kind == Terminate || b.Kind == Abort || b.Kind == Kill }),
					"undoes an operator's stop of process %v", a.Who)
			}
		case Kill:
			late := e.Kind == Timer && s.StopLate && a.Who == s.Main && a.Who != nobody
			if ours := mode == RespawnSignal || mode == RespawnExec; ours && !asked { // it stopped by itself, and too slowly
				w.asked, w.kills, w.back = true, true, true
			}
			x = must(late && w.kills && !w.killed, "kills process %v", a.Who)
			w.killed = true
		case Hold:
			x = must(a.Who != nobody && a.Who != s.Main, "holds process %v", a.Who)
		case Knock:
			x = must(w.p.Gate && !s.GateOpen && a.Who == s.Main, "knocks for process %v", a.Who)
		case Terminate, Abort:
			byUs := !asked && ((mode == RespawnSignal || mode == RespawnExec) && (e.Kind == Timer || e.Kind == Trigger) ||
				e.Kind == Timer && old.Unknown && w.p.OnUnknown == UnknownRestart)
			x = must(!back && (e.Kind == RespawnAsked || byUs) && s.Phase == Stopping && a.Who == s.Main && a.Who != nobody, "ends process %v", a.Who)
			w.asked, w.kills, w.back = true, true, true
		case Start:
			if e.Kind == Resumed { // it may not have come to that
				x = must(mode.Restarts() && s.Phase == Gone && a.Who == s.LastExit.Who, "starts the daemon again")
				break
			}
			x = must(mode == RespawnExec && over && (e.Kind == RespawnAsked || !old.RespawnAt.IsZero() && e.Kind == Timer ||
				e.Kind == NotStarted || e.Kind == Ended && e.Who == old.Main && (back || !leaves)), "starts the daemon")
		case RestartContainer:
			if e.Kind == Resumed && s.Phase == Gone { // it may not have come to that
				x = must(!mode.Restarts() && a.Who == s.LastExit.Who, "restarts the container of %v", a.Who)
				break
			}
			x = must(mode != RespawnExec && back && e.Kind == Ended && e.Who == old.Main && a.Who == old.Main, "restarts the container of %v", a.Who)
		case RestartPod:
			x = must(mode == RespawnPod && !podded && !asked && a.Who == s.Main && a.Who != nobody, "restarts the pod of %v", a.Who)
			w.podded = true
		}
		if err == nil {
			err = x
		}
	}
	if err == nil {
		err = w.paces(e, old, s, asked, now, must)
	}
	w.opened = w.opened || says(Startup)
	return err
}

// paces holds the machine to its limit: in no span as long as the interval are
// there more than two windows' worth of respawns, which began by themselves.
func (w *watcher) paces(e Event, old, s Snapshot, asked bool, now time.Time, must func(bool, string, ...any) error) error {
	r := &w.p.Respawn
	if r.Interval == 0 || r.Limit == 0 || e.Kind == RespawnAsked {
		return nil
	}
	did := false
	for _, a := range w.m.actions {
		switch a.Kind {
		case Start: // at the end of the delay it was counted already
			did = did || e.Kind == Ended || e.Kind == NotStarted
		case Terminate, Abort, Kill:
			did = did || r.Mode == RespawnSignal && !asked
		case RestartPod:
			did = true
		}
	}
	did = did || old.RespawnAt.IsZero() && !s.RespawnAt.IsZero()
	if !did {
		return nil
	}
	w.paced = append(w.paced, now)
	n := 0
	for _, at := range w.paced {
		if now.Sub(at) < r.Interval {
			n++
		}
	}
	return must(n <= 2*r.Limit, "%d respawns within %v, with a limit of %d", n, r.Interval, r.Limit)
}

func sum(counts [whys]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// durations that a policy or a datagram may name.
var durations = []time.Duration{0, 1, ms, helperSpan, sec, 10 * sec, 90 * sec, 1<<63 - 1}

func drawPolicy(t *rapid.T) Policy {
	span := rapid.SampledFrom([]time.Duration{0, sec, 90 * sec})
	return Policy{
		Expect:         rapid.SampledFrom([]Expect{ExpectAuto, ExpectNotify, ExpectStop, ExpectFork, ExpectDaemon, ExpectPIDFile, ExpectNone}).Draw(t, "expect"),
		StartTimeout:   span.Draw(t, "start"),
		ReloadTimeout:  span.Draw(t, "reload"),
		StopTimeout:    span.Draw(t, "stop"),
		Watchdog:       span.Draw(t, "watchdog"),
		Gate:           rapid.Bool().Draw(t, "gate"),
		OnStartTimeout: rapid.SampledFrom([]Effect{Ignore, NotLive}).Draw(t, "start-timeout"),
		OnReload:       rapid.SampledFrom([]Effect{Ignore, NotReady}).Draw(t, "reloading"),
		OnErrno:        rapid.SampledFrom([]Effect{Ignore, NotReady, NotLive}).Draw(t, "errno"),
		OnPaused:       rapid.SampledFrom([]Effect{Ignore, NotReady}).Draw(t, "paused"),
		OnUnknown:      rapid.SampledFrom([]Unknown{UnknownNotReady, UnknownReady, UnknownReload, UnknownRestart}).Draw(t, "unknown"),
		Respawn: Respawn{
			Mode:     rapid.SampledFrom([]RespawnMode{RespawnPlatform, RespawnSignal, RespawnExec, RespawnPod}).Draw(t, "mode"),
			When:     rapid.SampledFrom([]RespawnWhen{OnFailure, Never, Always}).Draw(t, "when"),
			Normal:   rapid.SampledFrom([][]Exit{nil, {exited(0)}, {killedBy(15)}}).Draw(t, "normal"),
			Limit:    rapid.IntRange(0, 3).Draw(t, "limit"),
			Interval: span.Draw(t, "interval"),
			Delay:    rapid.SampledFrom([]time.Duration{0, ms, sec}).Draw(t, "delay"),
			MaxDelay: span.Draw(t, "max-delay"),
		},
	}
}

// Whatever a daemon, its children, an operator and the kernel do in whatever
// order: the machine keeps its word.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := watch(drawPolicy(t))
		now := epoch
		kinds := rapid.SampledFrom(plausible)
		who := rapid.SampledFrom(cast)
		step := rapid.SampledFrom([]time.Duration{0, 1, ms, 100 * ms, helperSpan, sec, 30 * sec, 90 * sec})
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			now = now.Add(step.Draw(t, "after"))
			e := Event{
				Kind:   kinds.Draw(t, "kind"),
				Who:    who.Draw(t, "who"),
				Named:  rapid.IntRange(0, 7).Draw(t, "named") == 0,
				Owes:   rapid.Bool().Draw(t, "owes"),
				Number: int64(rapid.IntRange(0, 3).Draw(t, "number")),
				Span:   rapid.SampledFrom(durations).Draw(t, "span"),
				Exit:   Exit{Known: rapid.Bool().Draw(t, "known"), Signal: rapid.SampledFrom([]int{0, 9, 15}).Draw(t, "signal")},
			}
			if err := w.apply(possible(w, e), now); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// plausible has every kind of news, the ones that lead far more often.
var plausible = func() []Kind {
	var out []Kind
	for k := range kinds {
		out = append(out, k)
	}
	for range 3 {
		out = append(out, Found, ReadyWord, ReadyWord, Reload, StopWord, MainPID, Stopped, Continued, Ended, Timer)
	}
	return out
}()

// possible makes of any event one that the loop can give: only a protocol word
// comes from nobody, and a process that is to be the main process exists.
func possible(w *watcher, e Event) Event {
	switch e.Kind {
	case MainPID, Stopped, Continued, Ended:
		if e.Who == nobody {
			e.Who = daemon
		}
	case Found:
		if e.Who == nobody && w.p.Expect == ExpectNone {
			e.Who = daemon
		}
	}
	return e
}

// FuzzMachine reads a policy and events from bytes.
func FuzzMachine(f *testing.F) {
	word := func(k Kind, who byte, rest ...byte) []byte { return append([]byte{byte(k), who, 5, 0}, rest...) }
	start := []byte{1, 0b0100_1001, 0, 0}
	join := func(bs ...[]byte) (out []byte) {
		for _, b := range bs {
			out = append(out, b...)
		}
		return out
	}
	f.Add(join(start, word(Found, 1), word(Reload, 1), word(ReadyWord, 1), word(StopWord, 1), word(Ended, 1)))
	f.Add(join(start, word(Found, 1), word(ReadyWord, 2), word(StopWord, 2), word(ReadyWord, 1), word(Ended, 2)))
	f.Add(join([]byte{2, 0xff, 0, 0}, word(Found, 1), word(Stopped, 1), word(MainPID, 3), word(Ended, 1), word(Stopped, 3), word(Continued, 3), word(StopAsked, 0), word(Timer, 0)))
	crash := join(word(Found, 1), word(ReadyWord, 1), word(Trigger, 1), word(Ended, 1), word(Timer, 0))
	for mode := range byte(4) {
		f.Add(join([]byte{1, 0b0100_1001, 0x20, 0x50 | mode}, crash, crash, crash))
		f.Add(join([]byte{1, 0b0100_1001, mode << 6, 0x50}, word(Found, 1), word(ReadyWord, 1), word(Resumed, 1), word(Timer, 0), word(Ended, 1)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 4 {
			return
		}
		pick := func(set, of byte) time.Duration { return []time.Duration{0, sec, 10 * sec, 90 * sec}[set>>of&3] }
		p := Policy{
			Expect:        Expect(b[0] % 7),
			StartTimeout:  pick(b[1], 0),
			ReloadTimeout: pick(b[1], 2),
			StopTimeout:   pick(b[1], 4),
			Watchdog:      pick(b[1], 6),
			Gate:          b[2]&1 != 0,
			OnErrno:       Effect(b[2] >> 1 % 3),
			OnReload:      Effect(b[2] >> 3 & 1),
			OnPaused:      Effect(b[2] >> 4 & 1),
			OnUnknown:     Unknown(b[2] >> 6),
		}
		if b[2]>>5&1 != 0 {
			p.OnStartTimeout = NotLive
		}
		p.Respawn = Respawn{
			Mode:     RespawnMode(b[3] & 3),
			When:     RespawnWhen(b[3] >> 2 % 3),
			Limit:    int(b[3] >> 4 & 3),
			Interval: pick(b[3]>>6&1*3, 0),
			Delay:    pick(b[3]>>7, 0),
			MaxDelay: 30 * sec,
		}
		w := watch(p)
		now := epoch
		for b = b[4:]; len(b) >= 4; b = b[4:] {
			x := binary.LittleEndian.Uint16(b[2:])
			now = now.Add(time.Duration(x>>4) * 10 * ms)
			e := Event{
				Kind:   Kind(b[0] % byte(kinds)),
				Who:    cast[int(b[1]&0x0f)%len(cast)],
				Named:  b[1]&0x10 != 0,
				Owes:   b[1]&0x20 != 0,
				Number: int64(b[1] >> 6),
				Span:   durations[int(x&7)],
				Exit:   Exit{Known: x&1 != 0, Code: int(x & 2), Signal: int(x & 8)},
				Text:   b[2:4],
			}
			if err := w.apply(possible(w, e), now); err != nil {
				t.Fatal(err)
			}
		}
	})
}
