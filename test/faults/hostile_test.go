package faults

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is a sidecar of two services, one of which is ready.
func pair(t *testing.T, more map[string]string) (n *podnotify, d *actor) {
	t.Helper()
	needRoot(t)
	n = sidecar(t, room(t), more, "victim", "other")
	d = n.speaker("victim")
	d.say("READY=1", "STATUS=mine")
	n.expect("/readyz/victim", 200)
	return n, d
}

// unmoved wants the victim to be as it was: ready, with its own main process.
func unmoved(t *testing.T, n *podnotify, d *actor) {
	t.Helper()
	if s := n.status("victim"); !s.Ready || s.Status != "mine" || s.Main == nil || s.Main.PID != d.pid {
		t.Errorf("the victim is %+v, main %v, want it ready and %d", s, s.Main, d.pid)
	}
}

// TestForgedCredentials: the kernel lets nobody but root name another process or user as
// the sender. Root is believed, as everywhere; but nobody becomes a process of the service
// by it.
func TestForgedCredentials(t *testing.T) {
	n, d := pair(t, nil)
	for _, uid := range []int{owner, stranger} {
		x := n.actor(uid, "speak", "nobody", "victim")
		for _, forged := range []deed{{PID: d.pid, UID: uid}, {PID: n.pid, UID: uid}, {PID: 1, UID: 0}, {PID: x.pid, UID: 0}} {
			forged.Data, forged.Quick = "STOPPING=1", true
			if err := x.do(forged); err == nil || err.Error() != unix.EPERM.Error() {
				t.Errorf("uid %d forges %+v: %v, want %v of the kernel", uid, forged, err, unix.EPERM)
			}
		}
		x.say("STOPPING=1", "STATUS=theirs") // in its own name
		unmoved(t, n, d)
	}
	root := n.actor(0, "speak", "nobody", "victim")
	for _, pid := range []int{1, n.pid, n.speaker("other").pid} {
		if err := root.do(deed{Data: "STOPPING=1\nSTATUS=theirs", PID: pid}); err != nil {
			t.Fatal(err)
		}
		unmoved(t, n, d)
	}
	if err := root.do(deed{Data: "STATUS=root speaks for it", PID: d.pid, UID: owner}); err != nil {
		t.Fatal(err)
	}
	if s := n.status("victim"); s.Status != "root speaks for it" {
		t.Errorf("root is not believed: %+v", s)
	}
}

// TestMainPIDOfStrangers: no process but one of the service becomes its main process, and so
// none else is ever signalled.
func TestMainPIDOfStrangers(t *testing.T) {
	n, d := pair(t, nil)
	other := n.speaker("other")
	other.say("READY=1")
	alien := n.actor(stranger, "speak", "nobody", "victim")
	for _, pid := range []int{1, n.pid, other.pid, alien.pid, 1 << 30} {
		d.say(fmt.Sprintf("MAINPID=%d", pid))
		unmoved(t, n, d)
	}
	for _, v := range []string{"0", "-1", "4294967297", "18446744073709551616", "x", "", " 1"} {
		d.say("MAINPID=" + v)
		unmoved(t, n, d)
	}
	alien.say(fmt.Sprintf("MAINPID=%d\nREADY=1", alien.pid))
	unmoved(t, n, d)
	if w := n.status("victim").Warnings; !strings.Contains(strings.Join(w, "\n"), "MAINPID=1 is ignored: ") {
		t.Errorf("it is not said: %q", w)
	}
	if s := n.status("other"); !s.Ready || s.Main == nil || s.Main.PID != other.pid {
		t.Errorf("the other service is %+v", s)
	}
}

// TestBarrierDescriptors: BARRIER=1 is answered for anybody who sends one descriptor and
// nothing else. Whatever else comes is closed and counted, and changes nothing.
func TestBarrierDescriptors(t *testing.T) {
	n, d := pair(t, nil)
	for _, fds := range [][]string{nil, {"pipe", "pipe"}, {"null", "pipe"}, {"null"}, {"event"}, {"memfd"}, {"tcp"}} {
		for _, x := range []*actor{d, n.actor(stranger, "speak", "nobody", "victim")} {
			for _, data := range []string{"BARRIER=1", "BARRIER=1\nSTOPPING=1", "STOPPING=1\nBARRIER=1\nSTATUS=theirs"} {
				if err := x.do(deed{Data: data, FDs: fds}); err != nil {
					t.Errorf("%q with %v: %v", data, fds, err)
				}
			}
		}
	}
	unmoved(t, n, d)
	if n.status("victim").Counters.Dropped["barrier"] == 0 {
		t.Error("none is counted")
	}
	n.none(t)
}

