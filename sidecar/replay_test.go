package sidecar

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// recorded is one line of a recording; see testdata/transcripts/README.md.
type recorded struct {
	Ev       string         `json:"ev"`
	T        float64        `json:"t"`
	Profile  string         `json:"profile"`
	Launched int            `json:"launched_pid"`
	Env      map[string]any `json:"env"`
	PID      int            `json:"pid"`
	Sender   int            `json:"spid"`
	Raw      string         `json:"raw"`
	Code     int            `json:"code"`
	Ready    *float64       `json:"ready"` // in the last line: when the recorder saw READY=1 or the stop
}

func load(t *testing.T, file string) []recorded {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata/transcripts", file+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []recorded
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var r recorded
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%s, line %d: %v", file, len(out)+1, err)
		}
		out = append(out, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 || out[0].Ev != "start" || out[len(out)-1].Ev != "end" {
		t.Fatalf("%s does not go from start to end", file)
	}
	return out
}

// datagrams are the indices of a recording's datagrams.
func datagrams(rec []recorded) (out []int) {
	for i, r := range rec {
		if r.Ev == "dgram" {
			out = append(out, i)
		}
	}
	return out
}

var recordedAt = time.Date(2020, 2, 29, 12, 0, 0, 0, time.UTC)

func recordedID(pid int) lifecycle.ProcID {
	return lifecycle.ProcID{PID: pid, Start: uint64(pid) * 100}
}

// outcome is what a machine made of a recording.
type outcome struct {
	phases  string             // each phase entered after absent, in order
	starved bool               // a watchdog interval was missed
	dying   lifecycle.Snapshot // just before the launched process ended
	last    lifecycle.Snapshot // at the end
}

// replay tells a machine what was recorded, at the times it was recorded.
func replay(t *testing.T, rec []recorded, p lifecycle.Policy) outcome {
	t.Helper()
	m := lifecycle.New(p)
	var out outcome
	var words []string
	now := recordedAt
	apply := func(e lifecycle.Event) {
		was := m.Phase()
		m.Apply(e, now)
		if to := m.Phase(); to != was {
			words = append(words, to.String())
		}
		s := m.Snapshot()
		out.starved = out.starved || s.Starved
	}
	launched := recordedID(rec[0].Launched)
	_, told := rec[0].Env["UPSTART_JOB"]
	speaks := map[int]bool{}
	buf := make([]byte, notify.MaxDatagram) // used again, as by the receiver
	for _, r := range rec {
		at := recordedAt.Add(time.Duration(r.T * float64(time.Second)))
		for d, ok := m.Deadline(); ok && !d.After(at); d, ok = m.Deadline() {
			now = d
			apply(lifecycle.Event{Kind: lifecycle.Timer})
		}
		now = at
		switch r.Ev {
		case "start":
			apply(lifecycle.Event{Kind: lifecycle.Found, Who: launched})
		case "dgram":
			speaks[r.Sender] = true
			var msg notify.Message
			if err := msg.Parse(buf[:copy(buf, r.Raw)]); err != nil {
				t.Fatalf("%q: %v", r.Raw, err)
			}
			if msg.Has(notify.FlagBarrier) {
				break
			}
			named := false
			if v, ok := msg.Value(notify.KeyMainPID); ok {
				pid, err := notify.ParsePID(v)
				if err != nil {
					t.Fatalf("MAINPID=%s: %v", v, err)
				}
				named = true
				if who := recordedID(pid); who != m.Main() {
					apply(lifecycle.Event{Kind: lifecycle.MainPID, Who: who})
				}
			}
			if bad := news(&msg, recordedID(r.Sender), named, apply); bad != 0 {
				t.Fatalf("%q: keys %b mean nothing", r.Raw, bad)
			}
		case "sigstop":
			apply(lifecycle.Event{Kind: lifecycle.Stopped, Who: recordedID(r.PID), Owes: told})
		case "continued":
			apply(lifecycle.Event{Kind: lifecycle.Continued, Who: recordedID(r.PID)})
		case "exit":
			out.dying = m.Snapshot()
			apply(lifecycle.Event{Kind: lifecycle.Ended, Who: recordedID(r.PID), Exit: lifecycle.Exit{Known: true, Code: r.Code}})
		case "proc_gone":
			if r.PID != rec[0].Launched && speaks[r.PID] {
				apply(lifecycle.Event{Kind: lifecycle.Ended, Who: recordedID(r.PID)})
			}
		}
	}
	out.phases = strings.Join(words, " ")
	out.last = m.Snapshot()
	return out
}

