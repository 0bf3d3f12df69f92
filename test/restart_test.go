package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/testdaemon"
)

// A restart of podnotify itself: spec "READY is never repeated".

// again starts a podnotify where another one was: on its run-dir, in its pod.
func (n *podnotify) again(args ...string) *podnotify {
	n.t.Helper()
	return n.pod.serveIn(n.t, order{uid: nobody}, n.dir, "sidecar", args...)
}

// crash ends podnotify as nothing else does.
func (n *podnotify) crash() {
	n.t.Helper()
	n.signal(unix.SIGKILL)
	n.exit()
}

// adopted reads from /statusz whether a service is known from before.
func (n *podnotify) adopted(service string) bool {
	n.t.Helper()
	var s struct{ Adopted bool }
	_, body := n.get("/statusz/" + service)
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		n.t.Fatal(err)
	}
	return s.Adopted
}

// TestRestart: a daemon that was ready is ready again without speaking.
func TestRestart(t *testing.T) {
	t.Parallel()
	args := []string{"--service", "d", "--expect", "notify"}
	n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
	d := n.daemon("d", `send READY=1\nSTATUS=serving; wait`, nobody)
	n.until("/readyz", 200)
	for range 20 {
		n.crash()
		n = n.again(args...)
		n.expect("/startupz", 200)
		n.expect("/readyz", 200)
		n.expect("/livez", 200)
		if !n.adopted("d") {
			t.Fatal("ready, and not adopted")
		}
		if s := n.status("d"); s.Main == nil || s.Main.PID != d.inner() {
			t.Fatalf("main process %+v, want %d", s.Main, d.inner())
		}
	}
	d.signal(unix.SIGKILL)
	n.until("/readyz", 503)
	if d.over(); d.exit() != 128+int(unix.SIGKILL) {
		t.Fatal("the daemon was touched")
	}
	if _, err := os.Stat(n.dir + "/state/d.json"); err != nil {
		t.Fatal(err)
	}
}

// TestRunOrphan: a daemon that an earlier run has left behind is not started twice.
func TestRunOrphan(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	var p *pod
	n := p.serveIn(t, order{}, dir, "run", "--service", "d", "--", "sh", "-c", "echo $$; exec sleep 1000")
	eventually(t, "the daemon runs", func() bool { return n.status("d").Main != nil })
	pid := n.status("d").Main.PID
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	eventually(t, "it is on file", func() bool { _, err := os.Stat(dir + "/state/d.json"); return err == nil })
	_ = n.Process.Kill() // only it: the daemon lives on
	n.exit()
	x := p.start(t, order{}, bin.podnotify, "run", "--listen", "127.0.0.1:0", "--run-dir", dir, "--service", "d", "--", "true")
	if code := x.exit(); code != 1 {
		t.Fatalf("a second daemon: podnotify ends with %d", code)
	}
	x.says("of the last podnotify still runs; end it first")
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", func() bool { return unix.Kill(pid, 0) != nil })
	x = p.start(t, order{}, bin.podnotify, "run", "--listen", "127.0.0.1:0", "--run-dir", dir, "--service", "d", "--", "true")
	if code := x.exit(); code != 0 {
		t.Fatalf("podnotify ends with %d: %s", code, &x.stderr)
	}
	if _, err := os.Stat(dir + "/state/d.json"); err == nil {
		t.Fatal("there is still a record of a run that is over")
	}
}

// unknown waits until it is said that nobody can know, and why.
func (n *podnotify) unknown(why string) {
	n.t.Helper()
	n.untilBody("/readyz?verbose", 503, "[-]unknown failed: not known whether it is ready: "+why)
	n.expect("/livez", 200)
}

