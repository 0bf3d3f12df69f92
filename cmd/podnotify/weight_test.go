package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/internal/lean"
)

// TestLean: nearly nothing is initialised before internal/lean, and nothing that has much to
// keep.
func TestLean(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run", "^$")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	before, _, found := strings.Cut(string(out), "init github.com/podnotify/podnotify/internal/lean ")
	if err != nil || !found {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(before, "\ninit "); n > 20 || strings.Contains(before, "init github.com/") || strings.Contains(before, "init net") {
		t.Errorf("%d packages come before it:\n%s", n, before)
	}
}

// TestProcs: few processors, but as many as the environment says.
func TestProcs(t *testing.T) {
	before := lean.Procs
	defer func() { lean.Procs = before }()
	for _, test := range []struct {
		there int
		env   []string
		mode  config.Mode
		want  int
	}{
		{64, nil, config.Sidecar, 1},
		{64, nil, config.Run, 3},
		{2, nil, config.Run, 2},
		{1, nil, config.Run, 1},
		{64, []string{"GOMAXPROCS="}, config.Sidecar, 1},
		{8, []string{"GOMAXPROCS=8"}, config.Sidecar, 8},
		{8, []string{"GOMAXPROCS=8"}, config.Run, 8},
	} {
		lean.Procs = test.there
		a := &app{environ: test.env}
		if n := a.procs(test.mode); n != test.want {
			t.Errorf("%d of %d with %q and mode %v, want %d", n, test.there, test.env, test.mode, test.want)
		}
	}
}

// TestGiveBack: memory is given back after as many answers for each service, of some.
func TestGiveBack(t *testing.T) {
	t.Setenv("GOGC", "off") // nobody else collects
	before := debug.SetGCPercent(-1)
	defer debug.SetGCPercent(before)
	forced := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumForcedGC
	}
	for services, after := range map[int]int{0: giveBack, 1: giveBack, 2: 2 * giveBack, 1000: giveBackMost * giveBack} {
		server := light(&http.Server{Handler: http.NotFoundHandler()}, services)
		answer := func(n int) {
			for range n {
				server.Handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
			}
		}
		was := forced()
		answer(after - 1)
		if is := forced(); is != was {
			t.Errorf("of %d services it was given back %d times too early", services, is-was)
		}
		answer(1)
		for begin := time.Now(); forced() == was; time.Sleep(time.Millisecond) { // it is done aside
			if time.Since(begin) > 10*time.Second {
				t.Fatalf("of %d services nothing was given back", services)
			}
		}
	}
}

// TestCrowd: while many connections are open memory is collected later, and after that it
// is again as it was.
func TestCrowd(t *testing.T) {
	t.Setenv("GOGC", "")
	if light(&http.Server{Handler: http.NotFoundHandler()}, 1).ConnState == nil {
		t.Error("nobody counts connections")
	}
	before := debug.SetGCPercent(gcPercent)
	defer debug.SetGCPercent(before)
	percent := func() int {
		is := debug.SetGCPercent(gcPercent)
		debug.SetGCPercent(is)
		return is
	}
	var c crowd
	for range crowded - 1 {
		c.watch(nil, http.StateNew)
		c.watch(nil, http.StateActive)
	}
	if is := percent(); is != gcPercent {
		t.Errorf("of a few it is %d", is)
	}
	c.watch(nil, http.StateNew)
	if is := percent(); is != crowdPercent {
		t.Errorf("of a crowd it is %d", is)
	}
	debug.SetGCPercent(gcPercent)
	c.leave()
	if is := percent(); is != crowdPercent {
		t.Errorf("of one that stays it is %d", is)
	}
	c.watch(nil, http.StateClosed)
	c.leave()
	if is := percent(); is != gcPercent || c.here.Load() {
		t.Errorf("of one that has gone it is %d", is)
	}
}
