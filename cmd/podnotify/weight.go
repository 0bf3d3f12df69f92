package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A sidecar runs in every pod: what it holds counts thousands of times, the time it
// takes hardly ever. So a podnotify that serves collects early and gives back at once.
// Whatever the environment says about the runtime (GOGC, GOMEMLIMIT, GOMAXPROCS) holds.
const (
	gcPercent = 20
	spare     = 256 << 10 // over what is in use, before memory is given back
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
	limit := a.getenv("GOMEMLIMIT") == ""
	// Starting needs several times what serving does.
	time.AfterFunc(started, func() {
		debug.FreeOSMemory()
		if percent {
			debug.SetGCPercent(gcPercent)
		}
		if limit {
			followHeap(&watermark{})
		}
	})
}

// watermark is an object that every collection finds dead.
type watermark struct{ _ *byte }

// followHeap keeps the memory limit a little over what is in use, now and after every
// collection to come: a limit below would have the collector run for ever.
func followHeap(w *watermark) {
	s := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}
	metrics.Read(s)
	v := func(i int) uint64 { return s[i].Value.Uint64() }
	garbage := v(3) - min(v(4), v(3)) // since the collection
	debug.SetMemoryLimit(int64(v(0)-v(1)-v(2)-garbage) + spare)
	runtime.SetFinalizer(w, followHeap)
}
