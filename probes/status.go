package probes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// Schema is the version of the JSON of /statusz. It grows only when a key
// changes its meaning or goes; new keys may appear at any time.
const Schema = 1

// Statuses is the JSON of /statusz.
type Statuses struct {
	Schema   int      `json:"schema"`
	Services []Status `json:"services"`
}

// Status is one service in the JSON of /statusz, and with its Schema set all of
// /statusz/NAME. Every other key is always there: what does not apply or is not
// known is null where that is said below, else "", 0, [] or {}. Times are RFC
// 3339 in UTC. Bytes of the daemon's texts that are not UTF-8 are shown as \xNN.
type Status struct {
	Schema int `json:"schema,omitempty"`

	Name    string     `json:"name"`
	Expect  string     `json:"expect"` // auto, notify, stop, fork, daemon, pidfile, none
	Phase   string     `json:"phase"`  // absent, starting, ready, reloading, stopping, gone
	Since   *time.Time `json:"since"`  // when the phase began; null: absent from the first
	Paused  bool       `json:"paused"` // the main process is stopped by a signal
	Started bool       `json:"started"`
	Ready   bool       `json:"ready"`
	Live    bool       `json:"live"` // these three are the answers of /startupz, /readyz and /livez

	Main *Main `json:"main"` // null: no main process

	Status       string `json:"status"` // the text of the last STATUS=
	Errno        Errno  `json:"errno"`
	BusError     string `json:"busError"`
	VarlinkError string `json:"varlinkError"`

	Checks   []Check  `json:"checks"`
	Watchdog Watchdog `json:"watchdog"`

	StartSeconds *float64   `json:"startSeconds"` // from the start to ready; null: this instance was not ready yet
	Respawns     int        `json:"respawns"`
	RespawnAt    *time.Time `json:"respawnAt"` // when podnotify starts it again; null: no respawn is due
	LastExit     *Exit      `json:"lastExit"`  // of the previous main process; null: none ended so far
	Adopted      bool       `json:"adopted"`   // known from before podnotify was restarted

	SignalPermitted *bool `json:"signalPermitted"` // whether the kernel lets podnotify signal the main process; null: not tried

	UnknownKeys map[string]uint64 `json:"unknownKeys"` // keys of the protocol that mean nothing to podnotify, and how often
	Warnings    []string          `json:"warnings"`
	Counters    Counters          `json:"counters"`
}

// Main is the main process.
type Main struct {
	PID       int        `json:"pid"`       // as podnotify sees it
	InnerPID  int        `json:"innerPid"`  // in its own PID namespace; 0: not known
	StartTime *time.Time `json:"startTime"` // when the kernel started it; null: not known
	Command   string     `json:"command"`
	Container string     `json:"container"`
}

// Errno is the last ERRNO= of the daemon. Number 0 is no error.
type Errno struct {
	Number int    `json:"number"`
	Name   string `json:"name"` // such as ENOENT; "" if the number has none
}

// Check is one named reason to answer no.
type Check struct {
	Name   string   `json:"name"`
	OK     bool     `json:"ok"`
	Reason string   `json:"reason"` // why it fails
	Probes []string `json:"probes"` // of startup, ready, live: those it fails, or could fail when it passes
}

// Watchdog is what WATCHDOG=1 is due by.
type Watchdog struct {
	IntervalSeconds float64  `json:"intervalSeconds"` // 0: no watchdog
	SinceSeconds    *float64 `json:"sinceSeconds"`    // since the last ping; null: none so far
}

// Exit is how a main process ended.
type Exit struct {
	Code   *int       `json:"code"`   // null: killed, or the kernel did not tell
	Signal string     `json:"signal"` // TERM, KILL ... or a number; "": not killed by one, or not told
	Reason string     `json:"reason"` // stopping, exited, killed, unknown
	At     *time.Time `json:"at"`
}

// Counters count since podnotify started.
type Counters struct {
	Datagrams uint64            `json:"datagrams"`
	Dropped   map[string]uint64 `json:"dropped"` // by reason
	Pings     uint64            `json:"pings"`
}

