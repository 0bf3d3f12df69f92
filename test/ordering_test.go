package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/testdaemon"
)

// bothWays runs a test of a service called d under run and in a sidecar. begin
// starts podnotify with some flags and then the daemon, of one uid; under run
// the daemon's output is podnotify's.
func bothWays(t *testing.T, test func(t *testing.T, begin beginner)) {
	t.Run("run", func(t *testing.T) {
		test(t, func(o order, flags []string, argv ...string) (*podnotify, *process) {
			t.Helper()
			n := serveRun(t, o, append(append(flags, "--service", "d", "--"), argv...)...)
			return n, n.process
		})
	})
	t.Run("sidecar", func(t *testing.T) {
		test(t, func(o order, flags []string, argv ...string) (*podnotify, *process) {
			t.Helper()
			if o.uid == 0 {
				o.uid = nobody
			}
			p := newPod(t)
			n := p.serve(t, order{uid: o.uid}, "sidecar", append(flags, "--service", "d")...)
			o.env = append(o.env, "NOTIFY_SOCKET="+n.socket("d"))
			return n, p.start(t, o, argv...)
		})
	})
}

// serveRun is podnotify run. It is asked to end before it is killed, because a
// daemon outlives a podnotify that was killed.
func serveRun(t *testing.T, o order, args ...string) *podnotify {
	t.Helper()
	n := (*pod)(nil).serve(t, o, "run", args...)
	t.Cleanup(func() {
		if !n.over() {
			n.signal(unix.SIGTERM)
			n.exit()
		}
	})
	return n
}

type beginner func(o order, flags []string, argv ...string) (*podnotify, *process)

// statusz is what the tests read of /statusz/d.
type statusz struct {
	Phase        string
	Ready        bool
	Status       string
	Errno        struct{ Number int }
	BusError     string
	VarlinkError string
	Main         *struct{ PID int }
	LastExit     *struct{ Reason, Signal string }
	UnknownKeys  map[string]uint64
	Counters     struct {
		Datagrams uint64
		Dropped   map[string]uint64
	}
}

func (n *podnotify) statusz() statusz {
	n.t.Helper()
	code, body := n.get("/statusz/d")
	var s statusz
	if err := json.Unmarshal([]byte(body), &s); code != http.StatusOK || err != nil {
		n.t.Fatalf("GET /statusz/d is %d: %v: %s", code, err, body)
	}
	return s
}

// flaps lists the changes away from ready, which the metric counts however short
// they were.
func (n *podnotify) flaps() string {
	n.t.Helper()
	_, body := n.get("/metrics")
	var out strings.Builder
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "podnotify_transitions_total{") && strings.Contains(line, `from="ready"`) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// steady fails the test unless it became ready and has been ready ever since.
func (n *podnotify) steady() {
	n.t.Helper()
	if flaps := n.flaps(); flaps != "" {
		n.t.Errorf("it was not always ready:\n%s", flaps)
	}
	if _, body := n.get("/metrics"); !strings.Contains(body, `podnotify_ready{service="d"} 1`) {
		n.t.Errorf("it is not ready:\n%s", body)
	}
}

// keen asks as fast as it can, on one connection that is kept open.
type keen struct {
	http.Client
	url string
}

func newKeen(t *testing.T, n *podnotify, path string) *keen {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &keen{http.Client{Transport: tr, Timeout: bound}, "http://" + n.address + path}
}

