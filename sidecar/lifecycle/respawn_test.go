package lifecycle

import (
	"strings"
	"testing"
	"time"
)

var respawnIt = Event{Kind: RespawnAsked}

func exited(code int) Exit { return Exit{Known: true, Code: code} }
func killedBy(n int) Exit  { return Exit{Known: true, Signal: n} }

func endsBy(who ProcID, x Exit) Event { return Event{Kind: Ended, Who: who, Exit: x} }

// respawning is a policy without time-outs but for what change gives it, and
// with one second before a respawn.
func respawning(mode RespawnMode, change func(*Policy)) Policy {
	p := of(ExpectNotify)
	p.Respawn = Respawn{Mode: mode, Limit: 3, Interval: 60 * sec, Delay: sec, MaxDelay: 8 * sec}
	if change != nil {
		change(&p)
	}
	return p
}

// A window begins with the first respawn, and one more than the limit within it
// is too many: upstart's job_process_catch_runaway. The delay doubles.
func TestPace(t *testing.T) {
	const none = -1
	type try struct {
		at   time.Duration
		want time.Duration // none: too many
	}
	repeat := func(n int, step time.Duration, from time.Duration, want time.Duration) (out []try) {
		for i := range n {
			out = append(out, try{from + time.Duration(i)*step, want})
		}
		return out
	}
	upstart := Respawn{Limit: 10, Interval: 5 * sec}
	for _, c := range []struct {
		name  string
		r     Respawn
		tries []try
	}{
		{"upstart's figures: the 11th at once", upstart, append(repeat(10, 0, 0, 0), try{0, none})},
		{"upstart's figures: the 11th within 5 s", upstart, append(repeat(10, 500*ms, 0, 0), try{5*sec - 1, none})},
		{"upstart's figures: the 11th after 5 s begins a window", upstart,
			append(append(repeat(10, 500*ms, 0, 0), repeat(10, 0, 5*sec, 0)...), try{10*sec - 1, none})},
		{"upstart's figures: once a second for ever", upstart, repeat(100, sec, 0, 0)},
		{"the delay doubles to its maximum", Respawn{Limit: 9, Interval: 100 * sec, Delay: 3 * sec, MaxDelay: 20 * sec},
			[]try{{0, 3 * sec}, {1 * sec, 6 * sec}, {2 * sec, 12 * sec}, {3 * sec, 20 * sec}, {4 * sec, 20 * sec}}},
		{"a new window begins with the first delay", Respawn{Limit: 9, Interval: 10 * sec, Delay: sec, MaxDelay: 20 * sec},
			[]try{{0, 1 * sec}, {9 * sec, 2 * sec}, {10 * sec, 1 * sec}, {11 * sec, 2 * sec}}},
		{"no maximum: the delay stays", Respawn{Limit: 9, Interval: 10 * sec, Delay: sec}, repeat(5, sec, 0, sec)},
		{"a maximum below the delay", Respawn{Limit: 9, Interval: 10 * sec, Delay: 2 * sec, MaxDelay: sec}, repeat(5, sec, 0, sec)},
		{"the longest maximum there is", Respawn{Delay: 1 << 61, MaxDelay: 1<<63 - 1},
			[]try{{0, 1 << 61}, {0, 1 << 62}, {0, 1<<63 - 1}, {0, 1<<63 - 1}}},
		{"no interval: no limit", Respawn{Limit: 1}, repeat(1000, 0, 0, 0)},
		{"limit 0: no limit, as in systemd and upstart", Respawn{Interval: sec}, repeat(1000, 0, 0, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p pace
			for i, try := range c.tries {
				delay, ok := p.next(&c.r, epoch.Add(try.at))
				if !ok {
					delay = none
				}
				if delay != try.want {
					t.Fatalf("respawn %d at %v: delay %v, want %v (-1ns: too many)", i+1, try.at, delay, try.want)
				}
			}
		})
	}
}

