package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// anonymousMost is what podnotify may hold at any moment of any test here, in KiB. At rest
// it holds some 3 MiB.
const anonymousMost = 24 << 10

// TestFlood: as many processes as like send whatever there is, as fast as they can, to one
// service: its own and strangers, of several uids. Memory is bounded, every probe is
// answered, and of other services all that is said is heard at once.
//
// Ten million datagrams: PODNOTIFY_FLOOD=10000000.
func TestFlood(t *testing.T) {
	needRoot(t)
	count := number("PODNOTIFY_FLOOD", 100_000)
	s := seed(t)
	n := sidecar(t, room(t), nil, "loud", "quiet", "beat")
	beat := n.actor(owner, "beat", "beat", "beat")
	measure := beat.measure
	peer(t, n, 0)
	n.until("/readyz/beat", 200)
	measure(0)
	time.Sleep(2 * time.Second) // how long a send takes without a flood
	quiet := measure(0)
	before := n.weigh()

	var floods []*actor
	for i, f := range []struct {
		uid  int
		name string
	}{{owner, "loud"}, {owner, "loud"}, {stranger, "loud"}, {stranger, "other"}, {owner, "other"}, {0, "other"}} {
		floods = append(floods, n.actor(f.uid, "flood", f.name, "loud", strconv.Itoa(count/6), strconv.FormatUint(s+uint64(i), 10)))
	}
	var most weight
	end := make(chan struct{})
	var watching sync.WaitGroup
	probes := 0
	watching.Go(func() {
		for ; !over(end); time.Sleep(20 * time.Millisecond) {
			for _, path := range []string{"/readyz/beat", "/livez", "/healthz"} {
				if code, body, err := n.ask(path); err != nil || code != 200 {
					t.Errorf("GET %s is %d %q, %v", path, code, body, err)
				}
				probes++
			}
			most.atLeast(n.weigh())
		}
	})
	began := time.Now()
	rounds := 1
	for sent := uint64(0); rounds < 20 || sent < uint64(count); rounds++ {
		peer(t, n, rounds)
		sent = n.status("loud").Counters.Datagrams
	}
	for i, f := range floods {
		if over(f.ended) {
			t.Errorf("flood %d has ended", i)
		}
		f.in.Close()
	}
	sent := 0
	for _, f := range floods {
		var r flooded
		if err := f.out.Decode(&r); err != nil {
			t.Fatal(err)
		}
		sent += r.Sent
	}
	took := time.Since(began)
	close(end)
	watching.Wait()
	limit := 3 * quiet.P99
	loud := measure(limit)
	n.expect("/readyz/beat", 200)

	t.Logf("%d datagrams in %.1f s, %d rounds of another service, %d probes answered", sent, took.Seconds(), rounds, probes)
	t.Logf("a third service's send takes, us: quiet p50 %.0f p99 %.0f max %.0f (%d); in the flood p50 %.0f p99 %.0f max %.0f (%d); p99 is %.1f times as long",
		quiet.P50, quiet.P99, quiet.Max, quiet.Count, loud.P50, loud.P99, loud.Max, loud.Count, loud.P99/quiet.P99)
	t.Logf("of %d sends %d took longer than 3 times the quiet p99, which is %.0f us: %d waited for podnotify, the longest %.0f us; the others waited %.0f us for a processor and took %.0f us",
		loud.Count, loud.Slow.Count, limit, loud.Slow.Slept, loud.Slow.Longest, loud.Slow.Ready, loud.Slow.Ran)
	t.Logf("podnotify held at most %d KiB, %d descriptors, %d threads; before %d, %d, %d",
		most.anonymous, most.fds, most.threads, before.anonymous, before.fds, before.threads)
	if loud.Count == 0 || loud.Max > float64(bound.Microseconds()) {
		t.Errorf("another service's sender waited for the flood: %+v", loud)
	}
	n.light(most)
	d := n.status("loud").Counters
	t.Logf("of the flood %d were received, dropped %v", d.Datagrams, d.Dropped)
	if d.Datagrams < uint64(count) || d.Dropped["not-admitted"] == 0 || d.Dropped["nul"] == 0 || d.Dropped["too-long"] == 0 {
		t.Errorf("received %d, dropped %v", d.Datagrams, d.Dropped)
	}
}

// measure asks a beat for its sends since it was asked last. Longer than limit, in us, is slow.
func (a *actor) measure(limit float64) (b beaten) {
	a.t.Helper()
	if err := json.NewEncoder(a.in).Encode(limit); err != nil {
		a.t.Fatal(err)
	}
	if err := a.out.Decode(&b); err != nil {
		a.t.Fatal(err)
	}
	return b
}

// TestSenderWaits: a sender that waits for podnotify is told from one that waits for a
// processor.
func TestSenderWaits(t *testing.T) {
	needRoot(t)
	n := sidecar(t, room(t), nil, "beat")
	beat := n.actor(owner, "beat", "beat", "beat")
	n.until("/readyz/beat", 200)
	if err := unix.Kill(n.pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waiting := func() bool {
		calls, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", beat.pid))
		return slices.ContainsFunc(calls, func(file string) bool {
			call, _ := os.ReadFile(file)
			return strings.HasPrefix(string(call), strconv.Itoa(unix.SYS_SENDMSG)+" ")
		})
	}
	eventually(t, "the queue is full", waiting)
	if err := unix.Kill(n.pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if s := beat.measure(0).Slow; s.Slept == 0 || s.Slept == s.Count {
		t.Errorf("of %d sends %d waited for podnotify", s.Count, s.Slept)
	}
}

// light holds what podnotify weighed at most to its bounds.
func (n *podnotify) light(most weight) {
	n.t.Helper()
	if most.anonymous > anonymousMost {
		n.t.Errorf("podnotify held %d KiB, at most %d are allowed", most.anonymous, anonymousMost)
	}
	// A service holds 128 processes and 256 barriers. 1024 descriptors may wait to be closed,
	// and the kernel has some ten datagrams with 253 each by the time it refuses them.
	if most.fds > 5000 {
		n.t.Errorf("podnotify held %d descriptors", most.fds)
	}
	if most.threads > 100 {
		n.t.Errorf("podnotify had %d threads", most.threads)
	}
}

// peer is a life of a daemon of the quiet service: all it says is true for the next probe.
func peer(t *testing.T, n *podnotify, round int) {
	t.Helper()
	d := n.speaker("quiet")
	text := fmt.Sprintf("round %d", round)
	d.say("STATUS=" + text)
	if s := n.status("quiet"); s.Phase != "starting" || s.Ready || s.Status != text {
		t.Fatalf("STATUS=%s: %+v", text, s)
	}
	d.say("READY=1")
	n.expect("/readyz/quiet", 200)
	d.say("RELOADING=1", "MONOTONIC_USEC=1", "STATUS=again "+text)
	if s := n.status("quiet"); s.Phase != "reloading" || s.Status != "again "+text {
		t.Fatalf("RELOADING=1: %+v", s)
	}
	d.say("READY=1")
	n.expect("/readyz/quiet", 200)
	d.say("STOPPING=1")
	if s := n.status("quiet"); s.Phase != "stopping" || s.Ready {
		t.Fatalf("STOPPING=1: %+v", s)
	}
	n.expect("/readyz/quiet", 503)
	d.kill()
	eventually(t, "the end is seen", func() bool { return n.status("quiet").Phase == "gone" })
}
