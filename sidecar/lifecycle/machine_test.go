package lifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The cast of the tests. The daemon is the main process unless MAINPID or a stop
// says otherwise.
var (
	nobody = ProcID{}                     // dead before its word was read
	daemon = ProcID{PID: 10, Start: 1000} // the entry process
	child  = ProcID{PID: 20, Start: 2000} // of the daemon, with NOTIFY_SOCKET inherited
	next   = ProcID{PID: 30, Start: 3000} // the daemon's successor
	helper = ProcID{PID: 40, Start: 4000} // systemd-notify in a script
)

var epoch = time.Date(2020, 2, 29, 12, 0, 0, 0, time.UTC)

const (
	sec = time.Second
	ms  = time.Millisecond
)

func finds(who ProcID) Event      { return Event{Kind: Found, Who: who} }
func saysReady(who ProcID) Event  { return Event{Kind: ReadyWord, Who: who} }
func saysReload(who ProcID) Event { return Event{Kind: Reload, Who: who} }
func saysStop(who ProcID) Event   { return Event{Kind: StopWord, Who: who} }
func names(who ProcID) Event      { return Event{Kind: MainPID, Who: who} }
func stops(who ProcID) Event      { return Event{Kind: Stopped, Who: who} }
func runs(who ProcID) Event       { return Event{Kind: Continued, Who: who} }
func ends(who ProcID) Event       { return Event{Kind: Ended, Who: who} }
func saysErrno(n int64) Event     { return Event{Kind: Errno, Who: daemon, Number: n} }
func saysEvery(d time.Duration) Event {
	return Event{Kind: WatchdogEvery, Who: daemon, Span: d}
}
func saysExtend(d time.Duration) Event { return Event{Kind: Extend, Who: daemon, Span: d} }
func opens(who ProcID) Event           { return Event{Kind: Opened, Who: who} }

// named is a word that came in one datagram with MAINPID.
func named(e Event) Event { e.Named = true; return e }

// owes is the stop of a process with UPSTART_JOB in its environment.
func owes(e Event) Event { e.Owes = true; return e }

var (
	pings     = Event{Kind: Ping, Who: daemon}
	triggers  = Event{Kind: Trigger, Who: daemon}
	tick      = Event{Kind: Timer}
	asked     = Event{Kind: StopAsked}
	toKill    = Event{Kind: StopAsked, Number: Killing}
	signalled = Event{Kind: StopAsked, Number: Signalling}
)

// step is one piece of news at its time after the epoch, and all that is then
// known: phase, main process, the probes that say yes (S R L), the facts beside
// the phase, the next deadline, and what is to be done.
type step struct {
	at   time.Duration
	news Event
	want string
}

type story struct {
	name   string
	policy Policy
	steps  []step
}

// of is a policy without time-outs, so that no deadline shows.
func of(e Expect) Policy { return Policy{Expect: e, OnErrno: NotReady, OnPaused: NotReady} }

func with(e Expect, change func(*Policy)) Policy {
	p := of(e)
	change(&p)
	return p
}

func timed(e Expect) Policy {
	return with(e, func(p *Policy) {
		p.StartTimeout, p.ReloadTimeout, p.StopTimeout = 90*sec, 60*sec, 30*sec
	})
}

func watched(e Expect) Policy { return with(e, func(p *Policy) { p.Watchdog = 10 * sec }) }
func gated(e Expect) Policy   { return with(e, func(p *Policy) { p.Gate = true }) }

var actionNames = [...]string{Continue: "continue", Kill: "kill", Hold: "hold", Knock: "knock",
	Terminate: "terminate", Abort: "abort", Start: "start", RestartContainer: "restart container of", RestartPod: "restart pod of", AskReload: "ask"}

func describe(m *Machine, p *Policy, actions []Action) string {
	s := m.Snapshot()
	var b strings.Builder
	b.WriteString(s.Phase.String())
	if s.Main == nobody {
		b.WriteString(" - ")
	} else {
		fmt.Fprintf(&b, " %v ", s.Main)
	}
	for i, probe := range []Probe{Startup, Readyz, Livez} {
		if _, fails := s.Failing(p, probe, nil); fails {
			b.WriteByte('-')
		} else {
			b.WriteByte("SRL"[i])
		}
	}
	fact := func(yes bool, word string) {
		if yes {
			b.WriteString(" " + word)
		}
	}
	fact(s.Paused, "paused")
	fact(s.Owed != nobody, fmt.Sprintf("owed=%v", s.Owed))
	fact(s.Errno != 0, fmt.Sprintf("errno=%d", s.Errno))
	fact(s.StartLate || s.ReloadLate || s.StopLate, "late")
	fact(s.Starved, "starved")
	fact(s.Triggered, "triggered")
	fact(s.GateOpen, "gate")
	fact(s.LimitHit, "limit")
	fact(s.Unknown, "unknown")
	if d, ok := m.Deadline(); ok {
		fmt.Fprintf(&b, " due=%v", d.Sub(epoch))
	}
	for i, a := range actions {
		b.WriteString([]string{"; ", ", "}[min(i, 1)])
		fmt.Fprintf(&b, "%s %v", actionNames[a.Kind], a.Who)
	}
	return b.String()
}

func tell(t *testing.T, stories []story) {
	t.Helper()
	for _, st := range stories {
		t.Run(st.name, func(t *testing.T) {
			m := New(st.policy)
			for i, s := range st.steps {
				if s.news.Kind == Resumed || s.news.Kind == Ended && s.news.Missed {
					m = reborn(t, m, st.policy)
				}
				actions := m.Apply(s.news, epoch.Add(s.at))
				if got := describe(m, &st.policy, actions); got != s.want {
					t.Fatalf("step %d, %v of %v at %v:\n got %s\nwant %s", i, s.news.Kind, s.news.Who, s.at, got, s.want)
				}
			}
		})
	}
}

// Before anything is known: startup no, ready no, live yes (spec 5).
func TestNothingKnown(t *testing.T) {
	for e := ExpectAuto; e <= ExpectNone; e++ {
		p := of(e)
		if got := describe(New(p), &p, nil); got != "absent - --L" {
			t.Errorf("expect %v: %s", e, got)
		}
	}
	var words []step
	for _, k := range []Kind{ReadyWord, Reload, StopWord, Continued, Ended, StopAsked, Timer, Status, Errno, Ping, Trigger, WatchdogEvery, Extend, Opened} {
		words = append(words, step{0, Event{Kind: k, Who: daemon, Number: 1, Span: sec}, "absent - --L"})
	}
	tell(t, []story{{"words of nobody's process", of(ExpectAuto), words}})
}

