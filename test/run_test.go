package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/testdaemon"
)

// Here podnotify is the daemon's parent.

// once runs podnotify run with a command that ends by itself, to its end. Nobody
// asks it anything.
func once(t *testing.T, o order, flags []string, argv ...string) (*process, int) {
	t.Helper()
	for range 5 {
		x := (*pod)(nil).start(t, o, slices.Concat(
			[]string{bin.podnotify, "run", "--listen", freePort(t), "--run-dir", tempDir(t), "--log-format", "text"}, flags, []string{"--"}, argv)...)
		x.endWithTest()
		if code := x.exit(); !strings.Contains(x.stderr.String(), "another process listens there") {
			return x, code
		}
	}
	t.Fatal("every free port was taken by somebody else")
	return nil, 0
}

// scripted starts podnotify run with a testdaemon.
func scripted(t *testing.T, flags []string, script string) *podnotify {
	t.Helper()
	return (*pod)(nil).supervised(t, order{env: []string{testdaemon.Env(script)}}, append([]string{"--service", "d"}, flags...), bin.self)
}

// hold opens a process, to tell later whether it still lives.
func hold(t *testing.T, pid int) *proc.Handle {
	t.Helper()
	h, err := proc.Proc.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func signal(t *testing.T, h *proc.Handle, sig unix.Signal) {
	t.Helper()
	if err := h.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// untilPhase waits for a phase of service d.
func (n *podnotify) untilPhase(phase string) {
	n.t.Helper()
	eventually(n.t, "the phase is "+phase, func() bool { return n.facts("d").Phase == phase })
}

func TestRunExitCode(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	plain := write(t, dir+"/plain", "#!/bin/sh\n")
	odd := write(t, dir+"/odd", "neither ELF nor a script\n")
	if err := os.Chmod(odd, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		argv []string
		code int
		says string
	}{
		"success":         {[]string{"true"}, 0, ""},
		"failure":         {[]string{"sh", "-c", "exit 3"}, 3, ""},
		"highest":         {[]string{"sh", "-c", "exit 255"}, 255, ""},
		"killed":          {[]string{"sh", "-c", "kill -KILL $$"}, 137, ""},
		"terminated":      {[]string{"sh", "-c", "kill -TERM $$"}, 143, ""},
		"crashed":         {[]string{"sh", "-c", "kill -SEGV $$"}, 139, ""},
		"not in PATH":     {[]string{"no-such-daemon"}, 127, "podnotify: cannot start no-such-daemon: "},
		"no such file":    {[]string{dir + "/none"}, 127, "podnotify: cannot start " + dir + "/none: "},
		"not executable":  {[]string{plain}, 126, "podnotify: cannot start " + plain + ": "},
		"a directory":     {[]string{dir}, 126, "podnotify: cannot start " + dir + ": "},
		"no known format": {[]string{odd}, 126, "podnotify: cannot start " + odd + ": "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, flags := range [][]string{nil, {"--expect", "none"}} {
				x, code := once(t, order{}, append(flags, "--service", "d"), tt.argv...)
				if code != tt.code {
					t.Errorf("run %v %v: exit code %d, want %d", flags, tt.argv, code, tt.code)
				}
				if got := x.stderr.String(); !strings.Contains(got, tt.says) {
					t.Errorf("run %v %v says %q, want %q", flags, tt.argv, got, tt.says)
				}
			}
		})
	}
}

// TestRunEnvironment: the daemon gets what its way of being ready needs, and
// nothing that was said to podnotify.
func TestRunEnvironment(t *testing.T) {
	t.Parallel()
	const socket = "SOCKET" // stands for the path
	for _, tt := range []struct {
		flags string
		want  map[string]string
	}{
		{"", map[string]string{"NOTIFY_SOCKET": socket}},
		{"--expect auto --job redis", map[string]string{"NOTIFY_SOCKET": socket, "UPSTART_JOB": "redis"}},
		{"--expect notify", map[string]string{"NOTIFY_SOCKET": socket}},
		{"--expect notify --watchdog-interval 3s", map[string]string{"NOTIFY_SOCKET": socket, "WATCHDOG_USEC": "3000000"}},
		{"--expect stop", map[string]string{"UPSTART_JOB": "env"}},
		{"--expect stop --service other", map[string]string{"UPSTART_JOB": "other"}},
		{"--expect stop --job redis", map[string]string{"UPSTART_JOB": "redis"}},
		{"--expect none", map[string]string{}},
	} {
		t.Run(tt.flags, func(t *testing.T) {
			t.Parallel()
			x, code := once(t, order{env: []string{
				"NOTIFY_SOCKET=/run/systemd/notify", "WATCHDOG_USEC=5", "WATCHDOG_PID=1", "MAINPID=1", "FDSTORE=3",
				"UPSTART_JOB=podnotify", "UPSTART_INSTANCE=1", "LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_FDNAMES=http",
				"LANG=C", "EMPTY=", "ODD=a=b c\nd",
			}}, strings.Fields(tt.flags), "env", "-0")
			if code != 0 {
				t.Fatalf("exit code %d", code)
			}
			got := map[string]string{}
			for kv := range strings.SplitSeq(strings.TrimSuffix(x.stdout.String(), "\x00"), "\x00") {
				name, value, _ := strings.Cut(kv, "=")
				got[name] = value
			}
			delete(got, "GORACE") // the harness's
			want := map[string]string{"PATH": os.Getenv("PATH"), "HOME": "/", "LANG": "C", "EMPTY": "", "ODD": "a=b c\nd"}
			for k, v := range tt.want {
				want[k] = v
			}
			if path := got["NOTIFY_SOCKET"]; strings.HasSuffix(path, "/env/notify") && filepath.IsAbs(path) && path != "/run/systemd/notify" {
				got["NOTIFY_SOCKET"] = socket
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("environment is %q, want %q", got, want)
			}
		})
	}
	t.Run("abstract", func(t *testing.T) {
		t.Parallel()
		name := fmt.Sprintf("@podnotify-test-%d", os.Getpid())
		x, _ := once(t, order{}, []string{"--notify-address", name}, "printenv", "NOTIFY_SOCKET")
		if got := strings.TrimSpace(x.stdout.String()); got != name {
			t.Errorf("NOTIFY_SOCKET is %q, want %q", got, name)
		}
	})
}

// TestRunStdio: what podnotify was given is the daemon's.
func TestRunStdio(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("a line of a megabyte\n", 50000)
	x, code := once(t, order{stdin: strings.NewReader(text)}, nil, "sh", "-c", "cat; echo to stderr >&2")
	if code != 0 || x.stdout.String() != text {
		t.Errorf("exit code %d, %d bytes of standard output; want 0 and the %d of standard input", code, len(x.stdout.String()), len(text))
	}
	if !strings.Contains(x.stderr.String(), "to stderr\n") {
		t.Error("standard error is not the daemon's")
	}
}

// TestRunForwards: every signal that means something to daemons reaches the
// main process, once each.
func TestRunForwards(t *testing.T) {
	t.Parallel()
	const script = `
for s in HUP USR1 USR2 ALRM WINCH INT QUIT; do trap "echo $s" $s; done
trap 'echo RTMIN+1' 35
trap 'echo RTMAX' 64
trap 'echo TERM; exit 9' TERM
touch "$0"
while [ -e "$0" ]; do sleep 0.02; done`
	trapped := tempDir(t) + "/trapped"
	n := (*pod)(nil).supervised(t, order{}, []string{"--expect", "none", "--service", "d"}, "sh", "-c", script, trapped)
	eventually(t, "signals are trapped", func() bool { return exists(trapped) })
	var want strings.Builder
	forward := func(name string, sig unix.Signal) {
		t.Helper()
		n.signal(sig)
		want.WriteString(name + "\n")
		eventually(t, "the daemon gets "+name, func() bool { return n.stdout.String() == want.String() })
	}
	forward("HUP", unix.SIGHUP)
	forward("USR1", unix.SIGUSR1)
	forward("USR2", unix.SIGUSR2)
	forward("ALRM", unix.SIGALRM)
	forward("WINCH", unix.SIGWINCH)
	forward("RTMIN+1", 35)
	forward("RTMAX", 64)
	n.expect("/readyz", 200)
	forward("INT", unix.SIGINT)
	n.expect("/readyz", 503, "stopping") // it was to end, and says so even if the daemon thinks otherwise
	forward("QUIT", unix.SIGQUIT)
	forward("TERM", unix.SIGTERM)
	if code := n.exit(); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
	if got := n.stdout.String(); got != want.String() {
		t.Errorf("the daemon got %q, want %q", got, want.String())
	}
}

// TestRunKillSignal: SIGTERM is translated to what ends this daemon.
func TestRunKillSignal(t *testing.T) {
	t.Parallel()
	const script = `
trap 'echo TERM; exit 1' TERM
trap 'echo QUIT; exit 6' QUIT
touch "$0"
while [ -e "$0" ]; do sleep 0.02; done`
	trapped := tempDir(t) + "/trapped"
	n := (*pod)(nil).supervised(t, order{}, []string{"--signals-kill", "QUIT"}, "sh", "-c", script, trapped)
	eventually(t, "signals are trapped", func() bool { return exists(trapped) })
	n.signal(unix.SIGTERM)
	if code := n.exit(); code != 6 || n.stdout.String() != "QUIT\n" {
		t.Errorf("exit code %d, the daemon got %q; want 6 and QUIT only", code, n.stdout.String())
	}
}

// TestRunStopTimeout: a daemon that does not end is killed, after the stop
// time-out and not before.
func TestRunStopTimeout(t *testing.T) {
	t.Parallel()
	t.Run("kill", func(t *testing.T) {
		t.Parallel()
		n := scripted(t, []string{"--timeouts-stop", "1s"}, "ignore;send READY=1;sleep 1h")
		n.until("/readyz", 200)
		begin := time.Now()
		n.signal(unix.SIGTERM)
		n.until("/readyz", 503)
		if code := n.exit(); code != 137 {
			t.Errorf("exit code %d, want 137", code)
		}
		if d := time.Since(begin); d < time.Second {
			t.Errorf("killed after %v, before the time-out", d)
		}
		n.says("did not stop in time")
		if want := []step{{stops, "stop asked"}, {ends, "end seen"}}; !slices.Equal(n.history()[2:], want) {
			t.Errorf("phases were %v, want them to end with %v", n.history(), want)
		}
	})
	t.Run("said it would stop", func(t *testing.T) { // and was asked only later
		t.Parallel()
		n := scripted(t, []string{"--timeouts-stop", "1s"}, "ignore;send READY=1;send STOPPING=1;sleep 1h")
		n.untilPhase("stopping")
		n.expect("/readyz", 503, "stopping")
		n.until("/livez/d", 200)
		n.signal(unix.SIGTERM)
		if code := n.exit(); code != 137 {
			t.Errorf("exit code %d, want 137", code)
		}
	})
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		dir := tempDir(t)
		n := scripted(t, []string{"--timeouts-stop", "0"}, "send READY=1;wait;touch "+dir+"/asked;await "+dir+"/end;exit 5")
		n.until("/readyz", 200)
		n.signal(unix.SIGTERM)
		eventually(t, "the daemon is asked", func() bool { return exists(dir + "/asked") })
		n.expect("/readyz", 503, "stopping")
		touch(t, dir+"/end")
		if code := n.exit(); code != 5 {
			t.Errorf("exit code %d, want 5", code)
		}
	})
	t.Run("extended", func(t *testing.T) {
		t.Parallel()
		const timeout = 5 * time.Second // within which the daemon has to speak
		dir := tempDir(t)
		n := scripted(t, []string{"--timeouts-stop", timeout.String()},
			"send READY=1;wait;send EXTEND_TIMEOUT_USEC=600000000;barrier;touch "+dir+"/extended;await "+dir+"/end;exit 5")
		n.until("/readyz", 200)
		n.signal(unix.SIGTERM)
		eventually(t, "the daemon has asked for more time", func() bool { return exists(dir + "/extended") })
		// Nothing tells that a time-out did not happen, but time.
		time.Sleep(timeout + timeout/2)
		n.expect("/readyz", 503, "stopping")
		n.expect("/livez", 200)
		touch(t, dir+"/end")
		if code := n.exit(); code != 5 {
			t.Errorf("exit code %d, want the daemon's own, 5", code)
		}
	})
}

