package notify

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"
)

// Who waits for a descriptor gets its turn beside a goroutine that never rests. By Gosched
// alone it would wait until the runtime looks at its poller by itself: tens of thousands of
// rounds.
func TestYield(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var turns atomic.Int64
	heard := make(chan int64, 1)
	parked := make(chan struct{})
	go func() {
		close(parked)
		if _, err := r.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		heard <- turns.Load()
	}()
	<-parked
	for range 100 { // it is in Read by now
		Yield()
	}
	turns.Store(0)
	if _, err := w.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	const most = 100
	for range 1_000_000 {
		Yield()
		turns.Add(1)
		select {
		case n := <-heard:
			if n > most {
				t.Fatalf("a reader had its turn after %d rounds, at most %d are fair", n, most)
			}
			return
		default:
		}
	}
	t.Fatal("a reader never had its turn")
}

func BenchmarkYield(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Yield()
	}
}
