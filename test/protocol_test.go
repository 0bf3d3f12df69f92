package test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// TestBarrier: when sd_notify_barrier() of libsystemd returns, the next GET is
// answered by what was sent before. The daemon itself asks, so that no time
// passes in between.
func TestBarrier(t *testing.T) {
	rounds := 1000
	if testing.Short() {
		rounds = 100
	}
	prog := compile(t, "barrier", "-lsystemd")
	bothWays(t, func(t *testing.T, begin beginner) {
		wire, theirs := channel(t)
		n, d := begin(order{stdin: theirs}, []string{"--policy-reloading", "not-ready"}, prog, "d", fmt.Sprint(rounds))
		fmt.Fprintln(wire, strings.Replace(n.address, ":", " ", 1))
		for end := time.Now().Add(4 * bound); !strings.Contains(d.stdout.String(), "rounds"); time.Sleep(5 * time.Millisecond) {
			if d.over() || time.Now().After(end) {
				t.Fatalf("it does not come to an end: %+v", n.statusz())
			}
		}
		if want := fmt.Sprintf("%d rounds, 0 wrong\n", rounds); d.stdout.String() != want {
			t.Errorf("%swant %s", &d.stdout, want)
		}
	})
}

// begun is a service d whose daemon is a puppet.
func begun(t *testing.T, begin beginner, flags ...string) (*podnotify, *puppet) {
	t.Helper()
	p := newPuppet(t)
	n, _ := begin(p.order(order{}, ""), flags, bin.self)
	return n, p
}

// nasty is text that must reach nobody as it is: it would speak to a terminal, a
// browser or a parser.
const nasty = "\x1b[31mred\x1b[0m <script>alert(1)</script> & \"q\" \\n \t\x7f \u009b31m \u202edrow \xff\xfe\xc3( end"

// harmless fails the test if a text that podnotify shows could do harm.
func harmless(t *testing.T, where, s string, html bool) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Errorf("%s is not UTF-8: %q", where, s)
	}
	for _, r := range s {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			t.Errorf("%s holds %U: %q", where, r, s)
			break
		}
	}
	if html && strings.Contains(s, "<script") {
		t.Errorf("%s holds HTML: %q", where, s)
	}
}

// TestTextIsEscaped: whatever a daemon says, nobody who looks at it is harmed.
func TestTextIsEscaped(t *testing.T) {
	bothWays(t, func(t *testing.T, begin beginner) {
		n, p := begun(t, begin, "--log-level", "debug")
		p.say("READY=1")
		p.say("STATUS="+nasty, "ERRNO=5", "BUSERROR=org."+nasty, "VARLINKERROR=io."+nasty)
		p.say("X_"+nasty+"=1", nasty, "MAINPID="+nasty, "NOTIFYACCESS="+nasty, "WATCHDOG="+nasty,
			"WATCHDOG_USEC="+nasty, "EXTEND_TIMEOUT_USEC="+nasty, "ERRNO="+nasty, "FDNAME="+nasty, "EXIT_STATUS="+nasty)
		p.say("podnotify_ready{service=\"d\"} 1\r\n\r\nHTTP/1.1 200 OK")

		for path, want := range map[string]string{
			"/readyz":           `STATUS=\x1b[31mred`,
			"/readyz/d":         `&lt;script&gt;alert(1)&lt;/script&gt; &amp; "q" \n \t\x7f \u009b31m \u202edrow \xff\xfe\xc3( end`,
			"/readyz?verbose":   "[-]errno failed",
			"/startupz?verbose": "[+]start ok",
			"/livez?verbose":    "[+]process ok",
			"/ready?full=1":     "errno",
			"/live?full=1":      "",
			"/statusz":          `\u003cscript`,
			"/statusz/d":        `\u001b[31mred`,
			"/metrics":          `podnotify_unknown_keys_total{service="d"} 4`,
		} {
			_, body := n.get(path)
			harmless(t, path, body, true)
			if !strings.Contains(body, want) {
				t.Errorf("%s does not show %q: %q", path, want, body)
			}
		}
		// A program reads the very text, but for what UTF-8 cannot say.
		s, want := n.statusz(), strings.NewReplacer("\xff", `\xff`, "\xfe", `\xfe`, "\xc3", `\xc3`).Replace(nasty)
		if s.Status != want || s.BusError != "org."+want || s.VarlinkError != "io."+want || s.Errno.Number != 5 {
			t.Errorf("statusz says %+v, want the text %q", s, want)
		}
		if len(s.UnknownKeys) != 4 {
			t.Errorf("unknown keys %v, want 4", s.UnknownKeys)
		}
		code, out, _ := n.command("status")
		harmless(t, "podnotify status", out, false)
		if code != 3 || !strings.Contains(out, "red") {
			t.Errorf("podnotify status: code %d, want 3: %q", code, out)
		}
		_, out, _ = n.command("status", "-o", "json")
		harmless(t, "podnotify status -o json", out, false)
		_, out, _ = n.command("healthcheck", "ready")
		harmless(t, "podnotify healthcheck", out, false)
		harmless(t, "the log", n.stderr.String(), false)
	})
}

