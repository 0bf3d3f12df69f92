package main

import (
	"net/http"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"
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

// TestCrowd: while many connections are open memory is collected later, and after that it
// is again as it was.
func TestCrowd(t *testing.T) {
	t.Setenv("GOGC", "")
	if light(&http.Server{Handler: http.NotFoundHandler()}).ConnState == nil {
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