// Ways of being ready (spec 3).
func TestReadiness(t *testing.T) {
	start := step{0, finds(daemon), "starting 10 --L"}
	startLate := step{0, finds(daemon), "starting 10 --L due=1m30s"}
	rows := []story{
		{"notify: READY=1 of the main process", of(ExpectNotify), []step{
			start,
			{sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"notify: READY=1 of a helper that is dead on arrival", of(ExpectNotify), []step{
			start,
			{sec, saysReady(nobody), "ready 10 SRL"},
		}},
		{"notify: READY=1 of a child does not make it the main process", of(ExpectNotify), []step{
			start,
			{sec, saysReady(child), "ready 10 SRL; hold 20"},
		}},
		{"notify: a stop is not readiness and is not undone", of(ExpectNotify), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L paused"},
			{2 * sec, runs(daemon), "starting 10 --L"},
			{3 * sec, saysReady(daemon), "ready 10 SRL"},
			{3 * sec, owes(stops(daemon)), "ready 10 S-L paused"},
		}},
		{"stop: ready only when it runs again", of(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"stop: READY=1 is not what is waited for", of(ExpectStop), []step{
			start,
			{sec, saysReady(daemon), "starting 10 --L"},
		}},
		{"stop: the process that stops is the main process", of(ExpectStop), []step{
			start,
			{1 * sec, stops(child), "starting 20 --L owed=20; continue 20"},
			{2 * sec, runs(child), "ready 20 SRL"},
			{3 * sec, ends(daemon), "ready 20 SRL"},
		}},
		{"stop: already stopped at first sight", of(ExpectStop), []step{
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"stop: running without having been stopped means nothing", of(ExpectStop), []step{
			start,
			{sec, runs(daemon), "starting 10 --L"},
		}},
		{"stop: answered once, a later stop is an operator's", of(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, stops(daemon), "starting 10 --L owed=10"},
			{3 * sec, runs(daemon), "ready 10 SRL"},
			{4 * sec, stops(daemon), "ready 10 S-L paused"},
			{5 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"stop: one answer at a time", of(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, stops(helper), "starting 10 --L owed=10"},
			{3 * sec, runs(helper), "starting 10 --L owed=10"},
			{4 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"stop: killed while stopped", of(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, ends(daemon), "gone - --L"},
			{3 * sec, runs(daemon), "gone - --L"},
		}},
		{"stop: who owes one is replaced and ends, the next stop is answered", of(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, names(next), "starting 30 --L owed=10"},
			{3 * sec, ends(daemon), "starting 30 --L"},
			{4 * sec, stops(next), "starting 30 --L owed=30; continue 30"},
			{5 * sec, runs(next), "ready 30 SRL"},
		}},
		{"stop: another instance owes another stop", of(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, runs(daemon), "ready 10 SRL"},
			{3 * sec, ends(daemon), "gone - --L"},
			{4 * sec, stops(next), "starting 30 --L owed=30; continue 30"},
			{5 * sec, runs(next), "ready 30 SRL"},
		}},
		{"stop: a helper that stops while the service is ready is nobody's business", of(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, runs(daemon), "ready 10 SRL"},
			{3 * sec, stops(helper), "ready 10 SRL"},
		}},
		{"auto: READY=1 comes first", of(ExpectAuto), []step{
			start,
			{sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"auto: the stop comes first", of(ExpectAuto), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, runs(daemon), "ready 10 SRL"},
			{3 * sec, saysReady(daemon), "ready 10 SRL"},
			{4 * sec, owes(stops(daemon)), "ready 10 S-L paused"},
		}},
		{"auto: READY=1 while the owed stop is answered", of(ExpectAuto), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, saysReady(daemon), "ready 10 SRL owed=10"},
			{3 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"auto: READY=1 and a stop, by a daemon that was told to", timed(ExpectAuto), []step{
			startLate,
			{1 * sec, saysReady(daemon), "ready 10 SRL"},
			{89 * sec, owes(stops(daemon)), "ready 10 SRL owed=10; continue 10"},
			{90 * sec, runs(daemon), "ready 10 SRL"},
			{90 * sec, owes(stops(daemon)), "ready 10 S-L paused"},
		}},
		{"auto: READY=1 and a stop after the start time-out is an operator's", timed(ExpectAuto), []step{
			startLate,
			{1 * sec, saysReady(daemon), "ready 10 SRL"},
			{90 * sec, owes(stops(daemon)), "ready 10 S-L paused"},
		}},
		{"auto: READY=1 and at once a stop, by a daemon nobody told", timed(ExpectAuto), []step{
			startLate,
			{1 * sec, saysReady(daemon), "ready 10 SRL"},
			{1*sec + 19*ms, stops(daemon), "ready 10 SRL owed=10; continue 10"},
			{2 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"auto: READY=1 and later a stop, by a daemon nobody told", timed(ExpectAuto), []step{
			startLate,
			{1 * sec, saysReady(daemon), "ready 10 SRL"},
			{1*sec + 20*ms, stops(daemon), "ready 10 S-L paused"},
			{2 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"auto: the late stop falls into a reload", timed(ExpectAuto), []step{
			startLate,
			{1 * sec, saysReady(daemon), "ready 10 SRL"},
			{2 * sec, saysReload(daemon), "reloading 10 SRL due=1m2s"},
			{3 * sec, owes(stops(daemon)), "reloading 10 SRL owed=10 due=1m2s; continue 10"},
			{4 * sec, runs(daemon), "reloading 10 SRL due=1m2s"},
		}},
		{"auto: a helper's late stop is not the service's", timed(ExpectAuto), []step{
			startLate,
			{1 * sec, saysReady(daemon), "ready 10 SRL"},
			{1 * sec, owes(stops(helper)), "ready 10 SRL"},
		}},
		{"none: it runs", of(ExpectNone), []step{
			{0, finds(daemon), "ready 10 SRL"},
			{1 * sec, saysReload(daemon), "reloading 10 SRL"},
			{2 * sec, saysReady(daemon), "ready 10 SRL"},
			{3 * sec, stops(daemon), "ready 10 S-L paused"},
			{4 * sec, ends(daemon), "gone - --L"},
			{5 * sec, finds(next), "ready 30 SRL"},
		}},
		{"none: an instance of which the main process is known later", of(ExpectNone), []step{
			{0, finds(nobody), "starting - --L"},
			{1 * sec, finds(daemon), "ready 10 SRL"},
		}},
	}
	for _, e := range []Expect{ExpectFork, ExpectDaemon, ExpectPIDFile} {
		rows = append(rows, story{e.String() + ": neither READY=1 nor a stop is what is waited for", of(e), []step{
			start,
			{1 * sec, saysReady(daemon), "starting 10 --L"},
			{2 * sec, stops(daemon), "starting 10 --L paused"},
			{3 * sec, runs(daemon), "starting 10 --L"},
		}})
	}
	tell(t, rows)
}

// The words of the protocol (spec 4).
func TestWords(t *testing.T) {
	start := step{0, finds(daemon), "starting 10 --L"}
	isReady := step{0, saysReady(daemon), "ready 10 SRL"}
	tell(t, []story{
		{"RELOADING=1 before the first READY=1 (haproxy)", of(ExpectNotify), []step{
			start,
			{1 * sec, saysReload(daemon), "starting 10 --L"},
			{2 * sec, named(saysReady(daemon)), "ready 10 SRL"},
			{3 * sec, saysReload(daemon), "reloading 10 SRL"},
			{4 * sec, saysReload(daemon), "reloading 10 SRL"},
			{5 * sec, named(saysReady(daemon)), "ready 10 SRL"},
		}},
		{"a reload with reloading: not-ready", with(ExpectNotify, func(p *Policy) { p.OnReload = NotReady }), []step{
			start, isReady,
			{1 * sec, saysReload(daemon), "reloading 10 S-L"},
			{2 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"a helper reloads for the main process", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysReload(helper), "reloading 10 SRL"},
			{1 * sec, ends(helper), "reloading 10 SRL"},
			{2 * sec, saysReady(nobody), "ready 10 SRL"},
		}},
		{"READY=1 clears an older ERRNO, one in the same datagram stays", of(ExpectNotify), []step{
			start,
			{1 * sec, saysErrno(5), "starting 10 --L errno=5"},
			{2 * sec, saysReady(daemon), "ready 10 SRL"},
			{2 * sec, saysErrno(7), "ready 10 S-L errno=7"},
			{3 * sec, saysErrno(0), "ready 10 SRL"},
			{4 * sec, saysErrno(7), "ready 10 S-L errno=7"},
			{5 * sec, saysReady(daemon), "ready 10 SRL"},
			{6 * sec, saysErrno(7), "ready 10 S-L errno=7"},
			{7 * sec, ends(daemon), "gone - --L errno=7"},
			{8 * sec, finds(next), "starting 30 --L"},
		}},
		{"errno: not-live", with(ExpectNotify, func(p *Policy) { p.OnErrno = NotLive }), []step{
			start, isReady,
			{1 * sec, saysErrno(5), "ready 10 S-- errno=5"},
			{2 * sec, saysErrno(0), "ready 10 SRL"},
		}},
		{"errno: ignore", with(ExpectNotify, func(p *Policy) { p.OnErrno = Ignore }), []step{
			start, isReady,
			{1 * sec, saysErrno(5), "ready 10 SRL errno=5"},
		}},
		{"paused: ignore", with(ExpectNotify, func(p *Policy) { p.OnPaused = Ignore }), []step{
			start, isReady,
			{1 * sec, stops(daemon), "ready 10 SRL paused"},
		}},
		{"STOPPING=1 is final for the process that said it", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysStop(daemon), "stopping 10 S-L"},
			{2 * sec, saysReady(daemon), "stopping 10 S-L"},
			{3 * sec, saysReload(daemon), "stopping 10 S-L"},
			{4 * sec, saysReady(nobody), "stopping 10 S-L"},
			{5 * sec, saysReady(child), "stopping 10 S-L"},
			{6 * sec, saysStop(daemon), "stopping 10 S-L"},
			{7 * sec, finds(daemon), "stopping 10 S-L"},
			{8 * sec, ends(daemon), "gone - --L"},
			{9 * sec, saysReady(daemon), "gone - --L"},
		}},
		{"STOPPING=1 before ready", of(ExpectNotify), []step{
			start,
			{1 * sec, saysStop(daemon), "stopping 10 --L"},
			{2 * sec, saysReady(daemon), "stopping 10 --L"},
		}},
		{"STOPPING=1 of a helper that is dead on arrival is the main process's", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysStop(nobody), "stopping 10 S-L"},
			{2 * sec, saysReady(daemon), "stopping 10 S-L"},
		}},
		{"STOPPING=1 ends a reload", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysReload(daemon), "reloading 10 SRL"},
			{2 * sec, saysStop(daemon), "stopping 10 S-L"},
		}},
		{"stopping, and another process is found", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysStop(daemon), "stopping 10 S-L"},
			{2 * sec, finds(next), "starting 30 --L"},
			{3 * sec, saysReady(daemon), "starting 30 --L"},
			{4 * sec, ends(daemon), "starting 30 --L"},
			{5 * sec, saysReady(next), "ready 30 SRL"},
		}},
		{"gone: words of the dead mean nothing", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, ends(daemon), "gone - --L"},
			{2 * sec, saysReady(nobody), "gone - --L"},
			{3 * sec, saysReload(daemon), "gone - --L"},
			{4 * sec, saysStop(daemon), "gone - --L"},
			{5 * sec, asked, "gone - --L"},
		}},
	})
}

