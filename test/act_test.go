package test

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/testdaemon"
)

// fails wants a command to end with 1 and to say why.
func (n *podnotify) fails(want string, args ...string) {
	n.t.Helper()
	if code, out, errs := n.command(args...); code != 1 || out != "" || !strings.Contains(errs, want) {
		n.t.Errorf("podnotify %s ends with %d and says %q, want 1 and %q", strings.Join(args, " "), code, out+errs, want)
	}
}

// works wants a command to succeed in silence.
func (n *podnotify) works(args ...string) {
	n.t.Helper()
	if code, out, errs := n.command(args...); code != 0 || out+errs != "" {
		n.t.Errorf("podnotify %s ends with %d and says %q", strings.Join(args, " "), code, out+errs)
	}
}

// notes wants a command to succeed and to say something all the same.
func (n *podnotify) notes(want string, args ...string) {
	n.t.Helper()
	if code, out, errs := n.command(args...); code != 0 || out != "" || !strings.Contains(errs, want) {
		n.t.Errorf("podnotify %s ends with %d and says %q, want 0 and %q", strings.Join(args, " "), code, out+errs, want)
	}
}

// TestStopCommand: the daemon ends, run ends with its code, and the command hears
// of it.
func TestStopCommand(t *testing.T) {
	t.Parallel()
	t.Run("run", func(t *testing.T) {
		t.Parallel()
		for range 5 { // podnotify itself ends at the same time
			// Not even respawning brings back what was told to stop.
			n := scripted(t, []string{"--expect", "notify", "--respawn-mode", "exec", "--respawn-when", "always"}, "send READY=1;wait;exit 4")
			n.until("/readyz", 200)
			n.works("stop")
			if code := n.exit(); code != 4 {
				t.Errorf("exit code %d, want 4", code)
			}
		}
	})
	for _, verb := range []string{"stop", "prestop"} {
		t.Run("between two instances, "+verb, func(t *testing.T) {
			t.Parallel()
			n := (*pod)(nil).supervised(t, order{}, []string{"--service", "d", "--expect", "none", "--respawn-mode", "exec",
				"--respawn-delay", "1h", "--respawn-max-delay", "1h"}, "sh", "-c", "exit 5")
			n.untilPhase("gone")
			n.works(verb)
			if code := n.exit(); code != 5 {
				t.Errorf("exit code %d, want that of the last instance, 5", code)
			}
		})
	}
	t.Run("as it is respawned", func(t *testing.T) { // before, while and after the next one is started
		t.Parallel()
		for range 20 {
			n := (*pod)(nil).supervised(t, order{}, []string{"--service", "d", "--expect", "none", "--respawn-mode", "exec",
				"--respawn-delay", "0", "--respawn-limit", "0"}, "sh", "-c", "exit 5")
			eventually(t, "it is respawned", func() bool { return n.transitions()[change{"gone", "ready"}] > 3 })
			n.command("stop") // run may be over before it answers
			if code := n.exit(); code != 5 && code != 143 {
				t.Errorf("exit code %d, want that of the last instance", code)
			}
		}
	})
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		n := scripted(t, []string{"--expect", "notify", "--timeouts-stop", "300ms"}, "ignore;send READY=1;sleep 1h")
		n.until("/readyz", 200)
		begin := time.Now()
		n.works("stop", "d")
		if d := time.Since(begin); d < 300*time.Millisecond {
			t.Errorf("stopped after %v, before the stop time-out", d)
		}
		if code := n.exit(); code != 137 {
			t.Errorf("exit code %d, want 137", code)
		}
	})
	t.Run("killed with its group", func(t *testing.T) { // and the rest is not waited for once more
		t.Parallel()
		n := (*pod)(nil).supervised(t, order{}, []string{"--service", "d", "--expect", "none", "--timeouts-stop", "1s"}, "sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000 & wait")
		eventually(t, "it has children", func() bool { return len(n.family()) == 3 })
		n.works("stop")
		if code := n.exit(); code != 137 {
			t.Errorf("exit code %d, want 137", code)
		}
		if strings.Contains(n.stderr.String(), "killing what the daemon left behind") {
			t.Error("its group was not killed with it")
		}
	})
	t.Run("not waited for", func(t *testing.T) {
		t.Parallel()
		dir := tempDir(t)
		n := scripted(t, []string{"--expect", "notify"}, "send READY=1;wait;await "+dir+"/end;exit 4")
		n.until("/readyz", 200)
		n.works("stop", "--no-wait")
		n.expect("/readyz", 503, "stopping")
		touch(t, dir+"/end")
		if code := n.exit(); code != 4 {
			t.Errorf("exit code %d, want 4", code)
		}
	})
	t.Run("sidecar", func(t *testing.T) {
		t.Parallel()
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify", "--signals-kill", "USR1", "--select-process", "^sh -c")
		d := n.pod.start(t, order{uid: nobody, env: []string{"NOTIFY_SOCKET=" + n.socket("d")}}, "sh", "-c",
			`trap 'exit 5' USR1; trap '' TERM; systemd-notify --ready; while :; do sleep 0.02; done`)
		need(t, "systemd-notify", "systemd")
		n.until("/readyz", 200)
		n.works("stop")
		n.expect("/readyz", 503)
		if code := d.exit(); code != 5 {
			t.Errorf("the daemon ends with %d, want 5", code)
		}
		n.expect("/healthz", 200)
		n.fails("cannot stop service d: it has no main process", "stop")
	})
}

