package stopwatch

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }
func atoi(s string) int { n, _ := strconv.Atoi(s); return n }

// race is set under the race detector, which allocates.
var race bool

func TestSeek(t *testing.T) {
	bubble(t, func(t *testing.T, s *Sampler, _ *[]Transition) {
		var calls []string
		var n, reads atomic.Int64
		n.Store(1000)
		newest := func() (int, error) { reads.Add(1); return int(n.Load()), nil }
		seen := func(from, to int, all bool) {
			c := fmt.Sprintf("[%d,%d)", from, to)
			if all {
				c = "all"
			}
			if len(calls) == 0 || calls[len(calls)-1] != c {
				calls = append(calls, c)
			}
		}
		expect := func(what string, want ...string) {
			t.Helper()
			time.Sleep(700 * fast) // everything has settled, and the next look is one pace away
			synctest.Wait()
			if !reflect.DeepEqual(calls, want) {
				t.Errorf("%s: %v, want %v", what, calls, want)
			}
			calls = nil
		}
		s.Seek(newest, seen)
		expect("at first", "all")
		expect("nothing new")
		n.Add(1)
		expect("one", "[1001,1002)")
		n.Add(512)
		expect("many", "[1002,1514)")
		n.Add(513)
		expect("very many", "all")
		n.Store(301)
		expect("wrapped around", "all")
		n.Store(302)
		expect("and on", "[302,303)")
		s.Seek(newest, seen)
		expect("again", "all")

		n.Store(303)
		time.Sleep(fast + fast/2)
		synctest.Wait()
		n.Store(304)
		expect("two", "[303,304)", "[303,305)", "[304,305)", "[303,305)", "[304,305)")

		s.Rest()
		time.Sleep(slow)
		synctest.Wait()
		before := reads.Load()
		n.Add(1)
		expect("at rest")
		if k := reads.Load() - before; k != 0 {
			t.Errorf("%d reads at rest", k)
		}
	})
}

func TestSeekFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSampler(func(Transition) {})
		bad := errors.New("no loadavg")
		s.Seek(func() (int, error) { return 0, bad }, func(int, int, bool) {})
		if err := s.Run(context.Background()); !errors.Is(err, bad) {
			t.Errorf("Run = %v", err)
		}
	})
}

// Whenever a number is given away, it is named once it can be found, if that
// takes no longer than the settling time; and then there is silence.
func TestSeekerNamesEveryNumberLateEnough(t *testing.T) {
	for seed := range uint64(50) {
		n, now := 300, time.Unix(0, 0)
		k := &seeker{
			newest: func() (int, error) { return n, nil },
			last:   unread, before: unread, low: unread, mark: unread,
		}
		born := make(map[int]time.Time) // and not named since it can be found
		named := 0
		k.seen = func(from, to int, all bool) {
			named++
			for pid, at := range born {
				if (all || pid >= from && pid < to) && now.Sub(at) >= settle {
					delete(born, pid)
				}
			}
		}
		x := seed*2654435761 + 1
		random := func(below int) int { // xorshift
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			return int(x % uint64(below))
		}
		for range 2000 {
			if random(20) == 0 {
				for range random(4) * random(300) {
					if n++; n > 5000 {
						n = 300
					}
					born[n] = now
				}
			}
			if err := k.look(now); err != nil {
				t.Fatal(err)
			}
			now = now.Add(time.Duration(random(20)) * time.Millisecond)
		}
		for range 100 { // three settling times
			now = now.Add(3 * time.Millisecond)
			k.look(now)
		}
		if len(born) != 0 {
			t.Fatalf("seed %d: never named: %v", seed, born)
		}
		before := named
		for range 100 {
			now = now.Add(3 * time.Millisecond)
			k.look(now)
		}
		if named != before {
			t.Fatalf("seed %d: named %d times with nothing new", seed, named-before)
		}
	}
}
