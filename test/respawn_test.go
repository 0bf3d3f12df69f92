package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// counted is a shell command that leaves a line in a file before it does
// something: the time of its start in milliseconds.
func counted(file, then string) []string {
	return []string{"sh", "-c", `date +%s%3N >>"$0"; ` + then, file}
}

// starts are the times that counted has left.
func starts(t *testing.T, file string) []int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var out []int
	for line := range bytes.Lines(b) {
		n, err := strconv.Atoi(strings.TrimSpace(string(line)))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// upstartPace is how upstart respawns by default: ten times within five seconds,
// without a delay.
var upstartPace = []string{"--respawn-mode", "exec", "--respawn-limit", "10", "--respawn-interval", "5s", "--respawn-delay", "0"}

const (
	tooFast = "respawned too fast, stopped"
	tooMany = 11 // the first start and ten respawns; the eleventh respawn does not happen
)

// TestRespawnLimit: which ends are come back from, how often, and what run makes
// of it in the end.
func TestRespawnLimit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		flags  string
		then   string
		starts int
		code   int
	}{
		"on failure":                     {"", "exit 3", tooMany, 3},
		"on failure, a signal":           {"", "kill -KILL $$", tooMany, 137},
		"on failure, an unasked TERM":    {"", "kill -TERM $$", tooMany, 143},
		"on failure, success":            {"", "exit 0", 1, 0},
		"on failure, normal":             {"--respawn-normal-exit 3,9", "exit 3", 1, 3},
		"on failure, a normal signal":    {"--respawn-normal-exit TERM", "kill -TERM $$", 1, 143},
		"on failure, another is normal":  {"--respawn-normal-exit 4,KILL", "exit 3", tooMany, 3},
		"always":                         {"--respawn-when always", "exit 0", tooMany, 1},
		"always, normal":                 {"--respawn-when always --respawn-normal-exit 0", "exit 0", 1, 0},
		"never":                          {"--respawn-when never", "exit 3", 1, 3},
		"another limit":                  {"--respawn-limit 2", "exit 3", 3, 3},
		"no limit":                       {"--respawn-limit 0", `[ $(wc -l <"$0") -lt 15 ] && exit 3; exit 0`, 15, 0},
		"no interval":                    {"--respawn-interval 0", `[ $(wc -l <"$0") -lt 15 ] && exit 3; exit 0`, 15, 0},
		"platform":                       {"--respawn-mode platform", "exit 3", 1, 3},
		"the third has had enough":       {"", `[ $(wc -l <"$0") -lt 3 ] && exit 3; exit 0`, 3, 0},
		"the third ends in a normal way": {"--respawn-normal-exit 5", `[ $(wc -l <"$0") -lt 3 ] && exit 3; exit 5`, 3, 5},
	} {
		for _, expect := range []string{"notify", "none"} {
			t.Run(name+"/"+expect, func(t *testing.T) {
				t.Parallel()
				file := filepath.Join(tempDir(t), "starts")
				x, code := once(t, order{}, slices.Concat(upstartPace, strings.Fields(tt.flags), []string{"--service", "d", "--expect", expect}), counted(file, tt.then)...)
				if n := len(starts(t, file)); n != tt.starts || code != tt.code {
					t.Errorf("started %d times, exit code %d; want %d and %d", n, code, tt.starts, tt.code)
				}
				// The one time that it is not tried again has to be said.
				limited := tt.starts == tooMany || name == "another limit"
				if got := strings.Contains(x.stderr.String(), tooFast); got != limited {
					t.Errorf("run says %q: %t, want %t", tooFast, got, limited)
				}
			})
		}
	}
}