// TestRunTermOfStopped: a stopped daemon is continued, or its SIGTERM would stay
// pending until it is killed.
func TestRunTermOfStopped(t *testing.T) {
	t.Parallel()
	for _, seen := range []bool{true, false} {
		t.Run(fmt.Sprintf("seen %t", seen), func(t *testing.T) {
			t.Parallel()
			for range 5 {
				dir := tempDir(t)
				// Without a time-out nothing but SIGCONT makes it end.
				n := scripted(t, []string{"--expect", "notify", "--timeouts-stop", "0"}, "send READY=1;wait;touch "+dir+"/clean;exit 4")
				n.until("/readyz", 200)
				signal(t, hold(t, n.mainPID("d")), unix.SIGSTOP)
				if seen {
					n.until("/readyz", 503)
					if s := n.facts("d"); !s.Paused || s.Phase != "ready" {
						t.Errorf("a stopped daemon is %s, paused %t; want ready, paused", s.Phase, s.Paused)
					}
				}
				n.signal(unix.SIGTERM)
				if code := n.exit(); code != 4 || !exists(dir+"/clean") {
					t.Fatalf("exit code %d, cleaned up %t; want 4, true", code, exists(dir+"/clean"))
				}
			}
		})
	}
	t.Run("waiting for its first SIGCONT", func(t *testing.T) {
		t.Parallel()
		// expect: none owes no stop an answer, so the daemon stands still.
		dir := tempDir(t)
		n := scripted(t, []string{"--timeouts-stop", "0", "--expect", "none"}, "stop;touch "+dir+"/on;wait;exit 4")
		eventually(t, "it is paused", func() bool { return n.facts("d").Paused })
		n.expect("/readyz", 503, "paused")
		n.signal(unix.SIGTERM)
		if code := n.exit(); code != 4 || !exists(dir+"/on") {
			t.Errorf("exit code %d, went on %t; want 4, true", code, exists(dir+"/on"))
		}
	})
}