// TestActErrors: what cannot be done is said, and nothing is done.
func TestActErrors(t *testing.T) {
	t.Parallel()
	t.Run("no main process", func(t *testing.T) {
		t.Parallel()
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--signals-reload", "HUP", "--select-process", "^nobody")
		for _, verb := range []string{"reload", "stop", "respawn", "kill"} {
			n.fails("it has no main process", verb)
			n.fails(`cannot find service "other": there are d`, verb, "other")
		}
	})
	t.Run("two services", func(t *testing.T) {
		t.Parallel()
		file := write(t, tempDir(t)+"/podnotify.yaml", "services:\n- name: one\n  select: {process: ^nobody}\n- name: two\n  select: {process: ^nobody}\n")
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--config", file)
		for _, verb := range []string{"reload", "stop", "respawn", "kill"} {
			n.fails("there are one, two; name one", verb)
		}
		n.fails("service two", "stop", "two")
	})
	t.Run("a living one", func(t *testing.T) {
		t.Parallel()
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify")
		d := n.daemon("d", "send READY=1;wait", nobody)
		n.until("/readyz", 200)
		n.fails("cannot reload service d: signals.reload is not set; set it, to HUP for most daemons", "reload")
		n.fails("is no signal", "kill", "--signal", "NONE")
		n.fails("is no signal", "kill", "--signal", "0")
		n.fails("is no signal", "kill", "--signal", "65")
		for _, verb := range []string{"reload", "stop", "respawn", "kill"} { // even root is not podnotify's uid
			for _, uid := range []int{0, nobody + 1} {
				x := n.pod.start(t, order{uid: uid}, bin.podnotify, verb, "--run-dir", n.dir)
				if code := x.exit(); code != 1 || !strings.Contains(x.stderr.String(), fmt.Sprintf("uid %d", nobody)) {
					t.Errorf("%s of uid %d ends with %d: %s", verb, uid, code, &x.stderr)
				}
			}
		}
		n.expect("/readyz", 200)
		if d.over() {
			t.Error("the daemon has ended")
		}
	})
	t.Run("a daemon of another uid", func(t *testing.T) {
		t.Parallel()
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify", "--signals-reload", "HUP")
		d := n.daemon("d", "send READY=1;wait", nobody+1)
		n.until("/readyz", 200)
		for _, verb := range []string{"reload", "stop", "respawn", "kill"} {
			n.fails(fmt.Sprintf("not permitted: this process has uid %d, it has uid %d", nobody, nobody+1), verb)
			n.expect("/readyz", 200) // what was not done was not announced
		}
		if d.over() {
			t.Error("the daemon has ended")
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		x := (*pod)(nil).start(t, order{}, bin.podnotify, "stop", "--run-dir", tempDir(t))
		if code := x.exit(); code != 1 || !strings.Contains(x.stderr.String(), "is it running with this --run-dir?") {
			t.Errorf("stop ends with %d: %s", code, &x.stderr)
		}
	})
}

// TestKillCommand: the signal named arrives, under any of its names, and one that
// ends a daemon is announced.
func TestKillCommand(t *testing.T) {
	t.Parallel()
	const script = `
for s in HUP USR1 USR2 WINCH; do trap "echo $s" $s; done
trap 'echo RTMIN+1' 35
trap 'echo TERM' TERM
touch "$0"
while :; do sleep 0.02; done`
	trapped := tempDir(t) + "/trapped"
	n := (*pod)(nil).supervised(t, order{}, []string{"--expect", "none", "--service", "d"}, "sh", "-c", script, trapped)
	eventually(t, "signals are trapped", func() bool { return exists(trapped) })
	want := ""
	for _, s := range [][2]string{{"HUP", "HUP"}, {"SIGUSR1", "USR1"}, {"12", "USR2"}, {"winch", "WINCH"}, {"RTMIN+1", "RTMIN+1"}} {
		n.works("kill", "--signal", s[0])
		want += s[1] + "\n"
		eventually(t, "the daemon gets "+s[1], func() bool { return n.stdout.String() == want })
	}
	n.expect("/readyz", 200)
	n.works("kill", "d")
	eventually(t, "the daemon gets TERM", func() bool { return n.stdout.String() == want+"TERM\n" })
	n.expect("/readyz", 503, "stopping")
	n.works("kill", "--signal", "KILL")
	if code := n.exit(); code != 137 {
		t.Errorf("exit code %d, want 137", code)
	}
}

// TestLateSignal: a platform may send its SIGTERM when the daemon has ended already,
// and podnotify is about to: it ends with the daemon's code all the same, and leaves
// nothing behind.
func TestLateSignal(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		n := scripted(t, []string{"--expect", "notify"}, "send READY=1;wait;exit 5")
		n.until("/readyz", 200)
		n.command("stop")
		for range i % 5 {
			time.Sleep(200 * time.Microsecond)
		}
		for range 3 {
			_ = n.Signal(unix.SIGTERM) // it may be over
		}
		if code := n.exit(); code != 5 {
			t.Errorf("exit code %d, want the daemon's, 5", code)
		}
		for _, file := range []string{n.socket("d"), n.dir + "/control"} {
			if exists(file) {
				t.Errorf("%s is left behind", file)
			}
		}
	}
}