// TestOddDatagrams: a datagram is heard whole or not at all, and leaves nothing
// open behind it.
func TestOddDatagrams(t *testing.T) {
	bothWays(t, func(t *testing.T, begin beginner) {
		n, p := begun(t, begin)
		p.say("READY=1", "STATUS=first")
		n.expect("/readyz/d", 200)
		s := n.statusz()
		if s.Main == nil {
			t.Fatalf("no main process: %+v", s)
		}
		before := s.Counters.Datagrams
		open := n.descriptors()

		status := func(want string) {
			t.Helper()
			if got := n.statusz().Status; got != want {
				t.Errorf("status of %d bytes %.30q, want %d bytes %.30q", len(got), got, len(want), want)
			}
		}
		longest := strings.Repeat("a", 4096-len("STATUS=")-1) + "z"
		p.say("STATUS=" + longest)
		status(longest)
		p.say("STATUS=" + longest + "y")
		status(longest)
		p.say("STATUS=" + strings.Repeat("b", 100000))
		status(longest)
		p.say("STATUS=second\x00STATUS=third")
		status(longest)
		p.say("STATUS=fourth\x00")
		status("fourth")
		p.say("STATUS=fifth\r\nSTATUS=sixth\r\n")
		status("fifth") // the first counts
		p.say("\n\r\n=\n\nSTATUS=seventh\n\n")
		status("seventh")
		for range 20 {
			p.say("")
		}
		const fds = 253 // SCM_MAX_FD
		p.do(deed{Data: []byte("STATUS=eighth\nFDSTORE=1\nFDNAME=all"), FDs: fds})
		status("eighth")
		p.do(deed{Data: []byte("STATUS=" + strings.Repeat("c", 5000)), FDs: fds})
		p.do(deed{Data: []byte("STATUS=\x00x"), FDs: fds})
		p.do(deed{FDs: 3})
		p.do(deed{Data: []byte("BARRIER=1\nSTATUS=ninth"), FDs: 1})
		p.do(deed{Data: []byte("BARRIER=1"), FDs: 7})
		p.do(deed{Data: []byte("BARRIER=1")})
		status("eighth")

		n.expect("/readyz/d", 200)
		s = n.statusz()
		for reason, want := range map[string]uint64{"too-long": 3, "nul": 2, "barrier": 3, "descriptors": 3, "fdstore-off": fds} {
			if got := s.Counters.Dropped[reason]; got != want {
				t.Errorf("%d dropped as %s, want %d", got, reason, want)
			}
		}
		// Each of the 34 came with a barrier of its own.
		if got := s.Counters.Datagrams - before; got != 2*34 {
			t.Errorf("%d datagrams counted, want %d", got, 2*34)
		}
		eventually(t, fmt.Sprintf("no more than %d descriptors are open", open), func() bool { return n.descriptors() <= open })
		n.steady()
	})
}

// descriptors counts what podnotify has open.
func (n *podnotify) descriptors() int {
	n.t.Helper()
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	return len(d)
}

// TestDescriptorsUsedUp: a podnotify that may open no more drops what it cannot
// receive whole, and goes on.
func TestDescriptorsUsedUp(t *testing.T) {
	prlimit := need(t, "prlimit", "util-linux")
	p := newPuppet(t)
	n := serveRun(t, p.order(order{through: []string{prlimit, "--nofile=40:1024"}}, ""), "--service", "d",
		"--", prlimit, "--nofile=1024:1024", bin.self)
	p.say("READY=1", "STATUS=first")
	n.until("/readyz/d", 200)
	if err := unix.Prlimit(n.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 40, Max: 40}, nil); err != nil {
		t.Fatal(err) // the Go runtime has raised it
	}
	open := n.descriptors()
	p.do(deed{Data: []byte("STATUS=second"), FDs: 253})
	s := n.statusz()
	if s.Status != "first" || s.Counters.Dropped["control-truncated"] != 1 {
		t.Errorf("%+v, want it dropped whole", s)
	}
	p.say("STATUS=third")
	if s := n.statusz(); s.Status != "third" || !s.Ready {
		t.Errorf("afterwards: %+v", s)
	}
	eventually(t, fmt.Sprintf("no more than %d descriptors are open", open), func() bool { return n.descriptors() <= open })
}