// TestRespawnDelay: delays double, and no more than up to the longest. Only lower
// bounds can be measured on a busy machine; without the upper one this would
// take longer than anybody waits.
func TestRespawnDelay(t *testing.T) {
	t.Parallel()
	file := filepath.Join(tempDir(t), "starts")
	_, code := once(t, order{}, []string{"--respawn-mode", "exec", "--respawn-limit", "13", "--respawn-interval", "10m",
		"--respawn-delay", "20ms", "--respawn-max-delay", "160ms"}, counted(file, "exit 3")...)
	at := starts(t, file)
	if len(at) != 14 || code != 3 {
		t.Fatalf("started %d times, exit code %d; want 14 and 3", len(at), code)
	}
	want := 20
	for i := 1; i < len(at); i++ {
		if gap := at[i] - at[i-1]; gap < want-1 { // of a millisecond there may be any part
			t.Errorf("respawn %d came after %d ms, want %d at least", i, gap, want)
		}
		want = min(2*want, 160)
	}
}

// TestRespawnInstance: the next instance is a new beginning for the answers.
func TestRespawnInstance(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	n := scripted(t, []string{"--expect", "notify", "--respawn-mode", "exec", "--respawn-delay", "0"},
		"await "+dir+`/start;send READY=1\nSTATUS=up\nERRNO=5;wait;exit 3`)
	n.expect("/readyz", 503)
	touch(t, dir+"/start")
	n.untilBody("/readyz", 503, "errno")
	old := n.mainPID("d")
	if err := os.Remove(dir + "/start"); err != nil {
		t.Fatal(err)
	}
	signal(t, hold(t, old), unix.SIGKILL)
	eventually(t, "another is started", func() bool { s := n.facts("d"); return s.Main != nil && s.Main.PID != old })
	n.expect("/startupz", 503, "start")
	n.expect("/readyz", 503, "start")
	n.expect("/livez", 200)
	if s := n.facts("d"); s.Phase != "starting" || s.Status != "" || s.LastExit == nil || s.LastExit.Signal != "KILL" {
		t.Errorf("statusz of the next instance: %+v", s)
	}
	touch(t, dir+"/start")
	n.untilBody("/readyz", 503, "errno")
	n.untilTransitions(map[change]int{appeared: 1, readied: 2, {"ready", "gone"}: 1, {"gone", "starting"}: 1})

	// A termination is not come back from.
	n.signal(unix.SIGTERM)
	if code := n.exit(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
}

// TestRespawnReset: RESTART_RESET=1 forgets the respawns before.
func TestRespawnReset(t *testing.T) {
	t.Parallel()
	n := scripted(t, []string{"--expect", "notify", "--respawn-mode", "exec", "--respawn-delay", "0", "--respawn-limit", "2", "--respawn-interval", "10m"},
		"send RESTART_RESET=1;barrier;exit 3")
	eventually(t, "it is respawned more often than the limit allows", func() bool { return n.transitions()[change{"gone", "starting"}] > 10 })
	n.signal(unix.SIGTERM)
	if code := n.exit(); code != 3 && code != 143 { // whether between two instances or within one
		t.Errorf("exit code %d, want that of the last instance", code)
	}
}

// TestRespawnWait: between two instances there is a service, and it can be told
// to end, or not to wait.
func TestRespawnWait(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (*podnotify, string) {
		file := filepath.Join(tempDir(t), "starts")
		n := (*pod)(nil).supervised(t, order{}, []string{"--service", "d", "--expect", "none", "--respawn-mode", "exec", "--respawn-delay", "1h", "--respawn-max-delay", "1h"},
			counted(file, "exec sleep 1000")...)
		n.until("/readyz", 200)
		eventually(t, "it runs", func() bool { return len(starts(t, file)) == 1 })
		signal(t, hold(t, n.mainPID("d")), unix.SIGKILL)
		n.untilPhase("gone")
		n.expect("/readyz", 503, "process")
		n.expect("/startupz", 503)
		n.expect("/livez", 200)
		return n, file
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			n, file := begin(t)
			n.signal(unix.SIGHUP) // is nobody's
			n.expect("/healthz", 200)
			n.signal(sig)
			if code := n.exit(); code != 137 || len(starts(t, file)) != 1 {
				t.Errorf("exit code %d after %d starts, want that of the last instance, 137, and 1", code, len(starts(t, file)))
			}
		})
	}
	t.Run("respawn", func(t *testing.T) {
		t.Parallel()
		n, file := begin(t)
		if code, _, errs := n.command("respawn"); code != 0 {
			t.Fatalf("respawn ends with %d: %s", code, errs)
		}
		n.until("/readyz", 200)
		eventually(t, "it is started again", func() bool { return len(starts(t, file)) == 2 })
		// What is asked for does not count: the next one waits as the first did.
		signal(t, hold(t, n.mainPID("d")), unix.SIGKILL)
		n.untilPhase("gone")
		if _, body := n.get("/metrics"); !strings.Contains(body, fmt.Sprintf("podnotify_live{service=%q} 1", "d")) {
			t.Errorf("it is not live while it is waited for:\n%s", body)
		}
	})
}