// TestReloadCommand: it ends when the daemon has reloaded, as far as that tells.
func TestReloadCommand(t *testing.T) {
	t.Parallel()
	notify := need(t, "systemd-notify", "systemd")
	begin := func(t *testing.T, hup string, flags ...string) (*podnotify, string) {
		dir := tempDir(t)
		n := (*pod)(nil).supervised(t, order{}, append([]string{"--expect", "notify", "--service", "d", "--signals-reload", "HUP"}, flags...), "sh", "-c",
			`trap '`+hup+`' HUP; `+notify+` --ready; while :; do sleep 0.02; done`, dir)
		n.until("/readyz", 200)
		return n, dir
	}
	t.Run("it says nothing", func(t *testing.T) {
		t.Parallel()
		n, dir := begin(t, `touch "$0/reloaded"`)
		n.notes("it did not say RELOADING=1 within 1s, so it is not known whether it has reloaded", "reload")
		eventually(t, "it is reloaded", func() bool { return exists(dir + "/reloaded") })
		n.expect("/readyz", 200)
	})
	t.Run("it tells", func(t *testing.T) {
		t.Parallel()
		n, dir := begin(t, notify+` RELOADING=1; until [ -e "$0/go" ]; do sleep 0.02; done; touch "$0/reloaded"; `+notify+` --ready`)
		x := n.pod.start(t, order{}, bin.podnotify, "reload", "--run-dir", n.dir)
		n.untilPhase("reloading")
		if x.over() {
			t.Errorf("reload does not wait: %s", &x.stderr)
		}
		touch(t, dir+"/go")
		if code := x.exit(); code != 0 || !exists(dir+"/reloaded") {
			t.Errorf("reload ends with %d, the daemon is reloaded: %t; want 0, true: %s", code, exists(dir+"/reloaded"), &x.stderr)
		}
		n.expect("/readyz", 200)
	})
	t.Run("not waited for", func(t *testing.T) {
		t.Parallel()
		n, dir := begin(t, notify+` RELOADING=1; until [ -e "$0/go" ]; do sleep 0.02; done; `+notify+` --ready`)
		n.works("reload", "--no-wait")
		n.untilPhase("reloading")
		touch(t, dir+"/go")
		n.untilPhase("ready")
	})
	t.Run("it says so late", func(t *testing.T) {
		t.Parallel()
		n, dir := begin(t, `until [ -e "$0/go" ]; do sleep 0.02; done; `+notify+` RELOADING=1; `+notify+` --ready`)
		n.notes("it did not say RELOADING=1 within 1s", "reload")
		touch(t, dir+"/go")
		eventually(t, "it reloads", func() bool { return n.transitions()[change{"reloading", "ready"}] == 1 })
	})
	t.Run("it is starting", func(t *testing.T) { // and has not caught the signal yet
		t.Parallel()
		n := scripted(t, []string{"--expect", "notify", "--signals-reload", "HUP"}, "wait;exit 4")
		n.untilPhase("starting")
		n.fails("cannot reload service d: it is starting, and the signal could end it", "reload")
		n.untilPhase("starting")
	})
	t.Run("it is paused", func(t *testing.T) {
		t.Parallel()
		n, dir := begin(t, `touch "$0/reloaded"`)
		main := n.mainPID("d")
		signal(t, hold(t, main), unix.SIGSTOP)
		n.untilBody("/readyz", 503, "paused")
		n.fails(fmt.Sprintf("cannot reload service d: process %d is stopped by a signal; kill -CONT %d continues it", main, main), "reload")
		signal(t, hold(t, main), unix.SIGCONT)
		n.untilBody("/readyz", 200, "ok")
		if exists(dir + "/reloaded") {
			t.Error("it has reloaded")
		}
	})
	t.Run("it takes too long", func(t *testing.T) {
		t.Parallel()
		n, _ := begin(t, notify+` RELOADING=1; sleep 1000`, "--timeouts-reload", "300ms")
		n.fails("no READY=1 within 300ms", "reload")
	})
	t.Run("it ends", func(t *testing.T) {
		t.Parallel()
		n, _ := begin(t, notify+` RELOADING=1; exit 3`, "--respawn-mode", "exec", "--respawn-delay", "1h", "--respawn-max-delay", "1h")
		n.fails("cannot see service d reloaded: it is gone", "reload")
	})
}

