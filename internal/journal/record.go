package journal

import (
	"errors"
	"fmt"
	"time"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// Schema is the version of a state file. A file of another is set aside: what it
// means is for another podnotify to know.
const Schema = 1

// Record is a state file: what a service knows, and what proves that it is still
// about the process that lives.
type Record struct {
	Schema  int    `json:"schema"`
	Service string `json:"service"`

	Boot    string        `json:"boot"`    // of the kernel; process numbers and start times mean something within one only
	Written time.Time     `json:"written"` // by the clock
	Uptime  time.Duration `json:"uptime"`  // at the same moment, since boot, nanoseconds

	Main    Process       `json:"main,omitzero"`   // the main process
	Entry   proc.ID       `json:"entry,omitzero"`  // the entry process of its container
	Alive   bool          `json:"alive,omitempty"` // the main process ended, and its container lived on
	Left    time.Duration `json:"left,omitempty"`  // when it ended, since boot, nanoseconds
	Access  string        `json:"access,omitempty"`
	Begun   uint64        `json:"begun,omitempty"`   // when this instance's first process started, clock ticks since boot
	Elected bool          `json:"elected,omitempty"` // the main process was found, not named by the daemon

	State lifecycle.Record `json:"state"`
}

// Process is a process and the container it was in.
type Process struct {
	proc.ID
	Inode     uint64         `json:"inode,omitempty"` // of its pidfd; 0 where the kernel has no pidfs (Linux 6.9)
	Container proc.Container `json:"container,omitzero"`
}

// World is what is true now where a record was written.
type World struct {
	Boot string
	// Main is the living process that has the number and the start time of the
	// record's main process; the zero Process if there is none.
	Main Process
}

// Verdict is what a record is worth.
type Verdict uint8

const (
	// Foreign is a record of another boot. Nothing in it is about anything here.
	Foreign Verdict = iota
	// Idle is a record of a service without a main process. Its counts hold.
	Idle
	// Lost is a record of a main process that is no more. Its counts hold, and it
	// has ended; whatever runs instead is another.
	Lost
	// Changed is a record of another way of being ready, or of nobody in particular.
	// What was known says nothing about this one.
	Changed
	// Proven is a record of the main process that lives.
	Proven
)

var verdictNames = [...]string{"foreign", "idle", "lost", "changed", "proven"}

func (v Verdict) String() string { return verdictNames[v] }

// Judge compares a record with the world. Only what matches in all of boot id,
// number, start time and container is proof; where both kernels told the inode of
// the pidfd, that has to match, too. expect is what the service is configured for now.
func (r *Record) Judge(w World, expect lifecycle.Expect) Verdict {
	switch {
	case r.Boot != w.Boot || w.Boot == "":
		return Foreign
	case r.State.Main == lifecycle.ProcID{} && (r.State.Phase == lifecycle.Absent || r.State.Phase == lifecycle.Gone):
		return Idle
	case r.State.Main == lifecycle.ProcID{}:
		return Changed // of whom it was is not known
	case w.Main.ID != r.Main.ID,
		w.Main.Inode != 0 && r.Main.Inode != 0 && w.Main.Inode != r.Main.Inode,
		w.Main.Container != r.Main.Container:
		return Lost
	case r.State.Expect != expect:
		return Changed
	}
	return Proven
}

// validate finds what no podnotify has written.
func (r *Record) validate(service string) error {
	switch {
	case r.Schema != Schema:
		return fmt.Errorf("its schema is %d, this version of podnotify writes %d", r.Schema, Schema)
	case r.Service != service:
		return fmt.Errorf("it is about service %q", r.Service)
	case r.Boot == "":
		return errors.New("it has no boot id")
	case r.Written.IsZero() || r.Uptime < 0:
		return errors.New("it does not say when it was written")
	case lifecycle.ProcID(r.Main.ID) != r.State.Main:
		return errors.New("it names two main processes")
	}
	return r.State.Validate()
}

// rebase expresses the times of a record by a clock that may have been set since
// it was written: what counts is how long ago they were, by the time since boot.
// Times to come, which only a clock set back can bring about, become now.
func (r *Record) rebase(now time.Time, uptime time.Duration) {
	then := now.Add(r.Uptime - uptime)
	r.State = r.State.Moved(func(t time.Time) time.Time {
		t = then.Add(t.Sub(r.Written))
		if t.After(now) {
			return now
		}
		return t
	})
	r.Written, r.Uptime = then, uptime
}