// After which ends a daemon is started again (run, respawn.mode exec).
func TestRespawnWhen(t *testing.T) {
	normal := []Exit{exited(3), killedBy(15)}
	const none, again = "", "start 10"
	for _, c := range []struct {
		name   string
		normal []Exit
		before []Event
		exit   Exit
		want   [3]string // on-failure, never, always
	}{
		{"exit 0", nil, nil, exited(0), [3]string{none, none, again}},
		{"exit 1", nil, nil, exited(1), [3]string{again, none, again}},
		{"a signal", nil, nil, killedBy(15), [3]string{again, none, again}},
		{"nobody knows how", nil, nil, Exit{}, [3]string{again, none, again}},
		{"a normal exit", normal, nil, exited(3), [3]string{none, none, none}},
		{"a normal signal", normal, nil, killedBy(15), [3]string{none, none, none}},
		{"the number of a normal exit as a signal", normal, nil, killedBy(3), [3]string{again, none, again}},
		{"exit 0 is not normal where a list says what is", normal, nil, exited(0), [3]string{none, none, again}},
		{"nobody knows how, with a list", []Exit{exited(0)}, nil, Exit{}, [3]string{again, none, again}},
		{"it said STOPPING=1, exit 0", nil, []Event{saysStop(daemon)}, exited(0), [3]string{none, none, again}},
		{"it said STOPPING=1, SIGTERM", nil, []Event{saysStop(daemon)}, killedBy(15), [3]string{none, none, again}},
		{"it said STOPPING=1, exit 1", nil, []Event{saysStop(daemon)}, exited(1), [3]string{again, none, again}},
		{"a termination was forwarded", nil, []Event{asked}, killedBy(15), [3]string{none, none, none}},
		{"a termination was forwarded, exit 1", nil, []Event{asked}, exited(1), [3]string{none, none, none}},
		{"podnotify stop", nil, []Event{toKill}, killedBy(9), [3]string{none, none, none}},
		{"a termination was forwarded, then WATCHDOG=trigger", nil, []Event{asked, triggers}, exited(1), [3]string{none, none, none}},
		{"podnotify respawn", nil, []Event{respawnIt}, exited(0), [3]string{again, again, again}},
		{"podnotify respawn, a normal exit", normal, []Event{respawnIt}, exited(3), [3]string{again, again, again}},
		{"podnotify stop, then podnotify respawn", nil, []Event{toKill, respawnIt}, exited(0), [3]string{again, again, again}},
		{"WATCHDOG=trigger", nil, []Event{triggers}, exited(0), [3]string{again, again, again}},
		{"podnotify respawn, then a termination was forwarded", nil, []Event{respawnIt, toKill}, exited(0), [3]string{none, none, none}},
		{"WATCHDOG=trigger, then a termination was forwarded", nil, []Event{triggers, toKill}, killedBy(6), [3]string{none, none, none}},
		{"podnotify kill", nil, []Event{signalled}, killedBy(15), [3]string{none, none, again}},
		{"podnotify kill --signal KILL", nil, []Event{signalled}, killedBy(9), [3]string{again, none, again}},
		{"podnotify kill, a normal exit", normal, []Event{signalled}, exited(3), [3]string{none, none, none}},
		{"podnotify stop, then podnotify kill", nil, []Event{toKill, signalled}, killedBy(9), [3]string{none, none, none}},
	} {
		for when, want := range c.want {
			p := respawning(RespawnExec, func(p *Policy) {
				p.Respawn.When, p.Respawn.Normal, p.Respawn.Delay = RespawnWhen(when), c.normal, 0
			})
			m := New(p)
			for _, e := range append([]Event{finds(daemon), saysReady(daemon)}, c.before...) {
				m.Apply(e, epoch)
			}
			m.Apply(endsBy(daemon, c.exit), epoch)
			got := ""
			for _, a := range m.actions {
				got += actionNames[a.Kind] + " " + a.Who.String()
			}
			if got != want || m.Phase() != Gone || m.ComesBack() != (want == again) {
				t.Errorf("%s, when %d: %v, %q, comes back %v; want gone, %q", c.name, when, m.Phase(), got, m.ComesBack(), want)
			}
		}
	}
}

// A respawn that is due is called off by what would have ended the daemon, but not
// by podnotify going down.
func TestRespawnCalledOff(t *testing.T) {
	leaving := Event{Kind: StopAsked, Number: Leaving}
	for _, c := range []struct {
		delay time.Duration
		asked Event
		back  bool
	}{{sec, asked, false}, {sec, toKill, false}, {sec, leaving, true}, {0, toKill, false}} {
		m := New(respawning(RespawnExec, func(p *Policy) { p.Respawn.Delay = c.delay }))
		for _, e := range []Event{finds(daemon), endsBy(daemon, exited(1)), c.asked} {
			m.Apply(e, epoch)
		}
		_, due := m.Deadline()
		if m.ComesBack() != c.back || due != c.back || m.Phase() != Gone {
			t.Errorf("delay %v, asked %d: %v, comes back %v, due %v; want gone, %v", c.delay, c.asked.Number, m.Phase(), m.ComesBack(), due, c.back)
		}
		m.Apply(respawnIt, epoch)
		if !m.ComesBack() {
			t.Errorf("delay %v, asked %d, then podnotify respawn: it does not come back", c.delay, c.asked.Number)
		}
	}
}