// TestGate: ready is held back until an address has accepted once, whatever else
// is known; later it is not asked again.
func TestGate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ expect, script, env string }{
		{"notify", "send READY=1;wait;exit 0", ""},
		{"stop", "stop;wait;exit 0", "UPSTART_JOB=d"},
	} {
		bothWays(t, func(t *testing.T, begin beginner) {
			t.Run(tt.expect, func(t *testing.T) {
				at := freePort(t)
				o := order{env: []string{testdaemon.Env(tt.script)}}
				if tt.env != "" {
					o.env = append(o.env, tt.env)
				}
				n, d := begin(o, []string{"--gate-tcp", at, "--expect", tt.expect}, bin.self)
				n.untilPhase("ready")
				n.expect("/readyz", 503, "gate: gate.tcp has not accepted a connection yet")
				n.expect("/startupz", 503, "gate")
				n.expect("/livez", 200)
				l, err := net.Listen("tcp", at)
				if err != nil {
					t.Skip("somebody else has taken the port: ", err)
				}
				n.until("/readyz", 200)
				n.expect("/startupz", 200)
				l.Close()
				n.expect("/readyz", 200)
				if d == n.process {
					return
				}
				// The next instance has its own gate.
				d.signal(unix.SIGKILL)
				n.untilPhase("gone")
				n.daemon("d", tt.script, nobody, strings.Fields(tt.env + " X=")[0])
				n.untilPhase("ready")
				n.expect("/readyz", 503, "gate")
			})
		})
	}
}