// TestRespawnCommand: podnotify respawn ends the daemon and starts it again, as
// often as it is asked, whatever the limit and the policy.
func TestRespawnCommand(t *testing.T) {
	t.Parallel()
	n := scripted(t, []string{"--expect", "notify", "--respawn-mode", "exec", "--respawn-when", "never", "--respawn-delay", "0", "--respawn-limit", "1", "--respawn-interval", "10m"},
		"send READY=1;wait;exit 0")
	for i := range 5 {
		n.until("/readyz", 200)
		old := n.mainPID("d")
		if code, _, errs := n.command("respawn", "d"); code != 0 {
			t.Fatalf("respawn %d ends with %d: %s", i, code, errs)
		}
		eventually(t, "another is started", func() bool { s := n.facts("d"); return s.Main != nil && s.Main.PID != old })
	}
	n.until("/readyz", 200)
	n.untilTransitions(map[change]int{appeared: 1, readied: 6, stops: 5, ends: 5, {"gone", "starting"}: 5})
	n.signal(unix.SIGTERM)
	if code := n.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// TestRespawnCommandKills: one that does not end is killed after the stop
// time-out, and is started again all the same.
func TestRespawnCommandKills(t *testing.T) {
	t.Parallel()
	n := scripted(t, []string{"--expect", "notify", "--respawn-mode", "exec", "--respawn-delay", "0", "--timeouts-stop", "300ms"},
		"ignore;send READY=1;sleep 1h")
	n.until("/readyz", 200)
	old := n.mainPID("d")
	begin := time.Now()
	if code, _, errs := n.command("respawn"); code != 0 {
		t.Fatalf("respawn ends with %d: %s", code, errs)
	}
	eventually(t, "another is started", func() bool { s := n.facts("d"); return s.Main != nil && s.Main.PID != old })
	if d := time.Since(begin); d < 300*time.Millisecond {
		t.Errorf("another is started after %v, before the stop time-out", d)
	}
	if s := n.facts("d"); s.LastExit == nil || s.LastExit.Signal != "KILL" {
		t.Errorf("statusz: %+v, want the last killed", s)
	}
	n.until("/readyz", 200)
	// And one that stands still is continued first.
	old = n.mainPID("d")
	signal(t, hold(t, old), unix.SIGSTOP)
	n.until("/readyz", 503)
	if code, _, errs := n.command("respawn"); code != 0 {
		t.Fatalf("respawn ends with %d: %s", code, errs)
	}
	eventually(t, "another is started", func() bool { s := n.facts("d"); return s.Main != nil && s.Main.PID != old })
	n.until("/readyz", 200)
}

// TestRespawnEnd: a termination ends run whenever it comes, also if nobody is there
// to take it, or is on the way down for another reason.
func TestRespawnEnd(t *testing.T) {
	t.Parallel()
	t.Run("between two instances", func(t *testing.T) {
		t.Parallel()
		for range 30 {
			n := (*pod)(nil).supervised(t, order{}, []string{"--service", "d", "--expect", "none", "--respawn-mode", "exec", "--respawn-delay", "0", "--respawn-limit", "0"}, "false")
			eventually(t, "it is respawned", func() bool { return n.transitions()[change{"gone", "ready"}] > 3 })
			n.signal(unix.SIGTERM)
			if code := n.exit(); code != 1 && code != 143 {
				t.Errorf("exit code %d, want that of the last instance", code)
			}
		}
	})
	t.Run("during a respawn", func(t *testing.T) {
		t.Parallel()
		dir := tempDir(t)
		n := scripted(t, []string{"--expect", "notify", "--respawn-mode", "exec", "--respawn-delay", "0"}, "send READY=1;wait;touch "+dir+"/ends;wait;exit 4")
		n.until("/readyz", 200)
		n.works("respawn")
		eventually(t, "it is on its way down", func() bool { return exists(dir + "/ends") })
		n.expect("/readyz", 503, "stopping")
		n.signal(unix.SIGTERM)
		if code := n.exit(); code != 4 {
			t.Errorf("exit code %d, want that of the last instance, 4", code)
		}
	})
}

// TestRespawnKilled: what podnotify kill ends is respawned as what anybody else
// ends is; podnotify stop is for what is to stay away.
func TestRespawnKilled(t *testing.T) {
	t.Parallel()
	n := scripted(t, []string{"--expect", "notify", "--respawn-mode", "exec", "--respawn-delay", "0"}, "send READY=1;wait;exit 3")
	for _, args := range [][]string{{"kill", "--signal", "KILL"}, {"kill"}} {
		n.until("/readyz", 200)
		old := n.mainPID("d")
		n.works(args...)
		eventually(t, "another is started", func() bool { s := n.facts("d"); return s.Main != nil && s.Main.PID != old })
	}
	n.until("/readyz", 200)
	n.works("stop")
	if code := n.exit(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
}

// TestRespawnClears: the next instance does not meet what the last one left.
func TestRespawnClears(t *testing.T) {
	t.Parallel()
	file := filepath.Join(tempDir(t), "starts")
	n := (*pod)(nil).supervised(t, order{}, []string{"--service", "d", "--expect", "none", "--respawn-mode", "exec", "--respawn-delay", "0"},
		counted(file, "sleep 1000 & setsid sleep 1000 & exec sleep 1000")...)
	n.until("/readyz", 200)
	eventually(t, "it has children", func() bool { return len(n.family()) == 3 })
	first := n.family()
	signal(t, hold(t, n.mainPID("d")), unix.SIGKILL)
	eventually(t, "the next has children", func() bool { return len(starts(t, file)) == 2 && len(n.family()) == 3 })
	for _, st := range n.family() {
		for _, old := range first {
			if st.ID() == old.ID() {
				t.Errorf("process %d of the last instance lives", st.PID)
			}
		}
	}
}

// TestRespawnSignalLimit: in a sidecar, too, it is not tried for ever, and the check
// shows.
func TestRespawnSignalLimit(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify", "--respawn-mode", "signal", "--respawn-limit", "2", "--respawn-interval", "10m",
		"--policy-start-timeout", "not-live", "--timeouts-start", "300ms", "--timeouts-stop", "300ms")
	for range 2 { // ended by podnotify, brought back by the platform
		if code := n.daemon("d", "send STATUS=slow;sleep 1h", nobody).exit(); code != 137 {
			t.Errorf("the daemon ends with %d, want 137", code)
		}
	}
	d := n.daemon("d", "send STATUS=slow;await "+tempDir(t)+"/never", nobody)
	eventually(t, "the respawn check fails", func() bool {
		return strings.HasPrefix(n.status("d").reason("respawn"), "respawned 2 times within 10m0s, not tried again")
	})
	n.says(tooFast)
	if d.over() {
		t.Error("it is tried again")
	}
	n.works("respawn")
	d.exit()
	if r := n.status("d").reason("respawn"); r != "" {
		t.Errorf("after podnotify respawn: %s", r)
	}
}
