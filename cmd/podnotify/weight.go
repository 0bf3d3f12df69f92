package main

import (
	"runtime"
	"runtime/debug"
	"time"
)

// A sidecar runs in every pod: what it holds counts thousands of times, the time it
// takes hardly ever. So a podnotify that serves collects early and gives back at once.
// Whatever the environment says about the runtime (GOGC, GOMEMLIMIT, GOMAXPROCS) holds.
const (
	gcPercent = 20
	started   = time.Second
	// mostProcs is enough for a goroutine that waits for children in the kernel, one that
	// listens and one that answers. Each costs caches of the allocator, also on a machine
	// with 100 processors.
	mostProcs = 3
)

// travelLight is called once, before anything is started.
func (a *app) travelLight() {
	if a.getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) > mostProcs {
		runtime.GOMAXPROCS(mostProcs)
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
