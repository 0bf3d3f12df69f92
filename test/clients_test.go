package test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// clientVariable makes the test binary a daemon that talks by go-systemd.
const clientVariable = "PODNOTIFY_TEST_CLIENT"

// clientMain is client.c by go-systemd, which can have descriptors handed to it
// but stores none.
func clientMain() int {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		return 3
	}
	handed := activation.Files(false)
	for _, text := range []string{fmt.Sprintf("STATUS=process %d", os.Getpid()), fmt.Sprintf("%s\nMAINPID=%d", sd.SdNotifyReady, os.Getpid())} {
		if ok, err := sd.SdNotify(false, text); !ok || err != nil {
			fmt.Fprintln(os.Stderr, "cannot notify:", err)
			return 2
		}
	}
	fmt.Println("watchdog", interval.Microseconds(), "handed", len(handed), "- -")
	for {
		time.Sleep(max(interval/4, 10*time.Millisecond))
		if ok, err := sd.SdNotify(false, sd.SdNotifyWatchdog); !ok || err != nil {
			return 2
		}
	}
}

// python wants a module of Debian's Python, whatever other is in PATH.
func python(t *testing.T, module, debian string) string {
	t.Helper()
	const program = "/usr/bin/python3"
	need(t, program, "python3")
	if err := exec.Command(program, "-c", "import "+module).Run(); err != nil {
		lacking(t, fmt.Sprintf("missing the Python module %s; apt-get install %s", module, debian))
	}
	return program
}

// TestClients: the libraries that daemons talk by find all that they look for:
// the socket, the watchdog's interval, and their descriptors after a respawn.
func TestClients(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		argv   func(t *testing.T) []string
		stores bool
		env    []string
	}{
		"libsystemd": {argv: func(t *testing.T) []string { return []string{compile(t, "client", "-lsystemd")} }, stores: true},
		"python3-systemd": {argv: func(t *testing.T) []string {
			return []string{python(t, "systemd.daemon", "python3-systemd"), "testdata/client.py"}
		}, stores: true},
		"python3-sdnotify": {argv: func(t *testing.T) []string {
			return []string{python(t, "sdnotify", "python3-sdnotify"), "testdata/plain.py"}
		}},
		"go-systemd": {argv: func(*testing.T) []string { return []string{bin.self} }, env: []string{clientVariable + "=1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := (*pod)(nil).supervised(t, order{env: tt.env}, []string{"--service", "d", "--expect", "notify", "--watchdog-interval", "3s", "--fdstore-max", "2",
				"--respawn-mode", "exec", "--respawn-delay", "0"}, tt.argv(t)...)
			want := "watchdog 3000000 handed 0 - -\n"
			for i := range 3 {
				eventually(t, "it is told", func() bool { return strings.Count(n.stdout.String(), "\n") == i+1 })
				if n.stdout.String() != want {
					t.Fatalf("it is told %q, want %q", n.stdout.String(), want)
				}
				n.until("/readyz", 200)
				s := n.facts("d")
				if s.Main == nil || s.Status != fmt.Sprintf("process %d", s.Main.PID) || len(amiss(s.Warnings)) > 0 || len(s.Counters.Dropped) > 0 {
					t.Errorf("statusz: %+v", s)
				}
				pings := s.Counters.Pings
				eventually(t, "it pings", func() bool { return n.facts("d").Counters.Pings > pings+1 })
				n.expect("/livez", 200)
				if code, _, errs := n.command("respawn"); code != 0 {
					t.Fatalf("respawn ends with %d: %s", code, errs)
				}
				if tt.stores {
					want += "watchdog 3000000 handed 1 state kept\n"
				} else {
					want += "watchdog 3000000 handed 0 - -\n"
				}
			}
		})
	}
	t.Run("sidecar", func(t *testing.T) { // nothing is stored, nobody is held up
		t.Parallel()
		client := compile(t, "client", "-lsystemd")
		for _, uid := range []int{nobody, nobody + 1} {
			p := newPod(t)
			n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d")
			d := p.start(t, order{uid: uid, env: []string{"NOTIFY_SOCKET=" + n.socket("d"), "WATCHDOG_USEC=3000000"}}, client)
			n.until("/readyz", 200)
			eventually(t, "it is told", func() bool { return d.stdout.String() == "watchdog 3000000 handed 0 - -\n" })
			s := n.facts("d")
			if s.Main == nil || s.Main.PID != d.inner() || s.Status != fmt.Sprintf("process %d", d.inner()) || s.Counters.Dropped["fdstore-off"] != 1 {
				t.Errorf("statusz of process %d: %+v", d.inner(), s)
			}
		}
	})
}