// TestRespawnPod: a sidecar asks for a restart of the whole pod by its exit code,
// for what only a restart helps against.
func TestRespawnPod(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ flags, script string }{
		"trigger":       {"", "send READY=1;await DIR/go;send WATCHDOG=trigger;sleep 1h"},
		"watchdog":      {"--watchdog-interval 300ms", "send READY=1;await DIR/go;sleep 1h"},
		"start timeout": {"--policy-start-timeout not-live --timeouts-start 300ms", "send STATUS=x;sleep 1h"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, dir := newPod(t), tempDir(t)
			n := p.serve(t, order{uid: nobody}, "sidecar", append(strings.Fields(tt.flags), "--service", "d", "--expect", "notify", "--respawn-mode", "pod")...)
			d := n.daemon("d", strings.ReplaceAll(tt.script, "DIR", dir), nobody)
			touch(t, dir+"/go")
			if code := n.exit(); code != 79 {
				t.Errorf("exit code %d, want 79", code)
			}
			if d.over() {
				t.Error("the daemon has ended, which is the platform's business")
			}
		})
	}
	t.Run("its end", func(t *testing.T) { // the platform sees that itself
		t.Parallel()
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify", "--respawn-mode", "pod")
		d := n.daemon("d", "send READY=1;sleep 1h", nobody)
		n.until("/readyz", 200)
		d.signal(unix.SIGKILL)
		n.untilPhase("gone")
		n.daemon("d", "send READY=1;sleep 1h", nobody)
		n.until("/readyz", 200)
	})
}

// TestRespawnSignal: a sidecar ends the main process, and then the entry process
// of its container if that lives on, each by force if it has to be.
func TestRespawnSignal(t *testing.T) {
	t.Parallel()
	const lasting = "while :; do sleep 0.02; done"
	for name, tt := range map[string]struct {
		entry, main string // shell
		code        int    // of the entry process
	}{
		"both end":         {lasting, "exit 5", 143},
		"the entry hangs":  {"trap '' TERM; " + lasting, "exit 5", 137},
		"the daemon hangs": {lasting, ":", 143},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			need(t, "systemd-notify", "systemd")
			p := newPod(t)
			n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify", "--respawn-mode", "signal", "--timeouts-stop", "1s")
			d := p.start(t, order{uid: nobody, env: []string{"NOTIFY_SOCKET=" + n.socket("d")}}, "bash", "-c",
				`bash -c 'trap "`+tt.main+`" TERM; systemd-notify --ready MAINPID=$$; while :; do sleep 0.02; done' & `+tt.entry+`; wait`)
			n.until("/readyz", 200)
			eventually(t, "the child is the main process", func() bool { return n.mainPID("d") != d.inner() })
			n.works("respawn")
			n.until("/readyz", 503)
			if code := d.exit(); code != tt.code {
				t.Errorf("the entry process ends with %d, want %d", code, tt.code)
			}
			n.expect("/healthz", 200)
			n.daemon("d", "send READY=1;wait", nobody)
			n.until("/readyz", 200)
		})
	}
}

// TestContainerLivesOn: where the main process is another than the entry process
// and ends, the entry process is not taken for the next one, however soon after it
// the main process was started.
func TestContainerLivesOn(t *testing.T) {
	t.Parallel()
	need(t, "systemd-notify", "systemd")
	for range 10 {
		p := newPod(t)
		n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify")
		d := p.start(t, order{uid: nobody, env: []string{"NOTIFY_SOCKET=" + n.socket("d")}}, "bash", "-c",
			`bash -c 'systemd-notify --ready MAINPID=$$; kill -STOP $$; exit 5' & wait $!; exec sleep 1000`)
		n.untilBody("/readyz", 503, "paused")
		if n.mainPID("d") == d.inner() {
			t.Fatal("the entry process is the main process")
		}
		main, err := os.FindProcess(n.outer(n.mainPID("d")))
		if err != nil {
			t.Fatal(err)
		}
		if err := main.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		n.untilBody("/livez", 503, "process") // without what it is for, the container is to be restarted
		n.expect("/readyz", 503, "no main process")
		d.signal(unix.SIGKILL)
		n.until("/livez", 200)
	}
}