// oracle says by another road what the phases must be. It knows that in these
// recordings every sender speaks for the launched process, and nothing of
// instances, helpers or time: the last word that counts is the phase.
func oracle(rec []recorded, listens, stops bool) string {
	words := []string{"starting"}
	phase := func() string { return words[len(words)-1] }
	halted := false
	for _, r := range rec {
		switch r.Ev {
		case "sigstop":
			halted = true
		case "continued":
			if stops && halted && phase() == "starting" {
				words = append(words, "ready")
			}
		case "exit":
			return strings.Join(append(words, "gone"), " ")
		case "dgram":
			lines := strings.Split(r.Raw, "\n")
			word := ""
			switch {
			case slices.Contains(lines, "STOPPING=1"):
				word = "stopping"
			case slices.Contains(lines, "READY=1") && (listens || phase() == "reloading"):
				word = "ready"
			case slices.Contains(lines, "RELOADING=1") && phase() != "starting":
				word = "reloading"
			}
			if word != "" && word != phase() && phase() != "stopping" {
				words = append(words, word)
			}
		}
	}
	return strings.Join(words, " ")
}

// What a daemon's recording amounts to.
const (
	neverReady = "starting gone"                                // no READY=1 and no stop in it
	readyOnly  = "starting ready gone"                          // says nothing when it ends
	stopsToo   = "starting ready stopping gone"                 // says STOPPING=1
	reloads    = "starting ready reloading ready stopping gone" // says RELOADING=1 as well
	ownStop    = readyOnly                                      // by SIGSTOP instead of READY=1
)

type expects = []lifecycle.Expect

const (
	onNotify = lifecycle.ExpectNotify
	onStop   = lifecycle.ExpectStop
	onAuto   = lifecycle.ExpectAuto
)

// recordings says what becomes of each recording with each expect that makes
// sense for it, by what the daemon's documentation and its recording say.
var recordings = []struct {
	file   string
	expect expects
	phases string
}{
	{"collectd", expects{onNotify, onAuto}, readyOnly},
	{"collectd.u", expects{onNotify, onAuto}, readyOnly},
	{"collectd.wd", expects{onNotify, onAuto}, readyOnly},
	{"collectd.up", expects{onStop, onAuto}, ownStop},
	{"collectd.up", expects{onNotify}, neverReady},
	{"collectd.both", expects{onStop, onAuto}, ownStop}, // with both variables it stops and sends nothing
	{"collectd.both", expects{onNotify}, neverReady},
	{"freeradius", expects{onNotify, onAuto}, readyOnly}, // SIGHUP without a word
	{"freeradius.u", expects{onNotify, onAuto}, readyOnly},
	{"freeradius.wd", expects{onNotify, onAuto}, readyOnly},
	{"haproxy", expects{onNotify, onAuto}, reloads}, // RELOADING=1 before its first READY=1
	{"haproxy.u", expects{onNotify, onAuto}, reloads},
	{"haproxy.wd", expects{onNotify, onAuto}, stopsToo},
	{"mosquitto", expects{onNotify, onAuto}, readyOnly},
	{"mosquitto.u", expects{onNotify, onAuto}, readyOnly},
	{"mosquitto.wd", expects{onNotify, onAuto}, readyOnly},
	{"named", expects{onNotify, onAuto}, reloads}, // and READY=1 twice after it
	{"named.u", expects{onNotify, onAuto}, reloads},
	{"named.wd", expects{onNotify, onAuto}, stopsToo},
	{"redis-auto", expects{onNotify, onAuto}, stopsToo},
	{"redis-auto", expects{onStop}, "starting stopping gone"}, // nobody told it to stop
	{"redis-auto.u", expects{onNotify, onAuto}, stopsToo},
	{"redis-auto.wd", expects{onNotify, onAuto}, stopsToo},
	{"redis-auto.up", expects{onStop, onAuto}, ownStop},
	{"redis-auto.both", expects{onStop, onAuto}, ownStop}, // upstart wins: no datagrams
	{"redis-systemd", expects{onNotify, onAuto}, stopsToo},
	{"redis-systemd.u", expects{onNotify, onAuto}, stopsToo},
	{"redis-systemd.wd", expects{onNotify, onAuto}, stopsToo},
	{"redis-systemd.both", expects{onAuto, onNotify}, stopsToo},      // told to use systemd: no stop
	{"redis-upstart", expects{onNotify, onAuto, onStop}, neverReady}, // without UPSTART_JOB neither
	{"redis-upstart.u", expects{onNotify, onAuto, onStop}, neverReady},
	{"redis-upstart.wd", expects{onNotify, onAuto, onStop}, neverReady},
	{"redis-upstart.up", expects{onStop, onAuto}, ownStop},
	{"redis-upstart.both", expects{onStop, onAuto}, ownStop},
	{"sdn-cli", expects{onNotify, onAuto}, reloads},   // systemd-notify as root: claims to be the shell
	{"sdn-cli.u", expects{onNotify, onAuto}, reloads}, // as another user: a helper each time
	{"unbound", expects{onNotify, onAuto}, reloads},
	{"unbound.u", expects{onNotify, onAuto}, reloads},
	{"unbound.wd", expects{onNotify, onAuto}, stopsToo},
}

