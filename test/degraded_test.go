package test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Here the directory for state fails in real ways. podnotify serves on, says so,
// and no probe fails for it.

// in is a path as the pod sees it.
func (p *pod) in(path string) string { return fmt.Sprintf("/proc/%d/root%s", p.pid, path) }

// do runs a command in the pod, as root, and wants it to succeed.
func (p *pod) do(t *testing.T, argv ...string) {
	t.Helper()
	if x := p.start(t, order{}, argv...); x.exit() != 0 {
		t.Fatalf("%v: %s", argv, &x.stderr)
	}
}

// degraded waits until it is said that state is not kept, or that it is.
func (n *podnotify) degraded(yes bool) {
	n.t.Helper()
	want := `podnotify_degraded{what="state"} 0`
	if yes {
		want = `podnotify_degraded{what="state"} 1`
	}
	n.untilBody("/metrics", 200, want)
	eventually(n.t, "a warning comes and goes", func() bool {
		for _, w := range n.status("d").Warnings {
			if strings.HasPrefix(w, "state is not kept in "+n.dir+"/state: ") {
				return yes
			}
		}
		return !yes
	})
}

// onFile waits until the state file has a text.
func (n *podnotify) onFile(text string) {
	n.t.Helper()
	eventually(n.t, "the state file says "+text, func() bool {
		b, _ := os.ReadFile(n.pod.in(n.dir + "/state/d.json"))
		return strings.Contains(string(b), text)
	})
}

// TestStateNotKept: a run-dir that fills up, or cannot be written to any more.
func TestStateNotKept(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		fail, mend []string
		reason     string
	}{
		{"full", []string{"sh", "-c", `cat /dev/zero >"$0/filler" 2>/dev/null; : `}, []string{"sh", "-c", `rm "$0/filler"`}, "no space left on device"},
		{"closed", []string{"sh", "-c", `chmod 555 "$0/state"`}, []string{"sh", "-c", `chmod 700 "$0/state"`}, "permission denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, dir := newPod(t), tempDir(t)
			p.do(t, "mount", "-t", "tmpfs", "-o", "size=64k,mode=1777", "podnotify", dir)
			args := []string{"--service", "d", "--expect", "notify"}
			n := p.serveIn(t, order{uid: nobody}, dir, "sidecar", args...)
			pp := newPuppet(t)
			p.start(t, pp.order(order{uid: nobody}, n.socket("d")), bin.self)
			pp.say("STATUS=warming up")
			n.degraded(false)
			n.onFile(`"phase":"starting"`)
			p.do(t, append(c.fail, dir)...)
			pp.say("READY=1\nSTATUS=serving")
			n.expect("/readyz", 200)
			n.degraded(true)
			n.says(c.reason)
			n.expect("/readyz", 200)
			n.expect("/livez", 200)
			n.expect("/healthz", 200)
			pp.say("RELOADING=1")
			pp.say("READY=1")
			n.expect("/readyz", 200)
			p.do(t, append(c.mend, dir)...)
			n.degraded(false) // it tries again, although nothing happens
			n.onFile(`"phase":"ready"`)
			n.says("state is kept again")
			n.crash()
			n = p.serveIn(t, order{uid: nobody}, dir, "sidecar", args...)
			n.expect("/readyz", 200)
		})
	}
}

// onDisk mounts a disk of its own, without a journal, and returns its device.
func (p *pod) onDisk(t *testing.T, dir string) string {
	t.Helper()
	need(t, "mkfs.ext4", "e2fsprogs")
	need(t, "fsfreeze", "util-linux")
	disk := tempDir(t) + "/disk"
	p.do(t, "truncate", "-s", "8M", disk)
	p.do(t, "mkfs.ext4", "-q", "-O", "^has_journal", disk)
	if x := p.start(t, order{}, "mount", "-o", "loop,errors=remount-ro", disk, dir); x.exit() != 0 {
		lacking(t, "missing loop devices, to have a disk that fails: "+x.stderr.String())
	}
	p.do(t, "chmod", "1777", dir)
	x := p.start(t, order{}, "findmnt", "-no", "SOURCE", dir)
	x.exit()
	return strings.TrimPrefix(strings.TrimSpace(x.stdout.String()), "/dev/")
}