// TestRunReadyAfterTerm: many daemons repeat READY=1 or reload on their way out.
func TestRunReadyAfterTerm(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	n := scripted(t, nil, "send READY=1;wait;send READY=1;send RELOADING=1;send READY=1;send STATUS=late;barrier;touch "+dir+"/said;await "+dir+"/end;exit 3")
	n.until("/readyz", 200)
	n.signal(unix.SIGTERM)
	eventually(t, "it says READY=1 again", func() bool { return exists(dir + "/said") })
	n.expect("/readyz", 503, "stopping", "late")
	n.expect("/livez", 200)
	if s := n.facts("d"); s.Phase != "stopping" || s.Ready || s.Status != "late" {
		t.Errorf("statusz: %+v, want stopping", s)
	}
	n.untilTransitions(map[change]int{appeared: 1, readied: 1, stops: 1})
	touch(t, dir+"/end")
	if code := n.exit(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
}

// TestRunTermBeforeReady: the first READY=1 on SIGTERM is none either.
func TestRunTermBeforeReady(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	n := scripted(t, nil, "touch "+dir+"/on;wait;send READY=1;barrier;touch "+dir+"/said;await "+dir+"/end;exit 3")
	eventually(t, "it runs", func() bool { return exists(dir + "/on") })
	n.expect("/readyz", 503)
	n.signal(unix.SIGTERM)
	eventually(t, "it says READY=1", func() bool { return exists(dir + "/said") })
	n.expect("/readyz?verbose", 503, "[-]stopping failed")
	n.expect("/startupz", 503)
	touch(t, dir+"/end")
	if code := n.exit(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	if got, want := n.history(), []step{{appeared, "process found"}, {change{"starting", "stopping"}, "stop asked"}, {ends, "end seen"}}; !slices.Equal(got, want) {
		t.Errorf("phases were %v, want %v", got, want)
	}
}

// TestRunDeath: a daemon that is killed is not ready from then on, and its end
// is podnotify's.
func TestRunDeath(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	// What it leaves behind keeps podnotify there to be asked.
	n := scripted(t, []string{"--timeouts-stop", "0"},
		"spawn touch "+dir+"/child|wait|touch "+dir+"/termed|await "+dir+"/end;await "+dir+"/child;send READY=1;wait")
	n.until("/readyz", 200)
	signal(t, hold(t, n.mainPID("d")), unix.SIGKILL)
	n.until("/readyz", 503)
	eventually(t, "what it left behind gets SIGTERM", func() bool { return exists(dir + "/termed") })
	n.expect("/readyz", 503)
	s := n.facts("d")
	if s.Phase != "gone" || s.Main != nil || s.LastExit == nil || s.LastExit.Signal != "KILL" || s.LastExit.Reason != "killed" || s.LastExit.Code != nil {
		t.Errorf("statusz of a killed daemon: %+v", s)
	}
	touch(t, dir+"/end")
	if code := n.exit(); code != 137 {
		t.Errorf("exit code %d, want 137", code)
	}
	if want := []step{{appeared, "process found"}, {readied, "READY=1"}, {change{"ready", "gone"}, "end seen"}}; !slices.Equal(n.history(), want) {
		t.Errorf("phases were %v, want %v", n.history(), want)
	}
}

// TestRunReaps: orphans come to podnotify, and none stays a zombie.
func TestRunReaps(t *testing.T) {
	t.Parallel()
	const orphans = 20
	const script = `
i=0
while [ $i -lt 20 ]; do (sh -c 'while [ -d "$0" ] && ! [ -e "$0/end" ]; do sleep 0.05; done' "$0" &); i=$((i+1)); done
exec sleep 120`
	dir := tempDir(t)
	n := (*pod)(nil).supervised(t, order{}, []string{"--expect", "none"}, "sh", "-c", script, dir)
	ours := func() (ours, dead int) {
		for _, st := range n.family() {
			if st.PPID == n.Pid {
				ours++
			}
			if st.State.Dead() {
				dead++
			}
		}
		return ours, dead
	}
	eventually(t, "the orphans are podnotify's", func() bool { is, _ := ours(); return is == orphans+1 })
	touch(t, dir+"/end")
	eventually(t, "the orphans are reaped", func() bool { return len(n.family()) == 1 })
	if is, dead := ours(); is != 1 || dead != 0 {
		t.Errorf("%d children, %d zombies; want the daemon only", is, dead)
	}
	n.expect("/readyz", 200)
	n.signal(unix.SIGTERM)
	if code := n.exit(); code != 143 {
		t.Errorf("exit code %d, want 143", code)
	}
}

// TestRunLeftovers: what the daemon leaves behind gets SIGTERM, and SIGKILL
// after the stop time-out. The exit code stays the daemon's.
func TestRunLeftovers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		child   string
		timeout string
		stopped bool
		termed  bool
	}{
		"ends":          {"touch DIR/on|wait|touch DIR/termed", "0", false, true},
		"ends, stopped": {"touch DIR/on|wait|touch DIR/termed", "0", true, true},
		"does not end":  {"ignore|touch DIR/on|sleep 1h", "300ms", false, false},
		"a grandchild":  {"spawn await DIR/never|touch DIR/on|exit 0", "300ms", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			script := "spawn " + strings.ReplaceAll(tt.child, "DIR", dir) + ";await " + dir + "/on;send READY=1;await " + dir + "/end;exit 3"
			n := scripted(t, []string{"--expect", "notify", "--timeouts-stop", tt.timeout}, script)
			n.until("/readyz", 200)
			main := n.mainPID("d")
			var left []*proc.Handle
			for _, st := range n.family() {
				if st.PID != main && !st.State.Dead() {
					left = append(left, hold(t, st.PID))
				}
			}
			if len(left) == 0 {
				t.Fatal("the daemon has no child")
			}
			if tt.stopped {
				signal(t, left[0], unix.SIGSTOP)
				eventually(t, "the child is stopped", func() bool { st, err := left[0].State(); return err == nil && st.Stopped() })
				n.expect("/readyz", 200) // it is not the main process
			}
			touch(t, dir+"/end")
			if code := n.exit(); code != 3 {
				t.Errorf("exit code %d, want 3", code)
			}
			for _, h := range left {
				if !h.Ended() {
					t.Errorf("process %v is left", h.ID())
				}
			}
			if exists(dir+"/termed") != tt.termed {
				t.Errorf("told by SIGTERM: %t, want %t", !tt.termed, tt.termed)
			}
			killed := strings.Contains(n.stderr.String(), "killing what the daemon left behind")
			if killed && tt.timeout == "0" || !killed && strings.HasPrefix(tt.child, "ignore") {
				t.Errorf("killed: %t", killed)
			}
			if !slices.Contains(n.history(), step{change{"ready", "gone"}, "end seen"}) {
				t.Errorf("phases were %v", n.history())
			}
		})
	}
}