// StatusOf describes a service as it is now. Schema is left 0.
func StatusOf(src Source, now time.Time) Status {
	look, policy := src.Look(), src.Policy()
	facts := &look.Facts
	yes := func(p lifecycle.Probe) bool {
		_, fails := look.Failing(policy, p, nil)
		return !fails
	}
	s := Status{
		Name:         valid(src.Name()),
		Expect:       policy.Expect.String(),
		Phase:        look.Phase.String(),
		Since:        timeOf(look.Since),
		Paused:       look.Paused,
		Started:      yes(lifecycle.Startup),
		Ready:        yes(lifecycle.Readyz),
		Live:         yes(lifecycle.Livez),
		Status:       valid(look.Status),
		Errno:        Errno{Number: look.Errno, Name: facts.ErrnoName},
		BusError:     valid(look.BusError),
		VarlinkError: valid(look.VarlinkError),
		Watchdog:     Watchdog{IntervalSeconds: look.Watchdog.Seconds()},
		Respawns:     look.Respawns,
		RespawnAt:    timeOf(look.RespawnAt),
		Adopted:      facts.Adopted,
		UnknownKeys:  counts(facts.UnknownKeys),
		Warnings:     []string{},
		Counters:     Counters{Datagrams: facts.Datagrams, Dropped: counts(facts.Dropped), Pings: facts.Pings},
	}
	if look.Main != (lifecycle.ProcID{}) {
		s.Main = &Main{
			PID:       look.Main.PID,
			InnerPID:  facts.InnerPID,
			StartTime: timeOf(facts.StartTime),
			Command:   valid(src.Command(look.Main)),
			Container: valid(facts.Container),
		}
	}
	for _, c := range look.Checks(policy) {
		s.Checks = append(s.Checks, Check{Name: c.Name, OK: c.OK(), Reason: valid(c.Reason), Probes: c.Probes.Names()})
	}
	if !look.PingAt.IsZero() {
		since := max(now.Sub(look.PingAt), 0).Seconds()
		s.Watchdog.SinceSeconds = &since
	}
	if !look.ReadyAt.IsZero() {
		start := look.ReadyAt.Sub(look.StartedAt).Seconds()
		s.StartSeconds = &start
	}
	if x := look.LastExit; x != nil {
		s.LastExit = exitOf(x)
	}
	if look.Deniable {
		permitted := !look.Forbidden
		s.SignalPermitted = &permitted
	}
	for _, warning := range facts.Warnings {
		s.Warnings = append(s.Warnings, valid(warning))
	}
	if denied := valid(facts.Denied); denied != "" && !slices.Contains(s.Warnings, denied) {
		s.Warnings = append(s.Warnings, denied)
	}
	return s
}

func exitOf(x *lifecycle.LastExit) *Exit {
	e := &Exit{Reason: x.Reason, At: timeOf(x.At)}
	switch {
	case !x.Known:
	case x.Signal != 0:
		e.Signal = signalName(x.Signal)
	default:
		code := x.Code
		e.Code = &code
	}
	return e
}

func timeOf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// counts copies m with keys fit for JSON.
func counts(m map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(m))
	for k, n := range m {
		out[valid(k)] += n
	}
	return out
}

// signalNames by number, which amd64 and arm64 share (asm-generic/signal.h).
var signalNames = [...]string{
	1: "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
	"CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
}

// signalName is the name without SIG; a real-time signal is its number.
func signalName(n int) string {
	if n > 0 && n < len(signalNames) {
		return signalNames[n]
	}
	return strconv.Itoa(n)
}

func writeStatus(w http.ResponseWriter, services []Source, named bool) {
	now := time.Now()
	var page any
	if named {
		s := StatusOf(services[0], now)
		s.Schema = Schema
		page = s
	} else {
		all := Statuses{Schema: Schema, Services: make([]Status, len(services))}
		for i, s := range services {
			all.Services[i] = StatusOf(s, now)
		}
		page = all
	}
	body, err := json.Marshal(page)
	if err != nil { // a time beyond the year 9999
		write(w, http.StatusInternalServerError, "cannot encode the status: "+Escape(err.Error())+"\n")
		return
	}
	writeAs(w, http.StatusOK, jsonText, append(printable(body), '\n'))
}

// printable escapes what encoding/json leaves alone and a terminal does not:
// DEL, the control characters from U+0080 to U+009F, marks that turn the
// direction of writing.
func printable(text []byte) []byte {
	if bytes.IndexFunc(text, hidden) < 0 {
		return text
	}
	out := make([]byte, 0, len(text)+64)
	for _, r := range string(text) {
		switch {
		case !hidden(r):
			out = utf8.AppendRune(out, r)
		case r <= 0xffff:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return out
}

func hidden(r rune) bool { return r >= 0x7f && !strconv.IsGraphic(r) }
