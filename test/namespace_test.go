package test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/testdaemon"
)

// below puts a command into so many PID namespaces below its own, each in the other.
func below(levels int) (through []string) {
	for range levels {
		through = append(through, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
	}
	return through
}

// TestNamespaces: MAINPID is written in the numbers of the PID namespace where its
// sender lives, and means a process there, whoever the daemon runs as: podnotify reads
// nothing that is not everybody's.
func TestNamespaces(t *testing.T) {
	needRoot(t)
	need(t, "unshare", "util-linux")
	t.Parallel()
	for _, uid := range []int{0, nobody} {
		for levels, where := range []string{"the same", "a child", "a grandchild"} {
			for _, names := range []string{"itself", "its child", "1"} {
				t.Run(fmt.Sprintf("uid %d/%s/%s", uid, where, names), func(t *testing.T) {
					t.Parallel()
					p := newPod(t)
					n := p.serve(t, order{uid: uid}, "sidecar", "--service", "d", "--expect", "notify", "--select-process", "(^|/)testdaemon$")
					script := map[string]string{
						"itself":    `send MAINPID=$PID\nREADY=1; wait`,
						"its child": `spawn ignore|wait; send MAINPID=$CHILD\nREADY=1; wait`,
						"1":         `send MAINPID=1\nREADY=1; wait`,
					}[names]
					x := p.start(t, order{env: []string{"NOTIFY_SOCKET=" + n.socket("d"), testdaemon.Env(script)}, through: below(levels)}, bin.self)
					n.until("/readyz/d", 200)
					f := n.facts("d")
					child, err := n.isChild(x, f.Main.PID)
					if err != nil || child != (names == "its child") || levels > 0 && (f.Main.InnerPID == 1) == child {
						t.Fatalf("main process is %+v, a child: %v, %v", f.Main, child, err)
					}
					told := names != "1" || levels > 0 // in podnotify's own namespace process 1 is nobody's daemon
					if got := f.Counters.Dropped["bad-MAINPID"] == 0; got != told {
						t.Errorf("MAINPID is taken: %v, want %v; warnings %q", got, told, f.Warnings)
					}
				})
			}
		}
	}
}

// isChild reports whether the process that podnotify calls pid is a child of the daemon,
// or the daemon, which is among those started as x.
func (n *podnotify) isChild(x *process, pid int) (bool, error) {
	table, err := proc.Proc.Table()
	if err != nil {
		return false, err
	}
	for _, st := range table {
		names, err := proc.Proc.NSpid(st.PID)
		if err == nil && len(names) > 1 && names[1] == pid && (st.PID == x.Pid || table.Descends(st.PID, x.Pid)) {
			return table[st.PPID].Comm == st.Comm, nil
		}
	}
	return false, proc.ErrGone
}

// TestNamespaceBeside: who lives where podnotify cannot see is not heard, and the
// answer says what to do.
func TestNamespaceBeside(t *testing.T) {
	needRoot(t)
	t.Parallel()
	p, sibling := newPod(t), newPod(t)
	n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify")
	sibling.start(t, order{env: []string{"NOTIFY_SOCKET=" + n.socket("d"), testdaemon.Env(`send MAINPID=1\nREADY=1; wait`)}}, bin.self)
	n.untilBody("/readyz/d", 503, "add shareProcessNamespace: true")
}

// TestMainPIDOfOthers: a daemon cannot name one of another service, nor podnotify, nor
// process 1.
func TestMainPIDOfOthers(t *testing.T) {
	needRoot(t)
	t.Parallel()
	p := newPod(t)
	config := write(t, tempDir(t)+"/c.yaml", `
services:
  - {name: a, expect: notify, select: {process: "testdaemon a$"}}
  - {name: b, expect: notify, select: {process: "testdaemon b$"}}
`)
	n := p.serve(t, order{}, "sidecar", "--config", config)
	start := func(name, script string) *process {
		return p.start(t, order{env: []string{"NOTIFY_SOCKET=" + n.socket(name), testdaemon.Env(script)}}, bin.self, name)
	}
	b := start("b", "send READY=1; wait")
	n.until("/readyz/b", 200)
	a := start("a", fmt.Sprintf(`send MAINPID=%d; send MAINPID=%d; send MAINPID=1; send READY=1; wait`, b.inner(), n.inner()))
	n.until("/readyz/a", 200)
	f := n.facts("a")
	if f.Main.PID != a.inner() || f.Counters.Dropped["bad-MAINPID"] != 3 {
		t.Errorf("main process is %d, want %d; %v", f.Main.PID, a.inner(), f.Counters.Dropped)
	}
	if code, _, stderr := n.command("kill", "--signal", "KILL", "a"); code != 0 {
		t.Fatal(stderr)
	}
	a.exit()
	n.until("/readyz/a", 503)
	n.expect("/readyz/b", 200)
}

// TestDeadOnArrival: what a number meant to who is gone is believed only where it can
// mean one process.
func TestDeadOnArrival(t *testing.T) {
	needRoot(t)
	need(t, "unshare", "util-linux")
	for levels, where := range []string{"the same", "a child"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			n := p.serve(t, order{}, "sidecar", "--service", "d", "--expect", "notify", "--select-process", "(^|/)testdaemon$")
			go1, done := tempDir(t)+"/go", tempDir(t)+"/done"
			script := fmt.Sprintf(`spawn ignore|wait; send STATUS=1; await %s; spawn send MAINPID=$PARENT; join; touch %s; wait`, go1, done)
			p.start(t, order{env: []string{"NOTIFY_SOCKET=" + n.socket("d"), testdaemon.Env(script)}, through: below(levels)}, bin.self)
			eventually(t, "the daemon is seen", func() bool { return n.facts("d").Main != nil })
			was := n.facts("d").Main.PID
			n.signal(unix.SIGSTOP)
			touch(t, go1)
			eventually(t, "its child has spoken and ended", func() bool { return exists(done) })
			n.signal(unix.SIGCONT)
			eventually(t, "it is heard", func() bool { return n.facts("d").Counters.Datagrams == 2 })
			f := n.facts("d")
			if f.Main.PID != was {
				t.Errorf("main process was %d and is %d; warnings %q", was, f.Main.PID, f.Warnings)
			}
			if ignored := f.Counters.Dropped["bad-MAINPID"] > 0; ignored != (levels > 0) {
				t.Errorf("ignored: %v; warnings %q", ignored, f.Warnings)
			}
		})
	}
}