// TestNotReady: what looks like READY=1 and is not.
func TestNotReady(t *testing.T) {
	bothWays(t, func(t *testing.T, begin beginner) {
		n, p := begun(t, begin, "--expect", "notify")
		for _, line := range []string{"READY=0", "READY=yes", "READY=", "READY", "ready=1", " READY=1", "READY=1 ", "READY=11", "STATUS=\\\nREADY=0", "RELOADING=1"} {
			p.say(line)
			n.expect("/readyz/d", 503)
			n.expect("/startupz/d", 503)
			n.expect("/livez/d", 200)
		}
		p.say("READY=1")
		n.expect("/readyz/d", 200)
		p.say("READY=0")
		n.expect("/readyz/d", 200)
		p.say("READY=1", "STOPPING=1")
		n.expect("/readyz/d", 503, "stopping")
		p.say("READY=1")
		n.expect("/readyz/d", 503, "stopping")
	})
}

// TestUnknownKeys: they are counted and named, and a daemon that makes them up
// does not fill the memory.
func TestUnknownKeys(t *testing.T) {
	bothWays(t, func(t *testing.T, begin beginner) {
		n, p := begun(t, begin)
		p.say("READY=1", "X_ONE=1", "X_TWO=1", "no key", "X_ONE=2")
		s := n.statusz()
		if got := fmt.Sprint(s.UnknownKeys); got != "map[X_ONE:2 X_TWO:1 no key:1]" || !s.Ready {
			t.Errorf("unknown keys %s", got)
		}
		for i := range 100 {
			p.say(fmt.Sprintf("Y_%d%s=1", i, strings.Repeat("y", 4000*(i%2))))
		}
		s = n.statusz()
		var sum uint64
		for _, n := range s.UnknownKeys {
			sum += n
		}
		if sum != 104 || len(s.UnknownKeys) > 40 {
			t.Errorf("%d unknown keys of %d names, want 104 of 40 at most", sum, len(s.UnknownKeys))
		}
		n.expect("/metrics", 200, `podnotify_unknown_keys_total{service="d"} 104`)
		n.expect("/readyz/d", 200)
	})
}

// TestAbstractAddress is for daemons with no directory in common with podnotify.
func TestAbstractAddress(t *testing.T) {
	address := fmt.Sprintf("@podnotify-test/%d", os.Getpid())
	t.Run("run", func(t *testing.T) {
		p := newPuppet(t)
		n := serveRun(t, p.order(order{}, ""), "--service", "d", "--notify-address", address, "--", bin.self)
		p.say("READY=1", "STATUS=up")
		n.expect("/readyz/d", 200)
		n.expect("/statusz/d", 200, `"status":"up"`)
	})
	t.Run("sidecar", func(t *testing.T) {
		pd, p := newPod(t), newPuppet(t)
		n := pd.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--notify-address", address)
		pd.start(t, p.order(order{uid: nobody}, address), bin.self)
		p.say("READY=1", "STATUS=up")
		n.expect("/readyz/d", 200)
		n.expect("/statusz/d", 200, `"status":"up"`)
	})
}

// drops says how many datagrams were dropped for a reason.
func (n *podnotify) drops(reason string) uint64 {
	n.t.Helper()
	return n.statusz().Counters.Dropped[reason]
}

// named counts the lines of the log about dropped datagrams.
func (n *podnotify) named(reason string) (lines int) {
	for line := range strings.Lines(n.stderr.String()) {
		if strings.Contains(line, "datagram dropped") && strings.Contains(line, "reason="+reason+" ") {
			lines++
			if _, cure, _ := strings.Cut(line, "cure="); len(cure) < len(`"it"`) {
				n.t.Errorf("no cure in the log: %s", line)
			}
		}
	}
	return lines
}

// TestAccess: whose words count. A child of the main process says twice what
// has to be dropped; the log names it once.
func TestAccess(t *testing.T) {
	for _, access := range []string{"main", "exec", "none", "all", "any"} {
		if access == "any" && os.Getenv(kernelVariable) != "" {
			continue // it is refused
		}
		t.Run(access, func(t *testing.T) {
			bothWays(t, func(t *testing.T, begin beginner) {
				n, p := begun(t, begin, "--notify-access", access)
				p.say("READY=1", "STATUS=main") // nothing else says that it is the main process
				admitted := access != "none"
				if s := n.statusz(); s.Ready != admitted || (s.Status == "main") != admitted {
					t.Fatalf("after the word of the main process: %+v", s)
				}
				n.expect("/metrics", 200, fmt.Sprintf(`podnotify_ready{service="d"} %d`, map[bool]int{true: 1}[admitted]))
				before, named := n.drops("access"), map[bool]int{false: 1}[admitted]
				eventually(t, "the log names the main process", func() bool { return n.named("access") == named })
				p.child("send STATUS=child; send STATUS=child; barrier; exit 0")
				if access == "all" || access == "any" {
					if s := n.statusz(); s.Status != "child" || s.Counters.Dropped["access"] != 0 {
						t.Fatalf("after the word of its child: %+v", s)
					}
					return
				}
				if s := n.statusz(); s.Status == "child" || s.Counters.Dropped["access"] != before+2 {
					t.Fatalf("after the word of its child: %+v", s)
				}
				n.expect("/metrics", 200, fmt.Sprintf(`podnotify_dropped_total{reason="access",service="d"} %d`, before+2))
				eventually(t, "the log names the child", func() bool { return n.named("access") > named })
				p.child("send STATUS=other; barrier; exit 0") // what the log was told before stands before it
				eventually(t, "the log names another child", func() bool { return n.named("access") > named+1 })
				if got := n.named("access"); got != named+2 {
					t.Errorf("the log names two children %d times, want each once", got-named)
				}
				// One that is dead before it can be looked at is not the main process either.
				p.child("send STATUS=child; exit 0")
				p.say("X_BARRIER=1")
				if s := n.statusz(); s.Status == "child" {
					t.Errorf("after the word of a dead child: %+v", s)
				}
			})
		})
	}
}

