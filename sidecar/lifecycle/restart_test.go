package lifecycle

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// podnotify was restarted: the next step finds the machine that its record makes.
var (
	resumes = Event{Kind: Resumed, Who: daemon} // and the main process lives
	leaves  = Event{Kind: StopAsked, Number: Leaving}
)

// lost is a process that ended while nobody looked.
func lost(who ProcID) Event { return Event{Kind: Ended, Who: who, Missed: true} }

// missed is a process that may have spoken before anybody listened.
func missed(e Event) Event { e.Missed = true; return e }

// reborn is a machine after it was written down and read again.
func reborn(t interface{ Fatal(...any) }, m *Machine, p Policy) *Machine {
	n, err := rebirth(m, p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func rebirth(m *Machine, p Policy) (*Machine, error) {
	r := m.Record()
	text, _ := m.Text()
	r.Status = string(text)
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var read Record
	if err := json.Unmarshal(b, &read); err != nil {
		return nil, err
	}
	if err := read.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, b)
	}
	n := Restore(p, read)
	if again := n.Record(); again != unstated(read) {
		return nil, fmt.Errorf("restored\n%+v\nof\n%+v", again, read)
	}
	return n, nil
}

// unstated is a record without the text of STATUS, as a machine makes it.
func unstated(r Record) Record {
	r.Status = ""
	return r
}

func unknown(u Unknown) func(*Policy) { return func(p *Policy) { p.OnUnknown = u } }