// eachRecording runs f for every recording and expect.
func eachRecording(t *testing.T, f func(t *testing.T, rec []recorded, p lifecycle.Policy, phases string)) {
	t.Helper()
	for _, r := range recordings {
		rec := load(t, r.file)
		for _, e := range r.expect {
			t.Run(r.file+"/"+e.String(), func(t *testing.T) {
				p := lifecycle.DefaultPolicy()
				p.Expect = e
				f(t, rec, p, r.phases)
			})
		}
	}
}

func predict(rec []recorded, e lifecycle.Expect) string {
	return oracle(rec, e != onStop, e != onNotify)
}

func TestReplay(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	unused := map[string]bool{}
	for _, f := range files {
		unused[strings.TrimSuffix(filepath.Base(f), ".jsonl")] = true
	}
	for _, r := range recordings {
		delete(unused, r.file)
	}
	if len(unused) > 0 {
		t.Errorf("recordings without an expectation: %v", slices.Sorted(maps.Keys(unused)))
	}
	eachRecording(t, func(t *testing.T, rec []recorded, p lifecycle.Policy, phases string) {
		got := replay(t, rec, p)
		if got.phases != phases {
			t.Errorf("phases\n got %s\nwant %s", got.phases, phases)
		}
		if o := predict(rec, p.Expect); o != phases {
			t.Errorf("the oracle says %s, the table %s", o, phases)
		}
		launched := recordedID(rec[0].Launched)
		if got.dying.Main != launched {
			t.Errorf("main process %v before its end, want %v", got.dying.Main, launched)
		}
		wasReady := strings.Contains(phases, "ready")
		if got.dying.Started != wasReady {
			t.Errorf("started before its end: %v, want %v", got.dying.Started, wasReady)
		}
		if got.dying.Paused || got.dying.Owed != (lifecycle.ProcID{}) || got.dying.Errno != 0 {
			t.Errorf("before its end: paused %v owed %v errno %d", got.dying.Paused, got.dying.Owed, got.dying.Errno)
		}
		if x := got.last.LastExit; x == nil || x.Who != launched || !x.Clean || x.Exit != (lifecycle.Exit{Known: true}) {
			t.Errorf("last exit %+v, want a clean one of %v", x, launched)
		}
		if got.last.Respawns != 0 || got.last.StartLate || got.last.ReloadLate || got.last.StopLate {
			t.Errorf("respawns %d, late %v %v %v", got.last.Respawns, got.last.StartLate, got.last.ReloadLate, got.last.StopLate)
		}
		if want := lastStatus(rec); got.last.Status != want {
			t.Errorf("status %q, want %q", got.last.Status, want)
		}
		// When READY=1 came by the recorder's own clock.
		if seen := rec[len(rec)-1].Ready; wasReady && len(datagrams(rec)) > 0 {
			at := got.dying.ReadyAt.Sub(recordedAt).Seconds()
			if seen == nil || at < *seen-0.001 || at > *seen+0.001 {
				t.Errorf("ready at %.4f s, the recorder saw it at %v", at, seen)
			}
		}
	})
}