// The daemon is started again here, after a delay, so often and not more.
func TestRespawnExec(t *testing.T) {
	crash := exited(1)
	start := step{0, finds(daemon), "starting 10 --L"}
	isReady := step{0, saysReady(daemon), "ready 10 SRL"}
	p := respawning(RespawnExec, nil)
	limit := []step{
		start,
		{1 * sec, endsBy(daemon, crash), "gone - --L due=2s"},
		{2 * sec, tick, "gone - --L; start 0"},
		{2 * sec, finds(next), "starting 30 --L"},
		{3 * sec, endsBy(next, crash), "gone - --L due=5s"},
		{5 * sec, tick, "gone - --L; start 0"},
		{5 * sec, finds(child), "starting 20 --L"},
		{6 * sec, endsBy(child, crash), "gone - --L due=10s"},
		{10 * sec, tick, "gone - --L; start 0"},
		{10 * sec, finds(daemon), "starting 10 --L"},
		{11 * sec, endsBy(daemon, crash), "gone - --L limit due=1m1s"},
		{60 * sec, tick, "gone - --L limit due=1m1s"},
	}
	after := func(more ...step) []step { return append(limit[:len(limit):len(limit)], more...) }
	tell(t, []story{
		{"after the delay", p, []step{
			start, isReady,
			{1 * sec, endsBy(daemon, crash), "gone - --L due=2s"},
			{2*sec - 1, tick, "gone - --L due=2s"},
			{2 * sec, tick, "gone - --L; start 0"},
			{3 * sec, tick, "gone - --L"},
			{4 * sec, finds(next), "starting 30 --L"},
			{5 * sec, saysReady(next), "ready 30 SRL"},
		}},
		{"somebody else was quicker", p, []step{
			start, isReady,
			{1 * sec, endsBy(daemon, crash), "gone - --L due=2s"},
			{1 * sec, names(next), "starting 30 --L"},
			{2 * sec, tick, "starting 30 --L"},
		}},
		{"the limit, and the window is over", p, after(
			step{61 * sec, tick, "gone - --L"},
		)},
		{"the limit, and podnotify respawn: a new window", p, after(
			step{60 * sec, respawnIt, "gone - --L; start 0"},
			step{60 * sec, finds(next), "starting 30 --L"},
			step{60 * sec, endsBy(next, crash), "gone - --L due=1m1s"},
		)},
		{"the limit, and RESTART_RESET=1", p, after(
			step{60 * sec, Event{Kind: ResetRespawns}, "gone - --L"},
		)},
		{"the limit, and an instance becomes ready", p, after(
			step{60 * sec, finds(next), "starting 30 --L limit due=1m1s"},
			step{60 * sec, saysReady(next), "ready 30 SRL"},
			step{60 * sec, endsBy(next, crash), "gone - --L limit due=1m1s"}, // the window is the same
		)},
		{"RESTART_RESET=1 in time", p, []step{
			start,
			{1 * sec, endsBy(daemon, crash), "gone - --L due=2s"},
			{2 * sec, tick, "gone - --L; start 0"},
			{2 * sec, finds(next), "starting 30 --L"},
			{3 * sec, Event{Kind: ResetRespawns}, "starting 30 --L"},
			{3 * sec, endsBy(next, crash), "gone - --L due=4s"},
		}},
		{"a quiet interval, and the delay is the first one again", p, []step{
			start,
			{1 * sec, endsBy(daemon, crash), "gone - --L due=2s"},
			{2 * sec, tick, "gone - --L; start 0"},
			{2 * sec, finds(next), "starting 30 --L"},
			{61 * sec, endsBy(next, crash), "gone - --L due=1m2s"},
		}},
		{"podnotify respawn ends it first", with(ExpectNotify, func(x *Policy) { x.Respawn, x.StopTimeout = p.Respawn, 30*sec }), []step{
			start, isReady,
			{1 * sec, respawnIt, "stopping 10 S-L due=31s; terminate 10"},
			{2 * sec, respawnIt, "stopping 10 S-L due=31s"},
			{3 * sec, saysReady(daemon), "stopping 10 S-L due=31s"},
			{31 * sec, tick, "stopping 10 S-- late; kill 10"},
			{32 * sec, endsBy(daemon, killedBy(9)), "gone - --L due=33s"},
			{33 * sec, tick, "gone - --L; start 0"},
		}},
		{"podnotify respawn of a stopped daemon", p, []step{
			start, isReady,
			{1 * sec, stops(daemon), "ready 10 S-L paused"},
			{2 * sec, respawnIt, "stopping 10 S-L paused; continue 10, terminate 10"},
		}},
		{"podnotify respawn while it owes a stop", with(ExpectStop, func(x *Policy) { x.Respawn = p.Respawn }), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, respawnIt, "stopping 10 --L owed=10; continue 10, terminate 10"},
		}},
		{"podnotify respawn during a reload", p, []step{
			start, isReady,
			{1 * sec, saysReload(daemon), "reloading 10 SRL"},
			{2 * sec, respawnIt, "stopping 10 S-L; terminate 10"},
		}},
		{"podnotify respawn during the delay: at once, and not twice", p, []step{
			start, isReady,
			{1 * sec, endsBy(daemon, crash), "gone - --L due=2s"},
			{1 * sec, respawnIt, "gone - --L; start 0"},
			{2 * sec, tick, "gone - --L"},
		}},
		{"podnotify respawn after a clean end", p, []step{
			start, isReady,
			{1 * sec, endsBy(daemon, exited(0)), "gone - --L"},
			{2 * sec, respawnIt, "gone - --L; start 0"},
		}},
		{"the main process is another by then", p, []step{
			start, isReady,
			{1 * sec, respawnIt, "stopping 10 S-L; terminate 10"},
			{2 * sec, names(next), "stopping 30 S-L"},
			{3 * sec, endsBy(daemon, killedBy(15)), "stopping 30 S-L"},
			{4 * sec, endsBy(next, exited(0)), "gone - --L due=5s"},
		}},
		{"no limit but a delay that doubles", respawning(RespawnExec, func(p *Policy) { p.Respawn.Interval = 0 }), []step{
			start,
			{0, endsBy(daemon, crash), "gone - --L due=1s"},
			{1 * sec, tick, "gone - --L; start 0"},
			{1 * sec, finds(next), "starting 30 --L"},
			{1e6 * sec, endsBy(next, crash), "gone - --L due=" + (1e6*sec + 2*sec).String()},
		}},
	})
}