// TestRunFollowsMainPID: podnotify stays with the main process, not with CMD.
func TestRunFollowsMainPID(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"announced by the new": `send READY=1;await DIR/begin;spawn send MAINPID=$PID\nREADY=1\nSTATUS=second|touch DIR/told|wait|exit 6;await DIR/told;exit 0`,
		"named by the old":     `send READY=1;await DIR/begin;spawn await DIR/named|send READY=1\nSTATUS=second|wait|exit 6;send MAINPID=$CHILD;touch DIR/named;exit 0`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			n := scripted(t, nil, strings.ReplaceAll(script, "DIR", dir))
			n.until("/readyz", 200)
			old := n.mainPID("d")
			ready, live := n.watch("/readyz"), n.watch("/livez")
			first := hold(t, old)
			touch(t, dir+"/begin")
			eventually(t, "the second is known and CMD has ended", func() bool { return n.facts("d").Status == "second" && first.Ended() })
			eventually(t, "CMD is reaped", func() bool { return len(n.family()) == 1 })
			s := n.facts("d")
			if s.Phase != "ready" || s.Main == nil || s.Main.PID == old || s.Main.PID != n.family()[0].PID {
				t.Errorf("statusz: %+v, want process %d ready", s, n.family()[0].PID)
			}
			if codes := slices.Concat(ready.end(), live.end()); !slices.Equal(codes, []int{200, 200}) {
				t.Errorf("/readyz and /livez were %v, want 200 always", codes)
			}
			n.untilTransitions(map[change]int{appeared: 1, readied: 1})
			n.signal(unix.SIGTERM)
			if code := n.exit(); code != 6 {
				t.Errorf("exit code %d, want that of the second process, 6", code)
			}
		})
	}
}

