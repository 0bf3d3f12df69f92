// Package display shows people what /statusz says. It asks nobody.
package display

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/podnotify/podnotify/internal/ask"
	"github.com/podnotify/podnotify/probes"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// TimeFormat is how a moment is written.
const TimeFormat = "2006-01-02 15:04:05 MST"

// Text shows services in the manner of systemctl status. What the daemon
// said is made printable.
func Text(services []probes.Status, now time.Time) string {
	var b strings.Builder
	for i, s := range services {
		if i > 0 {
			b.WriteString("\n")
		}
		line := func(name, format string, args ...any) {
			fmt.Fprintf(&b, "%12s: %s\n", name, ask.Printable(fmt.Sprintf(format, args...)))
		}
		fmt.Fprintf(&b, "%s %s\n", dot(s), ask.Printable(s.Name))
		phase := phaseOf(s)
		if s.Since != nil {
			phase += fmt.Sprintf(" since %s; %s ago", s.Since.UTC().Format(TimeFormat), age(now.Sub(*s.Since)))
		}
		line("Phase", "%s", phase)
		if m := s.Main; m != nil {
			main := strconv.Itoa(m.PID)
			if m.Command != "" {
				main += " (" + m.Command + ")"
			}
			if m.InnerPID != 0 && m.InnerPID != m.PID {
				main += fmt.Sprintf(", process %d in its own PID namespace", m.InnerPID)
			}
			line("Main PID", "%s", main)
			if m.Container != "" {
				line("Container", "%s", m.Container)
			}
		}
		if s.Status != "" {
			line("Status", `"%s"`, s.Status)
		}
		if n := s.Errno; n.Number != 0 {
			line("Errno", "%s", strings.TrimSpace(fmt.Sprintf("%d %s", n.Number, n.Name)))
		}
		if w := s.Watchdog; w.IntervalSeconds > 0 {
			ping := "no ping so far"
			if w.SinceSeconds != nil {
				ping = "ping " + age(seconds(*w.SinceSeconds)) + " ago"
			}
			line("Watchdog", "%s, due every %s", ping, seconds(w.IntervalSeconds))
		}
		if s.Respawns > 0 {
			line("Respawns", "%d", s.Respawns)
		}
		if s.LastExit != nil {
			line("Last exit", "%s", lastExit(s.LastExit))
		}
		if at := s.RespawnAt; at != nil {
			line("Respawn", "at %s; in %s", at.UTC().Format(TimeFormat), age(at.Sub(now)))
		}
		if len(s.Counters.Dropped) > 0 {
			line("Dropped", "%s", tally(s.Counters.Dropped))
		}
		if len(s.UnknownKeys) > 0 {
			line("Unknown keys", "%s", tally(s.UnknownKeys))
		}
		for _, c := range s.Checks {
			if !c.OK {
				line("Fails", "%s [%s]: %s", c.Name, strings.Join(c.Probes, ", "), c.Reason)
			}
		}
		for _, warning := range s.Warnings {
			line("Warning", "%s", warning)
		}
	}
	return b.String()
}

// tally lists what was counted, by name.
func tally(counts map[string]uint64) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(out, ", ")
}

// Line is a service on one line, without anything that only grows older.
func Line(s probes.Status) string {
	out := dot(s) + " " + s.Name + " " + phaseOf(s)
	if s.Main != nil {
		out += fmt.Sprintf(", process %d", s.Main.PID)
	}
	for _, c := range s.Checks {
		if !c.OK {
			out += "; " + c.Name + ": " + c.Reason
			break
		}
	}
	if s.Status != "" {
		out += `; "` + s.Status + `"`
	}
	return ask.Printable(out)
}

func phaseOf(s probes.Status) string {
	if s.Paused {
		return s.Phase + " (paused)"
	}
	return s.Phase
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// dot is systemd's: a full one for what is as it shall be, an empty one for what
// is not there or on its way, a cross for what went wrong.
func dot(s probes.Status) string {
	switch {
	case s.Ready:
		return "●"
	case s.Phase == lifecycle.Gone.String():
		if x := s.LastExit; x != nil && (x.Reason == "stopping" || x.Code != nil && *x.Code == 0) {
			return "○"
		}
		return "×"
	case s.Phase == lifecycle.Ready.String(), !s.Live:
		return "×"
	}
	return "○"
}

func lastExit(x *probes.Exit) string {
	out := x.Reason
	switch {
	case x.Signal != "":
		out += ", signal " + x.Signal
	case x.Code != nil:
		out += fmt.Sprintf(", code %d", *x.Code)
	}
	if x.At != nil {
		out += " at " + x.At.UTC().Format(TimeFormat)
	}
	return out
}

// age rounds a span to what matters of it.
func age(d time.Duration) string {
	switch {
	case d < time.Second:
		return max(d, 0).Round(time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
}

// Table shows services with a line for each.
func Table(services []probes.Status, now time.Time) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\tSERVICE\tPHASE\tSINCE\tMAIN PID\tSAYS")
	for _, s := range services {
		since, main := "", ""
		if s.Since != nil {
			since = age(now.Sub(*s.Since))
		}
		if s.Main != nil {
			main = strconv.Itoa(s.Main.PID)
		}
		says := s.Status
		for _, c := range s.Checks {
			if !c.OK {
				says = c.Name + ": " + c.Reason
				break
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", dot(s), ask.Printable(s.Name), phaseOf(s), since, main, ask.Printable(says))
	}
	_ = w.Flush() // to memory
	return b.String()
}