// Upstart's figures, through the machine: 10 within 5 seconds, and the 11th is
// the last instance's end.
func TestRespawnLimitOfUpstart(t *testing.T) {
	for _, c := range []struct {
		name string
		step time.Duration
		want int // instances after the first, of twenty ends
	}{
		{"at once", 0, 10},
		{"eleven within the interval", 499 * ms, 10},
		{"ten within the interval", 500 * ms, 20},
	} {
		p := respawning(RespawnExec, func(p *Policy) { p.Respawn = Respawn{Mode: RespawnExec, Limit: 10, Interval: 5 * sec} })
		m := New(p)
		m.Apply(finds(ProcID{PID: 100, Start: 1}), epoch)
		respawns := 0
		for i := range 20 {
			now := epoch.Add(time.Duration(i) * c.step)
			actions := m.Apply(endsBy(m.Main(), exited(1)), now)
			if len(actions) == 0 {
				break
			}
			respawns++
			m.Apply(finds(ProcID{PID: 101 + i, Start: 1}), now)
		}
		s := m.Snapshot()
		if hit := c.want < 20; respawns != c.want || s.LimitHit != hit || s.Respawns != c.want || s.Respawned[WhyEnded] != c.want || m.ComesBack() == hit && s.Phase == Gone {
			t.Errorf("%s: %d respawns (%d counted, %v), limit hit %v; want %d", c.name, respawns, s.Respawns, s.Respawned, s.LimitHit, c.want)
		}
		if check, fails := s.Failing(&p, Readyz, func(name string) bool { return name != "respawn" }); fails != s.LimitHit || fails && !strings.HasPrefix(check.Reason, "respawned 10 times within 5s, not tried again; ") {
			t.Errorf("%s: the check respawn says %q", c.name, check.Reason)
		}
	}
}