// TestRespawnWatchdog: a daemon that misses its watchdog gets the watchdog's
// signal, and KILL if that does not end it; what started it starts it again.
func TestRespawnWatchdog(t *testing.T) {
	t.Parallel()
	// A shell that tells what it gets, and pings while there is a file.
	daemon := func(dir, abort string) string {
		return `trap 'echo ABRT >>` + dir + `/got; ` + abort + `' ABRT; trap 'echo TERM >>` + dir + `/got' TERM; systemd-notify --ready; while :; do sleep 0.02; done`
	}
	for name, tt := range map[string]struct{ abort, signal, stop string }{
		"ABRT": {"exit 6", "", bound.String()},
		"KILL": {":", "KILL", "2s"},
	} {
		t.Run("exec/"+name, func(t *testing.T) {
			t.Parallel()
			need(t, "systemd-notify", "systemd")
			dir := tempDir(t)
			n := (*pod)(nil).supervised(t, order{}, []string{"--service", "d", "--expect", "notify", "--respawn-mode", "exec", "--respawn-delay", "0", "--respawn-when", "never",
				"--respawn-limit", "0", "--watchdog-interval", "2s", "--timeouts-stop", tt.stop}, "bash", "-c", daemon(dir, tt.abort))
			n.until("/readyz", 200)
			old := n.mainPID("d")
			eventually(t, "another is started", func() bool { s := n.facts("d"); return s.Main != nil && s.Main.PID != old })
			b, _ := os.ReadFile(dir + "/got")
			if !strings.HasPrefix(string(b), "ABRT\n") || strings.Contains(string(b), "TERM") {
				t.Errorf("the daemon got %q, want ABRT", b)
			}
			if s := n.facts("d"); s.LastExit == nil || s.LastExit.Signal != tt.signal {
				t.Errorf("statusz: %+v, want the last ended by signal %q", s, tt.signal)
			}
			n.until("/readyz", 200)
		})
		t.Run("signal/"+name, func(t *testing.T) {
			t.Parallel()
			need(t, "systemd-notify", "systemd")
			p, dir := newPod(t), tempDir(t)
			n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify", "--respawn-mode", "signal", "--watchdog-interval", "2s", "--timeouts-stop", tt.stop)
			d := p.start(t, order{uid: nobody, env: []string{"NOTIFY_SOCKET=" + n.socket("d")}}, "bash", "-c", daemon(dir, tt.abort))
			n.until("/readyz", 200)
			want := 6
			if tt.signal != "" {
				want = 137
			}
			if code := d.exit(); code != want {
				t.Errorf("the daemon ends with %d, want %d", code, want)
			}
			b, _ := os.ReadFile(dir + "/got")
			if string(b) != "ABRT\n" {
				t.Errorf("the daemon got %q, want ABRT", b)
			}
		})
	}
}