// A process beside the main process speaks: for the main process, or for itself.
func TestOtherSpeakers(t *testing.T) {
	start := step{0, finds(daemon), "starting 10 --L"}
	temporary := step{1 * sec, saysReady(child), "ready 10 SRL; hold 20"}
	tell(t, []story{
		{"temporary server", of(ExpectNotify), []step{
			start, temporary,
			{4 * sec, saysStop(child), "stopping 10 S-L"},
			{4*sec + 10*ms, ends(child), "starting 10 S-L"},
			{9 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"temporary server, READY=1 of the main process queued before its end", of(ExpectNotify), []step{
			start, temporary,
			{4 * sec, saysStop(child), "stopping 10 S-L"},
			{4*sec + 10*ms, saysReady(daemon), "ready 10 SRL"},
			{4*sec + 20*ms, ends(child), "ready 10 SRL"},
		}},
		{"temporary server that never says STOPPING=1", of(ExpectNotify), []step{
			start, temporary,
			{1*sec + helperSpan, ends(child), "starting 10 S-L"},
			{9 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"temporary server that repeats itself", of(ExpectNotify), []step{
			start, temporary,
			{4 * sec, saysStop(child), "stopping 10 S-L"},
			{5 * sec, saysReady(child), "stopping 10 S-L"},
			{6 * sec, saysStop(child), "stopping 10 S-L"},
			{7 * sec, ends(child), "starting 10 S-L"},
		}},
		{"temporary server, then the main process goes down as well", of(ExpectNotify), []step{
			start, temporary,
			{4 * sec, saysStop(child), "stopping 10 S-L"},
			{5 * sec, saysStop(daemon), "stopping 10 S-L"},
			{6 * sec, saysReady(daemon), "stopping 10 S-L"},
			{7 * sec, ends(child), "stopping 10 S-L"},
			{8 * sec, saysReady(daemon), "stopping 10 S-L"},
		}},
		{"temporary server ends after we asked the service to stop", of(ExpectNotify), []step{
			start, temporary,
			{4 * sec, saysStop(child), "stopping 10 S-L"},
			{5 * sec, asked, "stopping 10 S-L"},
			{6 * sec, saysReady(daemon), "stopping 10 S-L"},
			{7 * sec, ends(child), "stopping 10 S-L"},
		}},
		{"two temporary servers", of(ExpectNotify), []step{
			start, temporary,
			{2 * sec, saysStop(child), "stopping 10 S-L"},
			{2 * sec, ends(child), "starting 10 S-L"},
			{3 * sec, saysReady(next), "ready 10 SRL; hold 30"},
			{4 * sec, saysStop(next), "stopping 10 S-L"},
			{4 * sec, ends(next), "starting 10 S-L"},
			{5 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"the first temporary server ends when the second speaks", of(ExpectNotify), []step{
			start, temporary,
			{2 * sec, saysReady(next), "ready 10 SRL; hold 30"},
			{3 * sec, ends(child), "ready 10 SRL"},
			{4 * sec, ends(next), "starting 10 S-L"},
		}},
		{"a helper's READY=1 is the main process's, and stays", of(ExpectNotify), []step{
			start,
			{1 * sec, saysReady(helper), "ready 10 SRL; hold 40"},
			{1*sec + helperSpan - 1, ends(helper), "ready 10 SRL"},
			{9 * sec, saysReady(child), "ready 10 SRL; hold 20"},
			{19 * sec, ends(child), "ready 10 SRL"},
		}},
		{"a helper's STOPPING=1 is the main process's, and stays", of(ExpectNotify), []step{
			start, {1 * sec, saysReady(daemon), "ready 10 SRL"},
			{2 * sec, saysStop(helper), "stopping 10 S-L; hold 40"},
			{2*sec + helperSpan - 1, ends(helper), "stopping 10 S-L"},
			{3 * sec, saysReady(daemon), "stopping 10 S-L"},
		}},
		{"a child's STOPPING=1 was its own if it lived on", of(ExpectNotify), []step{
			start, {1 * sec, saysReady(daemon), "ready 10 SRL"},
			{2 * sec, saysStop(child), "stopping 10 S-L; hold 20"},
			{2*sec + helperSpan, ends(child), "starting 10 S-L"},
			{3 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"a child's STOPPING=1, READY=1 of the main process before it is known whose it was: its own", of(ExpectNotify), []step{
			start,
			{2 * sec, saysStop(child), "stopping 10 --L; hold 20"},
			{2*sec + 100*ms, saysReady(daemon), "stopping 10 --L"},
			{2*sec + helperSpan, ends(child), "ready 10 SRL"},
		}},
		{"a helper's STOPPING=1, READY=1 of the main process before it is known whose it was: the service's", of(ExpectNotify), []step{
			start,
			{2 * sec, saysStop(helper), "stopping 10 --L; hold 40"},
			{2*sec + 100*ms, saysReady(daemon), "stopping 10 --L"},
			{2*sec + 200*ms, ends(helper), "stopping 10 --L"},
			{3 * sec, saysReady(daemon), "stopping 10 --L"},
		}},
		{"a child ends after the main process has spoken too", of(ExpectNotify), []step{
			start, temporary,
			{2 * sec, saysReady(daemon), "ready 10 SRL"},
			{3 * sec, ends(child), "ready 10 SRL"},
			{4 * sec, saysReady(child), "ready 10 SRL; hold 20"},
			{5 * sec, ends(child), "ready 10 SRL"},
		}},
		{"a temporary server is one whoever spoke since", of(ExpectNotify), []step{
			start, temporary,
			{2 * sec, saysReady(daemon), "ready 10 SRL"},
			{4 * sec, saysStop(child), "stopping 10 S-L; hold 20"},
			{4*sec + 10*ms, ends(child), "starting 10 S-L"},
		}},
		{"temporary server of a daemon that may also stop", of(ExpectAuto), []step{
			start, temporary,
			{4 * sec, ends(child), "starting 10 S-L"},
			{5 * sec, stops(daemon), "starting 10 S-L owed=10; continue 10"},
			{6 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"the main process's STOPPING=1 is not undone by a child's end", of(ExpectNotify), []step{
			start, temporary,
			{2 * sec, saysStop(daemon), "stopping 10 S-L"},
			{3 * sec, ends(child), "stopping 10 S-L"},
			{4 * sec, saysReady(daemon), "stopping 10 S-L"},
		}},
		{"a child that spoke for itself ends during a reload", of(ExpectNotify), []step{
			start, temporary,
			{2 * sec, saysReload(child), "reloading 10 SRL"},
			{3 * sec, ends(child), "starting 10 S-L"},
		}},
		{"the child that spoke is named the main process", of(ExpectNotify), []step{
			start, temporary,
			{2 * sec, names(child), "ready 20 SRL"},
			{3 * sec, ends(daemon), "ready 20 SRL"},
			{4 * sec, saysReady(helper), "ready 20 SRL; hold 40"},
			{14 * sec, ends(helper), "ready 20 SRL"},
			{15 * sec, ends(child), "gone - --L"},
		}},
		{"the child that said STOPPING=1 is named the main process: final", of(ExpectNotify), []step{
			start, temporary,
			{2 * sec, saysStop(child), "stopping 10 S-L"},
			{3 * sec, names(child), "stopping 20 S-L"},
			{4 * sec, saysReady(child), "stopping 20 S-L"},
			{5 * sec, ends(daemon), "stopping 20 S-L"},
			{6 * sec, ends(child), "gone - --L"},
		}},
		// A stop is answered once, and a process runs once: neither is said again
		// when somebody else has fallen silent.
		{"stop: a child's words come and go", of(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, runs(daemon), "ready 10 SRL"},
			{3 * sec, saysReady(child), "ready 10 SRL; hold 20"},
			{4 * sec, ends(child), "ready 10 SRL"},
			{5 * sec, saysStop(helper), "stopping 10 S-L; hold 40"},
			{6 * sec, ends(helper), "ready 10 SRL"},
		}},
		{"auto: a child's words come and go after the stop", of(ExpectAuto), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, runs(daemon), "ready 10 SRL"},
			{3 * sec, saysReady(child), "ready 10 SRL; hold 20"},
			{4 * sec, saysStop(child), "stopping 10 S-L"},
			{5 * sec, ends(child), "ready 10 SRL"},
		}},
		{"none: a child's words come and go", of(ExpectNone), []step{
			{0, finds(daemon), "ready 10 SRL"},
			{3 * sec, saysReady(child), "ready 10 SRL; hold 20"},
			{4 * sec, ends(child), "ready 10 SRL"},
			{5 * sec, saysStop(helper), "stopping 10 S-L; hold 40"},
			{6 * sec, ends(helper), "ready 10 SRL"},
		}},
		{"stop: a child's words come and go before the stop", of(ExpectStop), []step{
			start,
			{1 * sec, saysStop(child), "stopping 10 --L; hold 20"},
			{2 * sec, ends(child), "starting 10 --L"},
			{3 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{4 * sec, runs(daemon), "ready 10 SRL"},
		}},
	})
}

// MAINPID hands the service over, in every phase.
func TestMainPID(t *testing.T) {
	start := step{0, finds(daemon), "starting 10 --L"}
	isReady := step{0, saysReady(daemon), "ready 10 SRL"}
	tell(t, []story{
		{"absent", of(ExpectNotify), []step{
			{0, names(next), "starting 30 --L"},
		}},
		{"absent, expect none", of(ExpectNone), []step{
			{0, names(next), "ready 30 SRL"},
		}},
		{"starting: the replaced process's words are ignored", of(ExpectNotify), []step{
			start,
			{1 * sec, names(next), "starting 30 --L"},
			{2 * sec, saysReady(daemon), "starting 30 --L"},
			{3 * sec, saysStop(daemon), "starting 30 --L"},
			{4 * sec, saysReady(next), "ready 30 SRL"},
			{5 * sec, saysReload(daemon), "ready 30 SRL"},
			{6 * sec, saysStop(daemon), "ready 30 SRL"},
			{7 * sec, ends(daemon), "ready 30 SRL"},
			{8 * sec, ends(next), "gone - --L"},
		}},
		{"starting: words in the datagram that names the main process count", of(ExpectNotify), []step{
			start,
			{1 * sec, names(next), "starting 30 --L"},
			{1 * sec, named(saysReady(daemon)), "ready 30 SRL"},
			{2 * sec, ends(daemon), "ready 30 SRL"},
		}},
		{"ready: the old one names the new one", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, names(next), "ready 30 SRL"},
			{2 * sec, saysStop(daemon), "ready 30 SRL"},
			{3 * sec, ends(daemon), "ready 30 SRL"},
			{4 * sec, saysReady(next), "ready 30 SRL"},
		}},
		{"reloading: an upgrade by reload", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysReload(daemon), "reloading 10 SRL"},
			{2 * sec, names(next), "reloading 30 SRL"},
			{3 * sec, saysReady(daemon), "reloading 30 SRL"},
			{4 * sec, saysReady(next), "ready 30 SRL"},
			{5 * sec, ends(daemon), "ready 30 SRL"},
		}},
		{"stopping: the old one's STOPPING=1 ends with it", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysStop(daemon), "stopping 10 S-L"},
			{2 * sec, names(next), "stopping 30 S-L; hold 10"},
			{2 * sec, ends(daemon), "starting 30 S-L"},
			{3 * sec, saysReady(next), "ready 30 SRL"},
		}},
		{"stopping: the new one is ready before the old one ended", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysStop(daemon), "stopping 10 S-L"},
			{2 * sec, names(next), "stopping 30 S-L; hold 10"},
			{2 * sec, named(saysReady(next)), "ready 30 SRL"},
			{3 * sec, saysStop(daemon), "ready 30 SRL"},
			{4 * sec, ends(daemon), "ready 30 SRL"},
		}},
		{"stopping: the old one says that the new one is ready", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysStop(daemon), "stopping 10 S-L"},
			{2 * sec, names(next), "stopping 30 S-L; hold 10"},
			{2 * sec, named(saysReady(daemon)), "ready 30 SRL"},
			{4 * sec, ends(daemon), "ready 30 SRL"},
		}},
		{"stopping: the new one stops too", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysStop(daemon), "stopping 10 S-L"},
			{2 * sec, names(next), "stopping 30 S-L; hold 10"},
			{3 * sec, saysStop(next), "stopping 30 S-L"},
			{4 * sec, ends(daemon), "stopping 30 S-L"},
			{5 * sec, saysReady(next), "stopping 30 S-L"},
			{6 * sec, ends(next), "gone - --L"},
		}},
		{"stopping: said in the datagram that names the new one", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, names(next), "ready 30 SRL"},
			{1 * sec, named(saysStop(daemon)), "stopping 30 S-L"},
			{2 * sec, ends(daemon), "stopping 30 S-L"},
			{3 * sec, saysReady(next), "stopping 30 S-L"},
		}},
		{"stopping: asked, whoever is the main process", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, asked, "stopping 10 S-L"},
			{2 * sec, names(next), "stopping 30 S-L"},
			{3 * sec, saysReady(next), "stopping 30 S-L"},
			{4 * sec, ends(daemon), "stopping 30 S-L"},
			{5 * sec, saysReady(next), "stopping 30 S-L"},
			{6 * sec, ends(next), "gone - --L"},
		}},
		{"gone: a new instance", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, ends(daemon), "gone - --L"},
			{2 * sec, names(next), "starting 30 --L"},
			{3 * sec, saysReady(next), "ready 30 SRL"},
		}},
		{"named again: there and back", of(ExpectNotify), []step{
			start,
			{1 * sec, names(next), "starting 30 --L"},
			{2 * sec, names(daemon), "starting 10 --L"},
			{3 * sec, saysReady(next), "starting 10 --L"},
			{4 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"the same process: nothing changes", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, stops(daemon), "ready 10 S-L paused"},
			{2 * sec, names(daemon), "ready 10 S-L paused"},
		}},
		{"a paused process is replaced", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, stops(daemon), "ready 10 S-L paused"},
			{2 * sec, names(next), "ready 30 SRL"},
			{3 * sec, runs(daemon), "ready 30 SRL"},
		}},
		{"what the old one had said does not outlive a child of the new one", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, names(next), "ready 30 SRL"},
			{2 * sec, saysReady(child), "ready 30 SRL; hold 20"},
			{3 * sec, ends(child), "starting 30 S-L"},
		}},
	})
}

