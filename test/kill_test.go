package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKilledAtAnyMoment ends podnotify by SIGKILL at random moments over the lives
// of daemons: while they start, are ready, reload, stop, and are gone; while they
// speak, and while podnotify itself starts. After each restart the answer is right,
// or it is "unknown"; never is a daemon called ready that is not; and of whom all
// was known, everything is known again.
//
//	PODNOTIFY_KILLS=1000   how often, over all lanes
//	PODNOTIFY_SEED=1       the choices of an earlier run (the kernel has its own)
func TestKilledAtAnyMoment(t *testing.T) {
	needRoot(t)
	kills := 200
	if os.Getenv("CI") == "true" {
		kills = 1000
	}
	if testing.Short() {
		kills = 40
	}
	if n, err := strconv.Atoi(os.Getenv("PODNOTIFY_KILLS")); err == nil {
		kills = n
	}
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("PODNOTIFY_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("PODNOTIFY_KILLS=%d PODNOTIFY_SEED=%d", kills, seed)
	expects := []string{"notify", "auto", "stop", "notify"}
	lanes := make([]*lane, len(expects))
	t.Run("lanes", func(t *testing.T) {
		for i, expect := range expects {
			lanes[i] = &lane{expect: expect, kills: kills / len(expects), seen: map[string]int{}}
			t.Run(fmt.Sprint(i, " ", expect), func(t *testing.T) {
				t.Parallel()
				lanes[i].run(t, rand.New(rand.NewPCG(seed, uint64(i))), rand.New(rand.NewPCG(seed, uint64(100+i))))
			})
		}
	})
	total := map[string]int{}
	for _, l := range lanes {
		for k, n := range l.seen {
			total[k] += n
		}
	}
	for _, k := range slices.Sorted(maps.Keys(total)) {
		t.Logf("%5d %s", total[k], k)
	}
}

// What a daemon is, and what podnotify may know of it.
const (
	none      = "none"
	starting  = "starting"
	ready     = "ready"
	reloading = "reloading"
	stopping  = "stopping"
	doubtful  = "unknown"
)

// lane is one daemon after another, and one podnotify after another.
type lane struct {
	t      *testing.T
	expect string
	kills  int
	seen   map[string]int // what happened, for the summary

	pod *pod
	dir string
	n   *podnotify

	step sync.Mutex // held while the daemon does something
	x    *process
	p    *puppet

	mu    sync.Mutex
	epoch int    // odd: podnotify is being killed
	truth string // what the daemon is
	// know is what podnotify may know of it. One entry: that is what it knows.
	know     map[string]bool
	heard    int  // in which epoch it was told that
	perhaps  bool // or it was told by a daemon that took until after the kill
	wordless bool // by a stop that was answered
	started  bool // and it knows that it was ready once
	up       bool // podnotify serves
	over     bool
}

func (l *lane) run(t *testing.T, daemons, killer *rand.Rand) {
	l.t, l.pod, l.dir = t, newPod(t), tempDir(t)
	l.truth, l.know, l.up = none, map[string]bool{none: true}, true
	l.n = l.pod.serveIn(t, order{uid: nobody}, l.dir, "sidecar", l.args()...)
	var life sync.WaitGroup
	life.Go(func() { l.live(daemons) })
	defer life.Wait()
	defer func() {
		l.mu.Lock()
		l.over = true
		l.mu.Unlock()
	}()
	for i := range l.kills {
		if killer.IntN(8) > 0 {
			time.Sleep(time.Duration(killer.Int64N(int64(90 * time.Millisecond))))
		}
		l.kill(l.n.process)
		for killer.IntN(6) == 0 { // and while it starts
			x := l.pod.start(t, order{uid: nobody}, l.command(freePort(t))...)
			time.Sleep(time.Duration(killer.Int64N(int64(30 * time.Millisecond))))
			l.kill(x)
		}
		if killer.IntN(3) == 0 { // it stays away for a while
			time.Sleep(time.Duration(killer.Int64N(int64(60 * time.Millisecond))))
		}
		l.n = l.pod.serveIn(t, order{uid: nobody}, l.dir, "sidecar", l.args()...)
		if l.check(i); t.Failed() {
			return
		}
	}
}

func (l *lane) args() []string { return []string{"--service", "d", "--expect", l.expect} }

func (l *lane) command(address string) []string {
	return append([]string{bin.podnotify, "sidecar", "--listen", address, "--run-dir", l.dir}, l.args()...)
}

// kill ends a podnotify. What is said from here on until it is gone may be lost.
func (l *lane) kill(x *process) {
	l.mu.Lock()
	l.epoch++
	l.up = false
	l.seen["killed, the daemon "+l.truth]++
	l.mu.Unlock()
	_ = x.Signal(unix.SIGKILL)
	<-x.ended
	l.mu.Lock()
	l.epoch++
	l.mu.Unlock()
}

// live has daemons live and die.
func (l *lane) live(r *rand.Rand) {
	dwell := func(most time.Duration) { time.Sleep(time.Duration(r.Int64N(int64(most)))) }
	for {
		l.mu.Lock()
		over := l.over
		l.mu.Unlock()
		if over {
			return
		}
		dwell(40 * time.Millisecond)
		l.begin()
		dwell(80 * time.Millisecond)
		if r.IntN(5) == 0 { // it never becomes ready
			l.end()
			continue
		}
		if r.IntN(2) == 0 {
			l.say("STATUS=still starting", "")
		}
		if l.expect == "stop" || l.expect == "auto" && r.IntN(2) == 0 {
			l.stop()
		} else {
			l.say("READY=1\nSTATUS=serving", ready)
		}
		dwell(200 * time.Millisecond)
		for range r.IntN(3) {
			l.say("RELOADING=1", reloading)
			dwell(60 * time.Millisecond)
			l.say("READY=1", ready)
			dwell(100 * time.Millisecond)
		}
		if r.IntN(3) > 0 {
			// To nobody it would be said for good, and the daemon taken for ready as
			// before: that is no fault that anybody could mend.
			eventually(l.t, "podnotify serves", func() bool {
				l.mu.Lock()
				defer l.mu.Unlock()
				return l.up || l.over
			})
			l.say("STOPPING=1", stopping)
			dwell(60 * time.Millisecond)
		}
		l.end()
	}
}

func (l *lane) begin() {
	l.step.Lock()
	defer l.step.Unlock()
	l.mu.Lock()
	l.truth, l.know, l.started = starting, map[string]bool{starting: true, doubtful: true}, false
	l.mu.Unlock()
	l.p = newPuppet(l.t)
	l.x = l.pod.start(l.t, l.p.order(order{uid: nobody}, l.dir+"/d/notify"), bin.self)
}

func (l *lane) end() {
	l.step.Lock()
	defer l.step.Unlock()
	l.x.kill()
	l.p.to.Close()
	l.p.from.Close()
	l.mu.Lock()
	l.truth, l.know = none, map[string]bool{none: true}
	l.mu.Unlock()
}

// say has the daemon send a word, after which it is what next says, and wait until
// podnotify has dealt with it. That is certain if no podnotify was killed meanwhile.
func (l *lane) say(text, next string) {
	l.step.Lock()
	defer l.step.Unlock()
	l.mu.Lock()
	epoch, before := l.epoch, l.know
	if next != "" {
		l.truth = next
		l.know = maps.Clone(l.know)
		l.know[next] = true
	}
	l.mu.Unlock()
	said := l.p.ask(deed{Data: []byte(text)})
	l.mu.Lock()
	defer l.mu.Unlock()
	switch certain := said == "" && l.epoch == epoch && epoch%2 == 0; {
	case next == "":
	case certain:
		l.know, l.heard, l.wordless = map[string]bool{next: true}, epoch, false
		if next == reloading && (before[starting] || before[doubtful]) {
			// READY=1 was lost, and then this may be said while starting (haproxy).
			l.know[starting] = true
		}
		l.started = l.started || next == ready
	case said == "":
		l.perhaps = true
		l.seen["word sent while podnotify was killed: "+next]++
	default:
		l.seen["word sent to nobody: "+next]++
	}
}

// stop has the daemon stop itself. It waits for an answer as long as it takes, and
// who has answered knows.
func (l *lane) stop() {
	l.step.Lock()
	defer l.step.Unlock()
	l.mu.Lock()
	l.know = maps.Clone(l.know)
	l.know[ready] = true
	l.mu.Unlock()
	if said := l.p.ask(deed{Stop: true}); said != "" {
		l.t.Error(said)
	}
	l.mu.Lock()
	l.truth = ready
	l.know, l.heard, l.wordless, l.started = map[string]bool{ready: true}, l.epoch, true, true
	l.mu.Unlock()
}

// told is what a podnotify says of its daemon.
type told struct {
	Phase   string
	Started bool
	Ready   bool
	Live    bool
	Adopted bool
	Main    *struct{ PID int }
	Checks  []struct {
		Name string
		OK   bool
	}
}

func (s told) unknown() bool {
	for _, c := range s.Checks {
		if c.Name == "unknown" {
			return !c.OK
		}
	}
	return false
}

// check holds a podnotify that has just begun to answer to what the daemon is and
// to what the one before it can have known.
func (l *lane) check(i int) {
	l.step.Lock()
	defer l.step.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.t
	look := func() (s told, body string) {
		code, _ := l.n.get("/readyz/d")
		_, body = l.n.get("/statusz/d")
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatal(err)
		}
		if s.Ready != (code == 200) && l.expect == "notify" {
			t.Errorf("kill %d: /readyz is %d, and /statusz says ready: %v", i, code, s.Ready)
		}
		return s, body
	}
	var s told
	var body string
	fail := func(format string, args ...any) {
		t.Helper()
		file, _ := os.ReadFile(l.dir + "/state/d.json")
		t.Fatalf("kill %d: %s\nthe daemon is %s, podnotify may know %v\n%s\n%s\n%s", i, fmt.Sprintf(format, args...),
			l.truth, slices.Sorted(maps.Keys(l.know)), body, file, &l.n.stderr)
	}
	// A daemon that stops itself makes progress by our answer, at any moment.
	s, body = look()
	if !s.Live {
		fail("a restart of podnotify made it unlive")
	}
	sure := len(l.know) == 1
	told := l.heard == l.epoch // not before its restart but after it
	if (told || l.perhaps) && l.know[reloading] {
		l.know[ready] = true // policy.reloading: keep
	}
	if sure && l.know[ready] && l.truth == ready && !(told && l.wordless) { // of whom all is known, at once
		if !s.Ready || !s.Started || !s.Adopted && !told || s.Main == nil || s.Main.PID != l.x.inner() {
			fail("a daemon that was ready is not ready again without speaking")
		}
	}
	if s.Ready && !l.know[ready] {
		fail("a wrong ready")
	}
	if s.Ready && l.truth != ready && l.truth != reloading {
		if l.truth != stopping || sure || told {
			fail("a wrong ready")
		}
		l.seen["ready, and its STOPPING=1 was thrown away by the kernel"]++
	}
	if s.Started && (l.truth == none || l.truth == starting) {
		fail("a wrong started")
	}
	if l.started && !s.Started && l.truth != none && !(told && l.wordless) {
		fail("started once is not started still")
	}
	// What is not ready may take a moment to be found.
	verdict := func() string {
		switch {
		case s.Ready:
			return ready
		case s.unknown():
			return doubtful
		case s.Main == nil:
			return none
		}
		return s.Phase
	}
	allowed := map[string]bool{}
	for k := range l.know {
		switch k {
		case starting:
			allowed[doubtful] = true
			allowed[starting] = allowed[starting] || told || l.expect == "stop"
		case reloading:
			allowed[doubtful] = true
		case doubtful:
			allowed[doubtful], allowed[starting] = true, true // of one clock tick with the socket
		default:
			allowed[k] = true
		}
	}
	for end := time.Now().Add(bound); !allowed[verdict()]; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			fail("it is called %q", verdict())
		}
		s, body = look()
		if s.Ready && !l.know[ready] {
			fail("a wrong ready")
		}
	}
	v := verdict()
	l.seen["then called "+v+", and is "+l.truth]++
	if sure && !told {
		l.seen["all was known"]++
	}
	// That is what it knows now, and no more.
	l.perhaps = false
	switch v {
	case none:
	case ready:
		if l.truth != stopping { // else it may be told yet
			l.know = map[string]bool{s.Phase: true}
		}
	default:
		l.know = map[string]bool{v: true}
	}
	l.started = l.started || s.Started
	l.up = true
	if strings.Contains(body, "set aside") {
		fail("a state file was damaged")
	}
}