// lastStatus is the text of the last STATUS line.
func lastStatus(rec []recorded) string {
	status := ""
	for _, i := range datagrams(rec) {
		for _, line := range strings.Split(rec[i].Raw, "\n") {
			if text, ok := strings.CutPrefix(line, "STATUS="); ok {
				status = text
			}
		}
	}
	return status
}

// The watchdog of the recordings made with WATCHDOG_USEC=1000000: one of the
// daemons knows it, the others would be restarted for being silent.
func TestReplayWatchdog(t *testing.T) {
	for _, r := range recordings {
		if !strings.HasSuffix(r.file, ".wd") {
			continue
		}
		t.Run(r.file, func(t *testing.T) {
			rec := load(t, r.file)
			p := lifecycle.DefaultPolicy()
			p.Expect, p.Watchdog = onNotify, time.Second
			feeds := r.file == "freeradius.wd"
			got := replay(t, rec, p)
			if want := r.phases != neverReady && !feeds; got.starved != want {
				t.Errorf("starved %v, want %v", got.starved, want)
			}
			if got.phases != r.phases {
				t.Errorf("phases %s, want %s: the watchdog is no phase", got.phases, r.phases)
			}
			if !feeds {
				return
			}
			// Without two pings in a row the interval is missed.
			var missed []recorded
			for i, j := range datagrams(rec) {
				if rec[j].Raw == "WATCHDOG=1" && i > 3 && i < 6 {
					missed = append(missed, rec[j])
				}
			}
			fewer := slices.DeleteFunc(slices.Clone(rec), func(r recorded) bool {
				return slices.ContainsFunc(missed, func(x recorded) bool { return x.T == r.T })
			})
			if got := replay(t, fewer, p); len(missed) != 2 || !got.starved {
				t.Errorf("%d pings dropped: starved %v, want true after 2", len(missed), got.starved)
			}
		})
	}
}

// Numbers are only names: with every process renumbered, inside MAINPID too, all
// is the same but for the numbers.
func TestReplayRenumbered(t *testing.T) {
	const shift = 100_000
	eachRecording(t, func(t *testing.T, rec []recorded, p lifecycle.Policy, phases string) {
		other := slices.Clone(rec)
		for i := range other {
			r := &other[i]
			for _, pid := range []*int{&r.Launched, &r.PID, &r.Sender} {
				if *pid != 0 {
					*pid += shift
				}
			}
			lines := strings.Split(r.Raw, "\n")
			for j, line := range lines {
				if n, ok := strings.CutPrefix(line, "MAINPID="); ok {
					pid, err := strconv.Atoi(n)
					if err != nil {
						t.Fatal(err)
					}
					lines[j] = fmt.Sprintf("MAINPID=%d", pid+shift)
				}
			}
			r.Raw = strings.Join(lines, "\n")
		}
		want, got := replay(t, rec, p), replay(t, other, p)
		if got.phases != phases || got.phases != want.phases {
			t.Errorf("phases %s, want %s", got.phases, phases)
		}
		if got.dying.Main != recordedID(rec[0].Launched+shift) {
			t.Errorf("main process %v, want %v", got.dying.Main, rec[0].Launched+shift)
		}
		got.dying.Main = want.dying.Main
		if a, b := fmt.Sprintf("%+v", got.dying), fmt.Sprintf("%+v", want.dying); a != b {
			t.Errorf("before the end\n got %s\nwant %s", a, b)
		}
	})
}