// none waits until podnotify has no more descriptors than it needs.
func (n *podnotify) none(t *testing.T) {
	t.Helper()
	eventually(t, "descriptors are closed", func() bool {
		for _, kind := range []string{"memfd:actor", "eventfd]"} {
			if k := n.open(kind); kind == "memfd:actor" && k > 0 || k > 5 { // the runtime has one itself
				return false
			}
		}
		return n.weigh().fds < 60
	})
}

// open counts the descriptors of a kind.
func (n *podnotify) open(kind string) (k int) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.pid))
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.Contains(to, kind) {
			k++
		}
	}
	return k
}

// TestDescriptorBomb: 253 descriptors go with a datagram, and many such datagrams come.
// They are closed at once, also where they are said to be stored.
func TestDescriptorBomb(t *testing.T) {
	n, d := pair(t, nil)
	var most weight
	for _, data := range []string{"X=1", "FDSTORE=1\nFDNAME=bomb", "MAINPIDFD=1", "BARRIER=1", ""} {
		for _, kind := range []string{"null", "pipe", "memfd"} {
			for _, x := range []*actor{d, n.actor(stranger, "speak", "nobody", "victim")} {
				if err := x.do(deed{Data: data, FDs: []string{kind}, Times: 253, Repeat: 40}); err != nil {
					t.Errorf("%q with %s: %v", data, kind, err)
				}
				most.atLeast(n.weigh())
				unmoved(t, n, d)
			}
		}
	}
	n.light(most)
	n.none(t)
	if c := n.status("victim").Counters.Dropped; c["fdstore-off"] == 0 || c["descriptors"] == 0 {
		t.Errorf("counted %v", c)
	}
}

// TestClosingTakesAnHour: a descriptor can be one whose close(2) takes as long as its
// sender likes, and there can be many. Neither what is said later nor an answer waits.
func TestClosingTakesAnHour(t *testing.T) {
	n, d := pair(t, nil)
	for _, data := range []string{"X=1", "FDSTORE=1", "MAINPIDFD=1", "BARRIER=1", "BARRIER=1\nX=1", strings.Repeat("x", 5000)} {
		for _, x := range []*actor{d, n.actor(stranger, "speak", "nobody", "victim")} {
			for _, times := range []int{1, 8} {
				// The last close of it is to be podnotify's.
				n.halt()
				err := x.do(deed{Data: data, FDs: []string{"linger"}, Times: times, Quick: true})
				n.signal(unix.SIGCONT)
				if err != nil {
					t.Fatalf("%q: %v", data, err)
				}
				if err := x.do(deed{}); err != nil {
					t.Fatalf("after %q: %v", data, err)
				}
				unmoved(t, n, d)
			}
		}
	}
	peerOf(t, n, "other")
	n.expect("/healthz", 200)
	n.light(n.weigh())
	d.say("STOPPING=1")
	n.expect("/readyz/victim", 503)
}

// TestWithdrawn: a process of podnotify's own uid, in the same PID namespace, reaches
// neither its files nor its memory nor its descriptors.
func TestWithdrawn(t *testing.T) {
	n, d := pair(t, nil)
	for _, what := range []string{"root", "getfd", "trace"} {
		if err := d.do(deed{Try: fmt.Sprintf("%s %d", what, n.pid)}); err == nil {
			t.Errorf("%s: podnotify is open to a daemon of its uid", what)
		}
		if what != "root" {
			continue // Yama may forbid them between daemons, too
		}
		if err := d.do(deed{Try: fmt.Sprintf("%s %d", what, n.speaker("other").pid)}); err != nil {
			t.Errorf("%s: this shows nothing, another daemon is closed, too: %v", what, err)
		}
	}
}