// What is known over a restart of podnotify, and what is not (spec 8).
func TestRestart(t *testing.T) {
	start := step{0, finds(daemon), "starting 10 --L"}
	ready := step{1 * sec, saysReady(daemon), "ready 10 SRL"}
	rows := []story{
		{"ready stays ready", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, resumes, "ready 10 SRL"},
			{3 * sec, saysReload(daemon), "reloading 10 SRL"},
			{4 * sec, ends(daemon), "gone - --L"},
		}},
		{"many times", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, resumes, "ready 10 SRL"},
			{3 * sec, resumes, "ready 10 SRL"},
			{4 * sec, resumes, "ready 10 SRL"},
		}},
		{"starting: READY=1 may have been said", timed(ExpectNotify), []step{
			{0, finds(daemon), "starting 10 --L due=1m30s"},
			{60 * sec, resumes, "starting 10 --L unknown due=2m30s"},
			{70 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"starting: no fault of the daemon's, however long", with(ExpectNotify, func(p *Policy) { p.StartTimeout, p.OnStartTimeout, p.Respawn.Mode = 10*sec, NotLive, RespawnSignal }), []step{
			{0, finds(daemon), "starting 10 --L due=10s"},
			{5 * sec, resumes, "starting 10 --L unknown due=15s"},
			{15 * sec, tick, "starting 10 --L unknown"},
			{20 * sec, saysReload(daemon), "starting 10 --L due=30s"}, // where it stands is known: it starts
			{30 * sec, tick, "stopping 10 --L; terminate 10"},
		}},
		{"starting, late already", with(ExpectNotify, func(p *Policy) { p.StartTimeout = 10 * sec }), []step{
			{0, finds(daemon), "starting 10 --L due=10s"},
			{10 * sec, tick, "starting 10 --L late"},
			{11 * sec, resumes, "starting 10 --L unknown due=21s"},
		}},
		{"starting, and still unknown after the next restart", of(ExpectNotify), []step{
			start,
			{1 * sec, resumes, "starting 10 --L unknown"},
			{2 * sec, resumes, "starting 10 --L unknown"},
			{3 * sec, saysReady(nobody), "ready 10 SRL"},
		}},
		{"starting: STOPPING=1 tells", of(ExpectNotify), []step{
			start,
			{1 * sec, resumes, "starting 10 --L unknown"},
			{2 * sec, saysStop(daemon), "stopping 10 --L"},
		}},
		{"starting: a new instance tells", of(ExpectNotify), []step{
			start,
			{1 * sec, resumes, "starting 10 --L unknown"},
			{2 * sec, ends(daemon), "gone - --L"},
			{3 * sec, finds(next), "starting 30 --L"},
		}},
		{"starting: podnotify respawn", of(ExpectNotify), []step{
			start,
			{1 * sec, resumes, "starting 10 --L unknown"},
			{2 * sec, Event{Kind: RespawnAsked}, "stopping 10 --L; terminate 10"},
		}},
		{"reloading: READY=1 may have been said", timed(ExpectNotify), []step{
			{0, finds(daemon), "starting 10 --L due=1m30s"}, ready,
			{2 * sec, saysReload(daemon), "reloading 10 SRL due=1m2s"},
			{32 * sec, resumes, "reloading 10 S-L unknown due=1m32s"},
			{40 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"reloading: the next RELOADING=1 tells", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, saysReload(daemon), "reloading 10 SRL"},
			{3 * sec, resumes, "reloading 10 S-L unknown"},
			{4 * sec, saysReload(daemon), "reloading 10 SRL"},
		}},
		{"stopping stays stopping", timed(ExpectNotify), []step{
			{0, finds(daemon), "starting 10 --L due=1m30s"}, ready,
			{2 * sec, saysStop(daemon), "stopping 10 S-L due=32s"},
			{20 * sec, resumes, "stopping 10 S-L due=50s"},
			{21 * sec, saysReady(daemon), "stopping 10 S-L due=50s"},
			{50 * sec, tick, "stopping 10 S-- late"},
			{60 * sec, resumes, "stopping 10 S-- late due=1m30s"},
		}},
		{"stopping at our asking: it is killed in time all the same", timed(ExpectNotify), []step{
			{0, finds(daemon), "starting 10 --L due=1m30s"}, ready,
			{2 * sec, toKill, "stopping 10 S-L due=32s"},
			{20 * sec, resumes, "stopping 10 S-L due=50s"},
			{21 * sec, saysReload(daemon), "stopping 10 S-L due=50s"},
			{50 * sec, tick, "stopping 10 S-- late; kill 10"},
			{60 * sec, resumes, "stopping 10 S-- late due=1m30s"}, // it may not have been sent
			{90 * sec, tick, "stopping 10 S-- late; kill 10"},
		}},
		{"podnotify went down and is back, the daemon stayed", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, leaves, "stopping 10 S-L"},
			{3 * sec, saysReady(daemon), "stopping 10 S-L"},
			{4 * sec, resumes, "ready 10 SRL"},
			{5 * sec, saysReload(daemon), "reloading 10 SRL"},
		}},
		{"podnotify went down during a reload", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, saysReload(daemon), "reloading 10 SRL"},
			{3 * sec, leaves, "stopping 10 S-L"},
			{4 * sec, resumes, "reloading 10 S-L unknown"},
		}},
		{"podnotify went down during a start", of(ExpectNotify), []step{
			start,
			{3 * sec, leaves, "stopping 10 --L"},
			{4 * sec, resumes, "starting 10 --L unknown"},
			{5 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"podnotify went down, and the daemon was stopping", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, saysStop(daemon), "stopping 10 S-L"},
			{3 * sec, leaves, "stopping 10 S-L"},
			{4 * sec, resumes, "stopping 10 S-L"},
		}},
		{"podnotify went down, and the daemon said STOPPING=1 then", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, leaves, "stopping 10 S-L"},
			{3 * sec, saysStop(daemon), "stopping 10 S-L"},
			{4 * sec, resumes, "stopping 10 S-L"},
		}},
		{"podnotify went down, and somebody asked for a stop", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, leaves, "stopping 10 S-L"},
			{3 * sec, toKill, "stopping 10 S-L"},
			{4 * sec, resumes, "stopping 10 S-L"},
		}},
		{"a termination was handed on", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, asked, "stopping 10 S-L"},
			{3 * sec, leaves, "stopping 10 S-L"},
			{4 * sec, resumes, "stopping 10 S-L"},
		}},
		{"it ended meanwhile, another runs that may have spoken", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, lost(daemon), "gone - --L"},
			{2 * sec, missed(finds(next)), "starting 30 --L unknown"},
			{3 * sec, saysReady(next), "ready 30 SRL"},
		}},
		{"it ended meanwhile, another starts", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, lost(daemon), "gone - --L"},
			{3 * sec, finds(next), "starting 30 --L"},
		}},
		{"no record: found running", of(ExpectAuto), []step{
			{0, missed(finds(daemon)), "starting 10 --L unknown"},
			{1 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"no record: named", of(ExpectNotify), []step{
			{0, missed(names(daemon)), "starting 10 --L unknown"},
			{1 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"no record: stopped still", of(ExpectStop), []step{
			{0, missed(stops(daemon)), "starting 10 --L owed=10; continue 10"},
			{1 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"no record: stops later", of(ExpectStop), []step{
			{0, missed(finds(daemon)), "starting 10 --L unknown"},
			{1 * sec, stops(daemon), "starting 10 --L owed=10 unknown; continue 10"},
			{2 * sec, runs(daemon), "ready 10 SRL"},
			{3 * sec, stops(daemon), "ready 10 S-L paused"},
		}},
		{"no record: stopped once already, and reloads", of(ExpectStop), []step{
			{0, missed(finds(daemon)), "starting 10 --L unknown"},
			{1 * sec, saysReload(daemon), "starting 10 --L"},
			{2 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"no record: nothing to miss", of(ExpectNone), []step{{0, missed(finds(daemon)), "ready 10 SRL"}}},
		{"no record: a PID file stays", of(ExpectPIDFile), []step{
			{0, missed(finds(daemon)), "starting 10 --L"},
			{1 * sec, Event{Kind: PIDFileRead, Who: daemon}, "ready 10 SRL"},
		}},
		{"a stop waits for us", of(ExpectStop), []step{
			start,
			{1 * sec, resumes, "starting 10 --L"},
			{2 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{3 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"a stop that may not have been answered", of(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, resumes, "starting 10 --L owed=10"},
			{2 * sec, missed(stops(daemon)), "starting 10 --L owed=10; continue 10"},
			{3 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"a stop that was answered", of(ExpectStop), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, resumes, "starting 10 --L owed=10"},
			{2 * sec, runs(daemon), "ready 10 SRL"},
			{3 * sec, resumes, "ready 10 SRL"},
			{4 * sec, stops(daemon), "ready 10 S-L paused"}, // an operator's
		}},
		{"auto: a stop that was answered ends the doubt", of(ExpectAuto), []step{
			start,
			{1 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{2 * sec, resumes, "starting 10 --L owed=10 unknown"},
			{2 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"who owed it is gone", of(ExpectStop), []step{
			start,
			{1 * sec, stops(child), "starting 20 --L owed=20; continue 20"},
			{1 * sec, names(daemon), "starting 10 --L owed=20"},
			{2 * sec, lost(child), "starting 10 --L"},
			{2 * sec, stops(daemon), "starting 10 --L owed=10; continue 10"},
		}},
		{"a PID file stays", of(ExpectPIDFile), []step{start, {1 * sec, resumes, "starting 10 --L"}}},
		{"ready: what an upgrade left behind is still stale", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, names(next), "ready 30 SRL"},
			{3 * sec, resumes, "ready 30 SRL"},
			{4 * sec, saysStop(daemon), "ready 30 SRL"},
		}},
		{"ready by a child that lives, and then ends", of(ExpectNotify), []step{
			start,
			{1 * sec, saysReady(child), "ready 10 SRL; hold 20"},
			{2 * sec, resumes, "ready 10 SRL; hold 20"},
			{3 * sec, ends(child), "starting 10 S-L"},
		}},
		{"ready by a child that ended meanwhile: a helper, or a server", of(ExpectNotify), []step{
			start,
			{1 * sec, saysReady(child), "ready 10 SRL; hold 20"},
			{1*sec + 100*ms, lost(child), "starting 10 S-L unknown"},
			{2 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"ready by a child and by itself, the child ended meanwhile", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, saysReady(child), "ready 10 SRL; hold 20"},
			{3 * sec, lost(child), "ready 10 SRL"},
		}},
		{"a helper's READY=1 is the daemon's", of(ExpectNotify), []step{
			start,
			{1 * sec, saysReady(helper), "ready 10 SRL; hold 40"},
			{1*sec + 100*ms, ends(helper), "ready 10 SRL"},
			{2 * sec, resumes, "ready 10 SRL"},
		}},
		{"stopping by a child that lives, and then ends", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, saysStop(child), "stopping 10 S-L; hold 20"},
			{3 * sec, resumes, "stopping 10 S-L; hold 20"},
			{4 * sec, ends(child), "starting 10 S-L"},
		}},
		{"stopping by a child that ended meanwhile", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, saysStop(child), "stopping 10 S-L; hold 20"},
			{3 * sec, lost(child), "starting 10 S-L unknown"},
		}},
		{"errno stays", of(ExpectNotify), []step{
			start, ready,
			{2 * sec, saysErrno(5), "ready 10 S-L errno=5"},
			{3 * sec, resumes, "ready 10 S-L errno=5"},
			{4 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"the watchdog begins anew, at the interval the daemon chose", watched(ExpectNotify), []step{
			start,
			{1 * sec, saysReady(daemon), "ready 10 SRL due=11s"},
			{2 * sec, saysEvery(20 * sec), "ready 10 SRL due=22s"},
			{21 * sec, resumes, "ready 10 SRL due=41s"},
			{41 * sec, tick, "ready 10 S-- starved"},
			{42 * sec, resumes, "ready 10 SRL due=1m2s"}, // a ping may have been lost
		}},
		{"WATCHDOG=trigger stays", watched(ExpectNotify), []step{
			start,
			{1 * sec, saysReady(daemon), "ready 10 SRL due=11s"},
			{2 * sec, triggers, "ready 10 S-- triggered due=11s"},
			{3 * sec, resumes, "ready 10 S-- triggered due=13s"},
		}},
		{"a gate that is not open is knocked at again", gated(ExpectNotify), []step{
			start,
			{1 * sec, saysReady(daemon), "ready 10 --L; knock 10"},
			{2 * sec, resumes, "ready 10 --L; knock 10"},
			{3 * sec, opens(daemon), "ready 10 SRL gate"},
			{4 * sec, resumes, "ready 10 SRL gate"},
		}},
		{"the pod is restarted once for an instance", with(ExpectNotify, func(p *Policy) { p.Watchdog, p.Respawn.Mode = 10*sec, RespawnPod }), []step{
			start,
			{1 * sec, saysReady(daemon), "ready 10 SRL due=11s"},
			{11 * sec, tick, "ready 10 S-- starved; restart pod of 10"},
			{12 * sec, resumes, "ready 10 S-- starved due=22s"},
			{22 * sec, tick, "ready 10 S-- starved"},
		}},
		{"the limit holds, and is forgotten in time", with(ExpectNotify, func(p *Policy) {
			p.Respawn = Respawn{Mode: RespawnSignal, Limit: 1, Interval: 60 * sec}
		}), []step{
			start, ready,
			{2 * sec, triggers, "stopping 10 S-- triggered; abort 10"},
			{3 * sec, lost(daemon), "gone - --- triggered; restart container of 10"},
			{4 * sec, finds(next), "starting 30 --L"},
			{5 * sec, Event{Kind: Resumed, Who: next}, "starting 30 --L unknown"},
			{6 * sec, triggers, "starting 30 --- triggered limit unknown due=1m2s"},
			{7 * sec, Event{Kind: Resumed, Who: next}, "starting 30 --- triggered limit unknown due=1m2s"},
			{62 * sec, tick, "starting 30 --- triggered unknown"},
		}},
		{"its container was to end, too", with(ExpectNotify, func(p *Policy) { p.Respawn.Mode = RespawnSignal }), []step{
			start, ready,
			{2 * sec, triggers, "stopping 10 S-- triggered; abort 10"},
			{3 * sec, ends(daemon), "gone - --- triggered; restart container of 10"},
			{4 * sec, Event{Kind: Resumed}, "gone - --- triggered; restart container of 10"},
			{5 * sec, finds(next), "starting 30 --L"},
		}},
		{"a new task was due", with(ExpectNotify, func(p *Policy) {
			p.Respawn = Respawn{Mode: RespawnContainerd, Limit: 1, Interval: 60 * sec, Delay: 5 * sec, MaxDelay: 5 * sec}
		}), []step{
			start, ready,
			{2 * sec, ends(daemon), "gone - --L due=7s"},
			{3 * sec, Event{Kind: Resumed}, "gone - --L; start 10"},
			{4 * sec, Event{Kind: Resumed}, "gone - --L; start 10"}, // nothing has come of it
			{5 * sec, finds(next), "starting 30 --L"},
			{6 * sec, Event{Kind: Resumed, Who: next}, "starting 30 --L unknown"},
			{7 * sec, ends(next), "gone - --L limit due=1m2s"}, // it was counted once
			{8 * sec, Event{Kind: Resumed}, "gone - --L limit due=1m2s"},
		}},
		{"unknown: ready", with(ExpectNotify, unknown(UnknownReady)), []step{
			start,
			{1 * sec, resumes, "ready 10 SRL unknown"},
			{2 * sec, saysReload(daemon), "reloading 10 SRL"},
		}},
		{"unknown: ready, of a reload", with(ExpectNotify, unknown(UnknownReady)), []step{
			start, ready,
			{2 * sec, saysReload(daemon), "reloading 10 SRL"},
			{3 * sec, resumes, "ready 10 SRL unknown"},
			{4 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"unknown: ready, no record", with(ExpectStop, unknown(UnknownReady)), []step{
			{0, missed(finds(daemon)), "ready 10 SRL unknown"},
			{1 * sec, stops(daemon), "ready 10 SRL owed=10 unknown; continue 10"}, // it had not stopped yet
			{2 * sec, runs(daemon), "ready 10 SRL"},
		}},
		{"unknown: reload", with(ExpectNotify, unknown(UnknownReload)), []step{
			start,
			{1 * sec, resumes, "starting 10 --L unknown; ask 10"},
			{2 * sec, saysReload(daemon), "starting 10 --L"},
			{3 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
		{"unknown: reload, of a reload", with(ExpectNotify, unknown(UnknownReload)), []step{
			start, ready,
			{2 * sec, saysReload(daemon), "reloading 10 SRL"},
			{3 * sec, resumes, "reloading 10 S-L unknown; ask 10"},
			{4 * sec, saysReady(daemon), "ready 10 SRL"},
		}},
	}
	for _, mode := range []RespawnMode{RespawnPlatform, RespawnSignal} {
		p := with(ExpectNotify, func(p *Policy) {
			p.OnUnknown, p.StartTimeout, p.StopTimeout = UnknownRestart, 10*sec, 30*sec
			p.Respawn = Respawn{Mode: mode, Limit: 1, Interval: 600 * sec}
		})
		again := func(at time.Duration, want string) []step {
			return []step{
				{at, Event{Kind: Resumed, Who: next}, want},
			}
		}
		rows = append(rows, story{"unknown: restart", p, append([]step{
			{0, finds(daemon), "starting 10 --L due=10s"},
			{5 * sec, resumes, "starting 10 --L unknown due=15s"},
			{15 * sec, tick, "stopping 10 --L due=45s; terminate 10"},
			{16 * sec, ends(daemon), "gone - --L; restart container of 10"},
			{17 * sec, finds(next), "starting 30 --L due=27s"},
		}, append(again(18*sec, "starting 30 --L unknown due=28s"), step{28 * sec, tick, "starting 30 --L limit unknown due=10m15s"})...)})
		rows = append(rows, story{"unknown: restart, of a reload that goes on", p, []step{
			{0, finds(daemon), "starting 10 --L due=10s"}, ready,
			{2 * sec, saysReload(daemon), "reloading 10 SRL"},
			{3 * sec, resumes, "reloading 10 S-L unknown due=13s"},
			{4 * sec, saysReload(daemon), "reloading 10 SRL"},
			{13 * sec, tick, "reloading 10 SRL"},
		}})
	}
	rows = append(rows, story{"unknown: restart, of the pod", with(ExpectNotify, func(p *Policy) {
		p.OnUnknown, p.StartTimeout, p.Respawn.Mode = UnknownRestart, 10*sec, RespawnPod
	}), []step{
		{0, finds(daemon), "starting 10 --L due=10s"},
		{5 * sec, resumes, "starting 10 --L unknown due=15s"},
		{15 * sec, tick, "starting 10 --L unknown; restart pod of 10"},
		{16 * sec, resumes, "starting 10 --L unknown due=26s"},
		{26 * sec, tick, "starting 10 --L unknown"},
	}})
	tell(t, rows)
}

// TestHeardTooEarly: the READY=1 of the next instance overtakes the end of the last.
func TestHeardTooEarly(t *testing.T) {
	tell(t, []story{
		{"found afterwards", of(ExpectNotify), []step{
			{0, finds(daemon), "starting 10 --L"},
			{1 * sec, saysReady(daemon), "ready 10 SRL"},
			{2 * sec, saysReady(next), "ready 10 SRL; hold 30"},
			{2 * sec, ends(daemon), "gone - --L"},
			{3 * sec, finds(next), "ready 30 SRL"},
			{4 * sec, ends(next), "gone - --L"},
			{5 * sec, finds(child), "starting 20 --L"},
		}},
		{"but it said STOPPING=1, too", of(ExpectNotify), []step{
			{0, finds(daemon), "starting 10 --L"},
			{1 * sec, saysReady(daemon), "ready 10 SRL"},
			{2 * sec, saysReady(next), "ready 10 SRL; hold 30"},
			{2 * sec, saysStop(next), "stopping 10 S-L"},
			{2 * sec, ends(daemon), "gone - --L"},
			{3 * sec, finds(next), "starting 30 --L"},
		}},
		{"named afterwards", of(ExpectNotify), []step{
			{0, finds(daemon), "starting 10 --L"},
			{1 * sec, saysReady(daemon), "ready 10 SRL"},
			{2 * sec, saysReady(next), "ready 10 SRL; hold 30"},
			{2 * sec, ends(daemon), "gone - --L"},
			{3 * sec, names(next), "ready 30 SRL"},
		}},
		{"which is not what is waited for", of(ExpectStop), []step{
			{0, stops(daemon), "starting 10 --L owed=10; continue 10"},
			{1 * sec, runs(daemon), "ready 10 SRL"},
			{2 * sec, saysReady(next), "ready 10 SRL; hold 30"},
			{2 * sec, ends(daemon), "gone - --L"},
			{3 * sec, finds(next), "starting 30 --L"},
		}},
	})
}

// TestRestartKeeps: texts, counts and times are the same afterwards.
func TestRestartKeeps(t *testing.T) {
	p := with(ExpectNotify, func(p *Policy) { p.Respawn = Respawn{Mode: RespawnSignal, Limit: 5, Interval: 60 * sec} })
	m := New(p)
	for i, e := range []Event{
		finds(daemon), saysReady(daemon), triggers, ends(daemon), finds(next), saysReady(next),
		{Kind: Status, Who: next, Text: []byte("up \u2603")},
		{Kind: BusError, Who: next, Text: []byte("org.example.Bad")},
		{Kind: VarlinkError, Who: next, Text: []byte("io.example.Bad")},
	} {
		m.Apply(e, epoch.Add(time.Duration(i)*sec))
	}
	before := m.Snapshot()
	m = reborn(t, m, p)
	m.Apply(Event{Kind: Resumed, Who: next}, epoch.Add(20*sec))
	after := m.Snapshot()
	before.Gen, after.Gen, before.Seen, after.Seen = 0, 0, Seen{}, Seen{}
	before.Facts, after.Facts = Facts{}, Facts{}
	if d := cmp.Diff(before, after, cmp.Exporter(func(reflect.Type) bool { return true })); d != "" {
		t.Errorf("-before +after\n%s", d)
	}
}

// TestRecordOfNothing: what nothing is known of needs no file.
func TestRecordOfNothing(t *testing.T) {
	if r := New(of(ExpectAuto)).Record(); r != (Record{}) {
		t.Errorf("%+v", r)
	}
}

func TestValidate(t *testing.T) {
	good := func() Record {
		m := New(of(ExpectAuto))
		m.Apply(finds(daemon), epoch)
		m.Apply(saysReady(daemon), epoch)
		return m.Record()
	}
	if r := good(); r.Validate() != nil {
		t.Fatal(r.Validate())
	}
	for name, spoil := range map[string]func(*Record){
		"phase":               func(r *Record) { r.Phase = phases },
		"phase before":        func(r *Record) { r.Before = 200 },
		"expect":              func(r *Record) { r.Expect = 7 },
		"why":                 func(r *Record) { r.Why = whys },
		"nobody's main":       func(r *Record) { r.Phase = Absent },
		"nobody's start":      func(r *Record) { r.Phase, r.Main = Absent, nobody },
		"gone without an end": func(r *Record) { *r = Record{Phase: Gone} },
		"not started":         func(r *Record) { r.Started = false },
		"negative pid":        func(r *Record) { r.Main.PID = -1 },
		"negative voice":      func(r *Record) { r.Voice.PID = -1 },
		"negative interval":   func(r *Record) { r.Watchdog = -1 },
		"negative count":      func(r *Record) { r.Respawned[WhyAsked] = -1 },
	} {
		if r := good(); r.Validate() == nil {
			if spoil(&r); r.Validate() == nil {
				t.Errorf("%s: %+v is valid", name, r)
			}
		}
	}
}

// TestRestartAtAnyMoment: whatever happened before, a restart makes nobody ready
// who was not, unless that is wanted, and nobody unready of whom all was known.
func TestRestartAtAnyMoment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		p.Gate = false
		m, now := New(p), epoch
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			now = now.Add(rapid.SampledFrom([]time.Duration{0, ms, sec, 30 * sec}).Draw(t, "after"))
			e := Event{Kind: rapid.SampledFrom(plausible).Draw(t, "kind"), Who: rapid.SampledFrom(cast).Draw(t, "who"),
				Number: int64(rapid.IntRange(0, 2).Draw(t, "number")), Span: rapid.SampledFrom(durations).Draw(t, "span")}
			if e.Kind == Resumed {
				continue
			}
			m.Apply(possible(&watcher{p: p}, e), now)
		}
		answers := func(m *Machine) (ready, live, started bool) {
			s := m.Snapshot()
			_, a := s.Failing(&p, Readyz, nil)
			_, b := s.Failing(&p, Livez, nil)
			_, c := s.Failing(&p, Startup, nil)
			return !a, !b, !c
		}
		old := m.Snapshot()
		if old.Main == nobody && old.Phase != Absent && old.Phase != Gone {
			t.Skip("of whom nothing can be proven")
		}
		wasReady, wasLive, wasStarted := answers(m)
		n := reborn(t, m, p)
		lives := old.Main != nobody
		if lives {
			n.Apply(Event{Kind: Resumed, Who: old.Main}, now)
		}
		s := n.Snapshot()
		ready, live, started := answers(n)
		switch {
		case s.Main != old.Main || lives && s.Phase == Gone:
			t.Fatalf("main process %v became %v", old.Main, s.Main)
		case started != wasStarted && (wasStarted || p.OnUnknown != UnknownReady):
			t.Fatalf("started %v became %v: %+v", wasStarted, started, s)
		case ready && !live:
			t.Fatal("ready and not live")
		case wasLive && !live:
			t.Fatalf("live no more: %+v", s)
		case wasReady && !ready && old.Phase == Ready:
			t.Fatalf("it was ready and all was known: %+v", s)
		case ready && !wasReady && p.OnUnknown != UnknownReady && !old.Paused && !old.Starved && !m.leaving && !old.ReloadLate:
			t.Fatalf("%v became ready by a restart: %+v", old.Phase, s)
		case ready && !(old.Phase == Ready || p.OnUnknown == UnknownReady || m.leaving && m.before == Ready):
			t.Fatalf("%v is ready after a restart: %+v", old.Phase, s)
		case !lives && (ready || started || s.Phase != old.Phase):
			t.Fatalf("nobody is there: %+v", s)
		}
		// And if it was replaced meanwhile, whoever runs instead is not ready.
		if n := reborn(t, m, p); lives {
			n.Apply(lost(old.Main), now)
			s := n.Snapshot()
			if s.Phase != Gone {
				t.Fatalf("its main process has ended: %+v", s)
			}
			n.Apply(missed(finds(ProcID{PID: 99, Start: 99999})), now)
			if ready, _, _ := answers(n); ready && p.OnUnknown != UnknownReady && p.Expect != ExpectNone {
				t.Fatalf("another process is ready: %+v", n.Snapshot())
			}
		}
	})
}
