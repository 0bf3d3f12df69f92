package main

import (
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/internal/lean"
)

// A sidecar runs in every pod: what it holds counts thousands of times, the time it
// takes hardly ever. So a podnotify that serves collects early and gives back at once.
// Whatever the environment says about the runtime (GOGC, GOMEMLIMIT, GOMAXPROCS) holds.
const (
	gcPercent = 20
	started   = time.Second
	// A sidecar's work is a few microseconds now and then, and never waits in the kernel: to
	// wake a thread for some of it takes longer than all of it. Each also costs caches of the
	// allocator.
	sidecarProcs = 1
	// runProcs is enough for a goroutine that waits for children in the kernel, one that
	// listens and one that answers.
	runProcs = 3
	// giveBack is after how many answers, for each of some services, the memory is given back
	// that they have left unused: 2 ms of processor time for 0.8 MB. The runtime by itself keeps
	// most of it. A thousand services take 15 ms, and are probed more often.
	giveBack     = 250
	giveBackMost = 16
	// Who opens connections by the hundred makes garbage so fast that collecting it early
	// takes a tenth of the time, in pieces of milliseconds that others' probes wait for. So
	// while that many are open it is collected later. That they are not any more is seen
	// this much later at most.
	crowded      = 32
	crowdPercent = 100
	crowdOver    = 5 * time.Second
)

// travelLight is called once, before anything is started.
func (a *app) travelLight(mode config.Mode) {
	runtime.GOMAXPROCS(a.procs(mode))
	percent := a.getenv("GOGC") == ""
	// Starting needs several times what serving does. There is no memory limit: one close to what
	// lives has the collector run for ever as soon as there is work (ten times the CPU time,
	// measured with main processes that replace each other), and one far from it does nothing.
	time.AfterFunc(started, func() {
		debug.FreeOSMemory()
		if percent {
			// Later, because it wakes the runtime's monitor, which has something left to do
			// after a collection and would be a minute late: several wake-ups of one at rest.
			time.AfterFunc(started/10, func() { debug.SetGCPercent(gcPercent) })
		}
	})
}

// procs is how many processors a podnotify that serves runs Go code on.
func (a *app) procs(mode config.Mode) int {
	switch {
	case a.getenv("GOMAXPROCS") != "":
		return lean.Procs
	case mode == config.Sidecar:
		return min(sidecarProcs, lean.Procs)
	}
	return min(runProcs, lean.Procs)
}

// light is the server, but that the memory of answers is given back now and then, and that
// a crowd is served at the expense of memory.
func light(server *http.Server, services int) *http.Server {
	often := uint64(giveBack * min(max(services, 1), giveBackMost))
	var answered atomic.Uint64
	var c crowd
	h := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		if answered.Add(1)%often == 0 && !c.here.Load() {
			go debug.FreeOSMemory()
		}
	})
	if os.Getenv("GOGC") == "" {
		server.ConnState = c.watch
	}
	return server
}

// crowd is whether there are more connections than anybody needs.
type crowd struct {
	open atomic.Int32
	here atomic.Bool
}

// watch is told of every connection that comes and goes.
func (c *crowd) watch(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		if c.open.Add(1) >= crowded && c.here.CompareAndSwap(false, true) {
			debug.SetGCPercent(crowdPercent)
			time.AfterFunc(crowdOver, c.leave)
		}
	case http.StateHijacked, http.StateClosed:
		c.open.Add(-1)
	}
}

// leave looks whether they are gone.
func (c *crowd) leave() {
	if c.open.Load() >= crowded {
		debug.SetGCPercent(crowdPercent) // again: podnotify may have started meanwhile
		time.AfterFunc(crowdOver, c.leave)
		return
	}
	debug.SetGCPercent(gcPercent)
	debug.FreeOSMemory()
	c.here.Store(false) // at last: who comes now sets it anew
}