// TestRunWatchdog: a daemon that does not ping is not live; a ping clears it.
func TestRunWatchdog(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	n := scripted(t, []string{"--watchdog-interval", "2s"}, "send READY=1;await "+dir+`/ping;send WATCHDOG_USEC=600000000\nWATCHDOG=1;wait;exit 3`)
	n.until("/readyz", 200)
	n.untilBody("/livez", 503, "watchdog")
	n.expect("/readyz", 503, "watchdog")
	if s := n.facts("d"); s.Phase != "ready" || s.Live || s.Ready || s.Counters.Pings != 0 {
		t.Errorf("statusz of a daemon without a ping: %+v", s)
	}
	touch(t, dir+"/ping")
	n.until("/livez", 200)
	n.expect("/readyz", 200)
	if s := n.facts("d"); s.Counters.Pings != 1 {
		t.Errorf("%d pings, want 1", s.Counters.Pings)
	}
	n.signal(unix.SIGTERM)
	if code := n.exit(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
}

// TestRunOutputOfFirst: images log to /proc/1/fd/1. That is open to a daemon that has no
// more than the capabilities a container is given, also where podnotify is process 1.
func TestRunOutputOfFirst(t *testing.T) {
	t.Parallel()
	needRoot(t)
	setpriv, dir := need(t, "setpriv", "util-linux"), tempDir(t)
	newPodOf(t, nil, setpriv, "--bounding-set", "-sys_ptrace,-sys_admin,-sys_resource", bin.podnotify, "run", "--listen", freePort(t), "--run-dir", tempDir(t), "--expect", "none", "--",
		"sh", "-c", "echo hello >/proc/1/fd/1 && touch "+dir+"/ok; exec sleep 1000")
	eventually(t, "it has written to the output of process 1", func() bool { _, err := os.Stat(dir + "/ok"); return err == nil })
}

// TestRunFirstProcess is podnotify as the entry point of a container: process 1
// of a PID namespace, without an init.
func TestRunFirstProcess(t *testing.T) {
	t.Parallel()
	needRoot(t)
	need(t, "unshare", "util-linux")
	for expect, word := range map[string]string{"notify": "send READY=1", "stop": "stop"} {
		t.Run(expect, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			script := strings.Repeat("spawn spawn await "+dir+"/end|exit 0;", 5) + word + ";touch " + dir + "/on;wait;touch " + dir + "/termed;await " + dir + "/exit;exit 5"
			n := (*pod)(nil).supervised(t, order{
				env:     []string{testdaemon.Env(script)},
				through: []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"},
			}, []string{"--service", "d", "--expect", expect}, bin.self)
			var pid int // of podnotify; n.process is unshare
			for _, st := range n.family() {
				if st.PPID == n.Pid {
					pid = st.PID
				}
			}
			if ns := strings.Fields(field(pid, "NSpid")); len(ns) < 2 || ns[len(ns)-1] != "1" {
				t.Fatalf("podnotify is %v in its PID namespaces, want 1 in the last", ns)
			}
			n.until("/readyz", 200)
			s := n.facts("d")
			if s.Main == nil || s.Main.PID <= 1 || s.Main.InnerPID != s.Main.PID || !strings.Contains(s.Main.Command, bin.self) {
				t.Errorf("main process is %+v", s.Main)
			}
			eventually(t, "it goes on", func() bool { return exists(dir + "/on") })
			below := func() (orphans, zombies int) {
				for _, st := range n.family() {
					if st.PPID == pid && strings.Contains(field(st.PID, "NSpid"), "\t"+strconv.Itoa(s.Main.PID)) {
						continue
					}
					if st.PPID == pid {
						orphans++
					}
					if st.PPID == pid && st.State.Dead() {
						zombies++
					}
				}
				return orphans, zombies
			}
			eventually(t, "5 orphans came to podnotify", func() bool { n, _ := below(); return n == 5 })
			touch(t, dir+"/end")
			eventually(t, "the orphans are reaped", func() bool { n, z := below(); return n == 0 && z == 0 })
			n.expect("/readyz", 200)
			signal(t, hold(t, pid), unix.SIGTERM)
			eventually(t, "the daemon gets SIGTERM", func() bool { return exists(dir + "/termed") })
			n.expect("/readyz", 503, "stopping")
			touch(t, dir+"/exit")
			if code := n.exit(); code != 5 {
				t.Errorf("exit code %d, want 5", code)
			}
		})
	}
}