// TestRestartReplaced: what runs instead of the daemon that was known is not ready
// for that. Nor is a daemon that was there before podnotify.
func TestRestartReplaced(t *testing.T) {
	t.Parallel()
	args := []string{"--service", "d", "--expect", "notify"}
	n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
	d := n.daemon("d", `send READY=1; wait`, nobody)
	n.until("/readyz", 200)
	n.crash()
	d.kill()
	p := newPuppet(t)
	other := n.pod.start(t, p.order(order{uid: nobody}, n.socket("d")), bin.self)
	if said := p.ask(deed{Data: []byte("READY=1")}); said == "" {
		t.Fatal("nobody listens, and it could be said")
	}
	time.Sleep(20 * time.Millisecond) // two ticks of the kernel's clock
	n = n.again(args...)
	n.unknown("it ran before podnotify listened")
	if s := n.status("d"); s.Main == nil || s.Main.PID != other.inner() || n.adopted("d") {
		t.Fatalf("%+v", s)
	}
	p.say("READY=1")
	n.expect("/readyz", 200)
	n.crash()
	if err := os.Remove(n.dir + "/state/d.json"); err != nil {
		t.Fatal(err)
	}
	n = n.again(args...)
	n.unknown("it ran before podnotify listened")
	p.say("RELOADING=1")
	n.until("/readyz", 503)
	p.say("READY=1")
	n.expect("/readyz", 200)
}

// TestRestartReusedNumber: another process with the daemon's number is not the daemon.
func TestRestartReusedNumber(t *testing.T) {
	t.Parallel()
	args := []string{"--service", "d", "--expect", "notify", "--select-process", "^" + bin.self}
	n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
	d := n.daemon("d", `send READY=1; wait`, nobody)
	n.until("/readyz", 200)
	number := d.inner()
	n.crash()
	d.kill()
	time.Sleep(20 * time.Millisecond) // or its start time would be the same, too
	// The kernel is told which number is next, as checkpoint and restore do.
	var taker *process
	for tries := 0; ; tries++ {
		taker = n.pod.start(t, order{env: []string{"NOTIFY_SOCKET=" + n.socket("d"), testdaemon.Env("wait")}}, "sh", "-c",
			fmt.Sprintf(`echo %d >/proc/sys/kernel/ns_last_pid && { "$@" & echo $!; wait; }`, number-1),
			"sh", "setpriv", "--reuid", strconv.Itoa(nobody), "--regid", strconv.Itoa(nobody), "--clear-groups", bin.self)
		eventually(t, "it is started", func() bool { return strings.Contains(taker.stdout.String(), "\n") || taker.over() })
		if strings.TrimSpace(taker.stdout.String()) == strconv.Itoa(number) {
			break
		}
		if taker.over() || tries == 20 {
			t.Fatalf("cannot have process number %d twice: %s%s", number, &taker.stdout, &taker.stderr)
		}
		taker.kill()
	}
	time.Sleep(20 * time.Millisecond) // it is older than the socket, as far as the kernel tells
	n = n.again(args...)
	n.unknown("it ran before podnotify listened")
	if s := n.status("d"); s.Main == nil || s.Main.PID != number || n.adopted("d") {
		t.Fatalf("main process %+v, want the second process %d", s.Main, number)
	}
	n.says("verdict=lost")
}

// TestRestartOtherBoot: what is known of another boot is about nobody.
func TestRestartOtherBoot(t *testing.T) {
	t.Parallel()
	args := []string{"--service", "d", "--expect", "notify"}
	n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
	n.daemon("d", `send READY=1; wait`, nobody)
	n.until("/readyz", 200)
	n.crash()
	boot := write(t, tempDir(t)+"/boot_id", "00000000-0000-4000-8000-000000000000\n")
	if x := n.pod.start(t, order{}, "mount", "--bind", boot, "/proc/sys/kernel/random/boot_id"); x.exit() != 0 {
		t.Fatal(&x.stderr)
	}
	n = n.again(args...)
	n.unknown("it ran before podnotify listened")
	n.says("verdict=foreign")
}

