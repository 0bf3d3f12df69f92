package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/ask"
	"github.com/podnotify/podnotify/internal/display"
	"github.com/podnotify/podnotify/internal/logs"
	"github.com/podnotify/podnotify/probes"
)

func newStatusCommand(a *app) *cobra.Command {
	var address, format string
	var watch bool
	c := &cobra.Command{
		Use:   "status [flags] [SERVICE]",
		Short: "Show how the services of a running podnotify are",
		Long: `Show how the services of a running podnotify are, or one of them. The exit code
is 0 if all are ready, 3 if one is not, 4 if one has no daemon, there is no such
service, or podnotify does not answer.

With --watch it is shown again whenever it changes, until you end it: on a
terminal all of it, in place; elsewhere a line for each service that changed, or
with -o json a document for each change, one a line.

As in systemctl, the status text is the last one that the daemon sent, also after
its end, until the next one starts.`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return unknownFormat(format)
			}
			k, err := a.asker(address)
			if err != nil {
				return exit(exitUsage, err)
			}
			service := strings.Join(args, "")
			if watch {
				return a.watch(c.Context(), k, service, format)
			}
			return a.status(c.Context(), k, service, format)
		},
	}
	failUsage(c, exitUsage)
	addAddressFlag(c, &address)
	addOutputFlag(c, &format)
	c.Flags().BoolVar(&watch, "watch", false, "show it again whenever it changes")
	return c
}

// askStatus asks once. The error ends the command.
func askStatus(ctx context.Context, k *ask.Asker, service string) (services []probes.Status, body string, err error) {
	code, body, err := k.Get(ctx, ask.Page("/statusz", service))
	switch {
	case err != nil:
		return nil, "", exit(exitNoDaemon, err)
	case code != http.StatusOK:
		return nil, "", exit(exitNoDaemon, errors.New("cannot show the status: "+ask.Line(body)))
	}
	if services, err = statuses(body, service != ""); err != nil {
		return nil, "", exit(exitFailed, fmt.Errorf("cannot read the answer of %s: %w", k.Base(), err))
	}
	return services, body, nil
}

func (a *app) status(ctx context.Context, k *ask.Asker, service, format string) error {
	services, body, err := askStatus(ctx, k, service)
	if err != nil {
		return err
	}
	if format == "json" {
		err = a.show(body)
	} else {
		err = a.show(display.Text(services, time.Now()))
	}
	if err != nil {
		return err
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

func (a *app) show(text string) error {
	if _, err := io.WriteString(a.stdout, text); err != nil {
		return exit(exitFailed, fmt.Errorf("cannot write the status: %w", err))
	}
	return nil
}

// watch shows the status whenever it changes, until ctx is done. A podnotify
// that went away is waited for: it may be restarted. Only the first answer has
// to be one.
func (a *app) watch(ctx context.Context, k *ask.Asker, service, format string) error {
	view := a.watchLines()
	switch {
	case format == "json":
		view = a.watchJSON()
	case logs.IsTerminal(a.stdout):
		view = a.watchScreen()
	}
	var p ask.Pause
	for first := true; ; first = false {
		services, body, err := askStatus(ctx, k, service)
		select {
		case <-ctx.Done():
			return nil
		default:
		}
		if err != nil && first {
			return err
		}
		if err := view(services, body, err); err != nil {
			return err
		}
		if !p.Wait(ctx) {
			return nil
		}
	}
}

// A view shows what is new in an answer, or in the error that came instead.
type view func(services []probes.Status, body string, err error) error

// watchScreen draws in place. What only grows older is redrawn, too.
func (a *app) watchScreen() view {
	last := ""
	return func(services []probes.Status, _ string, err error) error {
		text := display.Text(services, time.Now())
		if err != nil {
			text = ask.Printable(err.Error()) + "\n"
		}
		if text == last {
			return nil
		}
		clear := ""
		if last == "" {
			clear = "\x1b[2J"
		}
		last = text
		return a.show(clear + "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J") // home, clear to the end of each line, and below
	}
}

// watchLines prints one line for each service that changed.
func (a *app) watchLines() view {
	last := map[string]string{}
	return func(services []probes.Status, _ string, err error) error {
		if !a.answered(last, err) {
			return nil
		}
		for _, s := range services {
			line := display.Line(s)
			if last[s.Name] == line {
				continue
			}
			last[s.Name] = line
			if err := a.show(time.Now().UTC().Format(display.TimeFormat) + " " + line + "\n"); err != nil {
				return err
			}
		}
		return nil
	}
}

// watchJSON prints the answer if it changed in more than what is counted.
func (a *app) watchJSON() view {
	complaints := map[string]string{}
	last := ""
	return func(services []probes.Status, body string, err error) error {
		if !a.answered(complaints, err) {
			return nil
		}
		for i := range services {
			services[i].Counters, services[i].Watchdog.SinceSeconds = probes.Counters{}, nil
		}
		key, err := json.Marshal(services)
		if err != nil {
			return exit(exitFailed, fmt.Errorf("cannot compare the status: %w", err))
		}
		if string(key) == last {
			return nil
		}
		last = string(key)
		return a.show(body)
	}
}

// answered reports that there was no error, or complains of it, once for as long
// as it lasts.
func (a *app) answered(last map[string]string, err error) bool {
	const key = "" // no service is called so
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != last[key] {
		a.complain(text)
	}
	last[key] = text
	return err == nil
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