// TestRunDirGames: the run-dir is one that the daemon may write to, against all advice.
// podnotify follows no link, waits for no FIFO, and believes no file that it has not
// written.
func TestRunDirGames(t *testing.T) {
	const secret = "root:x:0:0:secret\n"
	for _, game := range []struct {
		name string
		play func(dir, secret string) error // while podnotify is down
		ends bool                           // it refuses to start
	}{
		{"state is a link", func(dir, secret string) error { return replace(dir+"/state/victim.json", secret, os.Symlink) }, false},
		{"state is a FIFO", func(dir, _ string) error {
			return replace(dir+"/state/victim.json", "", func(_, path string) error { return unix.Mkfifo(path, 0o666) })
		}, false},
		{"state is a directory", func(dir, _ string) error {
			return replace(dir+"/state/victim.json", "", func(_, path string) error { return os.MkdirAll(path+"/x", 0o777) })
		}, false},
		{"state is somebody's", func(dir, _ string) error {
			return replace(dir+"/state/victim.json", "", func(_, path string) error {
				if err := os.WriteFile(path, []byte(`{"schema":1}`), 0o666); err != nil {
					return err
				}
				return os.Chown(path, stranger, stranger)
			})
		}, false},
		{"state is not ours", func(dir, _ string) error {
			return os.WriteFile(dir+"/state/victim.json", bytes.Repeat([]byte("{"), 1<<20), 0o600)
		}, false},
		{"the temporary name is a link", func(dir, secret string) error { return os.Symlink(secret, dir+"/state/.victim") }, false},
		{"the socket is a link", func(dir, secret string) error { return replace(dir+"/victim/notify", secret, os.Symlink) }, true},
		{"the socket is a file", func(dir, secret string) error { return replace(dir+"/victim/notify", secret, os.Link) }, true},
		{"the socket is a FIFO", func(dir, _ string) error {
			return replace(dir+"/victim/notify", "", func(_, path string) error { return unix.Mkfifo(path, 0o666) })
		}, true},
		{"the lock is a link", func(dir, secret string) error { return replace(dir+"/lock", secret, os.Symlink) }, true},
		{"the lock is a FIFO", func(dir, _ string) error {
			return replace(dir+"/lock", "", func(_, path string) error { return unix.Mkfifo(path, 0o666) })
		}, true},
		{"control is a link", func(dir, secret string) error { return replace(dir+"/control", secret, os.Symlink) }, true},
	} {
		t.Run(game.name, func(t *testing.T) {
			n, d := pair(t, nil)
			file := filepath.Join(bin.dir, "secret"+filepath.Base(n.dir))
			if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(file, owner, owner); err != nil { // podnotify could write to it
				t.Fatal(err)
			}
			eventually(t, "the state is on file", func() bool {
				b, _ := os.ReadFile(n.dir + "/state/victim.json")
				return bytes.Contains(b, []byte(`"ready"`))
			})
			n.kill()
			if err := game.play(n.dir, file); err != nil {
				t.Fatal(err)
			}
			again := command(t, n.dir, nil, "victim", "other")
			if up := again.answers(); up == game.ends {
				t.Errorf("it serves: %v\n%s", up, &again.stderr)
			} else if up {
				s := again.status("victim")
				if s.Ready != strings.HasPrefix(game.name, "the temporary") {
					t.Errorf("it is called ready: %+v", s)
				}
				d.say("READY=1", "STATUS=mine") // and what is said counts
				unmoved(t, again, d)
			} else if code := again.exit(); code != 1 {
				t.Errorf("it ends with %d", code)
			}
			if fi, err := os.Lstat(file); err != nil || fi.Mode() != 0o600 {
				t.Errorf("the file behind is %v, %v", fi.Mode(), err)
			}
			if b, err := os.ReadFile(file); string(b) != secret {
				t.Errorf("the file behind says %q, %v", b, err)
			}
		})
	}
}

// replace puts something else in the place of a file.
func replace(path, with string, put func(with, path string) error) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return put(with, path)
}

