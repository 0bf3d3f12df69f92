package sidecar

import (
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// jump is what time.Now returns after somebody has set the machine's clock: another time
// of day, and the monotonic clock goes on. Nobody may set the clock of a machine for a
// test, and no namespace has one of its own.
func jump(t *testing.T, now time.Time, by time.Duration) time.Time {
	t.Helper()
	// See time.Time: with a monotonic reading, wall has 33 bits of seconds above 30 of
	// nanoseconds.
	b := (*struct {
		wall uint64
		ext  int64
	})(unsafe.Pointer(&now))
	before := now
	b.wall += uint64(int64(by/time.Second) << 30)
	if got := now.Round(0).Sub(before.Round(0)); got != by || now.Sub(before) != 0 {
		t.Errorf("jumped by %v, and by %v monotonic; is time.Time another by now?", got, now.Sub(before))
	}
	return now
}

// TestClockSet: whoever sets the machine's clock, forward or back, lets no time-out
// expire and holds none up.
func TestClockSet(t *testing.T) {
	for _, by := range []time.Duration{10 * 365 * 24 * time.Hour, -10 * 365 * 24 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			var set atomic.Int64
			b := start(t, func(c *Config) {
				c.Policy.StartTimeout = time.Hour
				c.Policy.ReloadTimeout = time.Hour
				c.Policy.Watchdog = time.Hour
			})
			b.mu.Lock()
			b.now = func() time.Time { return jump(t, time.Now(), time.Duration(set.Load())) }
			b.mu.Unlock()
			b.daemon("send READY=1;wait")
			b.phase(lifecycle.Ready)
			set.Store(int64(by))
			b.tick() // as if a timer had gone off
			if s := b.Look(); s.Starved || s.Phase != lifecycle.Ready {
				t.Errorf("when the clock is set: starved %v, %v", s.Starved, s.Phase)
			}
			// And a deadline set from now on comes when it is due.
			b.mu.Lock()
			b.apply(lifecycle.Event{Kind: lifecycle.WatchdogEvery, Who: b.m.Main(), Span: 50 * time.Millisecond})
			b.settle()
			b.mu.Unlock()
			b.until("starved", func(s *lifecycle.Snapshot) bool { return s.Starved })
		})
	}
}