// What each mode does about a daemon that has to end, and what never does.
func TestRespawnModes(t *testing.T) {
	start := step{0, finds(daemon), "starting 10 --L"}
	isReady := step{5 * sec, saysReady(daemon), "ready 10 SRL due=15s"}
	wd := func(p *Policy) { p.Watchdog = 10 * sec }
	wdKill := func(p *Policy) { p.Watchdog, p.StopTimeout = 10*sec, 30*sec }
	late := step{0, finds(daemon), "starting 10 --L due=1m30s"}
	start90 := func(p *Policy) { p.StartTimeout, p.OnStartTimeout = 90*sec, NotLive }
	report90 := func(p *Policy) { p.StartTimeout = 90 * sec }
	stop30 := func(p *Policy) { p.StopTimeout = 30 * sec }
	readyNow := step{0, saysReady(daemon), "ready 10 SRL"}
	saysEnd := step{10 * sec, saysStop(daemon), "stopping 10 S-L due=40s"}
	upTo := func(first step, more ...step) []step { return append([]step{first}, more...) }
	rows := []story{
		{"watchdog, platform: the answers fail, no more", respawning(RespawnPlatform, wd), []step{
			start, isReady,
			{15 * sec, tick, "ready 10 S-- starved"},
			{16 * sec, pings, "ready 10 SRL due=26s"},
			{17 * sec, triggers, "ready 10 S-- triggered due=26s"},
			{18 * sec, endsBy(daemon, killedBy(6)), "gone - --- triggered"},
		}},
		{"watchdog, signal: abort, kill, the container", respawning(RespawnSignal, wdKill), []step{
			start, isReady,
			{15 * sec, tick, "stopping 10 S-- starved due=45s; abort 10"},
			{16 * sec, pings, "stopping 10 S-- starved due=45s"},
			{17 * sec, saysReady(daemon), "stopping 10 S-- starved due=45s"},
			{45 * sec, tick, "stopping 10 S-- late starved; kill 10"},
			{46 * sec, endsBy(daemon, killedBy(9)), "gone - --L; restart container of 10"},
			{47 * sec, finds(next), "starting 30 --L"},
		}},
		{"watchdog, exec: abort, and again", respawning(RespawnExec, wd), []step{
			start, isReady,
			{15 * sec, tick, "stopping 10 S-- starved; abort 10"},
			{16 * sec, pings, "stopping 10 S-- starved"},
			{17 * sec, endsBy(daemon, killedBy(6)), "gone - --L due=18s"},
			{18 * sec, tick, "gone - --L; start 0"},
		}},
		{"watchdog, exec, when never: what we ended comes back", respawning(RespawnExec, func(p *Policy) { p.Watchdog, p.Respawn.When = 10*sec, Never }), []step{
			start, isReady,
			{15 * sec, tick, "stopping 10 S-- starved; abort 10"},
			{16 * sec, endsBy(daemon, killedBy(6)), "gone - --L due=17s"},
		}},
		{"watchdog, pod: once, and a ping comes too late", respawning(RespawnPod, wd), []step{
			start, isReady,
			{15 * sec, tick, "ready 10 S-- starved; restart pod of 10"},
			{16 * sec, pings, "ready 10 S-- starved"},
			{17 * sec, saysEvery(20 * sec), "ready 10 S-- starved"},
			{18 * sec, triggers, "ready 10 S-- starved triggered"},
			{19 * sec, tick, "ready 10 S-- starved triggered"},
			{20 * sec, endsBy(daemon, killedBy(9)), "gone - --- triggered"},
		}},
		{"watchdog, pod: once for each instance", respawning(RespawnPod, nil), []step{
			start,
			{1 * sec, triggers, "starting 10 --- triggered; restart pod of 10"},
			{2 * sec, triggers, "starting 10 --- triggered"},
			{3 * sec, endsBy(daemon, killedBy(9)), "gone - --- triggered"},
			{4 * sec, finds(next), "starting 30 --L"},
			{5 * sec, triggers, "starting 30 --- triggered; restart pod of 30"},
		}},
		{"pod: the limit", respawning(RespawnPod, func(p *Policy) { p.Respawn.Limit = 1 }), []step{
			start,
			{1 * sec, triggers, "starting 10 --- triggered; restart pod of 10"},
			{3 * sec, endsBy(daemon, killedBy(9)), "gone - --- triggered"},
			{4 * sec, finds(next), "starting 30 --L"},
			{5 * sec, triggers, "starting 30 --- triggered limit due=1m1s"},
			{61 * sec, tick, "starting 30 --- triggered"},
		}},
		{"signal: the limit leaves the daemon alone", respawning(RespawnSignal, func(p *Policy) { p.Watchdog, p.Respawn.Limit = 10*sec, 1 }), []step{
			start, isReady,
			{15 * sec, tick, "stopping 10 S-- starved; abort 10"},
			{16 * sec, endsBy(daemon, killedBy(6)), "gone - --L; restart container of 10"},
			{17 * sec, finds(next), "starting 30 --L"},
			{18 * sec, saysReady(next), "ready 30 SRL due=28s"},
			{28 * sec, tick, "ready 30 S-- starved limit due=1m15s"},
			{29 * sec, pings, "ready 30 S-L limit due=39s"},
			{30 * sec, saysReady(next), "ready 30 SRL due=39s"},
		}},
		{"signal: the limit, and somebody asks all the same", respawning(RespawnSignal, func(p *Policy) { p.Respawn.Limit = 1 }), []step{
			start,
			{1 * sec, triggers, "stopping 10 --- triggered; abort 10"},
			{2 * sec, endsBy(daemon, killedBy(6)), "gone - --- triggered; restart container of 10"},
			{3 * sec, finds(next), "starting 30 --L"},
			{4 * sec, triggers, "starting 30 --- triggered limit due=1m1s"},
			{5 * sec, respawnIt, "stopping 30 --- triggered; terminate 30"},
			{6 * sec, endsBy(next, killedBy(15)), "gone - --- triggered; restart container of 30"},
		}},
		{"signal: a daemon that ends by itself is the platform's", respawning(RespawnSignal, nil), []step{
			start, readyNow,
			{1 * sec, endsBy(daemon, exited(1)), "gone - --L"},
		}},
		{"WATCHDOG=trigger, signal, during a reload: once", respawning(RespawnSignal, nil), []step{
			start, readyNow,
			{1 * sec, saysReload(daemon), "reloading 10 SRL"},
			{2 * sec, triggers, "stopping 10 S-- triggered; abort 10"},
			{3 * sec, triggers, "stopping 10 S-- triggered"},
		}},
		{"WATCHDOG=trigger, signal, while it stops by itself", respawning(RespawnSignal, nil), []step{
			start, readyNow,
			{1 * sec, saysStop(daemon), "stopping 10 S-L"},
			{2 * sec, triggers, "stopping 10 S-- triggered; abort 10"},
		}},
		{"WATCHDOG=trigger, signal, while it was asked to stop: it goes anyway", respawning(RespawnSignal, nil), []step{
			start, readyNow,
			{1 * sec, asked, "stopping 10 S-L"},
			{2 * sec, triggers, "stopping 10 S-- triggered"},
			{3 * sec, endsBy(daemon, killedBy(15)), "gone - --- triggered"},
		}},
		{"a paused daemon is not respawned", respawning(RespawnSignal, wd), []step{
			start, isReady,
			{6 * sec, stops(daemon), "ready 10 S-L paused due=15s"},
			{15 * sec, tick, "ready 10 S-L paused due=25s"},
		}},

		{"start time-out, platform", respawning(RespawnPlatform, start90), upTo(late,
			step{90 * sec, tick, "starting 10 --- late"},
			step{91 * sec, saysReady(daemon), "ready 10 SRL"})},
		{"start time-out, signal", respawning(RespawnSignal, start90), upTo(late,
			step{90 * sec, tick, "stopping 10 --L; terminate 10"},
			step{91 * sec, saysReady(daemon), "stopping 10 --L"},
			step{92 * sec, endsBy(daemon, killedBy(15)), "gone - --L; restart container of 10"})},
		{"start time-out, exec", respawning(RespawnExec, start90), upTo(late,
			step{90 * sec, tick, "stopping 10 --L; terminate 10"},
			step{91 * sec, endsBy(daemon, exited(0)), "gone - --L due=1m32s"})},
		{"start time-out, pod: a late answer does not take it back", respawning(RespawnPod, start90), upTo(late,
			step{90 * sec, tick, "starting 10 --- late; restart pod of 10"},
			step{91 * sec, saysReady(daemon), "ready 10 SRL"},
			step{92 * sec, triggers, "ready 10 S-- triggered"})},

		{"stop time-out, platform", respawning(RespawnPlatform, stop30), []step{
			start, readyNow, saysEnd,
			{40 * sec, tick, "stopping 10 S-- late"}}},
		{"stop time-out, signal: killed at once, and once", respawning(RespawnSignal, stop30), []step{
			start, readyNow, saysEnd,
			{40 * sec, tick, "stopping 10 S-- late due=1m10s; kill 10"},
			{70 * sec, tick, "stopping 10 S-- late"},
			{71 * sec, endsBy(daemon, killedBy(9)), "gone - --L; restart container of 10"}}},
		{"stop time-out, exec", respawning(RespawnExec, stop30), []step{
			start, readyNow, saysEnd,
			{40 * sec, tick, "stopping 10 S-- late due=1m10s; kill 10"},
			{41 * sec, endsBy(daemon, killedBy(9)), "gone - --L due=42s"}}},
		{"stop time-out, pod", respawning(RespawnPod, stop30), []step{
			start, readyNow, saysEnd,
			{40 * sec, tick, "stopping 10 S-- late; restart pod of 10"},
			{41 * sec, saysStop(daemon), "stopping 10 S-- late"}}},
		{"stop time-out, exec, of a daemon that was asked: no more than the kill", respawning(RespawnExec, stop30), []step{
			start, readyNow,
			{10 * sec, toKill, "stopping 10 S-L due=40s"},
			{40 * sec, tick, "stopping 10 S-- late; kill 10"},
			{41 * sec, endsBy(daemon, killedBy(9)), "gone - --L"}}},
	}
	for _, mode := range []RespawnMode{RespawnPlatform, RespawnSignal, RespawnPod} {
		rows = append(rows,
			story{"podnotify respawn always signals", respawning(mode, nil), []step{
				start, readyNow,
				{1 * sec, respawnIt, "stopping 10 S-L; terminate 10"},
				{2 * sec, endsBy(daemon, exited(0)), "gone - --L; restart container of 10"},
			}},
			story{"podnotify respawn of nothing is nothing, where others start it", respawning(mode, nil), []step{
				{0, respawnIt, "absent - --L"},
				{1 * sec, finds(daemon), "starting 10 --L"},
				{2 * sec, endsBy(daemon, exited(1)), "gone - --L"},
				{3 * sec, respawnIt, "gone - --L"},
			}})
	}
	for _, mode := range []RespawnMode{RespawnPlatform, RespawnSignal, RespawnExec, RespawnPod} {
		rows = append(rows, story{"start-timeout: report does nothing, whatever the mode", respawning(mode, report90), upTo(late,
			step{90 * sec, tick, "starting 10 --L late"},
			step{91 * sec, saysReady(daemon), "ready 10 SRL"})})
	}
	tell(t, rows)
}