// Any one datagram may be lost or come twice.
func TestReplayDroppedAndDoubled(t *testing.T) {
	eachRecording(t, func(t *testing.T, rec []recorded, p lifecycle.Policy, phases string) {
		for n, i := range datagrams(rec) {
			dropped := slices.Delete(slices.Clone(rec), i, i+1)
			if got, want := replay(t, dropped, p).phases, predict(dropped, p.Expect); got != want {
				t.Errorf("without datagram %d, %q:\n got %s\nwant %s", n, rec[i].Raw, got, want)
			}
			doubled := slices.Insert(slices.Clone(rec), i, rec[i])
			twice := replay(t, doubled, p)
			if twice.phases != phases {
				t.Errorf("with datagram %d, %q, twice:\n got %s\nwant %s", n, rec[i].Raw, twice.phases, phases)
			}
			once := replay(t, rec, p)
			if a, b := twice.dying, once.dying; a.Phase != b.Phase || a.Main != b.Main || a.Status != b.Status || a.Errno != b.Errno ||
				!a.Since.Equal(b.Since) || !a.ReadyAt.Equal(b.ReadyAt) {
				t.Errorf("with datagram %d, %q, twice:\n got %+v\nwant %+v", n, rec[i].Raw, a, b)
			}
		}
	})
}

// The same lines in another order are the same datagram.
func TestReplayLinesTurnedRound(t *testing.T) {
	eachRecording(t, func(t *testing.T, rec []recorded, p lifecycle.Policy, phases string) {
		other := slices.Clone(rec)
		for i := range other {
			lines := strings.Split(other[i].Raw, "\n")
			slices.Reverse(lines)
			other[i].Raw = strings.Join(lines, "\n")
		}
		want, got := replay(t, rec, p), replay(t, other, p)
		if a, b := fmt.Sprintf("%s %+v", got.phases, got.dying), fmt.Sprintf("%s %+v", want.phases, want.dying); a != b {
			t.Errorf("\n got %s\nwant %s", a, b)
		}
	})
}

// Some losses written out, so that the oracle is not its own witness.
func TestReplayDroppedByHand(t *testing.T) {
	for _, c := range []struct {
		file   string
		drop   string // the first datagram that contains it
		phases string
	}{
		{"collectd", "READY=1", "starting gone"},
		{"unbound.wd", "READY=1", "starting stopping gone"},
		{"unbound.wd", "STOPPING=1", "starting ready gone"},
		{"unbound", "RELOADING=1", "starting ready stopping gone"},
		{"unbound", "READY=1", "starting ready stopping gone"}, // ready by the one that ends the reload
		{"redis-auto", "STATUS=Redis is loading", "starting ready stopping gone"},
		{"redis-auto", "READY=1", "starting stopping gone"},
		{"haproxy", "RELOADING=1", "starting ready reloading ready stopping gone"},
		{"haproxy", "READY=1", "starting ready stopping gone"},
		{"haproxy.wd", "READY=1", "starting stopping gone"},
		{"named", "READY=1\nSTATUS=reload", "starting ready reloading ready stopping gone"}, // said again at once
		{"sdn-cli", "READY=1", "starting ready reloading ready stopping gone"},
		{"sdn-cli.u", "READY=1", "starting ready reloading ready stopping gone"},
		{"sdn-cli.u", "STOPPING=1", "starting ready reloading ready gone"},
		{"sdn-cli.u", "BARRIER=1", "starting ready reloading ready stopping gone"},
	} {
		t.Run(c.file+"/"+c.drop, func(t *testing.T) {
			rec := load(t, c.file)
			i := slices.IndexFunc(rec, func(r recorded) bool { return r.Ev == "dgram" && strings.Contains(r.Raw, c.drop) })
			if i < 0 {
				t.Fatal("there is no such datagram")
			}
			p := lifecycle.DefaultPolicy()
			p.Expect = onNotify
			if got := replay(t, slices.Delete(rec, i, i+1), p).phases; got != c.phases {
				t.Errorf("phases\n got %s\nwant %s", got, c.phases)
			}
		})
	}
}

