package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/ask"
	"github.com/podnotify/podnotify/probes"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

var waitWords = []string{"bound", "started", "ready", "gone"}

func newWaitCommand(a *app) *cobra.Command {
	var (
		address, service, word string
		timeout                time.Duration
	)
	c := &cobra.Command{
		Use:   "wait --for bound|started|ready|gone [flags]",
		Short: "Wait until a running podnotify answers yes",
		Long: `Wait until a running podnotify, or one that is yet to start, says yes:
  bound    its sockets are there, and daemons may be started
  started  the service has been ready once
  ready    the service is ready
  gone     the service has no daemon: it ended, or none was seen so far
A podnotify that does not answer has said nothing: it is waited for. With gone, one
that has answered before and refuses connections for a second has ended: podnotify
run ends with its daemon. The exit code is 75 if the time-out passed first.`,
		Args: atMost(0),
		RunE: func(*cobra.Command, []string) error {
			if word == "" {
				return exit(exitUsage, errors.New("cannot wait: it is not said for what; write --for bound, started, ready or gone"))
			}
			if !slices.Contains(waitWords, word) {
				return exit(exitUsage, fmt.Errorf("cannot wait for %q: is not known; write --for bound, started, ready or gone", word))
			}
			if word == "bound" && service != "" {
				return exit(exitUsage, errors.New("cannot wait for bound of a service: it is podnotify's own health; leave out --service"))
			}
			if timeout < 0 {
				return exit(exitUsage, fmt.Errorf("cannot use --timeout %v: is negative; write 0 for none", timeout))
			}
			k, err := a.asker(address)
			if err != nil {
				return exit(exitUsage, err)
			}
			return waitFor(k, word, service, timeout)
		},
	}
	failUsage(c, exitUsage)
	addAddressFlag(c, &address)
	c.Flags().StringVar(&word, "for", "", "bound, started, ready or gone")
	c.Flags().StringVar(&service, "service", "", "wait for one service, by default for all")
	c.Flags().DurationVar(&timeout, "timeout", 0, "how long to wait; 0: as long as it takes")
	return c
}

// restart is how long a podnotify that has answered may refuse connections and be
// taken to be on its way back.
const restart = time.Second

func waitFor(k *ask.Asker, word, service string, timeout time.Duration) error {
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	path := ask.Page(map[string]string{"bound": "/healthz", "started": "/startupz", "ready": "/readyz", "gone": "/statusz"}[word], service)
	last := "nothing was asked yet"
	var p ask.Pause
	var answered bool
	var refused time.Time // since then
	for {
		code, body, err := k.Get(ctx, path)
		if err == nil {
			answered = true
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			refused = time.Time{}
		} else if refused.IsZero() {
			refused = time.Now()
		}
		switch {
		case err != nil:
			if word == "gone" && answered && !refused.IsZero() && time.Since(refused) >= restart {
				return nil
			}
			if d, ok := ctx.Deadline(); !ok || time.Now().Before(d) { // or it is our own time-out, which tells nothing
				last = err.Error()
			}
		case code == http.StatusNotFound: // services do not appear later
			return exit(exitFailed, errors.New("cannot wait for "+word+": "+ask.Line(body)))
		case code == http.StatusOK && word != "gone":
			return nil
		case code == http.StatusOK:
			services, err := statuses(body, service != "")
			if err != nil {
				return exit(exitFailed, fmt.Errorf("cannot read the answer of %s: %w", k.Base(), err))
			}
			i := slices.IndexFunc(services, func(s probes.Status) bool { return !gone(s) })
			if i < 0 {
				return nil
			}
			last = services[i].Name + " is " + services[i].Phase
		default:
			last = ask.Line(body)
		}
		if !p.Wait(ctx) {
			return exit(exitTimedOut, fmt.Errorf("cannot wait for %s any longer than %v: %s", word, timeout, ask.Printable(last)))
		}
	}
}

// gone reports that a service has no daemon.
func gone(s probes.Status) bool {
	return s.Phase == lifecycle.Gone.String() || s.Phase == lifecycle.Absent.String()
}

// statuses decodes /statusz, or one service's.
func statuses(body string, one bool) ([]probes.Status, error) {
	if one {
		s := make([]probes.Status, 1)
		return s, json.Unmarshal([]byte(body), &s[0])
	}
	var all probes.Statuses
	err := json.Unmarshal([]byte(body), &all)
	return all.Services, err
}
