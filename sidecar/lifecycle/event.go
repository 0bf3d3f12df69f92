package lifecycle

import (
	"strconv"
	"time"
)

// ProcID names one process for ever: the pid as podnotify sees it and its start
// time in clock ticks since boot. It repeats proc.ID, so that this package
// imports nothing but time. The zero ProcID is nobody.
type ProcID struct {
	PID   int
	Start uint64
}

func (id ProcID) String() string { return strconv.Itoa(id.PID) }

// Phase is where a service stands, in one word. Everything else that is known
// (paused, starved, errno) is a fact beside it.
type Phase uint8

const (
	Absent    Phase = iota // no process seen yet
	Starting               // a main process, not ready yet
	Ready                  // it said so
	Reloading              // it said RELOADING=1
	Stopping               // it said STOPPING=1, or we asked it to stop
	Gone                   // it ended
	phases
)

var phaseNames = [phases]string{"absent", "starting", "ready", "reloading", "stopping", "gone"}

func (p Phase) String() string { return phaseNames[p] }

// Phases lists every phase in order.
func Phases() []Phase { return []Phase{Absent, Starting, Ready, Reloading, Stopping, Gone} }

// Kind is a kind of news.
type Kind uint8

const (
	Found        Kind = iota // Who runs and is the main process by the expect table
	ReadyWord                // READY=1 from Who
	Reload                   // RELOADING=1 from Who
	StopWord                 // STOPPING=1 from Who
	MainPID                  // the service named Who as its main process (MAINPID=)
	Stopped                  // Who was seen stopped by a signal (state T)
	Continued                // Who was seen running after a stop
	Ended                    // Who ended, as Exit tells
	StopAsked                // podnotify sends or forwards a termination; Number as Killing, Leaving and Signalling say
	RespawnAsked             // somebody wants the service respawned
	ReloadAsked              // podnotify sends signals.reload; Number is CLOCK_MONOTONIC in microseconds
	Forked                   // Who was left behind by its parent; Number is how many forks away from CMD it is
	PIDFileRead              // the PID file names Who
	Timer                    // a deadline may have passed
	Resumed                  // podnotify was restarted, and Who, the main process it knew, lives on

	Status        // STATUS=Text
	Errno         // ERRNO=Number
	BusError      // BUSERROR=Text
	VarlinkError  // VARLINKERROR=Text
	Ping          // WATCHDOG=1
	Trigger       // WATCHDOG=trigger
	WatchdogEvery // WATCHDOG_USEC=, as Span; 0 disables
	Extend        // EXTEND_TIMEOUT_USEC=, as Span
	ResetRespawns // RESTART_RESET=1
	Opened        // the gate accepted once
	Denied        // the kernel refused us a signal to Who
	Permitted     // the kernel allows us signals to Who
	NotStarted    // the start that was asked for could not be done
	kinds
)

var kindNames = [kinds]string{
	"process found", "READY=1", "RELOADING=1", "STOPPING=1", "MAINPID=", "stop seen", "continue seen", "end seen",
	"stop asked", "respawn asked", "reload asked", "fork followed", "PID file read", "deadline", "podnotify restarted", "STATUS=", "ERRNO=", "BUSERROR=", "VARLINKERROR=", "WATCHDOG=1", "WATCHDOG=trigger",
	"WATCHDOG_USEC=", "EXTEND_TIMEOUT_USEC=", "RESTART_RESET=1", "gate opened", "signal denied", "signal permitted", "start failed",
}

func (k Kind) String() string { return kindNames[k] }

// Event is one piece of news. The events of one datagram are applied in
// systemd's order (see Order in notify), whatever the order of its lines.
type Event struct {
	Kind Kind
	// Who is the process the news is about; for a word of the protocol, the
	// sender. The zero ProcID is a sender that was dead when its word was read:
	// a short-lived helper, who speaks for the main process.
	Who   ProcID
	Named bool // the same datagram named the main process: its words count even from the process replaced
	// Number is the value of ERRNO and of what the kinds say. For RELOADING=1 it is
	// MONOTONIC_USEC, 0 if there was none.
	Owes bool // Stopped: it was started with UPSTART_JOB
	// Missed: it may have happened or begun while nobody listened. A process found
	// may have spoken by then, and of one that ended nobody can say when.
	Missed bool
	Job    bool // Stopped: by job control (TSTP, TTIN, TTOU), which says nothing about readiness
	Number int64
	Span   time.Duration
	Text   []byte // valid during Apply only
	Exit   Exit
}

// Values of Number for StopAsked.
const (
	Killing = 1 // and it is killed after the stop time-out
	Leaving = 2 // only because podnotify itself goes down
	// Signalling says that it was sent a signal that usually ends a process, no more: it
	// may come back, as respawn.when says.
	Signalling = 3
)

// Exit says how a process ended.
type Exit struct {
	Known  bool // false: the kernel did not tell (not our child, and before Linux 6.15)
	Code   int  // exit code, when Signal is 0
	Signal int  // the signal that killed it
	OOM    bool // by the kernel, for want of memory
}

// Clean reports an end that is no failure: exit code 0. An end the kernel said
// nothing about is not clean.
func (e Exit) Clean() bool { return e.Known && e.Signal == 0 && e.Code == 0 }

// ActionKind is a kind of work that follows from news.
type ActionKind uint8

const (
	Continue         ActionKind = iota // send SIGCONT to Who
	Kill                               // the stop time-out has passed: send SIGKILL to Who
	Hold                               // report when Who ends
	Knock                              // the gate is to be tried until it opens
	Terminate                          // send signals.kill to Who: it is to be respawned
	Abort                              // send watchdog.signal to Who: it is to be respawned
	Start                              // start CMD again
	RestartContainer                   // Who has ended: the same for its container's entry process, if that lives on
	RestartPod                         // exit 79
	AskReload                          // it is not known what Who has said: send signals.reload, to hear it
)

// Action is one piece of work. The machine never does it itself.
type Action struct {
	Kind ActionKind
	Who  ProcID
}
