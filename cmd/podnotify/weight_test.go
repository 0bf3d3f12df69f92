package main

import (
	"net/http"
	"runtime/debug"
	"testing"
)

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
