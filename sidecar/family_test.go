package sidecar

import (
	"os/exec"
	"testing"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
	"github.com/podnotify/podnotify/stopwatch"
)

// A daemon that went into the background lives on; what a helper beside it
// leaves behind is one more fork away from CMD, and not the daemon for that.
func TestOrphansOfAHelper(t *testing.T) {
	k := newSpeaker(t, lifecycle.ExpectDaemon, nil)
	id := func(pid int) proc.ID {
		t.Helper()
		st, err := proc.Proc.Stat(pid)
		if err != nil {
			t.Fatal(err)
		}
		return st.ID()
	}
	daemon, helper, orphan := id(k.child()), id(k.child()), id(k.child())
	left := map[proc.ID][]Orphan{
		proc.ID(k.Look().Main): {{daemon, 2}, {helper, 2}},
		helper:                 {{orphan, 3}},
		daemon:                 {{orphan, 3}},
	}
	k.dep.Orphans = func(ended proc.ID, _ bool) []Orphan { return left[ended] }
	ends := func(who proc.ID) lifecycle.ProcID {
		k.Observe(stopwatch.Transition{Who: who, Kind: stopwatch.Ended})
		return k.Look().Main
	}
	if main := ends(proc.ID(k.Look().Main)); main != lifecycle.ProcID(daemon) || k.Look().Phase != lifecycle.Ready {
		t.Fatalf("CMD ended: main process %v, %v; want %v, ready", main, k.Look().Phase, daemon)
	}
	if main := ends(helper); main != lifecycle.ProcID(daemon) {
		t.Errorf("a helper ended: main process %v, want %v still", main, daemon)
	}
	if main := ends(daemon); main != lifecycle.ProcID(orphan) {
		t.Errorf("the daemon ended: main process %v, want what it left, %v", main, orphan)
	}
}

// CMD may leave more than one behind: the first that fits is the daemon, and what is
// further away is somebody's helper.
func TestOrphansBesideTheDaemon(t *testing.T) {
	k := newSpeaker(t, lifecycle.ExpectFork, nil)
	var left []Orphan
	for forks := range 2 {
		st, err := proc.Proc.Stat(k.child())
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, Orphan{st.ID(), forks + 1})
	}
	k.dep.Orphans = func(proc.ID, bool) []Orphan { return left }
	k.Observe(stopwatch.Transition{Who: proc.ID(k.Look().Main), Kind: stopwatch.Ended})
	if s := k.Look(); s.Main != lifecycle.ProcID(left[0].ID) || s.Phase != lifecycle.Ready || len(s.Facts.Warnings) > 0 {
		t.Errorf("main process %v, %v, warnings %q; want %v, ready, none", s.Main, s.Phase, s.Facts.Warnings, left[0].ID)
	}
}

// TestEntryPassedOn: CMD is gone and its number another's, and a descendant of CMD lives
// and speaks: it does not speak for who has the number now.
func TestEntryPassedOn(t *testing.T) {
	f, err := NewFamily(proc.Proc, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.newest.Close()
	cmd := exec.Command("sleep", "1h")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	pid := cmd.Process.Pid
	if _, ok := f.Entry(pid); ok {
		t.Error("there is an entry before anything was started")
	}
	f.Begin(pid)
	id := *f.cmd.Load()
	if entry, ok := f.Entry(pid); !ok || entry != pid || !f.started(id) {
		t.Errorf("started: entry %d, %v, %v", entry, ok, f.started(id))
	}
	f.cmd.Store(&proc.ID{PID: pid, Start: id.Start - 1})
	if entry, ok := f.Entry(pid); ok || f.started(id) {
		t.Errorf("the number has passed on: entry %d, %v, %v", entry, ok, f.started(id))
	}
}