func (k *keen) ask() (int, string, error) {
	r, err := k.Get(k.url)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

// TestHandOver: an old process names the new one and ends at once. The service
// must not be seen to go, not even for a moment.
func TestHandOver(t *testing.T) {
	rounds := 10000
	if testing.Short() {
		rounds = 500
	}
	chain := compile(t, "chain", "-static")
	bothWays(t, func(t *testing.T, begin beginner) {
		life, theirs := channel(t)
		n, d := begin(order{stdin: theirs}, nil, chain, strconv.Itoa(rounds))
		n.until("/readyz/d", 200)

		var asked atomic.Int64
		var observers sync.WaitGroup
		done := make(chan struct{})
		observers.Go(func() {
			k := newKeen(t, n, "/readyz/d")
			for {
				select {
				case <-done:
					return
				default:
				}
				if code, body, err := k.ask(); err != nil || code != http.StatusOK {
					t.Errorf("after %d answers: %d %s %v", asked.Load(), code, body, err)
					return
				}
				asked.Add(1)
			}
		})
		begun := time.Now()
		last, at := -1, time.Now()
		for last < rounds && !t.Failed() {
			s := n.statusz()
			if k, _ := strconv.Atoi(s.Status); k != last {
				last, at = k, time.Now()
			} else if time.Since(at) > bound {
				t.Errorf("nothing happens after round %d: %+v", last, s)
			}
			time.Sleep(20 * time.Millisecond)
		}
		close(done)
		observers.Wait()
		n.steady()
		if asked.Load() == 0 {
			t.Error("nobody watched")
		}
		if s := n.statusz(); s.Main == nil || s.Main.PID == d.Pid {
			t.Errorf("main process %+v, want the last of the chain", s.Main)
		}
		t.Logf("%d rounds in %v, %d answers", last, time.Since(begun).Round(time.Millisecond), asked.Load())
		life.Close() // ends the chain
		if d == n.process {
			if code := n.exit(); code != 0 {
				t.Errorf("podnotify run ends with code %d, want that of the last of the chain", code)
			}
		} else {
			n.until("/readyz/d", 503)
		}
	})
}

// TestLastWords: what a daemon said just before it was killed is known when its
// end is, although it is dead before anyone can have read it.
func TestLastWords(t *testing.T) {
	rounds := 1000
	if testing.Short() {
		rounds = 50
	}
	lastwords := compile(t, "lastwords", "-static")
	p := newPod(t)
	n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--select-process", "^lastwords-daemon ")
	life, theirs := channel(t)
	p.start(t, order{uid: nobody, stdin: theirs, env: []string{"NOTIFY_SOCKET=" + n.socket("d")}}, lastwords)

	k := newKeen(t, n, "/statusz/d")
	until := func(i int, ok func(statusz) bool) statusz {
		t.Helper()
		var s statusz
		for end := time.Now().Add(bound); time.Now().Before(end); {
			code, body, err := k.ask()
			s = statusz{}
			if err != nil || code != http.StatusOK || json.Unmarshal([]byte(body), &s) != nil {
				t.Fatalf("round %d: %d %s %v", i, code, body, err)
			}
			if ok(s) {
				return s
			}
		}
		t.Fatalf("round %d: it stays %+v", i, s)
		return s
	}
	for i := range rounds {
		fmt.Fprint(life, "n") // a new one
		until(i, func(s statusz) bool { return s.Ready && s.Status == fmt.Sprint("up ", i) })
		fmt.Fprint(life, "d") // and its death
		s := until(i, func(s statusz) bool { return s.Phase != "ready" })
		if want := fmt.Sprint("last words ", i); s.Phase != "gone" || s.Status != want || s.Errno.Number != 5 {
			t.Fatalf("round %d: gone with %+v, want %q and errno 5", i, s, want)
		}
	}
	if os.Getenv(kernelVariable) == "" { // before Linux 6.15 only its parent is told how it ended
		until(rounds, func(s statusz) bool { return s.LastExit != nil && s.LastExit.Signal == "KILL" })
	}
}

// TestTemporaryServer: images of databases start a server of their own first,
// which finds NOTIFY_SOCKET and says READY=1. The entry process speaks last.
func TestTemporaryServer(t *testing.T) {
	for name, script := range map[string]string{
		"says stopping": "send STATUS=begin; spawn send READY=1|barrier|send STOPPING=1|exit 0; join; barrier; await FILE; send READY=1; send STATUS=up; wait",
		// Its word has to have held for longer than that of a short-lived helper.
		"ends silently": "send STATUS=begin; spawn send READY=1|barrier|sleep 700ms|exit 0; join; barrier; await FILE; send READY=1; send STATUS=up; wait",
		"is killed":     "send STATUS=begin; spawn send READY=1|barrier|sleep 700ms|kill KILL; join; barrier; await FILE; send READY=1; send STATUS=up; wait",
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, begin beginner) {
				file := tempDir(t) + "/go"
				n, _ := begin(order{env: []string{testdaemon.Env(strings.ReplaceAll(script, "FILE", file))}}, nil, bin.self)
				var s statusz
				eventually(t, "starting again", func() bool {
					s = n.statusz()
					return s.Phase == "starting" && n.flaps() != ""
				})
				write(t, file, "")
				n.until("/readyz/d", 200)
				eventually(t, "the entry process's word", func() bool { s = n.statusz(); return s.Status == "up" })
				if !s.Ready || s.Main == nil {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestReadyAfterTemporaryServer: the entry process says READY=1 in the moment in
// which the temporary server ends. Nobody repeats it.
func TestReadyAfterTemporaryServer(t *testing.T) {
	bothWays(t, func(t *testing.T, begin beginner) {
		for range 10 {
			n, _ := begin(order{env: []string{testdaemon.Env("spawn send READY=1|send STOPPING=1|exit 0; join; send READY=1\\nSTATUS=up; barrier; wait")}}, nil, bin.self)
			eventually(t, "up", func() bool { return n.statusz().Status == "up" })
			n.until("/readyz/d", 200)
		}
	})
}

// TestShortLivedHelper: systemd-notify in a shell script speaks for the script,
// and is gone before it can be looked at. As root it signs with the number of
// its parent, otherwise with its own.
func TestShortLivedHelper(t *testing.T) {
	need(t, "systemd-notify", "systemd")
	for _, uid := range []int{0, nobody} {
		t.Run(fmt.Sprint("uid ", uid), func(t *testing.T) {
			needRoot(t)
			p := newPod(t)
			for name, n := range map[string]*podnotify{
				"sidecar": p.serve(t, order{uid: uid}, "sidecar", "--service", "d"),
				"run": serveRun(t, order{uid: uid}, "--service", "d", "--",
					"sh", "-c", "systemd-notify --ready --status=up; systemd-notify --no-block WATCHDOG=1; exec sleep 1000"),
			} {
				pid := 0
				if name == "sidecar" {
					pid = p.start(t, order{uid: uid, env: []string{"NOTIFY_SOCKET=" + n.socket("d")}},
						"sh", "-c", "systemd-notify --ready --status=up; systemd-notify --no-block WATCHDOG=1; exec sleep 1000").inner()
				}
				n.until("/readyz/d", 200)
				eventually(t, name+": the second helper is heard", func() bool {
					_, body := n.get("/metrics")
					return strings.Contains(body, `podnotify_watchdog_pings_total{service="d"} 1`)
				})
				// Both ends have been news for longer than a helper's word holds.
				for end := time.Now().Add(600 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
					n.expect("/readyz/d", 200)
				}
				n.steady()
				s := n.statusz()
				if s.Status != "up" || s.Main == nil || pid != 0 && s.Main.PID != pid {
					t.Errorf("%s: %+v, want main process %d", name, s, pid)
				}
			}
		})
	}
}