// TestRestartMidStop: a stop is answered by the next podnotify, and one that was
// answered needs no second.
func TestRestartMidStop(t *testing.T) {
	t.Parallel()
	for _, expect := range []string{"stop", "auto"} {
		args := []string{"--service", "d", "--expect", expect}
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
		n.crash()
		p := newPuppet(t)
		d := n.pod.start(t, p.order(order{uid: nobody}, ""), bin.self)
		stopped := make(chan string, 1)
		go func() { stopped <- p.ask(deed{Stop: true}) }()
		eventually(t, "it has stopped", func() bool { return strings.HasPrefix(field(d.Pid, "State"), "T") })
		n = n.again(args...)
		if said := <-stopped; said != "" {
			t.Fatal(said)
		}
		n.until("/readyz", 200)
		n.crash()
		n = n.again(args...)
		n.expect("/readyz", 200)
		d.signal(unix.SIGSTOP) // an operator's
		n.untilBody("/readyz", 503, "stopped by a signal")
		n.crash()
		n = n.again(args...)
		n.expect("/readyz", 503, "stopped by a signal")
		if !strings.HasPrefix(field(d.Pid, "State"), "T") {
			t.Fatal("an operator's stop was undone")
		}
		d.signal(unix.SIGCONT)
		n.until("/readyz", 200)
	}
}

// TestRestartPolicies: what an operator may want done about the unknown.
func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	args := []string{"--service", "d", "--expect", "notify"}
	// A daemon that says READY=1 when nobody listens, and again after a reload.
	script := `trap 'kill $!; exit' TERM; trap '"$0" send --reloading; "$0" send --ready' HUP; "$0" send --ready; while :; do sleep 1000 & wait $!; done`
	early := func(n *podnotify) *process {
		n.crash()
		d := n.pod.start(t, order{uid: nobody, env: []string{"NOTIFY_SOCKET=" + n.socket("d")}}, "sh", "-c", script, bin.podnotify)
		eventually(t, "it has spoken to nobody", func() bool { return strings.Contains(d.stderr.String(), "refused") })
		time.Sleep(20 * time.Millisecond)
		return d
	}
	t.Run("ready", func(t *testing.T) {
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
		early(n)
		n = n.again(append(args, "--policy-unknown", "ready")...)
		n.until("/readyz", 200)
		if w := n.status("d").Warnings; len(w) != 1 || !strings.HasPrefix(w[0], "called ready because policy.unknown says so") {
			t.Errorf("warnings %q", w)
		}
	})
	t.Run("reload", func(t *testing.T) {
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
		early(n)
		n = n.again(append(args, "--policy-unknown", "reload", "--signals-reload", "HUP")...)
		n.until("/readyz", 200)
		n.says(`phase=ready because="READY=1"`)
	})
	t.Run("reload, which would end it", func(t *testing.T) {
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
		d := early(n)
		n = n.again(append(args, "--policy-unknown", "reload", "--signals-reload", "USR1")...)
		n.unknown("it ran before podnotify listened")
		n.says("it would be ended by signals.reload")
		if d.over() {
			t.Fatal("it was ended")
		}
	})
	t.Run("restart", func(t *testing.T) {
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
		d := early(n)
		n = n.again(append(args, "--policy-unknown", "restart", "--timeouts-start", "1s")...)
		n.unknown("it ran before podnotify listened")
		d.exit()
		n.pod.start(t, order{uid: nobody, env: []string{"NOTIFY_SOCKET=" + n.socket("d")}}, "sh", "-c", script, bin.podnotify)
		n.until("/readyz", 200)
		if _, body := n.get("/metrics"); !strings.Contains(body, `podnotify_respawns_total{reason="unknown",service="d"} 1`) {
			t.Error(body)
		}
	})
}

// TestGracefulRestart: a podnotify that was told to go, while its daemon was not,
// finds it as it was.
func TestGracefulRestart(t *testing.T) {
	t.Parallel()
	args := []string{"--service", "d", "--expect", "notify"}
	n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
	n.daemon("d", `send READY=1; wait`, nobody)
	n.until("/readyz", 200)
	n.signal(unix.SIGTERM)
	n.untilBody("/readyz", 503, "it was asked to stop")
	n.signal(unix.SIGTERM) // in a hurry
	if code := n.exit(); code != 0 {
		t.Fatalf("podnotify ends with %d", code)
	}
	if fi, err := os.Lstat(n.socket("d")); err != nil || fi.Mode().Type() != os.ModeSocket {
		t.Errorf("there is no socket between two podnotifys: %v", err)
	}
	n = n.again(args...)
	n.expect("/readyz", 200)
}

