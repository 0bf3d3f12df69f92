package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/probes"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

func newStatusCommand(a *app) *cobra.Command {
	var address, format string
	c := &cobra.Command{
		Use:   "status [flags] [SERVICE]",
		Short: "Show how the services of a running podnotify are",
		Long: `Show how the services of a running podnotify are, or one of them. The exit code
is 0 if all are ready, 3 if one is not, 4 if one has no daemon, there is no such
service, or podnotify does not answer.`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return unknownFormat(format)
			}
			k, err := a.asker(address)
			if err != nil {
				return exit(exitUsage, err)
			}
			return a.status(k, strings.Join(args, ""), format)
		},
	}
	failUsage(c, exitUsage)
	addAddressFlag(c, &address)
	addOutputFlag(c, &format)
	return c
}

func (a *app) status(k *asker, service, format string) error {
	code, body, err := k.get(context.Background(), page("/statusz", service))
	switch {
	case err != nil:
		return exit(exitNoDaemon, err)
	case code != http.StatusOK:
		return exit(exitNoDaemon, errors.New("cannot show the status: "+firstLine(body)))
	}
	services, err := statuses(body, service != "")
	if err != nil {
		return exit(exitFailed, fmt.Errorf("cannot read the answer of %s: %w", k.base, err))
	}
	if format == "json" {
		_, err = io.WriteString(a.stdout, body)
	} else {
		err = writeStatus(a.stdout, services, time.Now())
	}
	if err != nil {
		return exit(exitFailed, fmt.Errorf("cannot write the status: %w", err))
	}
	worst := 0
	for _, s := range services {
		worst = max(worst, statusCode(s))
	}
	if len(services) == 0 {
		worst = exitNoDaemon
	}
	return exitSilently(worst)
}

// exitSilently is the end of a command whose code says what its output has said.
func exitSilently(code int) error {
	if code == 0 {
		return nil
	}
	return exit(code, nil)
}

func statusCode(s probes.Status) int {
	switch {
	case s.Ready:
		return 0
	case gone(s):
		return exitNoDaemon
	}
	return exitNotReady
}

// writeStatus shows services in the manner of systemctl status. What the daemon
// said is made printable.
func writeStatus(w io.Writer, services []probes.Status, now time.Time) error {
	var b strings.Builder
	for i, s := range services {
		if i > 0 {
			b.WriteString("\n")
		}
		line := func(name, format string, args ...any) {
			fmt.Fprintf(&b, "%12s: %s\n", name, printable(fmt.Sprintf(format, args...)))
		}
		fmt.Fprintf(&b, "%s %s\n", dot(s), printable(s.Name))
		phase := s.Phase
		if s.Paused {
			phase += " (paused)"
		}
		if s.Since != nil {
			phase += fmt.Sprintf(" since %s; %s ago", s.Since.UTC().Format("2006-01-02 15:04:05 MST"), age(now.Sub(*s.Since)))
		}
		line("Phase", "%s", phase)
		if m := s.Main; m != nil {
			command := ""
			if m.Command != "" {
				command = " (" + m.Command + ")"
			}
			line("Main PID", "%d%s", m.PID, command)
			if m.Container != "" {
				line("Container", "%s", m.Container)
			}
		} else if x := s.LastExit; x != nil {
			line("Last exit", "%s", lastExit(x))
		}
		if s.Status != "" {
			line("Status", `"%s"`, s.Status)
		}
		if n := s.Errno; n.Number != 0 {
			line("Errno", "%s", strings.TrimSpace(fmt.Sprintf("%d %s", n.Number, n.Name)))
		}
		if s.Respawns > 0 {
			line("Respawns", "%d", s.Respawns)
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
	_, err := io.WriteString(w, b.String())
	return err
}

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
		out += " at " + x.At.UTC().Format("2006-01-02 15:04:05 MST")
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