// TestRunTerminal: on a terminal the daemon is in the foreground: it may read,
// and Ctrl-C is for it.
func TestRunTerminal(t *testing.T) {
	t.Parallel()
	const script = `
trap 'echo interrupted; exit 8' INT
read line; echo "read $line"
while :; do sleep 0.02; done`
	s := onTerminal(t, nil, "sh", "-c", script)
	s.types("hello\n")
	s.shows("read hello")
	s.types("\x03")
	if code := s.exit(); code != 8 {
		t.Errorf("exit code %d, want the daemon's own, 8\n%s%s", code, s.screen.String(), s.stderr.String())
	}
	s.shows("interrupted")
	if got := strings.Count(s.screen.String(), "interrupted"); got != 1 {
		t.Errorf("interrupted %d times", got)
	}
}

// TestRunTerminalRespawn: where the daemon is respawned, Ctrl-C ends that, whether
// it comes between two instances or within one.
func TestRunTerminalRespawn(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script, until string
		code          int
	}{
		"within":  {`trap 'echo interrupted; exit 8' INT; echo "read $(cat)"; touch "$0"; while :; do sleep 0.02; done`, "phase=ready", 8},
		"between": {"exit 5", "phase=gone", 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mark := tempDir(t) + "/mark"
			s := onTerminal(t, []string{"--expect", "none", "--respawn-mode", "exec", "--respawn-delay", "1h", "--respawn-max-delay", "1h"}, "sh", "-c", tt.script, mark)
			s.says(tt.until)
			if name == "within" {
				eventually(t, "the daemon has read to the end", func() bool { return exists(mark) })
			}
			eventually(t, "it ends", func() bool { // when podnotify knows that the instance is over is not told
				s.types("\x03")
				return s.over()
			})
			if code := s.exit(); code != tt.code {
				t.Errorf("exit code %d, want %d\n%s%s", code, tt.code, s.screen.String(), s.stderr.String())
			}
		})
	}
}

