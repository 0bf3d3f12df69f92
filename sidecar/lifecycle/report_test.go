package lifecycle

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// standing is a healthy service in a phase, as the machine would describe it.
func standing(p Phase, change func(*Snapshot)) *Snapshot {
	s := &Snapshot{Phase: p}
	switch p {
	case Ready, Reloading, Stopping:
		s.Main, s.Started = daemon, true
	case Starting:
		s.Main = daemon
	case Gone:
		s.LastExit = &LastExit{Who: daemon, Exit: Exit{Known: true}, Clean: true}
	}
	if change != nil {
		change(s)
	}
	return s
}

// Every row of the answers' table (spec 5): the check that fails, which probes
// fail with it, and the words of its reason that tell people what to do.
func TestVerdicts(t *testing.T) {
	type policy = func(*Policy)
	sr, rl, all := Startup|Readyz, Readyz|Livez, Startup|Readyz|Livez
	for _, c := range []struct {
		check  string
		name   string
		snap   *Snapshot
		policy policy
		want   Probe // 0: it passes
		words  string
	}{
		{"socket", "bound", standing(Ready, nil), nil, 0, ""},
		{"socket", "not bound", standing(Ready, func(s *Snapshot) { s.Facts.Socket = "cannot bind /run/x: no such directory" }), nil, Readyz, "no such directory"},

		{"process", "runs", standing(Ready, nil), nil, 0, ""},
		{"process", "nothing seen yet", standing(Absent, nil), nil, Readyz, "no main process"},
		{"process", "it could be several", standing(Absent, func(s *Snapshot) { s.Facts.Candidates = []string{"web", "log"} }), nil, Readyz, "web, log; set select.container"},
		{"process", "starting, not known which", standing(Starting, func(s *Snapshot) { s.Main = nobody }), nil, Readyz, "no main process"},
		{"process", "ended cleanly, container gone", standing(Gone, nil), nil, Readyz, "process 10 exited with code 0"},
		{"process", "ended, it is not known which follows", standing(Gone, func(s *Snapshot) { s.Facts.Candidates = []string{"web", "log"} }), nil, Readyz,
			"process 10 exited with code 0; it could be any of web, log; set select.container"},
		{"process", "ended cleanly, container lives on", standing(Gone, func(s *Snapshot) { s.Facts.ContainerAlive = true }), nil, Readyz, ""},
		{"process", "ended uncleanly, container gone", standing(Gone, func(s *Snapshot) {
			s.LastExit = &LastExit{Who: daemon, Exit: Exit{Known: true, Signal: 11}}
		}), nil, Readyz, "process 10 was killed by signal 11"},
		{"process", "ended uncleanly, container lives on", standing(Gone, func(s *Snapshot) {
			s.LastExit, s.Facts.ContainerAlive = &LastExit{Who: daemon, Exit: Exit{Known: true, Code: 3}}, true
		}), nil, rl, "process 10 exited with code 3"},
		{"process", "ended, nobody knows how, container lives on", standing(Gone, func(s *Snapshot) {
			s.LastExit, s.Facts.ContainerAlive = &LastExit{Who: daemon}, true
		}), nil, rl, "process 10 ended"},
		{"process", "one ended uncleanly, it is not known which follows", standing(Starting, func(s *Snapshot) {
			s.Main, s.LastExit, s.Facts.ContainerAlive = nobody, &LastExit{Who: daemon}, true
		}), nil, Readyz, "no main process"},
		{"process", "one ended uncleanly long ago, another runs", standing(Ready, func(s *Snapshot) {
			s.LastExit, s.Facts.ContainerAlive = &LastExit{Who: daemon}, true
		}), nil, 0, ""},

		{"start", "absent", standing(Absent, nil), nil, sr, "no READY=1 and no stop so far"},
		{"start", "starting", standing(Starting, nil), nil, sr, "no READY=1 and no stop so far"},
		{"start", "starting again", standing(Starting, func(s *Snapshot) { s.Started = true }), nil, Readyz, "not ready yet"},
		{"start", "ready", standing(Ready, nil), nil, 0, ""},
		{"start", "reloading", standing(Reloading, nil), nil, 0, ""},
		{"start", "stopping after it was ready", standing(Stopping, nil), nil, 0, ""},
		{"start", "stopping before it was ready", standing(Stopping, func(s *Snapshot) { s.Started = false }), nil, sr, "not ready yet"},
		{"start", "gone", standing(Gone, nil), nil, sr, "not ready yet"},
		{"start", "too late", standing(Starting, func(s *Snapshot) { s.StartLate = true }), nil, sr, "not ready after 1m30s"},
		{"start", "too late, not-live", standing(Starting, func(s *Snapshot) { s.StartLate = true }), func(p *Policy) { p.OnStartTimeout = NotLive }, all, "not ready after 1m30s"},
		{"start", "too late again, not-live", standing(Starting, func(s *Snapshot) { s.StartLate, s.Started = true, true }), func(p *Policy) { p.OnStartTimeout = NotLive }, rl, "not ready after 1m30s"},
		{"start", "in time, not-live", standing(Starting, nil), func(p *Policy) { p.OnStartTimeout = NotLive }, sr, "not ready yet"},
		{"start", "stopped, to be continued", standing(Starting, func(s *Snapshot) { s.Owed = daemon }), nil, sr, "waiting to see it run again"},
		{"start", "stopped, not allowed to continue it", standing(Starting, func(s *Snapshot) { s.Owed, s.Facts.Denied = daemon, "uid 65532 against uid 0" }), nil, sr, "cannot continue the stopped process: uid 65532 against uid 0"},
		{"start", "cannot work", standing(Starting, func(s *Snapshot) { s.Facts.Impossible = "it is PID 1" }), nil, sr, "it is PID 1"},

		{"gate", "none", standing(Ready, nil), nil, 0, ""},
		{"gate", "closed", standing(Ready, nil), func(p *Policy) { p.Gate = true }, sr, "gate.tcp has not accepted"},
		{"gate", "open", standing(Ready, func(s *Snapshot) { s.GateOpen = true }), func(p *Policy) { p.Gate = true }, 0, ""},

		{"reload", "keep", standing(Reloading, nil), nil, 0, ""},
		{"reload", "keep, too late", standing(Reloading, func(s *Snapshot) { s.ReloadLate = true }), nil, 0, ""},
		{"reload", "not-ready", standing(Reloading, nil), func(p *Policy) { p.OnReload = NotReady }, Readyz, "reloading"},
		{"reload", "not-ready, too late", standing(Reloading, func(s *Snapshot) { s.ReloadLate = true }), func(p *Policy) { p.OnReload = NotReady }, Readyz, "no READY=1 within 1m30s"},
		{"reload", "not-ready, over", standing(Ready, nil), func(p *Policy) { p.OnReload = NotReady }, 0, ""},

		{"paused", "runs", standing(Ready, nil), nil, 0, ""},
		{"paused", "stopped by somebody", standing(Ready, func(s *Snapshot) { s.Paused = true }), nil, Readyz, "kill -CONT 10"},
		{"paused", "stopped by somebody, ignore", standing(Ready, func(s *Snapshot) { s.Paused = true }), func(p *Policy) { p.OnPaused = Ignore }, 0, ""},

		{"errno", "none", standing(Ready, nil), nil, 0, ""},
		{"errno", "not-ready", standing(Ready, func(s *Snapshot) { s.Errno = 28 }), nil, Readyz, "errno 28"},
		{"errno", "by name", standing(Ready, func(s *Snapshot) { s.Errno, s.Facts.ErrnoName = 28, "ENOSPC" }), nil, Readyz, "errno 28 (ENOSPC)"},
		{"errno", "not-live", standing(Ready, func(s *Snapshot) { s.Errno = 28 }), func(p *Policy) { p.OnErrno = NotLive }, rl, "errno 28"},
		{"errno", "ignore", standing(Ready, func(s *Snapshot) { s.Errno = 28 }), func(p *Policy) { p.OnErrno = Ignore }, 0, ""},

		{"watchdog", "fed", standing(Ready, nil), nil, 0, ""},
		{"watchdog", "starved", standing(Ready, func(s *Snapshot) { s.Starved, s.Watchdog = true, 3*time.Second }), nil, rl, "no WATCHDOG=1 within 3s"},
		{"watchdog", "triggered", standing(Starting, func(s *Snapshot) { s.Triggered = true }), nil, rl, "WATCHDOG=trigger"},

		{"stopping", "no", standing(Ready, nil), nil, 0, ""},
		{"stopping", "it says so", standing(Stopping, func(s *Snapshot) { s.StopSaid = true }), nil, Readyz, "STOPPING=1"},
		{"stopping", "it was asked", standing(Stopping, nil), nil, Readyz, "asked to stop"},
		{"stopping", "for too long", standing(Stopping, func(s *Snapshot) { s.StopLate = true }), nil, rl, "still stopping after 1m30s"},
		{"stopping", "over", standing(Gone, nil), nil, 0, ""},

		{"respawn", "few", standing(Ready, func(s *Snapshot) { s.Respawns = 3 }), nil, 0, ""},
		{"respawn", "too many", standing(Gone, func(s *Snapshot) { s.LimitHit, s.Respawns = true, 11 }), nil, Readyz, "respawned 10 times within 5m0s"},

		{"unknown", "known", standing(Ready, nil), nil, 0, ""},
		{"unknown", "not known", standing(Ready, func(s *Snapshot) { s.Unknown = true }), nil, Readyz, "not known whether it is ready"},
		{"unknown", "not known, reload", standing(Ready, func(s *Snapshot) { s.Unknown = true }), func(p *Policy) { p.OnUnknown = UnknownReload }, Readyz, "not known whether it is ready"},
		{"unknown", "not known, restart", standing(Ready, func(s *Snapshot) { s.Unknown = true }), func(p *Policy) { p.OnUnknown = UnknownRestart }, Readyz, "not known whether it is ready"},
		{"unknown", "not known, ready", standing(Ready, func(s *Snapshot) { s.Unknown = true }), func(p *Policy) { p.OnUnknown = UnknownReady }, 0, ""},
	} {
		t.Run(c.check+"/"+c.name, func(t *testing.T) {
			p := DefaultPolicy()
			if c.policy != nil {
				c.policy(&p)
			}
			i := slices.IndexFunc(c.snap.Checks(&p), func(x Check) bool { return x.Name == c.check })
			if i < 0 {
				t.Fatalf("there is no check %q", c.check)
			}
			got := c.snap.Checks(&p)[i]
			if fails := !got.OK(); fails != (c.want != 0) || fails && got.Probes != c.want {
				t.Errorf("fails %v with %v (%q), want %v", fails, got.Probes.Names(), got.Reason, c.want.Names())
			}
			if !strings.Contains(got.Reason, c.words) {
				t.Errorf("reason %q does not say %q", got.Reason, c.words)
			}
			only := func(name string) bool { return name != c.check }
			for _, probe := range []Probe{Startup, Readyz, Livez} {
				f, fails := c.snap.Failing(&p, probe, only)
				if fails != (c.want&probe != 0) {
					t.Errorf("%v alone fails %v: %v, want %v", c.check, probe.Names(), fails, !fails)
				}
				if fails && f != got {
					t.Errorf("Failing says %+v, Checks says %+v", f, got)
				}
				if fails && !Lists(probe, c.check) {
					t.Errorf("%v fails with %v and is not listed there", probe.Names(), c.check)
				}
			}
		})
	}
}