// A process is upgraded again and again: each that was replaced is remembered,
// as far back as processes could still talk.
func TestManyUpgrades(t *testing.T) {
	p := of(ExpectNotify)
	m := New(p)
	m.Apply(finds(daemon), epoch)
	var old []ProcID
	for i := range replacedKept {
		old = append(old, m.Main())
		m.Apply(names(ProcID{PID: 100 + i, Start: 1}), epoch)
	}
	for _, o := range old {
		m.Apply(saysReady(o), epoch)
	}
	if s := m.Snapshot(); s.Phase != Starting || s.Seen.Ignored != replacedKept {
		t.Errorf("phase %v after %d ignored words, want starting after %d", s.Phase, s.Seen.Ignored, replacedKept)
	}
}

// podnotify asks the service to stop (spec 4, 7).
func TestStopAsked(t *testing.T) {
	start := step{0, finds(daemon), "starting 10 --L"}
	isReady := step{0, saysReady(daemon), "ready 10 SRL"}
	lateStart := step{0, finds(daemon), "starting 10 --L due=1m30s"}
	lateReady := step{0, saysReady(daemon), "ready 10 SRL"}
	tell(t, []story{
		{"READY=1 and RELOADING=1 are ignored until a new instance", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, asked, "stopping 10 S-L"},
			{2 * sec, saysReady(daemon), "stopping 10 S-L"},
			{3 * sec, saysReload(daemon), "stopping 10 S-L"},
			{4 * sec, saysReady(nobody), "stopping 10 S-L"},
			{5 * sec, saysReady(child), "stopping 10 S-L"},
			{6 * sec, saysStop(daemon), "stopping 10 S-L"},
			{7 * sec, asked, "stopping 10 S-L"},
			{8 * sec, ends(daemon), "gone - --L"},
			{9 * sec, finds(next), "starting 30 --L"},
			{10 * sec, saysReady(next), "ready 30 SRL"},
		}},
		{"while starting", of(ExpectNotify), []step{
			start,
			{1 * sec, asked, "stopping 10 --L"},
			{2 * sec, saysReady(daemon), "stopping 10 --L"},
		}},
		{"while reloading", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysReload(daemon), "reloading 10 SRL"},
			{2 * sec, asked, "stopping 10 S-L"},
			{3 * sec, saysReady(daemon), "stopping 10 S-L"},
		}},
		{"a paused daemon is continued, or the signal would stay pending", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, stops(daemon), "ready 10 S-L paused"},
			{2 * sec, asked, "stopping 10 S-L paused; continue 10"},
			{3 * sec, runs(daemon), "stopping 10 S-L"},
		}},
		{"a daemon paused later is continued too", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, asked, "stopping 10 S-L"},
			{2 * sec, stops(daemon), "stopping 10 S-L paused; continue 10"},
			{3 * sec, runs(daemon), "stopping 10 S-L"},
			{4 * sec, stops(child), "stopping 10 S-L"},
		}},
		{"a daemon that stops by itself is left paused by an operator", of(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysStop(daemon), "stopping 10 S-L"},
			{2 * sec, stops(daemon), "stopping 10 S-L paused"},
			{3 * sec, runs(daemon), "stopping 10 S-L"},
		}},
		{"a daemon whose owed stop is being answered is continued again, and not ready", of(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, asked, "stopping 10 --L owed=10; continue 10"},
			{3 * sec, stops(daemon), "stopping 10 --L paused owed=10; continue 10"},
			{4 * sec, runs(daemon), "stopping 10 --L"},
		}},
		{"the one that owes a stop is not the main process any more", of(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, names(next), "starting 30 --L owed=10"},
			{3 * sec, asked, "stopping 30 --L owed=10; continue 10"},
		}},
		{"killed once, after the stop time-out", timed(ExpectNotify), []step{
			lateStart, lateReady,
			{10 * sec, toKill, "stopping 10 S-L due=40s"},
			{39 * sec, tick, "stopping 10 S-L due=40s"},
			{40 * sec, tick, "stopping 10 S-- late; kill 10"},
			{41 * sec, tick, "stopping 10 S-- late"},
			{42 * sec, toKill, "stopping 10 S-- late due=1m12s"},
			{72 * sec, tick, "stopping 10 S-- late"},
			{73 * sec, ends(daemon), "gone - --L"},
		}},
		{"the kill waits as long as EXTEND_TIMEOUT_USEC says", timed(ExpectNotify), []step{
			lateStart, lateReady,
			{10 * sec, toKill, "stopping 10 S-L due=40s"},
			{30 * sec, saysExtend(50 * sec), "stopping 10 S-L due=1m20s"},
			{40 * sec, tick, "stopping 10 S-L due=1m20s"},
			{80 * sec, tick, "stopping 10 S-- late; kill 10"},
		}},
		{"forwarded only: no kill", timed(ExpectNotify), []step{
			lateStart, lateReady,
			{10 * sec, asked, "stopping 10 S-L due=40s"},
			{40 * sec, tick, "stopping 10 S-- late"},
		}},
		{"it had said STOPPING=1 long ago: the time-out begins anew", timed(ExpectNotify), []step{
			lateStart, lateReady,
			{10 * sec, saysStop(daemon), "stopping 10 S-L due=40s"},
			{40 * sec, tick, "stopping 10 S-- late"},
			{50 * sec, toKill, "stopping 10 S-- late due=1m20s"},
			{80 * sec, tick, "stopping 10 S-- late; kill 10"},
		}},
		{"it had just said STOPPING=1: the time-out runs on", timed(ExpectNotify), []step{
			lateStart, lateReady,
			{10 * sec, saysStop(daemon), "stopping 10 S-L due=40s"},
			{20 * sec, toKill, "stopping 10 S-L due=40s"},
			{40 * sec, tick, "stopping 10 S-- late; kill 10"},
		}},
		{"the kill is for who is the main process then", timed(ExpectNotify), []step{
			lateStart, lateReady,
			{10 * sec, toKill, "stopping 10 S-L due=40s"},
			{20 * sec, names(next), "stopping 30 S-L due=40s"},
			{40 * sec, tick, "stopping 30 S-- late; kill 30"},
		}},
		{"nobody is killed twice over two instances", timed(ExpectNotify), []step{
			lateStart,
			{10 * sec, toKill, "stopping 10 --L due=40s"},
			{20 * sec, ends(daemon), "gone - --L"},
			{30 * sec, finds(next), "starting 30 --L due=2m0s"},
			{35 * sec, saysStop(next), "stopping 30 --L due=1m5s"},
			{65 * sec, tick, "stopping 30 --- late"},
		}},
		{"no time-out, no kill", of(ExpectNotify), []step{
			start, isReady,
			{10 * sec, toKill, "stopping 10 S-L"},
			{1e6 * sec, tick, "stopping 10 S-L"},
		}},
	})
}

