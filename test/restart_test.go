package test

import (
	"encoding/json"
	"os"
	"testing"

	"golang.org/x/sys/unix"
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