// What respawns were owed to is counted, and shown in /metrics.
func TestRespawned(t *testing.T) {
	p := respawning(RespawnExec, func(p *Policy) {
		p.Respawn.Limit, p.Respawn.Delay = 100, 0
		p.Watchdog, p.StartTimeout, p.StopTimeout, p.OnStartTimeout = 10*sec, 20*sec, 30*sec, NotLive
	})
	m := New(p)
	now, pid := epoch, 100
	m.Apply(finds(ProcID{PID: pid, Start: 1}), now)
	live := func(news ...Event) {
		for _, e := range news {
			if e.Kind != Timer {
				e.Who = m.Main()
			} else {
				due, _ := m.Deadline()
				now = due
			}
			m.Apply(e, now)
		}
		m.Apply(endsBy(m.Main(), exited(1)), now)
		pid++
		m.Apply(finds(ProcID{PID: pid, Start: 1}), now)
	}
	live()
	live()
	live(saysReady(daemon), tick)
	live(triggers)
	live(tick)
	live(saysStop(daemon), tick)
	live(respawnIt)
	want := [whys]int{WhyEnded: 2, WhyWatchdog: 2, WhyStartTimeout: 1, WhyStopTimeout: 1, WhyAsked: 1}
	if s := m.Snapshot(); s.Respawned != want || s.Respawns != 7 {
		t.Errorf("respawned %v (%d), want %v", s.Respawned, s.Respawns, want)
	}
	// RESTART_RESET=1 is about the limit and what people see, not about counters.
	m.Apply(Event{Kind: ResetRespawns}, now)
	if s := m.Snapshot(); s.Respawned != want || s.Respawns != 0 {
		t.Errorf("after RESTART_RESET=1: respawned %v (%d), want %v and 0", s.Respawned, s.Respawns, want)
	}
	seen := map[string]bool{}
	for _, w := range Whys() {
		seen[w.String()] = true
	}
	if len(seen) != int(whys) || seen[""] {
		t.Errorf("reasons %v", Whys())
	}
}