// Time-outs (spec 2, 4, 5; protocol A7).
func TestTimeouts(t *testing.T) {
	start := step{0, finds(daemon), "starting 10 --L due=1m30s"}
	isReady := step{0, saysReady(daemon), "ready 10 SRL"}
	tell(t, []story{
		{"start time-out and a late answer", timed(ExpectNotify), []step{
			start,
			{90*sec - 1, tick, "starting 10 --L due=1m30s"},
			{90 * sec, tick, "starting 10 --L late"},
			{99 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"start-timeout: not-live and a late answer", with(ExpectNotify, func(p *Policy) { p.StartTimeout, p.OnStartTimeout = 90*sec, NotLive }), []step{
			start,
			{89 * sec, tick, "starting 10 --L due=1m30s"},
			{90 * sec, tick, "starting 10 --- late"},
			{99 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"the start time-out of an instance is its own", timed(ExpectNotify), []step{
			start,
			{90 * sec, tick, "starting 10 --L late"},
			{95 * sec, ends(daemon), "gone - --L"},
			{100 * sec, finds(next), "starting 30 --L due=3m10s"},
		}},
		{"the start time-out begins anew when a temporary server ended", timed(ExpectNotify), []step{
			start,
			{1 * sec, saysReady(child), "ready 10 SRL; hold 20"},
			{10 * sec, saysStop(child), "stopping 10 S-L due=40s"},
			{11 * sec, ends(child), "starting 10 S-L due=1m41s"},
			{101 * sec, tick, "starting 10 S-L late"},
			{102 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"EXTEND is the later of two moments and does not add up", timed(ExpectNotify), []step{
			start,
			{10 * sec, saysExtend(30 * sec), "starting 10 --L due=1m30s"},
			{80 * sec, saysExtend(30 * sec), "starting 10 --L due=1m50s"},
			{80 * sec, saysExtend(30 * sec), "starting 10 --L due=1m50s"},
			{81 * sec, saysExtend(30 * sec), "starting 10 --L due=1m51s"},
			{90 * sec, tick, "starting 10 --L due=1m51s"},
			{111 * sec, tick, "starting 10 --L late"},
			{112 * sec, saysExtend(30 * sec), "starting 10 --L late"},
		}},
		{"EXTEND never creates a time-out", of(ExpectNotify), []step{
			{0, finds(daemon), "starting 10 --L"},
			{1 * sec, saysExtend(sec), "starting 10 --L"},
			{2 * sec, saysReady(daemon), "ready 10 SRL"},
			{3 * sec, saysExtend(sec), "ready 10 SRL"},
			{4 * sec, saysReload(daemon), "reloading 10 SRL"},
			{5 * sec, saysExtend(sec), "reloading 10 SRL"},
			{6 * sec, saysStop(daemon), "stopping 10 S-L"},
			{7 * sec, saysExtend(sec), "stopping 10 S-L"},
			{8 * sec, ends(daemon), "gone - --L"},
			{9 * sec, saysExtend(sec), "gone - --L"},
		}},
		{"EXTEND of the longest time there is", timed(ExpectNotify), []step{
			start,
			{1 * sec, saysExtend(1<<63 - 1 - sec), "starting 10 --L due=" + time.Duration(1<<63-1).String()},
			{1e6 * sec, tick, "starting 10 --L due=" + time.Duration(1<<63-1).String()},
		}},
		{"reload time-out, late answer", timed(ExpectNotify), []step{
			start, isReady,
			{10 * sec, saysReload(daemon), "reloading 10 SRL due=1m10s"},
			{20 * sec, saysReload(daemon), "reloading 10 SRL due=1m20s"},
			{70 * sec, saysExtend(20 * sec), "reloading 10 SRL due=1m30s"},
			{90 * sec, tick, "reloading 10 SRL late"},
			{91 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"reload time-out, and another reload", with(ExpectNotify, func(p *Policy) { p.ReloadTimeout, p.OnReload = 60*sec, NotReady }), []step{
			{0, finds(daemon), "starting 10 --L"}, isReady,
			{10 * sec, saysReload(daemon), "reloading 10 S-L due=1m10s"},
			{70 * sec, tick, "reloading 10 S-L late"},
			{80 * sec, saysReload(daemon), "reloading 10 S-L due=2m20s"},
			{90 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"stop time-out of a daemon that stops by itself", timed(ExpectNotify), []step{
			start, isReady,
			{10 * sec, saysStop(daemon), "stopping 10 S-L due=40s"},
			{20 * sec, saysStop(daemon), "stopping 10 S-L due=40s"},
			{39 * sec, saysExtend(5 * sec), "stopping 10 S-L due=44s"},
			{44 * sec, tick, "stopping 10 S-- late"},
			{50 * sec, ends(daemon), "gone - --L"},
		}},
		{"an early timer changes nothing", timed(ExpectNotify), []step{
			start,
			{1 * sec, tick, "starting 10 --L due=1m30s"},
		}},
	})
}

// The watchdog (spec 4, 5; protocol A7).
func TestWatchdog(t *testing.T) {
	start := step{0, finds(daemon), "starting 10 --L"}
	isReady := step{5 * sec, saysReady(daemon), "ready 10 SRL due=15s"}
	tell(t, []story{
		{"armed by READY=1, not by an early ping", watched(ExpectNotify), []step{
			start,
			{1 * sec, pings, "starting 10 --L"},
			isReady,
			{12 * sec, pings, "ready 10 SRL due=22s"},
			{22*sec - 1, tick, "ready 10 SRL due=22s"},
			{22 * sec, tick, "ready 10 S-- starved"},
			{30 * sec, pings, "ready 10 SRL due=40s"},
		}},
		{"READY=1 again is not a ping", watched(ExpectNotify), []step{
			start, isReady,
			{9 * sec, saysReady(daemon), "ready 10 SRL due=15s"},
			{15 * sec, tick, "ready 10 S-- starved"},
			{16 * sec, saysReady(daemon), "ready 10 S-- starved due=26s"},
		}},
		{"a helper's ping is a ping", watched(ExpectNotify), []step{
			start, isReady,
			{7 * sec, Event{Kind: Ping, Who: helper}, "ready 10 SRL due=17s"},
			{8 * sec, Event{Kind: Ping}, "ready 10 SRL due=18s"},
		}},
		{"runs on during a reload", watched(ExpectNotify), []step{
			start, isReady,
			{6 * sec, saysReload(daemon), "reloading 10 SRL due=15s"},
			{7 * sec, pings, "reloading 10 SRL due=17s"},
			{17 * sec, tick, "reloading 10 S-- starved"},
			{18 * sec, pings, "reloading 10 SRL due=28s"},
			{19 * sec, saysReady(daemon), "ready 10 SRL due=28s"},
		}},
		{"off when stopping, pings then arm nothing", watched(ExpectNotify), []step{
			start, isReady,
			{6 * sec, saysStop(daemon), "stopping 10 S-L"},
			{7 * sec, pings, "stopping 10 S-L"},
			{8 * sec, saysEvery(sec), "stopping 10 S-L"},
			{99 * sec, tick, "stopping 10 S-L"},
		}},
		{"a late ping clears nothing once something was done about it", watched(ExpectNotify), []step{
			start, isReady,
			{15 * sec, tick, "ready 10 S-- starved"},
			{16 * sec, toKill, "stopping 10 S-- starved"},
			{17 * sec, pings, "stopping 10 S-- starved"},
			{18 * sec, ends(daemon), "gone - --L"},
			{19 * sec, finds(next), "starting 30 --L"},
		}},
		{"WATCHDOG_USEC before ready", watched(ExpectNotify), []step{
			start,
			{1 * sec, saysEvery(3 * sec), "starting 10 --L"},
			{5 * sec, saysReady(daemon), "ready 10 SRL due=8s"},
		}},
		{"WATCHDOG_USEC replaces the interval until the next start", watched(ExpectNotify), []step{
			start, isReady,
			{6 * sec, saysEvery(3 * sec), "ready 10 SRL due=9s"},
			{7 * sec, pings, "ready 10 SRL due=10s"},
			{8 * sec, ends(daemon), "gone - --L"},
			{9 * sec, finds(next), "starting 30 --L"},
			{10 * sec, saysReady(next), "ready 30 SRL due=20s"},
		}},
		{"WATCHDOG_USEC is a ping", watched(ExpectNotify), []step{
			start, isReady,
			{15 * sec, tick, "ready 10 S-- starved"},
			{16 * sec, saysEvery(4 * sec), "ready 10 SRL due=20s"},
		}},
		{"WATCHDOG_USEC=0 disables", watched(ExpectNotify), []step{
			start, isReady,
			{6 * sec, saysEvery(0), "ready 10 SRL"},
			{7 * sec, pings, "ready 10 SRL"},
			{99 * sec, tick, "ready 10 SRL"},
		}},
		{"WATCHDOG_USEC enables what nobody configured", of(ExpectNotify), []step{
			start,
			{5 * sec, saysReady(daemon), "ready 10 SRL"},
			{6 * sec, pings, "ready 10 SRL"},
			{7 * sec, saysEvery(4 * sec), "ready 10 SRL due=11s"},
			{11 * sec, tick, "ready 10 S-- starved"},
		}},
		{"EXTEND moves it as well", watched(ExpectNotify), []step{
			start, isReady,
			{6 * sec, saysExtend(2 * sec), "ready 10 SRL due=15s"},
			{7 * sec, saysExtend(60 * sec), "ready 10 SRL due=1m7s"},
			{15 * sec, tick, "ready 10 SRL due=1m7s"},
			{67 * sec, tick, "ready 10 S-- starved"},
			{68 * sec, saysExtend(60 * sec), "ready 10 S-- starved"},
		}},
		{"a stopped daemon is paused, not starved", watched(ExpectNotify), []step{
			start, isReady,
			{6 * sec, stops(daemon), "ready 10 S-L paused due=15s"},
			{15 * sec, tick, "ready 10 S-L paused due=25s"},
			{25 * sec, tick, "ready 10 S-L paused due=35s"},
			{33 * sec, runs(daemon), "ready 10 SRL due=43s"},
			{43 * sec, tick, "ready 10 S-- starved"},
		}},
		{"WATCHDOG=trigger is for good", of(ExpectNotify), []step{
			start,
			{5 * sec, saysReady(daemon), "ready 10 SRL"},
			{6 * sec, triggers, "ready 10 S-- triggered"},
			{7 * sec, pings, "ready 10 S-- triggered"},
			{8 * sec, saysReady(daemon), "ready 10 S-- triggered"},
			{9 * sec, saysReload(daemon), "reloading 10 S-- triggered"},
			{10 * sec, names(next), "reloading 30 S-- triggered"},
			{11 * sec, ends(next), "gone - --- triggered"},
			{12 * sec, finds(child), "starting 20 --L"},
		}},
		{"WATCHDOG=trigger before ready", of(ExpectNotify), []step{
			start,
			{1 * sec, triggers, "starting 10 --- triggered"},
			{2 * sec, saysReady(daemon), "ready 10 S-- triggered"},
		}},
		{"temporary server: pings are due from the daemon's own READY=1 on", watched(ExpectNotify), []step{
			start,
			{1 * sec, saysReady(child), "ready 10 SRL due=11s; hold 20"},
			{2 * sec, saysStop(child), "stopping 10 S-L"},
			{3 * sec, ends(child), "starting 10 S-L"},
			{50 * sec, tick, "starting 10 S-L"},
			{60 * sec, saysReady(daemon), "ready 10 SRL due=1m10s"},
		}},
		{"of a daemon that is ready by its stop", watched(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, runs(daemon), "ready 10 SRL due=12s"},
		}},
	})
}

// gate.tcp holds ready until the address accepted once.
func TestGate(t *testing.T) {
	start := step{0, finds(daemon), "starting 10 --L"}
	isReady := step{0, saysReady(daemon), "ready 10 --L; knock 10"}
	tell(t, []story{
		{"ready waits", gated(ExpectNotify), []step{
			start, isReady,
			{1 * sec, saysReady(daemon), "ready 10 --L"},
			{2 * sec, opens(daemon), "ready 10 SRL gate"},
			{3 * sec, saysReload(daemon), "reloading 10 SRL gate"},
			{4 * sec, saysReady(daemon), "ready 10 SRL gate"},
		}},
		{"open before ready", gated(ExpectNotify), []step{
			start,
			{1 * sec, opens(daemon), "starting 10 --L gate"},
			{2 * sec, saysReady(daemon), "ready 10 SRL gate"},
		}},
		{"another process's is not this one's", gated(ExpectNotify), []step{
			start, isReady,
			{1 * sec, opens(child), "ready 10 --L"},
		}},
		{"each instance has its own", gated(ExpectNotify), []step{
			start, isReady,
			{1 * sec, opens(daemon), "ready 10 SRL gate"},
			{2 * sec, ends(daemon), "gone - --L gate"},
			{3 * sec, finds(next), "starting 30 --L"},
			{4 * sec, opens(daemon), "starting 30 --L"},
			{5 * sec, saysReady(next), "ready 30 --L; knock 30"},
		}},
		{"the main process is replaced while we knock", gated(ExpectNotify), []step{
			start, isReady,
			{1 * sec, names(next), "ready 30 --L; knock 30"},
			{2 * sec, opens(daemon), "ready 30 --L"},
			{3 * sec, opens(next), "ready 30 SRL gate"},
			{4 * sec, names(daemon), "ready 10 SRL gate"},
		}},
		{"opened while a temporary server goes down: it opens once", gated(ExpectNotify), []step{
			start,
			{1 * sec, saysReady(child), "ready 10 --L; hold 20, knock 10"},
			{2 * sec, saysStop(child), "stopping 10 --L"},
			{2 * sec, opens(daemon), "stopping 10 S-L gate"},
			{3 * sec, ends(child), "starting 10 S-L gate"},
			{4 * sec, saysReady(daemon), "ready 10 SRL gate"},
		}},
	})
}

// An instance begins with nothing of the one before, but counts it.
func TestInstance(t *testing.T) {
	p := timed(ExpectAuto)
	p.Watchdog, p.Gate = 10*sec, true
	m := New(p)
	for _, e := range []Event{
		finds(daemon), finds(helper), saysReload(daemon), saysReady(child), opens(daemon), saysErrno(5),
		{Kind: Status, Text: []byte("serving")},
		{Kind: BusError, Text: []byte("org.example.Broken")},
		{Kind: VarlinkError, Text: []byte("org.example.Bent")},
		{Kind: Denied, Who: daemon},
		saysEvery(sec), triggers, stops(daemon),
	} {
		m.Apply(e, epoch)
	}
	m.Apply(tick, epoch.Add(time.Hour))
	m.Apply(ends(daemon), epoch.Add(time.Hour))
	dead := m.Snapshot()
	if dead.Status != "serving" || dead.Errno != 5 || dead.BusError == "" || dead.VarlinkError == "" {
		t.Errorf("gone: status %q errno %d bus %q varlink %q, want all kept for people to see", dead.Status, dead.Errno, dead.BusError, dead.VarlinkError)
	}

	fresh := New(p)
	fresh.Apply(finds(next), epoch.Add(2*time.Hour))
	m.Apply(finds(next), epoch.Add(2*time.Hour))
	got, want := m.Snapshot(), fresh.Snapshot()
	if got.Respawns != 1 || got.LastExit == nil || got.LastExit.Who != daemon {
		t.Errorf("respawns %d, last exit %v; want 1, of process 10", got.Respawns, got.LastExit)
	}
	got.Gen, got.Respawns, got.Respawned, got.LastExit = want.Gen, 0, want.Respawned, nil
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("second instance\n got %+v\nwant %+v", got, want)
	}

	m.Apply(Event{Kind: ResetRespawns}, epoch)
	if n := m.Snapshot().Respawns; n != 0 {
		t.Errorf("respawns after RESTART_RESET=1: %d, want 0", n)
	}
}

// Since, StartedAt and ReadyAt say when; a repeated word moves none of them.
func TestTimes(t *testing.T) {
	m := New(of(ExpectNotify))
	check := func(step string, since, started, ready time.Duration) {
		t.Helper()
		s := m.Snapshot()
		for _, x := range []struct {
			name string
			got  time.Time
			want time.Duration
		}{{"Since", s.Since, since}, {"StartedAt", s.StartedAt, started}, {"ReadyAt", s.ReadyAt, ready}} {
			switch {
			case x.want < 0 && x.got.IsZero():
			case x.want >= 0 && x.got.Equal(epoch.Add(x.want)):
			default:
				t.Errorf("%s: %s is %v, want the epoch and %v", step, x.name, x.got, x.want)
			}
		}
	}
	check("absent", -1, -1, -1)
	m.Apply(finds(daemon), epoch.Add(1*sec))
	check("found", 1*sec, 1*sec, -1)
	m.Apply(saysReady(daemon), epoch.Add(2*sec))
	m.Apply(saysReady(daemon), epoch.Add(3*sec))
	check("ready", 2*sec, 1*sec, 2*sec)
	m.Apply(saysReload(daemon), epoch.Add(4*sec))
	check("reloading", 4*sec, 1*sec, 2*sec)
	m.Apply(saysReady(daemon), epoch.Add(5*sec))
	check("ready again", 5*sec, 1*sec, 2*sec)
	m.Apply(ends(daemon), epoch.Add(6*sec))
	m.Apply(finds(next), epoch.Add(7*sec))
	check("another instance", 7*sec, 7*sec, -1)
}

// The texts of a datagram are in a buffer that the next one overwrites.
func TestTextsAreKept(t *testing.T) {
	m := New(of(ExpectNotify))
	m.Apply(finds(daemon), epoch)
	buf := []byte("abcdef")
	for _, k := range []Kind{Status, BusError, VarlinkError} {
		m.Apply(Event{Kind: k, Text: buf}, epoch)
	}
	first := m.Snapshot()
	copy(buf, "uvwxyz")
	if s := m.Snapshot(); s.Status != "abcdef" || s.BusError != "abcdef" || s.VarlinkError != "abcdef" {
		t.Errorf("after the buffer was used again: %q %q %q", s.Status, s.BusError, s.VarlinkError)
	}
	m.Apply(Event{Kind: Status, Text: buf}, epoch)
	if first.Status != "abcdef" {
		t.Errorf("a published snapshot changed: %q", first.Status)
	}
	m.Apply(Event{Kind: Status, Text: nil}, epoch)
	if s := m.Snapshot(); s.Status != "" {
		t.Errorf("an empty STATUS leaves %q", s.Status)
	}
}

// How the main process ended, and whether that is a failure (spec 5, process).
func TestLastExit(t *testing.T) {
	code := func(n int) Exit { return Exit{Known: true, Code: n} }
	signal := func(n int) Exit { return Exit{Known: true, Signal: n} }
	unknown := Exit{}
	began := []Event{finds(daemon), saysReady(daemon)}
	said := append(began[:2:2], saysStop(daemon))
	told := append(began[:2:2], asked)
	for _, c := range []struct {
		name   string
		before []Event
		exit   Exit
		reason string
		clean  bool
	}{
		{"exit 0", began, code(0), "exited", true},
		{"exit 1", began, code(1), "exited", false},
		{"a signal", began, signal(15), "killed", false},
		{"nobody knows how", began, unknown, "unknown", false},
		{"stopping, exit 0", said, code(0), "stopping", true},
		{"stopping, exit 1", said, code(1), "stopping", false},
		{"stopping, SIGHUP", said, signal(1), "stopping", true},
		{"stopping, SIGINT", said, signal(2), "stopping", true},
		{"stopping, SIGPIPE", said, signal(13), "stopping", true},
		{"stopping, SIGTERM", said, signal(15), "stopping", true},
		{"stopping, SIGKILL", said, signal(9), "stopping", false},
		{"stopping, SIGSEGV", said, signal(11), "stopping", false},
		{"stopping, nobody knows how", said, unknown, "stopping", true},
		{"asked, exit 1", told, code(1), "stopping", true},
		{"asked, SIGKILL", told, signal(9), "stopping", true},
		{"asked, nobody knows how", told, unknown, "stopping", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := func() *Machine {
				m := New(of(ExpectNotify))
				for _, e := range c.before {
					m.Apply(e, epoch)
				}
				return m
			}
			judge := func(how string, x *LastExit) {
				t.Helper()
				if x == nil || x.Exit != c.exit || x.Who != daemon || x.Reason != c.reason || x.Clean != c.clean || !x.At.Equal(epoch.Add(sec)) {
					t.Errorf("%s: %+v, want %+v %q clean %v at 1s", how, x, c.exit, c.reason, c.clean)
				}
			}
			m := begin()
			m.Apply(Event{Kind: Ended, Who: daemon, Exit: c.exit}, epoch.Add(sec))
			judge("at once", m.LastExit())

			// The kernel tells a non-parent later (Linux 6.15).
			m = begin()
			m.Apply(ends(daemon), epoch.Add(sec))
			published := m.LastExit()
			before := *published
			m.Apply(Event{Kind: Ended, Who: child, Exit: code(99)}, epoch.Add(2*sec))
			m.Apply(Event{Kind: Ended, Who: daemon, Exit: c.exit}, epoch.Add(2*sec))
			judge("told later", m.LastExit())
			if *published != before {
				t.Errorf("a published exit changed from %+v to %+v", before, *published)
			}
			if m.Phase() != Gone {
				t.Errorf("phase %v after the exit was told, want gone", m.Phase())
			}

			// And even later: another instance runs by then.
			m = begin()
			m.Apply(ends(daemon), epoch.Add(sec))
			m.Apply(finds(next), epoch.Add(2*sec))
			m.Apply(Event{Kind: Ended, Who: daemon, Exit: c.exit}, epoch.Add(3*sec))
			judge("told during the next instance", m.LastExit())
			if m.Phase() != Starting || m.Main() != next {
				t.Errorf("%v %v after the exit of the one before was told, want starting 30", m.Phase(), m.Main())
			}
		})
	}
}

// Why the service is going down is what people read in the answer.
func TestStopSaid(t *testing.T) {
	for _, c := range []struct {
		name string
		news []Event
		want string
	}{
		{"asked", []Event{asked}, "it was asked to stop"},
		{"said", []Event{saysStop(daemon)}, "the daemon said STOPPING=1"},
		{"asked, then said", []Event{asked, saysStop(daemon)}, "the daemon said STOPPING=1"},
		{"said by the one before", []Event{saysStop(daemon), ends(daemon), finds(next), asked}, "it was asked to stop"},
		{"said by a child that ended", []Event{saysReady(child), saysStop(child), ends(child), asked}, "it was asked to stop"},
	} {
		p := of(ExpectNotify)
		m := New(p)
		m.Apply(finds(daemon), epoch)
		for _, e := range c.news {
			m.Apply(e, epoch)
		}
		s := m.Snapshot()
		if got, _ := s.Failing(&p, Readyz, func(name string) bool { return name != "stopping" }); got.Reason != c.want {
			t.Errorf("%s: %q, want %q", c.name, got.Reason, c.want)
		}
	}
}

// When the last ping came is shown, also where it arms nothing.
func TestPingAt(t *testing.T) {
	m := New(of(ExpectNotify))
	m.Apply(finds(daemon), epoch)
	for i, e := range []Event{pings, saysEvery(sec), saysReady(daemon), pings, saysEvery(sec), saysStop(daemon), pings} {
		at := epoch.Add(time.Duration(i) * sec)
		m.Apply(e, at)
		if is := m.Snapshot().PingAt; is.Equal(at) != (e.Kind == Ping || e.Kind == WatchdogEvery) {
			t.Errorf("step %d, %v at %v: last ping at %v", i, e.Kind, at, is)
		}
	}
}

// What the loop asks between two events.
func TestQuestions(t *testing.T) {
	type answers struct{ awaits, late, lateTold, halted bool }
	ask := func(m *Machine, at time.Duration) answers {
		now := epoch.Add(at)
		return answers{m.AwaitsStop(now), m.MayStopLate(false, now), m.MayStopLate(true, now), m.Halted()}
	}
	for _, c := range []struct {
		name   string
		expect Expect
		news   []Event
		at     time.Duration
		want   answers
	}{
		{"auto, absent", ExpectAuto, nil, 0, answers{awaits: true}},
		{"auto, starting", ExpectAuto, []Event{finds(daemon)}, 0, answers{awaits: true}},
		{"auto, stop owed", ExpectAuto, []Event{finds(daemon), stops(daemon)}, 0, answers{awaits: true, halted: true}},
		{"auto, stop answered", ExpectAuto, []Event{finds(daemon), stops(daemon), runs(daemon)}, 0, answers{}},
		{"auto, just ready", ExpectAuto, []Event{finds(daemon), saysReady(daemon)}, 0, answers{late: true, lateTold: true}},
		{"auto, ready for a while", ExpectAuto, []Event{finds(daemon), saysReady(daemon)}, sec, answers{lateTold: true}},
		{"auto, ready for long", ExpectAuto, []Event{finds(daemon), saysReady(daemon)}, 90 * sec, answers{}},
		{"auto, late stop owed", ExpectAuto, []Event{finds(daemon), saysReady(daemon), stops(daemon)}, 0, answers{awaits: true, late: true, lateTold: true, halted: true}},
		{"auto, paused", ExpectAuto, []Event{finds(daemon), stops(daemon), runs(daemon), stops(daemon)}, 0, answers{halted: true}},
		{"auto, stopping", ExpectAuto, []Event{finds(daemon), saysReady(daemon), saysStop(daemon)}, 0, answers{}},
		{"auto, gone", ExpectAuto, []Event{finds(daemon), ends(daemon)}, 0, answers{awaits: true}},
		{"stop, starting", ExpectStop, []Event{finds(daemon)}, 0, answers{awaits: true}},
		{"stop, ready", ExpectStop, []Event{finds(daemon), stops(daemon), runs(daemon)}, 0, answers{}},
		{"stop, another than the main process owes", ExpectStop, []Event{finds(daemon), stops(daemon), names(next)}, 0, answers{awaits: true}},
		{"notify, starting", ExpectNotify, []Event{finds(daemon)}, 0, answers{}},
		{"notify, paused", ExpectNotify, []Event{finds(daemon), stops(daemon)}, 0, answers{halted: true}},
		{"notify, just ready", ExpectNotify, []Event{finds(daemon), saysReady(daemon)}, 0, answers{}},
		{"none, ready", ExpectNone, []Event{finds(daemon)}, 0, answers{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New(timed(c.expect))
			for _, e := range c.news {
				m.Apply(e, epoch)
			}
			if got := ask(m, c.at); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// Whether the kernel lets us signal is known of the main process only.
func TestPermission(t *testing.T) {
	m := New(of(ExpectNotify))
	m.Apply(finds(daemon), epoch)
	is := func(step string, tried, refused bool) {
		t.Helper()
		if s := m.Snapshot(); s.Deniable != tried || s.Forbidden != refused {
			t.Errorf("%s: tried %v refused %v, want %v %v", step, s.Deniable, s.Forbidden, tried, refused)
		}
	}
	is("found", false, false)
	m.Apply(Event{Kind: Denied, Who: child}, epoch)
	is("a child denies", false, false)
	m.Apply(Event{Kind: Denied, Who: daemon}, epoch)
	is("denied", true, true)
	m.Apply(Event{Kind: Permitted, Who: daemon}, epoch)
	is("permitted", true, false)
	m.Apply(Event{Kind: Denied, Who: daemon}, epoch)
	m.Apply(names(next), epoch)
	is("replaced", false, false)
}

// What is counted explains a start that takes too long.
func TestSeen(t *testing.T) {
	m := New(of(ExpectFork))
	for _, e := range []Event{
		finds(daemon), finds(daemon), finds(child), finds(helper), // two forks
		saysReady(daemon), saysReload(daemon), {Kind: Status}, stops(child),
		names(next), saysStop(daemon), // ignored: replaced
		saysStop(next), saysReady(next), saysReload(next), // ignored: final
	} {
		m.Apply(e, epoch)
	}
	if got, want := m.Snapshot().Seen, (Seen{Stops: 1, Forks: 2, Statuses: 2, Readies: 1, Ignored: 3}); got != want {
		t.Errorf("seen %+v, want %+v", got, want)
	}
}