// TestAlwaysASocket: there is one at the path whenever somebody looks, and one
// directory is served by one podnotify.
func TestAlwaysASocket(t *testing.T) {
	t.Parallel()
	args := []string{"--service", "d", "--expect", "notify"}
	n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
	done := make(chan error)
	stop := make(chan struct{})
	go func() {
		looks := 0
		for {
			select {
			case <-stop:
				if looks < 1000 {
					done <- fmt.Errorf("looked %d times only", looks)
				} else {
					done <- nil
				}
				return
			default:
			}
			fi, err := os.Lstat(n.socket("d"))
			if err == nil && (fi.Mode().Type() != os.ModeSocket || fi.Mode().Perm() != 0o666) {
				err = fmt.Errorf("it has mode %v", fi.Mode())
			}
			if err != nil {
				done <- err
				return
			}
			looks++
		}
	}()
	m := n
	for range 5 {
		m.crash()
		m = m.again(args...)
		x := m.pod.start(t, order{uid: nobody}, bin.podnotify, "sidecar", "--listen", "127.0.0.1:0", "--run-dir", m.dir, "--service", "d")
		if code := x.exit(); code != 1 || !strings.Contains(x.stderr.String(), "serves it; stop that one") {
			t.Fatalf("a second podnotify on one directory: %d %s", code, &x.stderr)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestDamagedState: a state file that cannot be read is set aside and reported,
// and costs nothing else.
func TestDamagedState(t *testing.T) {
	t.Parallel()
	args := []string{"--service", "d", "--expect", "notify"}
	n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
	p := newPuppet(t)
	n.pod.start(t, p.order(order{uid: nobody}, n.socket("d")), bin.self)
	p.say("READY=1")
	n.until("/readyz", 200)
	n.crash()
	if err := os.Truncate(n.dir+"/state/d.json", 100); err != nil {
		t.Fatal(err)
	}
	n = n.again(args...)
	n.unknown("it ran before podnotify listened")
	if w := n.status("d").Warnings; len(w) != 1 || !strings.Contains(w[0], "it was set aside as d.json.bad") {
		t.Errorf("warnings %q", w)
	}
	n.says("cannot use state file")
	if _, err := os.Stat(n.dir + "/state/d.json.bad"); err != nil {
		t.Error(err)
	}
	p.say("READY=1")
	n.expect("/readyz", 200)
}

// TestRestartContainerAlive: that a container lives on without its main process is
// known after a restart, too. But a main process that ended while nobody listened
// may have handed over to another, so that fails live for nobody.
func TestRestartContainerAlive(t *testing.T) {
	t.Parallel()
	args := []string{"--service", "d", "--expect", "notify", "--select-process", "^" + bin.self} // not kill
	for _, down := range []bool{false, true} {
		n := newPod(t).serve(t, order{uid: nobody}, "sidecar", args...)
		n.daemon("d", `spawn send MAINPID=$PID\nREADY=1| wait; wait`, nobody)
		n.until("/readyz", 200)
		main := n.status("d").Main.PID
		kill := func() {
			n.pod.do(t, "kill", "-9", strconv.Itoa(main))
			eventually(t, "it has ended", func() bool { return ended(n.pod.in("/proc/" + strconv.Itoa(main) + "/stat")) })
		}
		if down {
			n.crash()
			kill()
			n = n.again(args...)
			n.until("/readyz", 503)
			n.expect("/livez", 200)
		} else {
			kill()
			n.untilBody("/livez", 503, "no main process")
			n.crash()
			n = n.again(args...)
			n.expect("/livez", 503, "process")
		}
	}
}

// ended reports whether a process is a zombie or no more, by its stat file. Its first
// thread is a zombie while others still end.
func ended(stat string) bool {
	b, err := os.ReadFile(stat)
	threads, _ := os.ReadDir(filepath.Join(filepath.Dir(stat), "task"))
	return err != nil || strings.Contains(string(b), ") Z ") && len(threads) <= 1
}
