package notify

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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

// Of several that never rest each has its turn.
func TestYieldAmongMany(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var turns [3]atomic.Int64
	var over atomic.Bool
	var all sync.WaitGroup
	for i := range turns {
		all.Go(func() {
			for !over.Load() {
				Yield()
				turns[i].Add(1)
			}
		})
	}
	const enough = 1000
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		least := turns[0].Load()
		for i := range turns {
			least = min(least, turns[i].Load())
		}
		if least >= enough {
			break
		}
		if time.Now().After(end) {
			t.Errorf("after half a minute they had %d, %d and %d turns", turns[0].Load(), turns[1].Load(), turns[2].Load())
			break
		}
	}
	over.Store(true)
	all.Wait()
}

func BenchmarkYield(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Yield()
	}
}