// When the next one is due is shown.
func TestRespawnAt(t *testing.T) {
	m := New(respawning(RespawnExec, nil))
	m.Apply(finds(daemon), epoch)
	m.Apply(endsBy(daemon, exited(1)), epoch)
	if at := m.Snapshot().RespawnAt; !at.Equal(epoch.Add(sec)) {
		t.Errorf("due at %v", at)
	}
	m.Apply(tick, epoch.Add(sec))
	if at := m.Snapshot().RespawnAt; !at.IsZero() {
		t.Errorf("started, and due at %v", at)
	}
}

// A reload that podnotify asked for is told from one that had begun before.
func TestReloadAsked(t *testing.T) {
	ask := Event{Kind: ReloadAsked, Number: 1000}
	began := func(who ProcID, at int64) Event { return Event{Kind: Reload, Who: who, Number: at} }
	at := func(began, done bool) ReloadInfo { return ReloadInfo{Asked: 1000, Began: began, Done: done} }
	for _, c := range []struct {
		name string
		news []Event
		want ReloadInfo
	}{
		{"nobody asked", []Event{began(daemon, 2000), saysReady(daemon)}, ReloadInfo{}},
		{"asked", []Event{ask}, at(false, false)},
		{"younger than our signal", []Event{ask, began(daemon, 1001)}, at(true, false)},
		{"as old as our signal", []Event{ask, began(daemon, 1000)}, at(true, false)},
		{"older than our signal", []Event{ask, began(daemon, 999), saysReady(daemon)}, at(false, false)},
		{"no MONOTONIC_USEC: believed", []Event{ask, began(daemon, 0)}, at(true, false)},
		{"done", []Event{ask, began(daemon, 1001), saysReady(daemon)}, at(true, true)},
		{"READY=1 alone is no reload", []Event{ask, saysReady(daemon)}, at(false, false)},
		{"an older one, then ours", []Event{ask, began(daemon, 999), began(daemon, 1001), saysReady(daemon)}, at(true, true)},
		{"asked during a reload", []Event{began(daemon, 500), ask, saysReady(daemon)}, at(false, false)},
		{"asked during a reload, and it begins again", []Event{began(daemon, 500), ask, began(daemon, 1001), saysReady(daemon)}, at(true, true)},
		{"asked again", []Event{ask, began(daemon, 1001), saysReady(daemon), ask}, at(false, false)},
		{"of a process that was replaced", []Event{names(next), ask, began(daemon, 1001), saysReady(daemon)}, at(false, false)},
		{"it ends meanwhile", []Event{ask, began(daemon, 1001), ends(daemon)}, at(true, false)},
		{"the next instance was not asked", []Event{ask, began(daemon, 1001), ends(daemon), finds(next), saysReady(next)}, ReloadInfo{}},
		{"it stops instead", []Event{ask, saysStop(daemon), ask}, at(false, false)},
	} {
		m := New(of(ExpectNotify))
		for _, e := range append([]Event{finds(daemon), saysReady(daemon)}, c.news...) {
			m.Apply(e, epoch)
		}
		if got := m.Snapshot().Reload; got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	m := New(of(ExpectNotify))
	m.Apply(finds(daemon), epoch)
	m.Apply(ask, epoch)
	if got := m.Snapshot().Reload; got != (ReloadInfo{}) {
		t.Errorf("asked while starting: %+v", got)
	}
}

// Daemons that go into the background (expect fork, daemon, pidfile).
func TestForks(t *testing.T) {
	forks := func(who ProcID, n int64) Event { return Event{Kind: Forked, Who: who, Number: n} }
	file := func(who ProcID) Event { return Event{Kind: PIDFileRead, Who: who} }
	start := step{0, finds(daemon), "starting 10 --L"}
	rows := []story{
		{"fork: the child", of(ExpectFork), []step{
			start,
			{1 * sec, forks(child, 1), "ready 20 SRL"},
			{1 * sec, ends(daemon), "ready 20 SRL"},
			{2 * sec, ends(child), "gone - --L"},
		}},
		{"fork: of two children the older is it", of(ExpectFork), []step{
			start,
			{1 * sec, forks(child, 1), "ready 20 SRL"},
			{1 * sec, forks(helper, 1), "ready 20 SRL"},
			{1 * sec, ends(daemon), "ready 20 SRL"},
		}},
		{"fork: both parents ended at once", of(ExpectFork), []step{
			start,
			{1 * sec, forks(next, 2), "ready 30 SRL"},
			{1 * sec, ends(daemon), "ready 30 SRL"},
		}},
		{"fork: too many, the last is it", of(ExpectFork), []step{
			start,
			{1 * sec, forks(child, 1), "ready 20 SRL"},
			{1 * sec, ends(daemon), "ready 20 SRL"},
			{2 * sec, forks(next, 2), "ready 30 SRL"},
			{2 * sec, ends(child), "ready 30 SRL"},
			{3 * sec, saysReload(next), "reloading 30 SRL"},
			{4 * sec, forks(helper, 3), "reloading 40 SRL"},
			{4 * sec, ends(next), "reloading 40 SRL"},
		}},
		{"fork: it stays in the foreground and ends", of(ExpectFork), []step{
			start,
			{1 * sec, ends(daemon), "gone - --L"},
		}},
		{"daemon: the grandchild", of(ExpectDaemon), []step{
			start,
			{1 * sec, forks(child, 1), "starting 20 --L"},
			{1 * sec, ends(daemon), "starting 20 --L"},
			{2 * sec, forks(next, 2), "ready 30 SRL"},
			{2 * sec, ends(child), "ready 30 SRL"},
			{3 * sec, ends(next), "gone - --L"},
		}},
		{"daemon: too few, and the child ends", of(ExpectDaemon), []step{
			start,
			{1 * sec, forks(child, 1), "starting 20 --L"},
			{2 * sec, ends(daemon), "starting 20 --L"},
			{3 * sec, ends(child), "gone - --L"},
		}},
		{"daemon: too many", of(ExpectDaemon), []step{
			start,
			{1 * sec, forks(child, 1), "starting 20 --L"},
			{1 * sec, ends(daemon), "starting 20 --L"},
			{2 * sec, forks(next, 2), "ready 30 SRL"},
			{2 * sec, ends(child), "ready 30 SRL"},
			{3 * sec, forks(helper, 3), "ready 40 SRL"},
			{3 * sec, ends(next), "ready 40 SRL"},
		}},
		{"daemon: what a stop has begun a fork does not undo", of(ExpectDaemon), []step{
			start,
			{1 * sec, asked, "stopping 10 --L"},
			{2 * sec, forks(child, 1), "stopping 10 --L"},
			{3 * sec, ends(daemon), "gone - --L"},
			{4 * sec, forks(next, 2), "gone - --L"},
		}},
		{"daemon: the gate is tried for the grandchild", gated(ExpectDaemon), []step{
			start,
			{1 * sec, forks(child, 1), "starting 20 --L"},
			{2 * sec, forks(next, 2), "ready 30 --L; knock 30"},
			{3 * sec, opens(next), "ready 30 SRL gate"},
		}},
		{"pidfile: the file decides, not the forks", of(ExpectPIDFile), []step{
			start,
			{1 * sec, forks(child, 1), "starting 20 --L"},
			{1 * sec, ends(daemon), "starting 20 --L"},
			{2 * sec, forks(next, 2), "starting 30 --L"},
			{2 * sec, ends(child), "starting 30 --L"},
			{3 * sec, file(next), "ready 30 SRL"},
			{4 * sec, forks(helper, 3), "ready 30 SRL"},
			{5 * sec, file(helper), "ready 30 SRL"},
		}},
		{"pidfile: names another than the main process so far", of(ExpectPIDFile), []step{
			start,
			{1 * sec, file(child), "ready 20 SRL"},
			{2 * sec, ends(daemon), "ready 20 SRL"},
			{3 * sec, ends(child), "gone - --L"},
		}},
		{"pidfile: nobody was found before", of(ExpectPIDFile), []step{
			{1 * sec, file(daemon), "ready 10 SRL"},
			{2 * sec, ends(daemon), "gone - --L"},
			{3 * sec, file(next), "ready 30 SRL"},
		}},
		{"pidfile: it is on its way out", of(ExpectPIDFile), []step{
			start,
			{1 * sec, saysStop(daemon), "stopping 10 --L"},
			{2 * sec, file(child), "stopping 10 --L"},
		}},
	}
	for _, e := range []Expect{ExpectAuto, ExpectNotify, ExpectStop} {
		rows = append(rows, story{e.String() + ": neither forks nor a file make it ready", of(e), []step{
			{0, file(daemon), "absent - --L"},
			{0, finds(daemon), "starting 10 --L"},
			{1 * sec, forks(child, 1), "starting 10 --L"},
			{2 * sec, file(child), "starting 10 --L"},
			{3 * sec, ends(daemon), "gone - --L"},
			{4 * sec, file(child), "gone - --L"},
		}})
	}
	tell(t, rows)

	// What was seen, and which expect would have fitted.
	for _, c := range []struct {
		expect Expect
		forks  []Event
		want   string
	}{
		{ExpectFork, nil, "no fork was seen: it stays in the foreground; expect: notify fits if it sends READY=1, expect: none if it never says it is ready"},
		{ExpectDaemon, nil, "no fork was seen: it stays in the foreground; expect: notify fits if it sends READY=1, expect: none if it never says it is ready"},
		{ExpectDaemon, []Event{forks(child, 1)}, "1 fork was seen where 2 are expected; expect: fork would fit"},
		{ExpectFork, []Event{saysReady(daemon)}, "it sent READY=1; expect: notify would fit"},
		{ExpectDaemon, []Event{stops(daemon)}, "a process stopped itself (1 times); expect: stop would fit"},
		{ExpectPIDFile, []Event{forks(child, 1), forks(next, 2)}, "the PID file names no process of this service; forks seen: 2"},
	} {
		p := timed(c.expect)
		m := New(p)
		for _, e := range append([]Event{finds(daemon)}, c.forks...) {
			m.Apply(e, epoch)
		}
		m.Apply(tick, epoch.Add(p.StartTimeout))
		s := m.Snapshot()
		if got, fails := s.Failing(&p, Startup, nil); !fails || got.Reason != "not ready after 1m30s: "+c.want {
			t.Errorf("expect %v after %d events: %q, want %q", c.expect, len(c.forks), got.Reason, c.want)
		}
	}
}