// Every check has a row of its own in the docs, a probe to list it, and nothing
// passes as doubtful that is not listed.
func TestChecks(t *testing.T) {
	seen := map[string]bool{}
	for i, c := range checks {
		if c.name == "" || c.doc == "" || c.judge == nil || c.always == 0 {
			t.Errorf("check %d (%q) is not complete", i, c.name)
		}
		if c.some&^c.always != 0 {
			t.Errorf("check %s: fails %v at times, is listed in %v", c.name, c.some.Names(), c.always.Names())
		}
		if seen[c.name] {
			t.Errorf("two checks are called %s", c.name)
		}
		seen[c.name] = true
	}
	if want := "socket process start gate reload paused errno watchdog stopping respawn unknown"; strings.Join(CheckNames(), " ") != want {
		t.Errorf("checks %v, want %v", CheckNames(), want)
	}
	if Lists(Readyz, "weather") {
		t.Error("a check that does not exist is listed")
	}
	if got := (Startup | Readyz | Livez).Names(); !slices.Equal(got, []string{"startup", "ready", "live"}) {
		t.Errorf("all probes are %v", got)
	}
}

// The one line of an answer is the first check that fails and is not excluded.
func TestFailingOrder(t *testing.T) {
	p := DefaultPolicy()
	s := standing(Stopping, func(s *Snapshot) { s.Paused, s.Errno, s.StopLate = true, 5, true })
	var skipped []string
	for {
		c, fails := s.Failing(&p, Readyz, func(name string) bool { return slices.Contains(skipped, name) })
		if !fails {
			break
		}
		skipped = append(skipped, c.Name)
	}
	if want := []string{"paused", "errno", "stopping"}; !slices.Equal(skipped, want) {
		t.Errorf("ready fails with %v, want %v", skipped, want)
	}
	if c, fails := s.Failing(&p, Livez, nil); !fails || c.Name != "stopping" {
		t.Errorf("live: %+v %v, want stopping", c, fails)
	}
	if c, fails := s.Failing(&p, Startup, nil); fails {
		t.Errorf("startup fails with %+v", c)
	}
}