// seat is a podnotify run on a terminal of its own.
type seat struct {
	*process
	keys   *os.File
	screen text
}

func onTerminal(t *testing.T, flags []string, argv ...string) *seat {
	t.Helper()
	master, slave := terminal(t)
	s := &seat{keys: master}
	for range 5 {
		n := &process{t: t, name: "podnotify", ended: make(chan struct{})}
		cmd := exec.Command(bin.podnotify, slices.Concat([]string{"run", "--listen", freePort(t), "--run-dir", tempDir(t), "--log-format", "text"}, flags, []string{"--"}, argv)...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, &n.stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		cmd.WaitDelay = time.Second
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		n.Process = cmd.Process
		go func() {
			_ = cmd.Wait()
			n.state = cmd.ProcessState
			close(n.ended)
		}()
		t.Cleanup(n.kill)
		n.endWithTest()
		s.process = n
		eventually(t, "podnotify has started the daemon, or ended", func() bool { return n.over() || strings.Contains(n.stderr.String(), "daemon started") })
		if !n.over() {
			break
		}
	}
	go func() {
		b := make([]byte, 4096)
		for {
			k, err := master.Read(b)
			_, _ = s.screen.Write(b[:k])
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *seat) types(keys string) {
	s.t.Helper()
	if _, err := s.keys.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

func (s *seat) shows(want string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("the terminal shows %q", want), func() bool { return strings.Contains(s.screen.String(), want) })
}

// terminal is a new one: what a person types into and sees, and what a program
// has for it.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		lacking(t, "missing pseudo-terminals: "+err.Error())
	}
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if e := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); e != nil || err != nil {
		t.Fatal(e, err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacking(t, "missing pseudo-terminals: "+err.Error())
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}
