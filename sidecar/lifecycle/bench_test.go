package lifecycle

import (
	"testing"
	"time"
)

// steady is a service that is ready, and the news it then gets all day.
func steady() (*Machine, Policy, []Event) {
	p := DefaultPolicy()
	p.Expect, p.Watchdog = ExpectNotify, 10*sec
	m := New(p)
	for _, e := range []Event{finds(daemon), saysReady(daemon), {Kind: Status, Text: make([]byte, 100)}} {
		m.Apply(e, epoch)
	}
	return m, p, []Event{
		{Kind: Status, Who: daemon, Text: []byte("Processing requests, 17 connections")},
		{Kind: Ping, Who: daemon},
		{Kind: ReadyWord, Who: daemon},
		{Kind: ReadyWord, Who: helper},
		{Kind: Reload, Who: daemon},
		{Kind: BusError, Who: daemon, Text: []byte("")},
		{Kind: Extend, Who: daemon, Span: sec},
		{Kind: Timer},
	}
}

// The receiver applies a flood as fast as it is sent: news costs no memory.
func TestApplyAllocatesNothing(t *testing.T) {
	m, _, news := steady()
	for _, e := range news {
		if n := testing.AllocsPerRun(100, func() { m.Apply(e, epoch) }); n != 0 {
			t.Errorf("%v: %v allocations, want 0", e.Kind, n)
		}
	}
}

// A probe that is answered yes costs no memory either.
func TestYesAllocatesNothing(t *testing.T) {
	m, p, _ := steady()
	s := m.Snapshot()
	for _, probe := range []Probe{Startup, Readyz, Livez} {
		n := testing.AllocsPerRun(100, func() {
			if c, fails := s.Failing(&p, probe, nil); fails {
				t.Errorf("%v fails: %+v", probe.Names(), c)
			}
		})
		if n != 0 {
			t.Errorf("%v: %v allocations, want 0", probe.Names(), n)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	_, _, news := steady()
	for _, e := range news[:3] {
		b.Run(e.Kind.String(), func(b *testing.B) {
			m, _, _ := steady()
			b.ReportAllocs()
			for i := range b.N {
				m.Apply(e, epoch.Add(time.Duration(i)))
			}
		})
	}
}

func BenchmarkFailing(b *testing.B) {
	m, p, _ := steady()
	s := m.Snapshot()
	b.ReportAllocs()
	for b.Loop() {
		if _, fails := s.Failing(&p, Readyz, nil); fails {
			b.Fatal("not ready")
		}
	}
}