// What one datagram means, and in which order, whatever order it was written in.
func TestNews(t *testing.T) {
	for _, c := range []struct{ raw, want, bad string }{
		{"", "", ""},
		{"READY=1", "READY=1", ""},
		{"RELOADING=1\nREADY=1", "RELOADING=1, READY=1", ""}, // reloaded at once
		{"MONOTONIC_USEC=17\nRELOADING=1", "RELOADING=1 at 17", ""},
		{"RELOADING=1\nMONOTONIC_USEC=0x10", "RELOADING=1 at 16", ""},
		{"RELOADING=1\nMONOTONIC_USEC=now", "RELOADING=1", "MONOTONIC_USEC"},
		{"RELOADING=1\nMONOTONIC_USEC=9223372036854775808", "RELOADING=1", "MONOTONIC_USEC"},
		{"MONOTONIC_USEC=17", "", ""},
		{"READY=1\nSTOPPING=1\nRELOADING=1", "STOPPING=1", ""},
		{"READY=0\nRELOADING=yes\nSTOPPING=", "", ""},
		{"ERRNO=5\nREADY=1", "READY=1, ERRNO=5", ""},
		{"ERRNO=ENOENT", "ERRNO=2", ""},
		{"ERRNO=-1\nREADY=1", "READY=1", "ERRNO"},
		{"STATUS=", "STATUS=\"\"", ""},
		{"VARLINKERROR=v\nBUSERROR=b\nERRNO=0\nSTATUS=s=t", "STATUS=\"s=t\", ERRNO=0, BUSERROR=\"b\", VARLINKERROR=\"v\"", ""},
		{"WATCHDOG_USEC=5000000\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=1", "EXTEND_TIMEOUT_USEC=1µs, WATCHDOG=1, WATCHDOG_USEC=5s", ""},
		{"WATCHDOG=trigger", "WATCHDOG=trigger", ""},
		{"WATCHDOG=2\nSTATUS=ok", "STATUS=\"ok\"", "WATCHDOG"},
		{"WATCHDOG_USEC=0", "WATCHDOG_USEC=0s", ""},
		{"WATCHDOG_USEC=18446744073709551615", "WATCHDOG_USEC=0s", ""},
		{"WATCHDOG_USEC=18446744073709551614", "WATCHDOG_USEC=2562047h47m16.854775807s", ""},
		{"WATCHDOG_USEC=soon", "", "WATCHDOG_USEC"},
		{"EXTEND_TIMEOUT_USEC=0", "", ""},
		{"EXTEND_TIMEOUT_USEC=18446744073709551615", "", ""},
		{"EXTEND_TIMEOUT_USEC=-1\nWATCHDOG=1", "WATCHDOG=1", "EXTEND_TIMEOUT_USEC"},
		{"RESTART_RESET=1\nREADY=1", "READY=1, RESTART_RESET=1", ""},
		{"ERRNO=x\nWATCHDOG=x\nWATCHDOG_USEC=x\nEXTEND_TIMEOUT_USEC=x", "", "ERRNO EXTEND_TIMEOUT_USEC WATCHDOG WATCHDOG_USEC"},
		{"MAINPID=7\nX_OTHER=1", "", ""}, // MAINPID is the service's to judge
	} {
		var msg notify.Message
		if err := msg.Parse([]byte(c.raw)); err != nil {
			t.Fatal(err)
		}
		var got []string
		bad := news(&msg, recordedID(7), true, func(e lifecycle.Event) {
			text := e.Kind.String()
			phase := e.Kind == lifecycle.ReadyWord || e.Kind == lifecycle.Reload || e.Kind == lifecycle.StopWord
			switch e.Kind {
			case lifecycle.Status, lifecycle.BusError, lifecycle.VarlinkError:
				text += strconv.Quote(string(e.Text))
			case lifecycle.Reload:
				if e.Number != 0 {
					text += " at " + strconv.FormatInt(e.Number, 10)
				}
			case lifecycle.Errno:
				text += strconv.FormatInt(e.Number, 10)
			case lifecycle.Extend, lifecycle.WatchdogEvery:
				text += e.Span.String()
			}
			if e.Who != recordedID(7) || e.Named != phase {
				t.Errorf("%q: %v is of %v, named %v", c.raw, e.Kind, e.Who, e.Named)
			}
			got = append(got, text)
		})
		var keys []string
		for k := notify.Key(0); bad>>k != 0; k++ {
			if bad>>k&1 != 0 {
				keys = append(keys, k.String())
			}
		}
		if g, b := strings.Join(got, ", "), strings.Join(keys, " "); g != c.want || b != c.bad {
			t.Errorf("%q\n got %s; bad %s\nwant %s; bad %s", c.raw, g, b, c.want, c.bad)
		}
	}
}