// TestUpgrade: a daemon replaces itself by a new process, by either way there is,
// again and again. Nobody sees it go; signals reach the new one, and what the old
// one still says is about itself.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	dirs := map[string]string{
		"announced by the new": `await DIR/begin;spawn send MAINPID=$PID\nREADY=1\nSTATUS=second|barrier|touch DIR/told|wait|touch DIR/term|exit 6;await DIR/told;` + remains + `exit 0`,
		"named by the old":     `await DIR/begin;spawn await DIR/named|send READY=1\nSTATUS=second|barrier|touch DIR/told|wait|touch DIR/term|exit 6;send MAINPID=$CHILD;barrier;touch DIR/named;await DIR/told;` + remains + `exit 0`,
		"reloading meanwhile":  `await DIR/begin;send RELOADING=1;spawn send MAINPID=$PID\nREADY=1\nSTATUS=second|barrier|touch DIR/told|wait|touch DIR/term|exit 6;await DIR/told;` + remains + `exit 0`,
		"stopping meanwhile":   `await DIR/begin;spawn await DIR/named|send READY=1\nSTATUS=second|barrier|touch DIR/told|wait|touch DIR/term|exit 6;send STOPPING=1;send MAINPID=$CHILD;barrier;touch DIR/named;await DIR/told;` + remains + `exit 0`,
	}
	for name, script := range dirs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			n := scripted(t, []string{"--expect", "notify", "--timeouts-stop", "0"}, strings.ReplaceAll("send READY=1;"+script, "DIR", dir))
			n.until("/readyz", 200)
			old := hold(t, n.mainPID("d"))
			live := n.watch("/livez")
			ready := n.watch("/readyz")
			touch(t, dir+"/begin")
			eventually(t, "the old one has said its last words", func() bool { return exists(dir + "/last") })
			s := n.facts("d")
			if s.Phase != "ready" || !s.Ready || s.Status != "second" || s.Main == nil || s.Main.PID == old.ID().PID {
				t.Errorf("statusz, while the old one lives: %+v", s)
			}
			touch(t, dir+"/end")
			eventually(t, "the old one has ended", old.Ended)
			for range 20 {
				n.expect("/readyz", 200)
				time.Sleep(5 * time.Millisecond)
			}
			if s := n.facts("d"); s.Phase != "ready" || len(amiss(s.Warnings)) > 0 {
				t.Errorf("statusz: %+v", s)
			}
			if codes := live.end(); len(codes) != 1 || codes[0] != 200 {
				t.Errorf("/livez was %v, want 200 always", codes)
			}
			if codes := ready.end(); name != "stopping meanwhile" && (len(codes) != 1 || codes[0] != 200) {
				t.Errorf("/readyz was %v, want 200 always", codes)
			}
			n.signal(unix.SIGTERM)
			if code := n.exit(); code != 6 || !exists(dir+"/term") {
				t.Errorf("exit code %d, TERM reached the new one: %t; want 6, true", code, exists(dir+"/term"))
			}
		})
	}
}

// remains is what an old process goes on saying, until it is told to end.
const remains = `send STOPPING=1;send RELOADING=1;send READY=1;send STOPPING=1;barrier;touch DIR/last;await DIR/end;`