// TestStateReadOnly: the kernel makes a disk read-only that has an error.
func TestStateReadOnly(t *testing.T) {
	t.Parallel()
	p, dir := newPod(t), tempDir(t)
	device := p.onDisk(t, dir)
	args := []string{"--service", "d", "--expect", "notify"}
	n := p.serveIn(t, order{uid: nobody}, dir, "sidecar", args...)
	pp := newPuppet(t)
	p.start(t, pp.order(order{uid: nobody}, n.socket("d")), bin.self)
	pp.say("STATUS=warming up")
	n.onFile(`"phase":"starting"`)
	if err := os.WriteFile("/sys/fs/ext4/"+device+"/trigger_fs_error", []byte("a test of podnotify\n"), 0); err != nil {
		lacking(t, "missing trigger_fs_error of ext4: "+err.Error())
	}
	pp.say("READY=1")
	n.expect("/readyz", 200)
	n.degraded(true)
	n.says("read-only file system")
	n.expect("/readyz", 200)
	n.expect("/livez", 200)
	n.expect("/healthz", 200)
	n.crash()
	x := p.start(t, order{uid: nobody}, bin.podnotify, "sidecar", "--listen", "127.0.0.1:0", "--run-dir", dir, "--service", "d")
	if code := x.exit(); code != 1 {
		t.Errorf("it starts where nothing can be written: %d", code)
	}
}

// TestStateHangs: a disk that does not answer holds up neither the daemon, nor the
// probes, nor a stop.
func TestStateHangs(t *testing.T) {
	t.Parallel()
	needRoot(t)
	p, dir := newPod(t), tempDir(t)
	p.onDisk(t, dir)
	thaw := func() { p.start(t, order{}, "fsfreeze", "-u", dir).exit() }
	t.Cleanup(thaw) // or podnotify could not even be killed
	args := []string{"--service", "d", "--expect", "auto"}
	n := p.serveIn(t, order{uid: nobody}, dir, "sidecar", args...)
	pp := newPuppet(t)
	t.Cleanup(thaw)
	p.start(t, pp.order(order{uid: nobody}, n.socket("d")), bin.self)
	pp.say("STATUS=warming up")
	n.onFile(`"phase":"starting"`)
	p.do(t, "fsfreeze", "-f", dir)
	pp.do(deed{Stop: true}) // it is continued all the same
	n.until("/readyz", 200)
	for range 100 {
		pp.say("RELOADING=1")
		pp.say("READY=1")
		n.expect("/readyz", 200)
	}
	n.degraded(true)
	n.says("a write has taken longer than 100ms")
	n.expect("/livez", 200)
	n.expect("/healthz", 200)
	thaw()
	n.degraded(false)
	n.onFile(`"phase":"ready"`)
}

// TestStateDirRefused: at the start a directory that cannot be written to is an error.
func TestStateDirRefused(t *testing.T) {
	t.Parallel()
	needRoot(t)
	p, dir := newPod(t), tempDir(t)
	p.do(t, "mount", "-t", "tmpfs", "-o", "size=64k,mode=1777", "podnotify", dir)
	p.do(t, "mkdir", dir+"/state")
	p.do(t, "chmod", "555", dir+"/state")
	for _, remount := range []bool{false, true} {
		if remount {
			p.do(t, "mount", "-o", "remount,ro", dir)
		}
		x := p.start(t, order{uid: nobody}, bin.podnotify, "sidecar", "--listen", "127.0.0.1:0", "--run-dir", dir, "--service", "d")
		if code := x.exit(); code != 1 {
			t.Fatalf("podnotify ends with %d: %s", code, &x.stderr)
		}
		x.says("--run-dir")
	}
}