// A start that takes too long names what was seen and the expect that fits.
func TestLateStartReasons(t *testing.T) {
	for _, c := range []struct {
		expect Expect
		seen   Seen
		words  string
	}{
		{ExpectNotify, Seen{}, "it said nothing and did not stop itself; see that NOTIFY_SOCKET"},
		{ExpectNotify, Seen{Stops: 1}, "a process stopped itself (1 times); expect: stop would fit"},
		{ExpectNotify, Seen{Stops: 1, Statuses: 2}, "expect: stop would fit"},
		{ExpectNotify, Seen{Statuses: 2}, "did not send READY=1"},
		{ExpectNotify, Seen{Forks: 2}, "started 2 more processes; expect: none would fit"},
		{ExpectStop, Seen{Readies: 1}, "it sent READY=1; expect: notify would fit"},
		{ExpectStop, Seen{Readies: 1, Statuses: 3, Forks: 1}, "expect: notify would fit"},
		{ExpectFork, Seen{Stops: 1}, "expect: stop would fit"},
		{ExpectAuto, Seen{}, "or set expect: none"},
	} {
		p := DefaultPolicy()
		p.Expect = c.expect
		s := standing(Starting, func(s *Snapshot) { s.StartLate, s.Seen = true, c.seen })
		got, fails := s.Failing(&p, Readyz, nil)
		if !fails || !strings.HasPrefix(got.Reason, "not ready after 1m30s: ") || !strings.Contains(got.Reason, c.words) {
			t.Errorf("expect %v, seen %+v: %q, want %q", c.expect, c.seen, got.Reason, c.words)
		}
	}
	p := DefaultPolicy()
	s := standing(Starting, func(s *Snapshot) { s.StartLate, s.Seen, s.Facts.Refused = true, Seen{Forks: 1}, 1 })
	if got, _ := s.Failing(&p, Readyz, nil); !strings.Contains(got.Reason, "not admitted") || strings.Contains(got.Reason, "said nothing") {
		t.Errorf("its helper is not admitted: %q", got.Reason)
	}
	for e := ExpectAuto; e <= ExpectNone; e++ {
		p := Policy{Expect: e}
		if got, _ := standing(Starting, nil).Failing(&p, Readyz, nil); got.Reason == "not ready yet" || !strings.HasPrefix(got.Reason, "not ready yet: no") {
			t.Errorf("expect %v: %q does not say what is waited for", e, got.Reason)
		}
	}
}

func TestExpectNames(t *testing.T) {
	for e := ExpectAuto; e <= ExpectNone; e++ {
		if got, ok := ParseExpect(e.String()); !ok || got != e {
			t.Errorf("ParseExpect(%q) = %v, %v", e.String(), got, ok)
		}
	}
	if e, ok := ParseExpect("Stop"); ok {
		t.Errorf("ParseExpect(Stop) = %v", e)
	}
}
