package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// checkPages are the questions of healthcheck and of wait.
var checkPages = map[string]string{
	"bound":   "/healthz",
	"startup": "/startupz",
	"ready":   "/readyz",
	"live":    "/livez",
}

func newHealthcheckCommand(a *app) *cobra.Command {
	var (
		address, service string
		wait             time.Duration
		failOpen         bool
	)
	c := &cobra.Command{
		Use:   "healthcheck [flags] [bound|startup|ready|live]",
		Short: "Ask a running podnotify once, for HEALTHCHECK and exec probes",
		Long: `Ask a running podnotify one question, by default ready, and print its answer
on one line. The exit code is 0 for yes and 1 for everything else.`,
		ValidArgs: []string{"bound", "startup", "ready", "live"},
		Args:      atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			question := "ready"
			if len(args) == 1 {
				question = args[0]
			}
			if checkPages[question] == "" {
				return exit(exitFailed, fmt.Errorf("cannot ask for %q: is not known; write bound, startup, ready or live, and a service as --service NAME", question))
			}
			if question == "bound" && service != "" {
				return exit(exitFailed, errors.New("cannot ask for bound of a service: it is podnotify's own health; leave out --service"))
			}
			k, err := a.asker(address)
			if err != nil {
				return exit(exitFailed, err)
			}
			return a.healthcheck(k, page(checkPages[question], service), wait, failOpen)
		},
	}
	failUsage(c, exitFailed)
	addAddressFlag(c, &address)
	c.Flags().StringVar(&service, "service", "", "ask about one service, by default about all")
	c.Flags().DurationVar(&wait, "wait", 0, "ask again for so long until the answer is yes")
	c.Flags().BoolVar(&failOpen, "fail-open", false, "count it as yes if podnotify refuses, resets or does not answer in time")
	return c
}

// healthcheck asks until the answer is yes or wait is over, and once at least.
func (a *app) healthcheck(k *asker, path string, wait time.Duration, failOpen bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	var p pause
	for {
		// The first question has its own time, the later ones what is left.
		code, body, err := k.get(context.WithoutCancel(ctx), path)
		if err == nil && code == http.StatusOK || !p.wait(ctx) {
			return a.verdict(code, body, err, failOpen)
		}
	}
}

// verdict prints the last answer and turns it into an exit code.
func (a *app) verdict(code int, body string, err error, failOpen bool) error {
	if err != nil {
		u, ok := errors.AsType[*unreachableError](err)
		if !failOpen || !ok || !u.open() {
			return exit(exitFailed, err)
		}
		fmt.Fprintf(a.stdout, "ok: podnotify at %s does not answer (%s), which --fail-open counts as yes\n", u.base, u.reason())
		return nil
	}
	line := firstLine(body)
	if strings.TrimSpace(line) == "" {
		line = fmt.Sprintf("HTTP status %d", code)
	}
	fmt.Fprintln(a.stdout, line)
	if code != http.StatusOK {
		return exit(exitFailed, nil)
	}
	return nil
}
