package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// A limit below what lives would have the collector run for ever.
func TestLimitFollowsHeap(t *testing.T) {
	old := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(old) })
	debug.SetMemoryLimit(math.MaxInt64)
	followHeap(&watermark{})
	first := debug.SetMemoryLimit(-1)
	if first == math.MaxInt64 || first < spare {
		t.Fatalf("the limit is %d", first)
	}
	const more = 32 << 20
	live := make([]byte, more)
	for end := time.Now().Add(30 * time.Second); debug.SetMemoryLimit(-1) < first+more/2; {
		if time.Now().After(end) {
			t.Fatalf("the limit was %d, and is %d with %d more alive", first, debug.SetMemoryLimit(-1), more)
		}
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	runtime.KeepAlive(live)
}