// TestRefusedIsSaid: who waits for a word that is refused is told so, not that
// nothing was said.
func TestRefusedIsSaid(t *testing.T) {
	bothWays(t, func(t *testing.T, begin beginner) {
		n, p := begun(t, begin, "--notify-access", "none", "--timeouts-start", "50ms")
		p.say("READY=1")
		n.untilBody("/readyz", 503, "senders that are not admitted")
	})
}

// TestAccessAtRunTime: NOTIFYACCESS= holds from the next datagram on.
func TestAccessAtRunTime(t *testing.T) {
	bothWays(t, func(t *testing.T, begin beginner) {
		n, p := begun(t, begin)
		says := func(want string) {
			t.Helper()
			if got := n.statusz().Status; got != want {
				t.Errorf("status %q, want %q", got, want)
			}
		}
		p.say("READY=1")
		p.child("send STATUS=one; barrier; exit 0")
		says("one")
		p.say("NOTIFYACCESS=main", "STATUS=two")
		p.child("send STATUS=three; barrier; exit 0")
		says("two")
		p.say("NOTIFYACCESS=nonsense") // the configured one
		p.child("send STATUS=four; barrier; exit 0")
		says("four")
		p.child("send NOTIFYACCESS=none; send STATUS=five; barrier; exit 0")
		p.say("STATUS=six")
		says("four")
		if got := n.drops("access"); got != 3 {
			t.Errorf("%d dropped, want 3", got)
		}
		n.steady()
	})
}

// TestStranger: a process of the pod that is none of the service's may send, but
// nobody listens to it.
func TestStranger(t *testing.T) {
	pd, p := newPod(t), newPuppet(t)
	n := pd.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--select-process", "^"+bin.self+"( |$)")
	stranger := func(args ...string) {
		t.Helper()
		// It waits for its barrier, so it is alive when it is heard.
		x := pd.start(t, order{uid: nobody, env: []string{"NOTIFY_SOCKET=" + n.socket("d")}}, append([]string{bin.podnotify, "send"}, args...)...)
		if code := x.exit(); code != 0 {
			t.Fatalf("podnotify send ends with code %d", code)
		}
	}
	stranger("--ready", "--status=stranger")
	n.expect("/readyz/d", 503)
	d := pd.start(t, p.order(order{uid: nobody}, n.socket("d")), bin.self)
	p.say("STATUS=own")
	stranger("--ready", "--status=stranger")
	n.expect("/readyz/d", 503)
	p.say("READY=1")
	n.expect("/readyz/d", 200)
	stranger("--stopping", "ERRNO=5", "MAINPID=1", "WATCHDOG=trigger")
	n.expect("/readyz/d", 200)
	s := n.statusz()
	if s.Status != "own" || s.Main == nil || s.Main.PID != d.inner() || s.Counters.Dropped["not-admitted"] != 3 {
		t.Errorf("%+v, want what process %d said and 3 dropped", s, d.inner())
	}
	eventually(t, "the log names each", func() bool { return n.named("not-admitted") == 3 })

	// And neither may the service's own process make a stranger the main one.
	other := pd.start(t, order{uid: nobody}, "sleep", "1000")
	p.say(fmt.Sprint("MAINPID=", other.inner()), "STATUS=named")
	s = n.statusz()
	if s.Status != "named" || s.Main == nil || s.Main.PID != d.inner() || s.Counters.Dropped["bad-MAINPID"] != 1 {
		t.Errorf("%+v, want MAINPID=%d ignored", s, other.inner())
	}
	var all struct{ Warnings []string }
	if _, body := n.get("/statusz/d"); json.Unmarshal([]byte(body), &all) != nil || !strings.Contains(strings.Join(all.Warnings, "\n"), fmt.Sprint("MAINPID=", other.inner())) {
		t.Errorf("no warning names it: %q", all.Warnings)
	}
}