// TestSocketTakenAway: a daemon that may write to the directory of its socket removes
// that, or puts another in its place. It harms itself: others are heard, podnotify does
// not touch what is there, and after its restart the daemon is heard again.
func TestSocketTakenAway(t *testing.T) {
	n, d := pair(t, nil)
	path := n.socket("victim")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := d.do(deed{Data: "STOPPING=1"}); err == nil {
		t.Error("it is heard without a socket")
	}
	unmoved(t, n, d)
	peerOf(t, n, "other")
	if err := os.WriteFile(path, []byte("theirs"), 0o666); err != nil {
		t.Fatal(err)
	}
	n.signal(unix.SIGTERM)
	d.kill()
	if code := n.exit(); code != 0 {
		t.Errorf("podnotify ends with %d", code)
	}
	if b, err := os.ReadFile(path); string(b) != "theirs" {
		t.Errorf("what is not ours was removed: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	n = sidecar(t, n.dir, nil, "victim", "other")
	n.speaker("victim").say("READY=1")
	n.expect("/readyz/victim", 200)
}

func (p *process) signal(sig unix.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// halt stops it, and returns when it stands still: its threads stop one after the other.
func (p *process) halt() {
	p.t.Helper()
	p.signal(unix.SIGSTOP)
	eventually(p.t, "every thread is stopped", func() bool {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.pid))
		for _, task := range tasks {
			b, _ := os.ReadFile(task)
			if _, rest, ok := strings.Cut(string(b), ") "); ok && rest[0] != 'T' {
				return false
			}
		}
		return len(tasks) > 0
	})
}

// peerOf has a daemon of a service come, be ready and go.
func peerOf(t *testing.T, n *podnotify, service string) {
	t.Helper()
	x := n.speaker(service)
	x.say("READY=1")
	n.expect("/readyz/"+service, 200)
	x.kill()
	n.until("/readyz/"+service, 503)
}

// TestRunDirRenamed: the whole run-dir goes elsewhere while podnotify serves. It goes on,
// and writes what it knows where it was.
func TestRunDirRenamed(t *testing.T) {
	n, d := pair(t, nil)
	away := n.dir + ".away"
	if err := os.Rename(n.dir, away); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(away) })
	if err := os.Symlink("/etc", n.dir); err != nil {
		t.Fatal(err)
	}
	other := n.actor(owner, "speak", "other", away+"/other/notify")
	other.say("READY=1", "STATUS=heard")
	n.expect("/readyz/other", 200)
	unmoved(t, n, d)
	eventually(t, "it is written where the directory is", func() bool {
		b, _ := os.ReadFile(away + "/state/other.json")
		return bytes.Contains(b, []byte("heard"))
	})
	if err := os.Remove(n.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, n.dir); err != nil {
		t.Fatal(err)
	}
	n.kill()
	again := sidecar(t, n.dir, nil, "victim", "other")
	if s := again.status("victim"); !s.Ready || s.Main == nil || s.Main.PID != d.pid { // STATUS is written once a second
		t.Errorf("what was said before is forgotten: %+v", s)
	}
	if s := again.status("other"); !s.Ready || s.Main == nil || s.Main.PID != other.pid {
		t.Errorf("what was said meanwhile is forgotten: %+v", s)
	}
}

// TestPathRace: while podnotify starts again and again, another process, which may write
// to the directory of the socket, replaces whatever appears there by links to a file.
func TestPathRace(t *testing.T) {
	needRoot(t)
	dir := room(t)
	service := dir + "/victim"
	if err := os.Mkdir(service, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(service, 0o777); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(bin.dir, "race")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, owner, owner); err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	ended := make(chan int)
	go func() {
		replaced := 0
		for !over(end) {
			names, _ := os.ReadDir(service)
			for _, e := range names {
				path := filepath.Join(service, e.Name())
				if e.Type() != os.ModeSymlink && os.Remove(path) == nil && os.Symlink(file, path) == nil {
					replaced++
				}
			}
		}
		ended <- replaced
	}()
	for range number("PODNOTIFY_RACES", 20) {
		n := command(t, dir, nil, "victim")
		n.answers() // or it has refused to start
		n.kill()
		for _, name := range []string{"notify"} {
			_ = os.Remove(filepath.Join(service, name))
		}
	}
	close(end)
	t.Logf("%d files were replaced", <-ended)
	if fi, err := os.Lstat(file); err != nil || fi.Mode() != 0o600 {
		t.Errorf("the file behind is %v, %v", fi.Mode(), err)
	}
}