// TestWatchdog: live fails when the pings cease, and not before; the daemon moves
// the interval; one that stands still is paused, not starved.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, begin beginner) {
		t.Run("ceases", func(t *testing.T) {
			const interval = 2 * time.Second
			n, p := begun(t, begin, "--watchdog-interval", interval.String(), "--expect", "notify")
			p.say("READY=1")
			var last time.Time
			for range 10 { // for more than an interval in all
				last = time.Now()
				p.say("WATCHDOG=1")
				n.expect("/livez", 200)
				time.Sleep(interval / 8)
			}
			n.untilBody("/livez", 503, "no WATCHDOG=1 within 2s")
			if d := time.Since(last); d < interval {
				t.Errorf("live fails %v after a ping, before the interval is over", d)
			}
			n.expect("/readyz", 503, "watchdog")
			p.say("WATCHDOG=1")
			n.expect("/livez", 200)
			n.expect("/readyz", 200)
		})
		t.Run("moved", func(t *testing.T) {
			n, p := begun(t, begin, "--watchdog-interval", "1s", "--expect", "notify")
			p.say("READY=1", "EXTEND_TIMEOUT_USEC=3000000")
			begin := time.Now()
			n.untilBody("/livez", 503, "watchdog")
			if d := time.Since(begin); d < 3*time.Second-100*time.Millisecond {
				t.Errorf("live fails after %v, although 3 s were asked for", d)
			}
			p.say("WATCHDOG_USEC=" + strconv.Itoa(600e6)) // is a ping, too
			n.expect("/livez", 200)
			p.say("WATCHDOG=1")
			begin = time.Now()
			p.say("WATCHDOG_USEC=500000")
			n.untilBody("/livez", 503, "no WATCHDOG=1 within 500ms")
			if d := time.Since(begin); d < 500*time.Millisecond {
				t.Errorf("live fails after %v, before the interval is over", d)
			}
			p.say("WATCHDOG_USEC=0")
			n.expect("/livez", 200)
			p.say("WATCHDOG=1")
			n.expect("/livez", 200)
		})
		t.Run("trigger", func(t *testing.T) { // needs no interval, and stays
			n, p := begun(t, begin, "--expect", "notify")
			p.say("READY=1")
			p.say("WATCHDOG=trigger")
			n.expect("/livez", 503, "WATCHDOG=trigger")
			p.say("WATCHDOG=1")
			p.say("READY=1")
			n.expect("/livez", 503, "WATCHDOG=trigger")
		})
		t.Run("early", func(t *testing.T) { // pings before ready arm nothing
			n, p := begun(t, begin, "--watchdog-interval", "300ms", "--expect", "notify")
			p.say("WATCHDOG=1")
			for end := time.Now().Add(time.Second); time.Now().Before(end); {
				n.expect("/livez", 200)
			}
			p.say("READY=1")
			n.untilBody("/livez", 503, "watchdog")
		})
		t.Run("frozen", func(t *testing.T) {
			n, p := begun(t, begin, "--watchdog-interval", "500ms", "--expect", "notify", "--respawn-mode", "signal")
			p.say("READY=1", "WATCHDOG_USEC=1000000")
			var main *os.Process
			pid := n.mainPID("d")
			if n.pod != nil {
				pid = n.outer(pid)
			}
			main, _ = os.FindProcess(pid)
			if err := main.Signal(unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			n.untilBody("/readyz", 503, "paused")
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				n.expect("/livez", 200)
				n.expect("/readyz", 503, "paused")
			}
			if err := main.Signal(unix.SIGCONT); err != nil {
				t.Fatal(err)
			}
			p.say("WATCHDOG=1")
			n.until("/readyz", 200)
		})
	})
}

// outer is the test's own number of a process of the pod.
func (n *podnotify) outer(inner int) int {
	n.t.Helper()
	e, _ := os.ReadDir("/proc")
	for _, d := range e {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		f := strings.Fields(field(pid, "NSpid"))
		if len(f) == 0 || f[len(f)-1] != strconv.Itoa(inner) {
			continue
		}
		a, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
		if b, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", n.pod.pid)); a == b && a != "" {
			return pid
		}
	}
	n.t.Fatalf("no process %d in the pod", inner)
	return 0
}

// TestWaitGone: podnotify run ends with its daemon, and what does not answer any more
// is gone.
func TestWaitGone(t *testing.T) {
	t.Parallel()
	n := scripted(t, []string{"--expect", "notify"}, "send READY=1;wait;exit 0")
	n.until("/readyz", 200)
	x := n.pod.start(t, order{}, bin.podnotify, "wait", "--for", "gone", "--address", n.address, "--timeout", "60s")
	for range 50 { // it has asked, at least once
		time.Sleep(20 * time.Millisecond)
		if x.over() {
			t.Fatalf("gone, and it runs: %s", &x.stderr)
		}
	}
	n.works("stop")
	n.exit()
	if code := x.exit(); code != 0 {
		t.Errorf("wait ends with %d, want 0: %s", code, &x.stderr)
	}
}
