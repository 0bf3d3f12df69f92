package lifecycle

import "time"

// Snapshot is all that is known of a service at one moment. It is never changed
// after it was published; readers share it.
type Snapshot struct {
	Gen   uint64 // grows with every event that changed something
	Phase Phase
	Since time.Time // when the phase began; zero while Absent from the first

	Main    ProcID // zero: none
	Started bool   // the main process has been ready once (startup stays yes until it ends)
	Paused  bool   // the main process is stopped by a signal, and owes us nothing by it
	Owed    ProcID // the process whose readiness stop is being answered; zero: none

	StartedAt time.Time // when this instance's start began
	ReadyAt   time.Time // when this instance was ready first

	Status       string // as received: bytes, not necessarily text
	Errno        int
	BusError     string
	VarlinkError string

	StartLate, ReloadLate, StopLate bool // that time-out passed
	Starved                         bool // no ping within the watchdog interval
	Triggered                       bool // WATCHDOG=trigger
	Watchdog                        time.Duration
	PingAt                          time.Time
	GateOpen                        bool

	StopSaid  bool // stopping because the daemon said so
	Seen      Seen
	Respawns  int        // instances after the first, since RESTART_RESET=1
	Respawned [whys]int  // what they were owed to
	RespawnAt time.Time  // when the next one is due; zero: none is
	Reload    ReloadInfo // the last reload that podnotify asked for
	LimitHit  bool       // more respawns than the limit allows
	Unknown   bool       // podnotify may have missed what the daemon said
	LastExit  *LastExit
	Deniable  bool // whether a signal is permitted has been tried at all
	Forbidden bool // the kernel refuses us signals to the main process
	Deadline  time.Time

	Facts Facts
}

// ReloadInfo tells how far a reload has come that podnotify asked for.
type ReloadInfo struct {
	Asked uint64 // CLOCK_MONOTONIC in microseconds; 0: never
	Began bool   // the daemon said RELOADING=1 since
	Done  bool   // and READY=1 after it
}

// Seen counts what an instance did before it was ready, so that a start that
// takes too long can be explained.
type Seen struct {
	Stops    int // processes of the service seen stopped
	Forks    int // processes of the service seen besides the main process; in run, forks followed
	Statuses int // STATUS= and the other words that are not readiness
	Readies  int // READY=1 where it is not what is waited for
	Ignored  int // phase words ignored: from a replaced process, or after stopping
}

// LastExit is the end of the previous main process.
type LastExit struct {
	Exit
	Who    ProcID
	At     time.Time
	Reason string // "stopping", "exited", "killed", "oom-killed" or "unknown"
	Clean  bool
	Asked  bool // we had asked it to stop
}

// Facts are what the sidecar loop knows beside the machine. They are shown; the
// verdicts use only those in the first group.
type Facts struct {
	Socket         string   // why the notify socket is not bound; empty: it is
	Impossible     string   // why the expected way of being ready cannot work here, with the cure
	Candidates     []string // what could be the service, when it is not clear which
	Denied         string   // whom a signal is not permitted to, and the cures
	ContainerAlive bool     // the container of the last main process lives on without it
	Gate           string   // what the gate's last knock brought, with the address
	PIDFile        string   // the PID file and what is wrong with it
	Refused        uint64   // datagrams whose senders are not admitted

	ErrnoName string // the symbolic name of Snapshot.Errno, if it has one
	InnerPID  int    // the main process's pid in its own PID namespace
	StartTime time.Time
	Container string

	Adopted     bool
	Degraded    map[string]string // what podnotify lacks here by name, as in podnotify_degraded, and what that means; among the Warnings, too
	UnknownKeys map[string]uint64
	Warnings    []string
	Datagrams   uint64
	Pings       uint64
	Dropped     map[string]uint64
	Transitions map[[2]Phase]uint64
}
