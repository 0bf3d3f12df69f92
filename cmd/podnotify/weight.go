package main

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/podnotify/podnotify/internal/config"
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
	// giveBack is after how many answers the memory is given back that they have left
	// unused: 2 ms of processor time for 0.8 MB. The runtime by itself keeps most of it.
	giveBack = 250
)

// travelLight is called once, before anything is started.
func (a *app) travelLight(mode config.Mode) {
	procs := runProcs
	if mode == config.Sidecar {
		procs = sidecarProcs
	}
	if a.getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) > procs {
		runtime.GOMAXPROCS(procs)
	}
	percent := a.getenv("GOGC") == ""
	// Starting needs several times what serving does. There is no memory limit: one close to what
	// lives has the collector run for ever as soon as there is work (ten times the CPU time,
	// measured with main processes that replace each other), and one far from it does nothing.
	time.AfterFunc(started, func() {
		debug.FreeOSMemory()
		if percent {
			debug.SetGCPercent(gcPercent)
		}
	})
}

// light is h, but that the memory of answers is given back now and then.
func light(h http.Handler) http.Handler {
	var answered atomic.Uint32
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		if answered.Add(1)%giveBack == 0 {
			go debug.FreeOSMemory()
		}
	})
}
